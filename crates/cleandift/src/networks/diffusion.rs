//! One step of a diffusion model's training as one graph (Ho et al., arXiv 2006.11239; velocities:
//! Salimans and Ho, arXiv 2202.00512): the U-Net on a noisy latent, and the weighted squared
//! distance of its output from what it is to predict.

use super::config::UnetConfig;
use super::unet::{self, LATENT, SAMPLE, TIMESTEP};
use crate::graph::{Builder, Distance, Graph, Shape, prune};

/// Name of the input that holds an image's row in the class table, one whole number.
pub const CLASS: &str = "class";
/// Name of the class table, a parameter `[rows, tokens, d]`; the last row is for no class.
pub const CLASS_TABLE: &str = "table";
/// Name of the input that holds what the U-Net's output is to be: noise or velocity.
pub const TARGET: &str = "target";
/// Name of the input that holds the weight of an image's loss, one number.
pub const WEIGHT: &str = "weight";
/// Name of the output: an image's weighted loss, one number.
pub const LOSS: &str = "loss";

/// What a step is made of.
#[derive(Clone, Copy, Debug)]
pub struct Denoising<'c> {
    /// The U-Net.
    pub unet: &'c UnetConfig,
    /// Rows of the class table, the one for none among them.
    pub rows: usize,
    /// Tokens of each row.
    pub tokens: usize,
    /// Rows of the latent.
    pub height: usize,
    /// Columns of the latent.
    pub width: usize,
}

impl Denoising<'_> {
    /// The step's graph. Inputs, all of them per image: [`LATENT`] (noisy), [`TIMESTEP`],
    /// [`CLASS`], [`TARGET`], [`WEIGHT`]; output: [`LOSS`].
    pub fn graph(&self) -> Graph {
        let mut b = Builder::new();
        let unet = self.unet;
        let latent = Shape::map(self.height, self.width, unet.in_channels);
        let latent = b.input(LATENT, latent);
        let timestep = b.input(TIMESTEP, Shape::vector(1));
        let class = b.input(CLASS, Shape::tokens(1, 1));
        let stored = [self.rows, self.tokens, unet.cross_attention_dim];
        let text = b.embedding(class, CLASS_TABLE, &stored);
        unet::build(&mut b, unet, latent, timestep, text);
        let sample = b.find_output(SAMPLE).expect("a U-Net has an output");
        let target = b.input(TARGET, b.shape(sample));
        let distance = b.distance(sample, target, Distance::Squared);
        let weight = b.input(WEIGHT, Shape::vector(1));
        let loss = b.multiply(distance, weight);
        b.output(LOSS, loss);
        prune(&b.finish(), &[LOSS]).expect("the loss is an output")
    }
}
