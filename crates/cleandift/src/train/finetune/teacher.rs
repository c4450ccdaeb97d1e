//! The teacher: its taps of noisy latents, by the inference engine.

use std::sync::Arc;

use crate::engine::cpu::{EngineError, Precision, PreparedWeights, Processor, Program};
use crate::extractor::UnetModel;
use crate::features::Tap;
use crate::graph::{Builder, Graph, Named, Shape, Tensor, prune};
use crate::networks::config::UnetConfig;
use crate::networks::unet::{self, LATENT, TEXT, TIMESTEP};

/// A U-Net that does not change, its weights packed once: in half precision where that holds them
/// exactly.
pub struct Teacher {
    config: UnetConfig,
    taps: Vec<Tap>,
    weights: PreparedWeights,
    processor: Processor,
}

/// What the teacher is shown: each row with a noisy latent, timestep and text of its own.
pub struct Rows {
    /// Noisy latents.
    pub latents: Tensor<f32>,
    /// Their timesteps.
    pub timesteps: Tensor<f32>,
    /// Their text embeddings.
    pub text: Tensor<f32>,
}

impl Teacher {
    /// A teacher of these taps; no weight is read yet.
    pub fn new(model: UnetModel, taps: Vec<Tap>, processor: &Processor) -> Self {
        let half = Precision {
            half_weights: true,
            ..processor.precision()
        };
        let processor = processor.clone().with_precision(half);
        let processor = processor.expect("its arithmetic is the one that was in use");
        Self {
            config: model.config,
            taps,
            weights: PreparedWeights::new(Arc::new(model.weights), &processor),
            processor,
        }
    }

    /// The U-Net up to the last tap, for one row.
    pub fn graph(&self, latent: Shape, tokens: usize) -> Graph {
        let mut b = Builder::new();
        let x = b.input(LATENT, latent);
        let timestep = b.input(TIMESTEP, Shape::vector(1));
        let text = b.input(TEXT, Shape::tokens(tokens, self.config.cross_attention_dim));
        unet::build(&mut b, &self.config, x, timestep, text);
        let modules: Vec<&str> = self.taps.iter().map(Tap::module).collect();
        prune(&b.finish(), &modules).expect("taps are checked when they are found")
    }

    /// Compiled for so many rows.
    pub fn program(&self, latent: Shape, tokens: usize, rows: usize) -> Program {
        Program::compile(&self.processor, self.graph(latent, tokens), rows)
    }

    /// The taps of some rows, in the order of [`Teacher::taps`], by module.
    ///
    /// # Errors
    /// Weights that cannot be read, values that are not finite.
    pub fn run(&self, program: &Program, rows: &Rows) -> Result<Vec<Named<f32>>, EngineError> {
        let inputs = [
            (LATENT, &rows.latents),
            (TIMESTEP, &rows.timesteps),
            (TEXT, &rows.text),
        ];
        program.run(&self.weights, &inputs)
    }

    /// The taps.
    pub fn taps(&self) -> &[Tap] {
        &self.taps
    }
}
