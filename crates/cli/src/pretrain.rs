//! `pretrain`: a small diffusion model from nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use cleandift::checkpoint::Dtype;
use cleandift::engine::cpu::Processor;
use cleandift::graph::Shape;
use cleandift::image::Extent;
use cleandift::train::data::{Augmentation, Batch, Batches, Classes, Dataset, Settings};
use cleandift::train::pretrain::{Diffusion, PretrainConfig, initial, write_model};
use cleandift::train::{Event, Masters, Plan, Run, config, state};

use crate::failure::{Ending, Failure};
use crate::metrics::Metrics;
use crate::{machine, stop};

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

fn read_config(arguments: &PretrainArguments) -> Result<PretrainConfig, Failure> {
    let path = &arguments.config;
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
    let name = path.display().to_string();
    let config: PretrainConfig = config::read(&name, &text, &arguments.overrides)?;
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

fn refuse_states(out: &Path) -> Result<(), Failure> {
    match state::states(out)?.pop() {
        None => Ok(()),
        Some((step, _)) => Err(Failure::new(format!(
            "{}: holds a run that made {step} steps: go on with --resume, or write elsewhere",
            out.display()
        ))),
    }
}

/// A line for whatever happens; steps are told ten times a minute at most.
struct Progress {
    steps: Option<u64>,
    told: Option<Instant>,
    /// Since the last line: steps' losses, samples, and the time they took.
    losses: Vec<f64>,
    samples: usize,
    time: Duration,
}

impl Progress {
    fn new(steps: Option<u64>) -> Self {
        Self {
            steps,
            told: None,
            losses: Vec::new(),
            samples: 0,
            time: Duration::ZERO,
        }
    }

    fn show(&mut self, event: &Event) {
        match event {
            Event::Step {
                step,
                losses,
                rate,
                norm,
                samples,
                time,
            } => {
                self.losses.push(losses.total);
                self.samples += samples;
                self.time += *time;
                const PAUSE: Duration = Duration::from_secs(6);
                if self.told.is_none_or(|told| told.elapsed() >= PAUSE) {
                    self.step(*step, *rate, *norm);
                }
            }
            Event::Validation {
                step,
                losses,
                averaged,
            } => {
                let averaged = averaged.as_ref();
                let averaged = averaged.map(|losses| format!(", averaged {:.5}", losses.total));
                eprintln!(
                    "step {step}: validation loss {:.5}{}",
                    losses.total,
                    averaged.unwrap_or_default()
                );
            }
            Event::Saved { path, .. } => eprintln!("saved {}", path.display()),
            Event::Skipped { total, last, .. } => {
                eprintln!("{total} pictures left out so far, the last: {last}");
            }
            _ => {}
        }
    }

    fn step(&mut self, step: u64, rate: f64, norm: Option<f64>) {
        let loss = self.losses.iter().sum::<f64>() / self.losses.len() as f64;
        let seconds = self.time.as_secs_f64();
        let mut words = format!(
            "step {step}: loss {loss:.5}, rate {rate:.2e}, {:.1} images/s",
            self.samples as f64 / seconds
        );
        if let Some(norm) = norm {
            words += &format!(", gradient {norm:.3}");
        }
        if let Some(steps) = self.steps {
            let left = steps.saturating_sub(step) as f64 * seconds / self.losses.len() as f64;
            words += &format!(", {:.1} h left", left / 3600.0);
        }
        if let Some(memory) = machine::peak_memory() {
            words += &format!(", {:.2} GB", memory as f64 / 1e9);
        }
        eprintln!("{words}");
        *self = Self {
            told: Some(Instant::now()),
            ..Self::new(self.steps)
        };
    }
}
