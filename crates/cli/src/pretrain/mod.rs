//! `pretrain`: a small diffusion model from nothing.

mod plan;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use cleandift::checkpoint::Dtype;
use cleandift::engine::cpu::Processor;
use cleandift::graph::check;
use cleandift::hub;
use cleandift::image::Extent;
use cleandift::train::data::{Augmentation, Batch, Batches, Classes, Dataset, Settings, fixed};
use cleandift::train::pretrain::{Diffusion, PretrainConfig, initial, write_model};
use cleandift::train::{Masters, Plan, Run, config, state};

use crate::failure::{Ending, Failure};
use crate::metrics::Metrics;
use crate::stop;
use crate::training::{Progress, read_config, refuse_states};

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

    /// Say what the run needs in memory, disk and time, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// Threads; 0 for as many as the machine has. Results don't depend on it
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
}

/// Trains until all steps are made, or until it is interrupted.
pub fn run(arguments: &PretrainArguments) -> Result<Ending, Failure> {
    let config: PretrainConfig = read_config(&arguments.config, &arguments.overrides)?;
    config.check()?;
    let processor = Processor::from_env(arguments.threads)?;
    let (dataset, held_out, classes) = pictures(&config)?;
    let objective = Diffusion::new(&config, Arc::clone(&classes), &processor);
    if arguments.dry_run {
        return plan::print(&config, objective, dataset, &arguments.output);
    }
    let mut run = start(arguments, &config, &objective, &processor)?;
    let data = &config.data;
    let validation = fixed(
        &held_out,
        data.validation_pictures,
        data.batch,
        canvas(&config),
    );
    let validation: Vec<Batch> = validation.collect();
    eprintln!(
        "{} pictures in {} classes, {} to validate with; {:.1} million parameters",
        dataset.len(),
        classes.names().len(),
        validation
            .iter()
            .map(|batch| batch.samples.len())
            .sum::<usize>(),
        run.masters().size() as f64 / 1e6,
    );
    let in_step = config.data.batch * config.optimiser.accumulate;
    let settings = settings(&config, run.step() * in_step as u64);
    let mut batches = Batches::new(Arc::new(dataset), settings);
    let mut objective = objective;
    stop::listen("step")?;
    let mut progress = Progress::new(config.run.steps);
    let mut metrics = Metrics::open(&arguments.output, run.step())?;
    let ending = run.go(
        &mut objective,
        &mut batches,
        &validation,
        stop::flag(),
        &mut |event| {
            progress.show(event);
            metrics.record(event);
        },
    )?;
    metrics.draw()?;
    let model = arguments.output.join("model");
    write_model(&model, &config, &classes, run.result(), Dtype::F32)?;
    eprintln!("the model is in {}", model.display());
    Ok(match ending {
        cleandift::train::Ending::Finished => Ending::Complete,
        cleandift::train::Ending::Stopped => Ending::Interrupted,
    })
}

/// Pictures to train on, those to validate with, and their classes.
fn pictures(config: &PretrainConfig) -> Result<(Dataset, Dataset, Arc<Classes>), Failure> {
    let (training, held_out) = config.data.open(config.seed, &hub::Settings::from_env)?;
    let classes = match &config.model.classes {
        Some(list) => Classes::open(list)?,
        None => Classes::of_names(&training)?,
    };
    for damage in training.damage().iter().chain(held_out.damage()) {
        eprintln!("warning: {damage}: what is whole of it is used");
    }
    let training = training.classified(&classes)?;
    Ok((training, held_out.classified(&classes)?, Arc::new(classes)))
}

fn canvas(config: &PretrainConfig) -> Extent {
    Extent::new(config.data.size, config.data.size)
}

/// Batches from sample number `first` on.
fn settings(config: &PretrainConfig, first: u64) -> Settings {
    let data = &config.data;
    Settings {
        batch: data.batch,
        first,
        seed: config.seed,
        augmentation: Augmentation {
            size: canvas(config),
            crop: data.crop.map(|[least, greatest]| (least, greatest)),
            flip: data.flip,
        },
    }
}

fn start(
    arguments: &PretrainArguments,
    config: &PretrainConfig,
    objective: &Diffusion,
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
    let masters = first_values(config, objective)?;
    Ok(Run::new(plan, masters, processor.kernels()))
}

/// The parameters to begin with: drawn, or a state's.
fn first_values(config: &PretrainConfig, objective: &Diffusion) -> Result<Masters, Failure> {
    let graph = objective.graph(config.model.latent(config.data.size));
    let Some(state) = &config.model.from else {
        let parameters = graph.parameters().into_iter();
        return Ok(Masters::new(parameters.map(|parameter| {
            let values = initial(parameter, config.seed);
            (parameter.name.clone(), parameter.shape.clone(), values)
        })));
    };
    let masters = state::State::read_parameters(state)?;
    let found = check(&[&graph], &masters);
    match found.misshaped.first() {
        None if found.missing.is_empty() => Ok(masters),
        None => Err(Failure::new(format!(
            "{}: `{}` is missing: it is no state of this model",
            state.display(),
            found.missing[0]
        ))),
        Some(wrong) => Err(Failure::new(format!(
            "{}: `{}` is {:?}, expected {:?}: it is the state of another model, or of other classes",
            state.display(),
            wrong.name,
            wrong.found,
            wrong.expected
        ))),
    }
}
