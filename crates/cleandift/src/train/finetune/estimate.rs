//! What a run needs, known before it starts.

use super::{Finetune, ProgramKey};
use crate::engine::cpu::Recompute;
use crate::graph::{Shape, count};
use crate::image::Extent;
use crate::train::TrainError;
use crate::train::optimiser::{Footprint, OptimiserConfig};

/// What fine-tuning at one size needs. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Values that are trained.
    pub trained: usize,
    /// What is kept from step to step.
    pub footprint: Footprint,
    /// The teacher's weights as the engine keeps them.
    pub teacher: usize,
    /// The codec's and the text encoder's weights.
    pub encoders: usize,
    /// The arena: values and gradients of a pass.
    pub arena: usize,
    /// The teacher's taps of a pass.
    pub targets: usize,
    /// Multiply-adds of a step's forward passes: teacher, and student with heads.
    pub forward: [u64; 2],
    /// Multiply-adds of a whole step, the way back included: two and, where blocks are computed
    /// again, three times the student's way forth.
    pub multiply_adds: u64,
}

impl Estimate {
    /// All memory together, with what the process takes besides.
    pub fn memory(&self) -> usize {
        const PROCESS: usize = 64 << 20;
        let passes = self.teacher + self.encoders + self.arena + self.targets;
        self.footprint.memory() + passes + PROCESS
    }
}

impl Finetune {
    /// What training on pictures of `canvas` needs, in batches of `images`.
    ///
    /// # Errors
    /// If the step's graph cannot be built.
    pub fn estimate(
        &self,
        canvas: Extent,
        images: usize,
        optimiser: &OptimiserConfig,
    ) -> Result<Estimate, TrainError> {
        let factor = self.multiple();
        let channels = self.model.codec.config.latent_channels();
        let key = ProgramKey {
            latent: Shape::map(canvas.height / factor, canvas.width / factor, channels),
            tokens: self.prompts.tokens(),
            images,
        };
        let programs = self.compiled(key)?;
        let rows = images * self.design.bins.count;
        let graph = programs.teacher.graph();
        let taps = graph.outputs().iter();
        let target: usize = taps.map(|tap| graph.node(tap.value).shape.size()).sum();
        let [codec, codec_arena] = self.codec.encoder_bytes(canvas);
        let trained = self.student().size();
        let teacher = count(graph).multiply_adds() * rows as u64;
        let step = self.graph(key.latent, key.tokens)?;
        let student = count(&step).multiply_adds() * images as u64;
        let ways = match self.design.recompute {
            Recompute::Blocks => 4,
            Recompute::Nothing => 3,
        };
        Ok(Estimate {
            trained,
            footprint: optimiser.footprint(trained),
            teacher: programs.teacher.weight_bytes(),
            encoders: codec + self.prompts.weight_bytes(),
            arena: codec_arena
                .max(programs.step.arena_bytes())
                .max(programs.teacher.arena_bytes()),
            // Once as the teacher gives them, once by timestep.
            targets: 2 * size_of::<f32>() * rows * target,
            forward: [teacher, student],
            multiply_adds: teacher + ways * student,
        })
    }
}
