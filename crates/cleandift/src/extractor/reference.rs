//! The same extraction in f64, by the graphs' plainest reader: the truth that [`Extractor`] is
//! compared with, hundreds of times slower.

use super::model::{HeadsModel, TextModel};
use super::noise::{Purpose, draw};
use super::{ExtractError, Extractor, Mode, Noise};
use crate::graph::{Named, Shape, Tensor, prune, reference};
use crate::networks::{clip, codec, heads, unet};

impl Extractor {
    /// Everything about one picture in f64: `latents`, `prompt_embeds`, and the taps by name.
    /// `image` is `[H, W, 3]` in [-1, 1]; latents are the mean.
    pub fn reference(
        &self,
        image: &Tensor<f64>,
        prompt: &str,
    ) -> Result<Vec<Named<f64>>, ExtractError> {
        let embeddings = self.reference_prompt(prompt)?;
        let codec = &self.model.codec;
        let encoder = codec.config.encoder(image.shape.height, image.shape.width);
        let encoder = prune(&encoder, &[codec::LATENTS]).expect("a codec has latents");
        let latents = only(reference::run(
            &encoder,
            &codec.weights,
            &[(codec::IMAGE, image)],
        )?);

        let (height, width) = (latents.shape.height, latents.shape.width);
        let network = self.network();
        let graph = unet::graph(&network.config, height, width, embeddings.shape.cells());
        let modules: Vec<&str> = self.taps.iter().map(|tap| tap.module()).collect();
        let graph = prune(&graph, &modules).expect("taps are checked when they are found");
        let timestep = scalar(self.timestep);
        let batch = self.reference_noise(&latents);
        let inputs = [
            (unet::LATENT, &batch),
            (unet::TIMESTEP, &timestep),
            (unet::TEXT, &embeddings),
        ];
        let mut maps = reference::run(&graph, &network.weights, &inputs)?;
        for ((name, map), tap) in maps.iter_mut().zip(&self.taps) {
            *name = tap.name().to_owned();
            *map = mean(map);
        }
        if let (Mode::Projected { timestep }, Some(HeadsModel { config, weights })) =
            (&self.request.mode, &self.model.heads)
        {
            let shapes: Vec<_> = maps
                .iter()
                .map(|(name, map)| (name.as_str(), map.shape))
                .collect();
            let graph = config.graph(&shapes).ok_or(ExtractError::NoHeads)?;
            let timestep = scalar(*timestep);
            let mut inputs = vec![(heads::TIMESTEP, &timestep)];
            inputs.extend(maps.iter().map(|(name, map)| (name.as_str(), map)));
            maps = reference::run(&graph, weights, &inputs)?;
        }
        maps.push((codec::LATENTS.to_owned(), latents));
        maps.push((clip::EMBEDDINGS.to_owned(), embeddings));
        Ok(maps)
    }

    fn reference_prompt(&self, prompt: &str) -> Result<Tensor<f64>, ExtractError> {
        match &self.model.text {
            Ok(TextModel::Clip {
                config,
                weights,
                tokenizer,
            }) => {
                let length = config.max_position_embeddings;
                let ids = tokenizer
                    .encode(prompt, length)?
                    .ids
                    .into_iter()
                    .map(f64::from);
                let ids = Tensor::new(1, Shape::tokens(length, 1), ids.collect());
                Ok(only(reference::run(
                    &clip::graph(config),
                    weights,
                    &[(clip::IDS, &ids)],
                )?))
            }
            _ => {
                let table = self.text_encoder()?.encode(prompt)?.embeddings;
                let values = table.data.into_iter().map(f64::from).collect();
                Ok(Tensor::new(1, table.shape, values))
            }
        }
    }

    /// The latents that the U-Net sees: one, or one for each draw of noise.
    fn reference_noise(&self, latents: &Tensor<f64>) -> Tensor<f64> {
        let Mode::Noisy { timestep, noise } = &self.request.mode else {
            return latents.clone();
        };
        let draws: Vec<Tensor<f32>> = match noise {
            Noise::Given(given) => vec![given.clone()],
            Noise::Drawn { seed, count } => (0..*count)
                .map(|index| draw(Purpose::Noise, *seed, index, latents.shape))
                .collect(),
        };
        let alpha = f64::from(self.model.schedule.alphas_cumprod()[*timestep]);
        let values: Vec<f64> = draws
            .iter()
            .flat_map(|draw| draw.data.chunks_exact(latents.data.len()))
            .flat_map(|draw| latents.data.iter().zip(draw))
            .map(|(latent, &noise)| alpha.sqrt() * latent + (1.0 - alpha).sqrt() * f64::from(noise))
            .collect();
        Tensor::new(values.len() / latents.data.len(), latents.shape, values)
    }
}

fn only(mut outputs: Vec<Named<f64>>) -> Tensor<f64> {
    outputs.pop().expect("the graph has one output").1
}

fn scalar(value: f64) -> Tensor<f64> {
    Tensor::new(1, Shape::vector(1), vec![value])
}

/// The mean over a batch.
fn mean(tensor: &Tensor<f64>) -> Tensor<f64> {
    let size = tensor.shape.size();
    let images = tensor.images as f64;
    let sum = |place: usize| tensor.data[place..].iter().step_by(size).sum::<f64>() / images;
    Tensor::new(1, tensor.shape, (0..size).map(sum).collect())
}
