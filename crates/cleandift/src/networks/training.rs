//! One step of CleanDIFT's training as one graph (arXiv 2412.03439, section 3.2): the student's
//! taps of the clean latent, each projected to some timesteps by its head, and their distances
//! from the teacher's taps at these timesteps.
//!
//! The student runs once per image; heads and losses are there once per timestep, with the same
//! parameters. The teacher is no part of it: its taps are inputs.

use super::config::UnetConfig;
use super::heads::HeadsConfig;
use super::unet::{self, LATENT, TEXT};
use crate::graph::{Builder, Distance, Graph, Shape, UnknownOutput, Value, prune};

/// Name of the student's own timestep, a parameter of one value (shape `[]`).
pub const STUDENT_TIMESTEP: &str = "timestep";

/// What a step is made of.
#[derive(Clone, Copy, Debug)]
pub struct Step<'c> {
    /// The student.
    pub unet: &'c UnetConfig,
    /// Its heads; without them, its taps themselves are compared with the teacher's.
    pub heads: Option<&'c HeadsConfig>,
    /// The taps to compare: name and the U-Net's output behind it.
    pub taps: &'c [(&'c str, &'c str)],
    /// Timesteps per image.
    pub timesteps: usize,
    /// What is measured between the projected tap and the teacher's.
    pub distance: Distance,
    /// Rows of the latent.
    pub height: usize,
    /// Columns of the latent.
    pub width: usize,
    /// Tokens of the text embeddings.
    pub tokens: usize,
}

/// A step that cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// A tap that the U-Net does not have.
    #[error(transparent)]
    UnknownOutput(#[from] UnknownOutput),
    /// A tap without a head that takes it.
    #[error("the heads have none for the tap `{0}` with its number of channels")]
    NoHead(String),
}

/// Name of the input that holds an image's `index`-th timestep, one number; not there without
/// heads.
pub fn timestep_input(index: usize) -> String {
    format!("timestep.{index}")
}

/// Name of the input that holds the teacher's tap at an image's `index`-th timestep.
pub fn teacher_input(tap: &str, index: usize) -> String {
    format!("teacher.{index}.{tap}")
}

/// Name of the output that holds a tap's loss: one number per image, the mean over its timesteps.
pub fn loss_output(tap: &str) -> String {
    format!("loss.{tap}")
}

impl Step<'_> {
    /// The step's graph. Inputs, all of them per image: [`LATENT`], [`TEXT`], [`timestep_input`]s,
    /// [`teacher_input`]s; outputs: the taps' losses. What is to be made small is their sum, mean
    /// over the images.
    ///
    /// # Errors
    /// If a tap is not in the U-Net, or has no head.
    pub fn graph(&self) -> Result<Graph, StepError> {
        let mut b = Builder::new();
        let unet = self.unet;
        let latent = b.input(
            LATENT,
            Shape::map(self.height, self.width, unet.in_channels),
        );
        let text = b.input(TEXT, Shape::tokens(self.tokens, unet.cross_attention_dim));
        let timestep = b.constant(STUDENT_TIMESTEP, &[], Shape::vector(1));
        unet::build(&mut b, unet, latent, timestep, text);

        let heads = self.heads.map(|heads| Heads {
            config: heads,
            conditions: self.conditions(&mut b, heads),
        });
        b.mark();
        let mut losses = Vec::with_capacity(self.taps.len());
        for (tap, module) in self.taps {
            let x = b.find_output(module);
            let x = x.ok_or_else(|| UnknownOutput((*module).to_owned()))?;
            let loss = self.loss(&mut b, tap, x, heads.as_ref())?;
            losses.push(loss_output(tap));
            b.output(loss_output(tap), loss);
            b.mark();
        }
        Ok(prune(&b.finish(), &losses)?)
    }

    /// The heads' condition at each timestep.
    fn conditions(&self, b: &mut Builder, heads: &HeadsConfig) -> Vec<Value> {
        (0..self.timesteps)
            .map(|index| {
                let timestep = b.input(&timestep_input(index), Shape::vector(1));
                heads.mapping(b, timestep)
            })
            .collect()
    }

    /// The loss of the tap `x`, mean over the timesteps.
    fn loss(
        &self,
        b: &mut Builder,
        tap: &str,
        x: Value,
        heads: Option<&Heads>,
    ) -> Result<Value, StepError> {
        let mut sum = None;
        for index in 0..self.timesteps {
            let target = b.input(&teacher_input(tap, index), b.shape(x));
            let projected = match heads {
                Some(Heads { config, conditions }) => config
                    .project(b, tap, x, conditions[index])
                    .ok_or_else(|| StepError::NoHead(tap.to_owned()))?,
                None => x,
            };
            let distance = b.distance(projected, target, self.distance);
            sum = Some(match sum {
                Some(sum) => b.add(sum, distance),
                None => distance,
            });
        }
        let sum = sum.expect("a step has a timestep at least");
        Ok(b.affine(sum, &[1.0 / self.timesteps as f64], &[0.0]))
    }
}

/// Heads, and their condition at each timestep.
struct Heads<'c> {
    config: &'c HeadsConfig,
    conditions: Vec<Value>,
}
