//! Training a diffusion model from nothing: noise is added to a latent, and the U-Net learns to tell
//! the noise, or the velocity, from what is seen and the picture's class.

mod config;
mod initial;
mod model;
mod patches;

use std::collections::HashMap;
use std::sync::Arc;

pub use config::{ModelConfig, ObjectiveConfig, Prediction, PretrainConfig};
pub use initial::initial;
pub use model::{parameters_of, write_model};

use super::data::{Batch, Classes, Sample};
use super::optimiser::{Footprint, OptimiserConfig};
use super::{Losses, Masters, Objective, Random, Sink, TrainError};
use crate::engine::cpu::{EngineError, PreparedWeights, Processor, Program};
use crate::engine::cpu::{Recompute, TrainingProgram};
use crate::extractor::{Codec, Latents};
use crate::graph::{Graph, Named, Parameter, Parameters, Shape, Tensor};
use crate::networks::config::UnetConfig;
use crate::networks::diffusion::{CLASS, Denoising, LOSS, TARGET, WEIGHT};
use crate::networks::schedule::{Schedule, TIMESTEPS};
use crate::networks::unet::{LATENT, TIMESTEP};

/// The seed of what is drawn for validation: the same in every run.
const VALIDATION_SEED: u64 = 0;

/// A denoising diffusion model's objective: the squared distance of noise or velocity from what the
/// U-Net says, weighted by the noise (min-SNR: Hang et al., arXiv 2303.09556).
pub struct Diffusion {
    unet: UnetConfig,
    classes: Arc<Classes>,
    config: ObjectiveConfig,
    seed: u64,
    codec: Codec,
    schedule: Schedule,
    processor: Processor,
    programs: HashMap<(usize, Shape), TrainingProgram>,
}

impl Diffusion {
    /// The objective of a config.
    pub fn new(config: &PretrainConfig, classes: Arc<Classes>, processor: &Processor) -> Self {
        Self {
            unet: config.model.unet(config.data.size),
            classes,
            config: config.objective.clone(),
            seed: config.seed,
            codec: Codec::new(&config.model.codec(), Latents::Mean, processor),
            schedule: Schedule::default(),
            processor: processor.clone(),
            programs: HashMap::new(),
        }
    }

    /// The graph of a step for latents of a shape.
    pub fn graph(&self, latent: Shape) -> Graph {
        let denoising = Denoising {
            unet: &self.unet,
            rows: self.classes.names().len() + 1,
            tokens: 1,
            height: latent.height,
            width: latent.width,
        };
        denoising.graph()
    }

    /// The graph's inputs for a batch, everything random in them drawn from `seed` and the samples'
    /// numbers.
    ///
    /// # Errors
    /// If a picture does not fit the codec.
    ///
    /// # Panics
    /// If the batch is empty.
    pub fn inputs(&self, batch: &Batch, seed: u64) -> Result<Vec<Named<f32>>, EngineError> {
        let samples = batch.samples.iter().map(|sample| self.draw(sample, seed));
        let samples = samples.collect::<Result<Vec<_>, _>>()?;
        let tensor = |name: &str, shape: Shape, values: fn(&Drawn) -> &[f32]| {
            let data = samples.iter().flat_map(values).copied().collect();
            (name.to_owned(), Tensor::new(samples.len(), shape, data))
        };
        let (one, map) = (Shape::vector(1), samples[0].shape);
        Ok(vec![
            tensor(LATENT, map, |drawn| &drawn.noisy),
            tensor(TIMESTEP, one, |drawn| std::slice::from_ref(&drawn.timestep)),
            tensor(CLASS, one, |drawn| std::slice::from_ref(&drawn.row)),
            tensor(TARGET, map, |drawn| &drawn.target),
            tensor(WEIGHT, one, |drawn| std::slice::from_ref(&drawn.weight)),
        ])
    }

    fn draw(&self, sample: &Sample, seed: u64) -> Result<Drawn, EngineError> {
        let latent = self.codec.encode(&sample.pixels)?;
        let extent = latent.extent();
        let shape = Shape::map(extent.height, extent.width, latent.channels());
        let mut random = Random::new(seed, "diffusion", sample.number);
        let timestep = random.below(TIMESTEPS as u64) as usize;
        let dropped = random.uniform() < self.config.drop_class;
        let noise = random.normals(shape.size());

        let caption = sample.caption.as_deref().filter(|_| !dropped);
        let row = caption.and_then(|name| self.classes.row(name));
        let (image, rest) = self.schedule.factors(timestep);
        let velocity = |(x, e): (&f32, &f32)| image * e - rest * x;
        let noisy = self.schedule.add_noise(latent.values(), &noise, timestep);
        let weight = self.config.weight(&self.schedule, timestep);
        Ok(Drawn {
            shape,
            noisy,
            timestep: timestep as f32,
            row: row.unwrap_or(self.classes.names().len()) as f32,
            target: match self.config.prediction {
                Prediction::Velocity => latent.values().iter().zip(&noise).map(velocity).collect(),
                Prediction::Noise => noise,
            },
            weight: weight as f32,
        })
    }

    /// What a run with these values in training needs, in passes over batches of one size.
    pub fn estimate(&self, latent: Shape, images: usize, optimiser: &OptimiserConfig) -> Estimate {
        let graph = self.graph(latent);
        let program = self.compile(latent, images);
        let values = graph.parameters().into_iter().map(Parameter::size);
        Estimate {
            footprint: optimiser.footprint(values.sum()),
            arena: program.arena_bytes(),
        }
    }

    fn compile(&self, latent: Shape, images: usize) -> TrainingProgram {
        let recompute = match self.config.recompute {
            true => Recompute::Blocks,
            false => Recompute::Nothing,
        };
        let graph = self.graph(latent);
        TrainingProgram::compile(&self.processor, &graph, images, |_| true, recompute)
    }
}

/// What was drawn for a sample.
struct Drawn {
    shape: Shape,
    noisy: Vec<f32>,
    timestep: f32,
    /// In the class table.
    row: f32,
    target: Vec<f32>,
    weight: f32,
}

/// What a run needs, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// What is kept from step to step.
    pub footprint: Footprint,
    /// Values and gradients of a pass.
    pub arena: usize,
}

impl Estimate {
    /// All memory together.
    pub fn memory(&self) -> usize {
        self.footprint.memory() + self.arena
    }
}

impl Objective for Diffusion {
    fn run(
        &mut self,
        masters: &Arc<Masters>,
        batch: &Batch,
        sink: Sink<'_>,
    ) -> Result<Losses, TrainError> {
        let inputs = self.inputs(batch, self.seed)?;
        let (_, latent) = &inputs[0];
        let key = (latent.images, latent.shape);
        if !self.programs.contains_key(&key) {
            let program = self.compile(latent.shape, latent.images);
            self.programs.insert(key, program);
        }
        let parameters: Arc<dyn Parameters> = masters.clone();
        let outputs = self.programs[&key].run(&parameters, &borrowed(&inputs), sink)?;
        Ok(losses(&outputs, &inputs))
    }

    fn validate(&mut self, masters: &Arc<Masters>, batch: &Batch) -> Result<Losses, TrainError> {
        let inputs = self.inputs(batch, VALIDATION_SEED)?;
        let (_, latent) = &inputs[0];
        let graph = self.graph(latent.shape);
        let program = Program::compile(&self.processor, graph, latent.images);
        let parameters: Arc<dyn Parameters> = masters.clone();
        let weights = PreparedWeights::new(parameters, &self.processor);
        let outputs = program.run(&weights, &borrowed(&inputs))?;
        Ok(losses(&outputs, &inputs))
    }
}

fn borrowed(inputs: &[Named<f32>]) -> Vec<(&str, &Tensor<f32>)> {
    let inputs = inputs.iter();
    inputs
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect()
}

/// The weighted loss, and what it is without weights.
fn losses(outputs: &[Named<f32>], inputs: &[Named<f32>]) -> Losses {
    let find = |all: &[Named<f32>], wanted: &str| -> Vec<f64> {
        let found = all.iter().find(|(name, _)| name == wanted);
        let (_, tensor) = found.expect("the graph has it");
        tensor.data.iter().copied().map(f64::from).collect()
    };
    let (weighted, weights) = (find(outputs, LOSS), find(inputs, WEIGHT));
    let count = weighted.len() as f64;
    let plain = weighted
        .iter()
        .zip(weights)
        .map(|(loss, weight)| loss / weight);
    Losses {
        total: weighted.iter().sum::<f64>() / count,
        parts: vec![("unweighted".to_owned(), plain.sum::<f64>() / count)],
    }
}
