//! The latent codec at work: from pixels to the latent that the U-Net sees, and back.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use super::model::CodecModel;
use super::noise::{Purpose, draw};
use super::{Latents, feature_map, make_room};
use crate::engine::cpu::{EngineError, PreparedWeights, Processor, Program};
use crate::features::FeatureMap;
use crate::graph::{Graph, Shape, Tensor, prune};
use crate::image::{Extent, Pixels};
use crate::networks::codec::{IMAGE, LATENTS, MOMENTS};
use crate::networks::config::CodecConfig;

/// Encodes images and decodes latents. No weight is read before it is needed.
pub struct Codec {
    config: CodecConfig,
    latents: Latents,
    processor: Processor,
    weights: PreparedWeights,
    encoders: Mutex<HashMap<Extent, Arc<Program>>>,
}

impl Codec {
    /// The codec of a model; `latents` tells what it gives when there is a choice.
    pub fn new(model: &CodecModel, latents: Latents, processor: &Processor) -> Self {
        Self {
            config: model.config.clone(),
            latents,
            processor: processor.clone(),
            weights: PreparedWeights::new(Arc::new(model.weights.clone()), processor),
            encoders: Mutex::default(),
        }
    }

    /// Keeps no weight from one image to the next ([`PreparedWeights::for_one_run`]).
    #[must_use]
    pub(super) fn for_few_images(self) -> Self {
        Self {
            weights: self.weights.each_for_one_step(),
            ..self
        }
    }

    /// What it runs on.
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// Pixels per latent cell along each side: an image's sides must be multiples of it.
    pub fn multiple(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.config.factor()).expect("configs check the factor")
    }

    /// The clean, scaled latent of an image.
    ///
    /// # Errors
    /// Weights that cannot be read, or values that are not finite.
    ///
    /// # Panics
    /// If a side is not a multiple of [`Codec::multiple`], which [`fit`](crate::image::fit) sees to.
    pub fn encode(&self, image: &Pixels) -> Result<FeatureMap, EngineError> {
        Ok(feature_map(&self.encode_tensor(image)?, 0))
    }

    pub(super) fn encode_tensor(&self, image: &Pixels) -> Result<Tensor<f32>, EngineError> {
        let latents = self.distribution(image)?;
        Ok(match self.latents {
            Latents::Sample { seed } => {
                let noise = draw(Purpose::Latent, seed, 0, latents.mean.shape);
                latents.sample(&noise.data)
            }
            Latents::Mean => latents.mean,
        })
    }

    /// What an image may be as a clean, scaled latent. Of a codec that [gives](Codec::new) means,
    /// the mean alone.
    ///
    /// # Errors
    /// As [`Codec::encode`].
    pub fn distribution(&self, image: &Pixels) -> Result<LatentDistribution, EngineError> {
        let extent = image.extent();
        let shape = Shape::map(extent.height, extent.width, 3);
        let image = Tensor::new(1, shape, image.values().to_vec());
        let program = self.encoder(extent);
        let mut outputs = program.run(&self.weights, &[(IMAGE, &image)])?;
        let (_, mean) = outputs.swap_remove(0);
        let channels = mean.shape.channels;
        let spread = match (outputs.pop(), &self.config) {
            (Some((_, moments)), CodecConfig::Autoencoder(config)) => Some(Spread {
                logvar: (moments.data.chunks_exact(2 * channels))
                    .flat_map(|cell| &cell[channels..])
                    .copied()
                    .collect(),
                scale: config.scaling_factor,
            }),
            _ => None,
        };
        Ok(LatentDistribution { mean, spread })
    }

    /// The image behind a scaled latent, as far as the latent keeps it: about in [-1, 1].
    ///
    /// # Errors
    /// A latent with another number of channels, weights that cannot be read, or values that are
    /// not finite.
    pub fn decode(&self, latents: &FeatureMap) -> Result<Pixels, EngineError> {
        let Extent { width, height } = latents.extent();
        let shape = Shape::map(height, width, latents.channels());
        let latents = Tensor::new(1, shape, latents.values().to_vec());
        let program = self.decoder(height, width);
        let (_, image) = program
            .run(&self.weights, &[(LATENTS, &latents)])?
            .swap_remove(0);
        let extent = Extent::new(image.shape.width, image.shape.height);
        Ok(Pixels::new(extent, image.data))
    }

    /// Bytes that the encoder's weights and its arena take for images of one size.
    pub fn encoder_bytes(&self, canvas: Extent) -> [usize; 2] {
        let program = self.encoder(canvas);
        [program.weight_bytes(), program.arena_bytes()]
    }

    /// Bytes that the decoder's weights and its arena take for images of one size.
    pub fn decoder_bytes(&self, canvas: Extent) -> [usize; 2] {
        let factor = self.multiple();
        let program = self.decoder(canvas.height / factor, canvas.width / factor);
        [program.weight_bytes(), program.arena_bytes()]
    }

    /// The decoder for latents of one size.
    fn decoder(&self, height: usize, width: usize) -> Program {
        Program::compile(&self.processor, self.config.decoder(height, width), 1)
    }

    /// The encoder for images of one size.
    pub(super) fn encoder(&self, canvas: Extent) -> Arc<Program> {
        let mut encoders = self.encoders.lock().unwrap_or_else(PoisonError::into_inner);
        let compile = || {
            let graph = self.encoder_graph(canvas);
            Arc::new(Program::compile(&self.processor, graph, 1))
        };
        make_room(&mut encoders, &canvas);
        Arc::clone(encoders.entry(canvas).or_insert_with(compile))
    }

    fn encoder_graph(&self, canvas: Extent) -> Graph {
        let graph = self.config.encoder(canvas.height, canvas.width);
        let sampled = self.latents != Latents::Mean && graph.output(MOMENTS).is_some();
        let wanted = [LATENTS, MOMENTS];
        prune(&graph, &wanted[..1 + usize::from(sampled)]).expect("a codec has these outputs")
    }
}

/// A normal distribution of each value of a latent, or a latent that is certain.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentDistribution {
    /// The means, scaled.
    pub mean: Tensor<f32>,
    /// How far values may be from them.
    pub spread: Option<Spread>,
}

/// How far a latent's values may be from their means.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    /// The logarithm of each value's variance, before it is scaled.
    pub logvar: Vec<f32>,
    /// The latent's factor.
    pub scale: f64,
}

impl LatentDistribution {
    /// `mean + scale * std * noise`, with `std = exp(clamp(logvar, -30, 20) / 2)`.
    ///
    /// # Panics
    /// If there is no noise for each value.
    pub fn sample(&self, noise: &[f32]) -> Tensor<f32> {
        assert_eq!(noise.len(), self.mean.data.len(), "noise for each value");
        let Some(Spread { logvar, scale }) = &self.spread else {
            return self.mean.clone();
        };
        let value = |((mean, logvar), noise): ((&f32, &f32), &f32)| {
            let deviation = (f64::from(*logvar).clamp(-30.0, 20.0) / 2.0).exp();
            (f64::from(*mean) + scale * deviation * f64::from(*noise)) as f32
        };
        let values = self.mean.data.iter().zip(logvar).zip(noise).map(value);
        Tensor::new(1, self.mean.shape, values.collect())
    }
}
