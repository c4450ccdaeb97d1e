//! What an extraction will cost, known before it starts.

use super::{ExtractError, Extractor, TextModel};
use crate::engine::cpu::{Precision, Program};
use crate::features::Tap;
use crate::graph::{Count, Shape, count};
use crate::image::Extent;
use crate::networks::clip;

/// The cost of extracting from canvases of one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The codec's encoder, per image.
    pub encoder: Count,
    /// What depends on timestep and prompt alone, per prompt.
    pub condition: Count,
    /// The U-Net up to the last tap, per pass.
    pub unet: Count,
    /// The projection heads, per pass.
    pub heads: Option<Count>,
    /// The text encoder, per prompt.
    pub text: Option<Count>,
    /// Passes of the U-Net per image: the draws of noise.
    pub passes: usize,
    /// Bytes of weights as the engine keeps them.
    pub weight_bytes: usize,
    /// Bytes of the largest arena.
    pub arena_bytes: usize,
    /// The most memory that the process will use, weights, arenas and what preparing needs
    /// for a moment, in bytes.
    pub peak_bytes: usize,
    /// The maps of one image, as they are asked for.
    pub maps: Vec<Shape>,
    /// Its latent.
    pub latent: Shape,
    /// A prompt's embeddings.
    pub prompt: Shape,
}

/// How many prompts will be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompts {
    /// None: their embeddings are given.
    None,
    /// One, before anything else, by an encoder that is then gone ([`Extractor::encode_prompt`]).
    One,
    /// Any number, by an encoder that stays ([`Extractor::text_encoder`]).
    Many,
}

/// What the process takes without any model: code, threads, decoded pictures.
const PROCESS_BYTES: usize = 24 << 20;

impl Estimate {
    /// Multiply-adds per image, without the text encoder.
    pub fn multiply_adds(&self) -> u64 {
        let heads = self.heads.as_ref().map_or(0, Count::multiply_adds);
        self.encoder.multiply_adds() + self.passes as u64 * (self.unet.multiply_adds() + heads)
    }

    /// Bytes of the features of one image in f32.
    pub fn feature_bytes(&self) -> usize {
        bytes(&self.maps)
    }

    /// Cells of all its maps together.
    pub fn feature_cells(&self) -> usize {
        self.maps.iter().map(|shape| shape.cells()).sum()
    }
}

fn bytes(maps: &[Shape]) -> usize {
    let values = maps.iter().map(|shape| shape.size());
    size_of::<f32>() * values.sum::<usize>()
}

impl Extractor {
    /// What extraction from canvases of `canvas` costs, in batches of `batch`.
    pub fn estimate(
        &self,
        canvas: Extent,
        batch: usize,
        prompts: Prompts,
    ) -> Result<Estimate, ExtractError> {
        let latent = Extent::new(
            canvas.width / self.multiple(),
            canvas.height / self.multiple(),
        );
        let text = match &self.model.text {
            Ok(TextModel::Clip { config, .. }) if prompts != Prompts::None => {
                Some(Program::compile(&self.processor, clip::graph(config), 1))
            }
            _ => None,
        };
        let tokens = match &self.model.text {
            Ok(TextModel::Clip { config, .. }) => config.max_position_embeddings,
            _ => 1,
        };
        let encoder = self.codec.encoder(canvas);
        let programs = self.programs(latent, batch.max(1), tokens)?;
        let condition =
            Program::compile(&self.processor, self.hoisted(latent, tokens).condition, 1);

        let graph = programs.unet.graph();
        let tap_shape = |tap: &Tap| {
            let value = graph.output(tap.module()).expect("taps are outputs");
            graph.node(value).shape
        };
        let tapped: Vec<Shape> = self.taps.iter().map(tap_shape).collect();
        let maps: Vec<Shape> = self
            .groups
            .iter()
            .map(|group| group.shape(tap_shape))
            .collect();
        let joined = match self.groups.iter().all(|group| group.taps().len() == 1) {
            true => 0,
            false => bytes(&maps),
        };
        let heads = programs.heads.as_ref();
        let run = [
            Some(&*encoder),
            Some(&condition),
            Some(&programs.unet),
            heads,
        ];
        let run = || run.into_iter().flatten();
        let weight_bytes: usize = match self.unet_weights.are_kept() {
            true => run().map(Program::weight_bytes).sum(),
            false => run().map(Program::largest_weight_bytes).sum(),
        };
        let arena_bytes = encoder.arena_bytes().max(programs.unet.arena_bytes());
        let largest = |program: &Program| {
            let parameters = program.graph().parameters();
            parameters
                .iter()
                .map(|parameter| parameter.size() * size_of::<f32>())
                .max()
                .unwrap_or(0)
        };
        // A weight is read whole before it is packed, and packed in f32 before it is halved. Features
        // are copied out of the arena, and joined.
        let halved =
            self.unet_weights.are_kept() && self.processor.precision() != Precision::default();
        let preparing = (1 + usize::from(halved)) * largest(&programs.unet);
        let extracting =
            weight_bytes + arena_bytes + preparing + batch * (2 * bytes(&tapped) + joined);
        let encoding = |weights: fn(&Program) -> usize| {
            text.as_ref()
                .map_or(0, |text| weights(text) + text.arena_bytes() + largest(text))
        };
        let most = match prompts {
            Prompts::Many => extracting + encoding(Program::weight_bytes),
            _ => extracting.max(encoding(Program::largest_weight_bytes)),
        };
        Ok(Estimate {
            encoder: count(encoder.graph()),
            condition: count(condition.graph()),
            unet: count(programs.unet.graph()),
            heads: heads.map(|heads| count(heads.graph())),
            text: text.as_ref().map(|text| count(text.graph())),
            passes: self.draws(),
            weight_bytes,
            arena_bytes,
            peak_bytes: PROCESS_BYTES + most,
            maps,
            latent: Shape::map(
                latent.height,
                latent.width,
                self.model.codec.config.latent_channels(),
            ),
            prompt: Shape::tokens(tokens, self.network().config.cross_attention_dim),
        })
    }
}
