//! Models with random weights: a small one to try the program, and the published ones in full
//! size, to measure what they cost.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::model::{ClassTable, CodecModel, Model, TextModel, UnetModel, unet_graph};
use crate::checkpoint::{Published, Weights};
use crate::graph::{Graph, Parameter};
use crate::networks::config::{CodecConfig, PixelUnshuffleConfig, TextConfig, UnetConfig};
use crate::networks::diffusion::CLASS_TABLE;
use crate::networks::schedule::Schedule;
use crate::networks::tokenizer::Tokenizer;
use crate::networks::{clip, random};

impl Model {
    /// A small model with seeded random weights, to try the program without any download: pixels
    /// in blocks of four as the codec, two classes of one token, four levels up to 144 channels.
    pub fn random(seed: u64) -> Self {
        let config = UnetConfig {
            in_channels: 48,
            out_channels: 48,
            channels: [48, 96, 128, 144],
            heads: [Some(3), Some(6), Some(8), None],
            mid_heads: 9,
            cross_attention_dim: 128,
            groups: 16,
            epsilon: 1e-5,
            linear_projection: true,
            sample_size: 32,
        };
        let weights = random_weights(unet_graph(&config).parameters(), seed);
        let table = Parameter {
            name: CLASS_TABLE.to_owned(),
            shape: vec![2, 1, 128],
        };
        Self {
            unet: UnetModel { config, weights },
            teacher: None,
            codec: CodecModel {
                config: CodecConfig::PixelUnshuffle(PixelUnshuffleConfig {
                    factor: 4,
                    shift: vec![0.0],
                    scale: vec![2.0],
                }),
                weights: random_weights(Vec::new(), seed),
            },
            text: Ok(TextModel::ClassTable(ClassTable {
                weights: random_weights(vec![&table], seed),
                classes: Vec::new(),
            })),
            heads: None,
            timestep: None,
            schedule: Schedule::default(),
        }
    }

    /// A model with the shapes of a published one and seeded random weights, which are made when
    /// they are read: nothing is opened, and nothing is kept but what the engine prepares. Its
    /// tokenizer knows single bytes only.
    pub fn random_like(published: Published, seed: u64) -> Self {
        let known = "the built-in configs are supported";
        let unet = UnetConfig::from_json(&published.unet()).expect(known);
        let codec = CodecConfig::from_json(&published.vae()).expect(known);
        let text = TextConfig::from_json(&published.text_encoder()).expect(known);
        let TextConfig::Clip(text) = text else {
            unreachable!("the published models have CLIP")
        };
        let weights = |graphs: &[Graph]| generated_weights(graphs, seed);
        let side = codec.factor();
        let text = TextModel::Clip {
            weights: weights(&[clip::graph(&text)]),
            tokenizer: Arc::new(byte_tokenizer(text.vocab_size)),
            config: text,
        };
        Self {
            unet: UnetModel {
                weights: weights(&[unet_graph(&unet)]),
                config: unet,
            },
            teacher: None,
            codec: CodecModel {
                weights: weights(&[codec.encoder(side, side), codec.decoder(1, 1)]),
                config: codec,
            },
            text: Ok(text),
            heads: None,
            timestep: None,
            schedule: Schedule::default(),
        }
    }
}

fn random_weights(parameters: Vec<&Parameter>, seed: u64) -> Weights {
    let tensors = parameters.into_iter().map(|parameter| {
        (
            parameter.name.clone(),
            parameter.shape.clone(),
            random::values(parameter, seed),
        )
    });
    Weights::from_memory("random weights", tensors)
}

/// Weights of the graphs that share a store, drawn whenever they are read.
fn generated_weights(graphs: &[Graph], seed: u64) -> Weights {
    let parameters = graphs.iter().flat_map(Graph::parameters);
    Weights::generated("random weights", parameters, move |parameter, values| {
        random::fill(parameter, seed, values);
    })
}

/// CLIP's vocabulary without any pair of bytes: 256 bytes, the same at a word's end, and the two
/// special tokens last.
fn byte_tokenizer(vocabulary: usize) -> Tokenizer {
    // As byte-level encodings do: bytes that print stand for themselves, the others come after.
    let prints = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut others = 256_u32..;
    let symbols: Vec<char> = (0..=255_u8)
        .map(|byte| match prints(&byte) {
            true => char::from(byte),
            false => others
                .next()
                .and_then(char::from_u32)
                .expect("they are few"),
        })
        .collect();
    let endings = symbols.iter().map(|symbol| format!("{symbol}</w>"));
    let tokens = symbols.iter().map(char::to_string).chain(endings);
    let mut ids: BTreeMap<String, usize> = tokens.zip(0..).collect();
    ids.insert("<|startoftext|>".to_owned(), vocabulary - 2);
    ids.insert("<|endoftext|>".to_owned(), vocabulary - 1);
    let ids = serde_json::to_string(&ids).expect("a map of strings is JSON");
    Tokenizer::from_vocabulary(&ids, "", None).expect("the vocabulary has what it needs")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Parameters;

    #[test]
    fn the_published_models_have_their_published_sizes() {
        // As the models' safetensors files have them.
        let published = [
            (Published::Sd15, 859_520_964, 83_653_863, 123_060_480),
            (Published::Sd21, 865_910_724, 83_653_863, 340_387_840),
        ];
        for (which, unet, codec, text) in published {
            let model = Model::random_like(which, 0);
            assert_eq!(model.unet.weights.parameter_count(), unet);
            assert_eq!(model.codec.weights.parameter_count(), codec);
            let Ok(TextModel::Clip { weights, .. }) = &model.text else {
                panic!("no text encoder")
            };
            assert_eq!(weights.parameter_count(), text);
        }
    }

    #[test]
    fn values_are_made_when_they_are_read() {
        let model = Model::random_like(Published::Sd15, 3);
        let weights = &model.unet.weights;
        let parameter = Parameter {
            name: "conv_in.weight".to_owned(),
            shape: vec![320, 4, 3, 3],
        };
        let mut expected = vec![0.0; parameter.size()];
        random::fill(&parameter, 3, &mut expected);
        assert_eq!(weights.read(&parameter.name).unwrap(), expected);
        assert_eq!(weights.read(&parameter.name).unwrap(), expected);
        assert!(weights.read("conv_in.nothing").is_err());
    }

    #[test]
    fn every_byte_is_a_token() {
        let tokenizer = byte_tokenizer(49_408);
        let tokens = tokenizer.encode("Ab é!", 10).unwrap();
        // a and b</w>, the two bytes of é, and the exclamation mark at its word's end.
        let id = |byte: u32, ends: bool| byte + if ends { 256 } else { 0 };
        let expected = [
            49_406,
            id(u32::from(b'a'), false),
            id(u32::from(b'b'), true),
            id(0xc3, false),
            id(0xa9, true),
            id(u32::from(b'!'), true),
            49_407,
            49_407,
            49_407,
            49_407,
        ];
        assert_eq!(tokens.ids, expected);
        assert_eq!(tokens.cut, 0);
    }
}
