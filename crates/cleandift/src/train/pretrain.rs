//! Training a diffusion model from nothing: noise is added to a latent, and the U-Net learns to tell
//! the noise, or the velocity, from what is seen and the picture's class.

mod config;
mod initial;
mod model;

use std::collections::HashMap;
use std::sync::Arc;

pub use config::{ModelConfig, ObjectiveConfig, Prediction, PretrainConfig};
pub use initial::initial;
pub use model::write_model;

use super::data::{Batch, Classes, Sample};
use super::{Losses, Masters, Objective, Random, Sink, TrainError};
use crate::engine::cpu::{EngineError, PreparedWeights, Processor, Program, Recompute};
use crate::engine::cpu::TrainingProgram;
use crate::extractor::{Codec, CodecModel, Latents};
use crate::checkpoint::Weights;
use crate::graph::{Graph, Named, Parameters, Shape, Tensor};
use crate::networks::config::{CodecConfig, UnetConfig};
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
        let codec = CodecModel {
            config: CodecConfig::PixelUnshuffle(config.model.codec()),
            weights: Weights::from_memory("a codec without weights", []),
        };
        Self {
            unet: config.model.unet(config.data.size),
            classes,
            config: config.objective.clone(),
            seed: config.seed,
            codec: Codec::new(&codec, Latents::Mean, processor),
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
    pub fn inputs(&self, batch: &Batch, seed: u64) -> Result<Vec<Named<f32>>, EngineError> {
        let drawn = batch.samples.iter().map(|sample| self.draw(sample, seed));
        let drawn = drawn.collect::<Result<Vec<_>, _>>()?;
        let first = drawn.first().expect("a batch has a sample");
        let named = |(place, (name, shape, _)): (usize, &(&str, Shape, Vec<f32>))| {
            let data = drawn.iter().flat_map(|sample| &sample[place].2).copied();
            let tensor = Tensor::new(drawn.len(), *shape, data.collect());
            ((*name).to_owned(), tensor)
        };
        Ok(first.iter().enumerate().map(named).collect())
    }

    /// One sample's inputs.
    #[allow(clippy::type_complexity)]
    fn draw(
        &self,
        sample: &Sample,
        seed: u64,
    ) -> Result<[(&'static str, Shape, Vec<f32>); 5], EngineError> {
        let latent = self.codec.encode(&sample.pixels)?;
        let extent = latent.extent();
        let shape = Shape::map(extent.height, extent.width, latent.channels());
        let mut random = Random::new(seed, "diffusion", sample.number);
        let timestep = random.below(TIMESTEPS as u64) as usize;
        let dropped = random.uniform() < self.config.drop_class;
        let noise = random.normals(shape.size());

        let names = self.classes.names();
        let caption = sample.caption.as_deref().filter(|_| !dropped);
        let row = caption.and_then(|name| self.classes.row(name));
        let row = row.unwrap_or(names.len());
        let (image, rest) = self.schedule.factors(timestep);
        let target = match self.config.prediction {
            Prediction::Noise => noise.clone(),
            Prediction::Velocity => {
                let pairs = latent.values().iter().zip(&noise);
                pairs.map(|(x, e)| image * e - rest * x).collect()
            }
        };
        let noisy = self.schedule.add_noise(latent.values(), &noise, timestep);
        let one = Shape::vector(1);
        Ok([
            (LATENT, shape, noisy),
            (TIMESTEP, one, vec![timestep as f32]),
            (CLASS, one, vec![row as f32]),
            (TARGET, shape, target),
            (WEIGHT, one, vec![self.config.weight(&self.schedule, timestep) as f32]),
        ])
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
            let graph = self.graph(latent.shape);
            let recompute = match self.config.recompute {
                true => Recompute::Blocks,
                false => Recompute::Nothing,
            };
            let images = latent.images;
            let program =
                TrainingProgram::compile(&self.processor, &graph, images, |_| true, recompute);
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
    inputs.map(|(name, tensor)| (name.as_str(), tensor)).collect()
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
    let plain = weighted.iter().zip(weights).map(|(loss, weight)| loss / weight);
    Losses {
        total: weighted.iter().sum::<f64>() / count,
        parts: vec![("unweighted".to_owned(), plain.sum::<f64>() / count)],
    }
}
