//! CleanDIFT's objective (arXiv 2412.03439): a student that sees the clean latent, once, learns the
//! features that its frozen teacher has of noisy ones.
//!
//! * `timesteps` draws a timestep from each bin;
//! * `pass` makes a batch what the engine takes;
//! * `teacher` runs the teacher's taps;
//! * `student` says what is trained, and `lora` what stands for a sum of low rank;
//! * `config` is its TOML;
//! * `cache` keeps on the disk what comes again;
//! * `export` and `card` write what was learned; `estimate` says what a run needs;
//! * `initial` is what new heads start from; `prompts` makes text embeddings.

mod cache;
mod card;
mod config;
mod estimate;
mod export;
mod initial;
mod lora;
mod pass;
mod prompts;
mod student;
mod teacher;
mod timesteps;

use std::collections::HashMap;
use std::sync::Arc;

pub use cache::{Cache, Cached};
pub use card::model_card;
pub use config::{
    CacheConfig, DistanceName, DtypeName, ExportConfig, FinetuneConfig, HeadsSettings, LoraConfig,
    ModelConfig, NormName, ObjectiveConfig, StudentConfig, StudentTraining,
};
pub use estimate::Estimate;
pub use export::{Export, Exporter};
pub use lora::{Factors, Lora};
pub use prompts::Text;
pub use student::Student;
pub use timesteps::Bins;

use super::data::Batch;
use super::{Losses, Masters, Objective, Sink, TrainError};
use crate::checkpoint::Weights;
use crate::engine::cpu::{PreparedWeights, Processor, Program, Recompute, TrainingProgram};
use crate::extractor::{Codec, DEFAULT_TIMESTEP, HeadsModel, Latents, Model};
use crate::features::Tap;
use crate::graph::{Distance, Graph, Named, Parameter, Shape, Tensor};
use crate::networks::config::UnetConfig;
use crate::networks::heads::{FREQUENCIES, HeadsConfig, HeadsDesign};
use crate::networks::schedule::Schedule;
use crate::networks::training::{STUDENT_TIMESTEP, Step, loss_output};
use crate::networks::unet;
use pass::Prepared;
use prompts::Prompts;
use teacher::Teacher;

/// What is trained, towards what.
#[derive(Clone, Debug)]
pub struct Design {
    /// The taps that are compared: a list as in [`Tap::find_all`].
    pub taps: String,
    /// How.
    pub distance: Distance,
    /// The teacher's timesteps.
    pub bins: Bins,
    /// What teacher and student are told of a picture.
    pub text: Text,
    /// Projection heads between student and teacher, if there are to be any.
    pub heads: Option<Heads>,
    /// How the student's U-Net is trained.
    pub unet: Adaptation,
    /// Whether the student's own timestep is trained.
    pub learn_timestep: bool,
    /// The timestep that the student starts at; without one, the model's, else
    /// [`DEFAULT_TIMESTEP`].
    pub timestep: Option<f64>,
    /// What is kept between the way forth and the way back.
    pub recompute: Recompute,
    /// What is kept on the disk, if anything is.
    pub cache: Option<Cache>,
    /// Seed of first values and of all that is drawn.
    pub seed: u64,
}

/// Projection heads.
#[derive(Clone, Debug)]
pub struct Heads {
    /// Where they come from.
    pub origin: HeadsOrigin,
    /// Whether they stay as they are.
    pub frozen: bool,
}

/// Where heads come from.
#[derive(Clone, Debug)]
pub enum HeadsOrigin {
    /// They are new.
    New(HeadsDesign),
    /// They have been trained before.
    Trained(HeadsModel),
}

/// How a U-Net is trained.
#[derive(Clone, Debug, PartialEq)]
pub enum Adaptation {
    /// All of its parameters.
    Full,
    /// Some of its layers, by factors of low rank.
    Lora(Lora),
    /// Not at all: the heads alone learn.
    None,
}

/// CleanDIFT's objective at work.
pub struct Finetune {
    design: Design,
    model: Model,
    heads: Option<HeadsConfig>,
    student: Arc<Student>,
    teacher: Teacher,
    codec: Codec,
    prompts: Prompts,
    schedule: Schedule,
    processor: Processor,
    programs: HashMap<ProgramKey, Programs>,
}

/// What programs are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ProgramKey {
    latent: Shape,
    tokens: usize,
    images: usize,
}

/// The programs of a step.
struct Programs {
    teacher: Program,
    step: TrainingProgram,
    /// The losses alone; compiled when they are first asked for.
    losses: Option<Program>,
}

impl Finetune {
    /// A student that starts as `model`'s U-Net, with the model's teacher, or the same U-Net where
    /// there is none. Weights are read when they are needed.
    ///
    /// # Errors
    /// Taps that the U-Net does not have, heads that do not fit, a text encoder that is missing.
    pub fn new(model: Model, design: Design, processor: &Processor) -> Result<Self, TrainError> {
        let unet = &model.unet.config;
        let taps = Tap::find_all(&design.taps, &unet::graph(unet, 8, 8, 1))?;
        let (heads, first_values) = heads(&design, unet, &taps).unzip();
        // What is trained does not depend on the latent's size.
        let any = (Shape::map(8, 8, unet.in_channels), 1);
        let graph = step_graph(&design, unet, heads.as_ref(), &taps, any)?;
        let start = start(&model, &design, first_values.as_ref())?;
        let teacher = model.teacher.clone().unwrap_or_else(|| model.unet.clone());
        let trains = |name: &str| match name {
            FREQUENCIES => false,
            STUDENT_TIMESTEP => design.learn_timestep,
            name if model.unet.weights.has(name) => design.unet == Adaptation::Full,
            _ => design.heads.as_ref().is_some_and(|heads| !heads.frozen),
        };
        let lora = match &design.unet {
            Adaptation::Lora(lora) => Some(lora.clone()),
            _ => None,
        };
        let student = Student::new(&graph, start, trains, lora, processor.kernels());
        if let Some((lora, factors)) = student.lora()
            && let Some(layer) = lora.unknown(factors.keys())
        {
            return Err(TrainError::LoraLayer(layer.to_owned()));
        }
        if student.size() == 0 {
            return Err(TrainError::NothingToTrain);
        }
        Ok(Self {
            student: Arc::new(student),
            teacher: Teacher::new(teacher, taps, processor),
            // The distribution is asked for; what is sampled from it is drawn here.
            codec: Codec::new(&model.codec, Latents::Sample { seed: 0 }, processor),
            prompts: Prompts::new(&model, processor, design.text, design.cache.clone())?,
            schedule: model.schedule.clone(),
            processor: processor.clone(),
            programs: HashMap::new(),
            heads,
            model,
            design,
        })
    }

    /// Sides of pictures must be multiples of this.
    pub fn multiple(&self) -> usize {
        self.codec.multiple().get()
    }

    /// What is trained, at its start.
    ///
    /// # Errors
    /// If a weight cannot be read.
    pub fn masters(&self) -> Result<Masters, TrainError> {
        Ok(self.student.masters(self.design.seed)?)
    }

    /// What is trained, and what is not.
    pub fn student(&self) -> &Arc<Student> {
        &self.student
    }

    /// The heads' shapes, if there are heads.
    pub fn heads(&self) -> Option<&HeadsConfig> {
        self.heads.as_ref()
    }

    /// The model that it began with.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The step's graph for latents of one size.
    fn graph(&self, latent: Shape, tokens: usize) -> Result<Graph, TrainError> {
        let (unet, heads) = (&self.model.unet.config, self.heads.as_ref());
        let taps = self.teacher.taps();
        step_graph(&self.design, unet, heads, taps, (latent, tokens))
    }

    /// Compiles what is not compiled yet. Teacher and step share one arena: as many timesteps are
    /// run at once as fit into what the step needs anyway.
    fn compile(&mut self, key: ProgramKey) -> Result<(), TrainError> {
        if self.programs.contains_key(&key) {
            return Ok(());
        }
        let programs = self.compiled(key)?;
        self.programs.insert(key, programs);
        Ok(())
    }

    fn compiled(&self, key: ProgramKey) -> Result<Programs, TrainError> {
        let graph = self.graph(key.latent, key.tokens)?;
        let student = &self.student;
        let step = TrainingProgram::compile(
            &self.processor,
            &graph,
            key.images,
            |name| student.differentiates(name),
            self.design.recompute,
        );
        let count = self.design.bins.count;
        let teacher = |at_once| {
            let rows = at_once * key.images;
            self.teacher.program(key.latent, key.tokens, rows)
        };
        let at_once = (1..=count).rev().filter(|&n| count.is_multiple_of(n));
        let fitting = at_once
            .map(teacher)
            .find(|p| p.arena_bytes() <= step.arena_bytes());
        Ok(Programs {
            teacher: fitting.unwrap_or_else(|| teacher(1)),
            step,
            losses: None,
        })
    }
}

impl Objective for Finetune {
    fn run(
        &mut self,
        masters: &Arc<Masters>,
        batch: &Batch,
        sink: Sink<'_>,
    ) -> Result<Losses, TrainError> {
        let prepared = self.prepare(batch, false)?;
        let view = self.student.view(masters);
        let student = &self.student;
        let mut route = |name: &str, gradient: &[f32]| {
            student.route(masters, name, gradient, sink);
        };
        let program = &self.programs[&prepared.key].step;
        let outputs = program.run(&view, &prepared.inputs(), &mut route)?;
        Ok(self.losses(&outputs))
    }

    fn validate(&mut self, masters: &Arc<Masters>, batch: &Batch) -> Result<Losses, TrainError> {
        let prepared = self.prepare(batch, true)?;
        let Prepared { key, .. } = prepared;
        let graph = self.graph(key.latent, key.tokens)?;
        let programs = self.programs.get_mut(&key).expect("it has been compiled");
        let compile = || Program::compile(&self.processor, graph, key.images);
        let program = programs.losses.get_or_insert_with(compile);
        let weights = PreparedWeights::for_one_run(self.student.view(masters), &self.processor);
        let outputs = program.run(&weights, &prepared.inputs())?;
        Ok(self.losses(&outputs))
    }
}

impl Finetune {
    fn losses(&self, outputs: &[Named<f32>]) -> Losses {
        let mean = |tap: &Tap| {
            let name = loss_output(tap.name());
            let (_, loss) =
                (outputs.iter().find(|(found, _)| *found == name)).expect("each tap has a loss");
            let sum: f64 = loss.data.iter().copied().map(f64::from).sum();
            (tap.name().to_owned(), sum / loss.images as f64)
        };
        let parts: Vec<(String, f64)> = self.teacher.taps().iter().map(mean).collect();
        Losses {
            total: parts.iter().map(|(_, loss)| loss).sum(),
            parts,
        }
    }
}

/// The graph of a step.
fn step_graph(
    design: &Design,
    unet: &UnetConfig,
    heads: Option<&HeadsConfig>,
    taps: &[Tap],
    (latent, tokens): (Shape, usize),
) -> Result<Graph, TrainError> {
    let taps: Vec<(&str, &str)> = taps.iter().map(|tap| (tap.name(), tap.module())).collect();
    let step = Step {
        unet,
        heads,
        taps: &taps,
        timesteps: design.bins.count,
        distance: design.distance,
        height: latent.height,
        width: latent.width,
        tokens,
    };
    Ok(step.graph()?)
}

/// The heads' shapes and first values.
fn heads(design: &Design, unet: &UnetConfig, taps: &[Tap]) -> Option<(HeadsConfig, Weights)> {
    let (norm, design_of_new) = match &design.heads.as_ref()?.origin {
        HeadsOrigin::Trained(model) => return Some((model.config.clone(), model.weights.clone())),
        HeadsOrigin::New(heads) => (heads.norm, heads),
    };
    let whole = unet::graph(unet, 8, 8, 1);
    let channels = |tap: &Tap| {
        let value = whole.output(tap.module()).expect("taps are outputs");
        whole.node(value).shape.channels
    };
    let taps: Vec<(&str, usize)> = taps.iter().map(|tap| (tap.name(), channels(tap))).collect();
    let config = HeadsConfig::new(design_of_new, &taps);
    let seed = design.seed;
    let fill = move |parameter: &Parameter, values: &mut [f32]| {
        initial::fill(parameter, norm, seed, values);
    };
    let weights = Weights::generated("new heads", &config.parameters(), fill);
    Some((config, weights))
}

/// All parameters' first values.
fn start(model: &Model, design: &Design, heads: Option<&Weights>) -> Result<Weights, TrainError> {
    let timestep = design
        .timestep
        .or(model.timestep)
        .unwrap_or(DEFAULT_TIMESTEP);
    let timestep = (
        STUDENT_TIMESTEP.to_owned(),
        Vec::new(),
        vec![timestep as f32],
    );
    let timestep = Weights::from_memory("the student's timestep", [timestep]);
    let mut start = model.unet.weights.merged(&timestep)?;
    if let Some(heads) = heads {
        start = start.merged(heads)?;
    }
    Ok(start)
}

/// Tensors of one shape as one batch.
fn stacked(tensors: Vec<Tensor<f32>>) -> Tensor<f32> {
    let shape = tensors[0].shape;
    let images = tensors.iter().map(|tensor| tensor.images).sum();
    let data = tensors.into_iter().flat_map(|tensor| tensor.data);
    Tensor::new(images, shape, data.collect())
}
