//! `pretrain`: a small diffusion model from nothing.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use cleandift::checkpoint::Dtype;
use cleandift::engine::cpu::Processor;
use cleandift::graph::Shape;
use cleandift::image::Extent;
use cleandift::train::data::{Augmentation, Batch, Batches, Classes, Dataset, Settings};
use cleandift::train::pretrain::{Diffusion, PretrainConfig, initial, write_model};
use cleandift::train::{Masters, Plan, Run, config, state};

use crate::failure::{Ending, Failure};
use crate::training::{self, Progress, refuse_states};
use crate::stop;

/// Train a small diffusion model from nothing
#[derive(Args)]
pub struct PretrainArguments {
    /// What to train, and how: a TOML file; models/tiny/pretrain.toml is one
    #[arg(value_name = "CONFIG")]
    config: PathBuf,

    /// Folder for the run's states and the model
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Change a value of the config: optimiser.rate=1e-4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,

    /// Go on from the last state in the folder, if there is one
    #[arg(long)]
    resume: bool,

    /// Threads; 0 for as many as the machine has. Results don't depend on it
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
}

/// Trains until all steps are made, or until it is interrupted.
pub fn run(arguments: &PretrainArguments) -> Result<Ending, Failure> {
    let config = read_config(arguments)?;
    let processor = Processor::from_env(arguments.threads)?;
    let (dataset, classes) = training_pictures(&config)?;
    let mut run = start(arguments, &config, &classes, &processor)?;
    let validation = validation_pictures(&config, &classes)?;
    eprintln!(
        "{} pictures in {} classes, {} to validate with; {:.1} million parameters",
        dataset.len(),
        classes.names().len(),
        validation.iter().map(|batch| batch.samples.len()).sum::<usize>(),
        run.masters().size() as f64 / 1e6,
    );
    let in_step = config.data.batch * config.optimiser.accumulate;
    let mut batches = Batches::new(
        Arc::new(dataset),
        Settings {
            batch: config.data.batch,
            first: run.step() * in_step as u64,
            seed: config.seed,
            augmentation: augmentation(&config),
        },
    );
    let mut objective = Diffusion::new(&config, Arc::clone(&classes), &processor);
    stop::listen("step")?;
    let mut progress = Progress::new(config.run.steps);
    let ending = run.go(
        &mut objective,
        &mut batches,
        &validation,
        stop::flag(),
        &mut |event| progress.show(event),
    )?;
    let model = arguments.output.join("model");
    write_model(&model, &config, &classes, run.result(), Dtype::F32)?;
    eprintln!("the model is in {}", model.display());
    Ok(match ending {
        cleandift::train::Ending::Finished => Ending::Complete,
        cleandift::train::Ending::Stopped => Ending::Interrupted,
    })
}

fn read_config(arguments: &PretrainArguments) -> Result<PretrainConfig, Failure> {
    let config: PretrainConfig = training::read_config(&arguments.config, &arguments.overrides)?;
    config.check()?;
    Ok(config)
}

fn training_pictures(config: &PretrainConfig) -> Result<(Dataset, Arc<Classes>), Failure> {
    let dataset = Dataset::open(&config.data.train)?;
    let classes = match &config.model.classes {
        Some(list) => Classes::open(list)?,
        None => Classes::of_names(&dataset)?,
    };
    let dataset = dataset.classified(&classes)?;
    for damage in dataset.damage() {
        eprintln!("warning: {damage}: what is whole of it is used");
    }
    Ok((dataset, Arc::new(classes)))
}

/// Pictures to validate with, in batches as for training.
fn validation_pictures(
    config: &PretrainConfig,
    classes: &Classes,
) -> Result<Vec<Batch>, Failure> {
    if config.data.validation.is_empty() {
        return Ok(Vec::new());
    }
    let dataset = Dataset::open(&config.data.validation)?.classified(classes)?;
    let count = dataset.len().min(config.data.validation_pictures);
    let size = config.data.batch.min(count);
    let batches = Batches::new(
        Arc::new(dataset),
        Settings {
            batch: size,
            first: 0,
            seed: 0,
            augmentation: Augmentation::none(canvas(config)),
        },
    );
    Ok(batches.take(count / size).collect::<Result<_, _>>()?)
}

fn canvas(config: &PretrainConfig) -> Extent {
    Extent::new(config.data.size, config.data.size)
}

fn augmentation(config: &PretrainConfig) -> Augmentation {
    Augmentation {
        size: canvas(config),
        crop: config.data.crop.map(|[least, greatest]| (least, greatest)),
        flip: config.data.flip,
    }
}

fn start(
    arguments: &PretrainArguments,
    config: &PretrainConfig,
    classes: &Arc<Classes>,
    processor: &Processor,
) -> Result<Run, Failure> {
    let plan = Plan {
        optimiser: config.optimiser,
        schedule: config.schedule,
        run: config.run.clone(),
        config: config::to_json(config),
        out: arguments.output.clone(),
    };
    if !arguments.resume {
        refuse_states(&arguments.output)?;
    } else if let Some(run) = Run::resume(plan.clone(), processor.kernels())? {
        eprintln!("going on after step {}", run.step());
        return Ok(run);
    }
    let masters = match &config.model.from {
        Some(state) => state::State::read_parameters(state)?,
        None => {
            let side = config.data.size / config.model.patch;
            let latent = Shape::map(side, side, config.model.codec().latent_channels());
            let graph = Diffusion::new(config, Arc::clone(classes), processor).graph(latent);
            Masters::new(graph.parameters().into_iter().map(|parameter| {
                let values = initial(parameter, config.seed);
                (parameter.name.clone(), parameter.shape.clone(), values)
            }))
        }
    };
    Ok(Run::new(plan, masters, processor.kernels()))
}
