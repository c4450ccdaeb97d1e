//! `train`: CleanDIFT's fine-tuning.

mod plan;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use cleandift::checkpoint::write_file;
use cleandift::engine::cpu::Processor;
use cleandift::hub;
use cleandift::image::Extent;
use cleandift::train::data::{Augmentation, Batch, Batches, Dataset, Settings, fixed};
use cleandift::train::finetune::{Exporter, Finetune, FinetuneConfig, Text, model_card};
use cleandift::train::{Event, Losses, Plan, Run, config};

use crate::failure::{Ending, Failure};
use crate::metrics::Metrics;
use crate::stop;
use crate::training::{Progress, read_config, refuse_states};

/// Turn a Stable Diffusion into a CleanDIFT: features without noise
#[derive(Args)]
pub struct TrainArguments {
    /// What to train, and how: a TOML file; models/tiny/train.toml is one
    #[arg(value_name = "CONFIG")]
    config: PathBuf,

    /// Folder for the run's states and the result
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Change a value of the config: optimiser.rate=1e-5
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
pub fn run(arguments: &TrainArguments) -> Result<Ending, Failure> {
    let config: FinetuneConfig = read_config(&arguments.config, &arguments.overrides)?;
    config.check()?;
    let processor = Processor::from_env(arguments.threads)?;
    let (training, held_out) = pictures(&config)?;
    let mut finetune = Finetune::new(config.open_model()?, config.design()?, &processor)?;
    let (side, multiple) = (config.data.size, finetune.multiple());
    if !side.is_multiple_of(multiple) {
        return Err(Failure::new(format!(
            "`data.size` is {side}, expected a multiple of {multiple}, the pixels of a latent's cell"
        )));
    }
    if arguments.dry_run {
        return plan::print(
            &config,
            &finetune,
            &processor,
            training.len(),
            &arguments.output,
        );
    }
    let mut run = start(arguments, &config, &finetune, &processor)?;
    let validation = validation(&config, &held_out);
    let measured = validation.iter().map(|batch| batch.samples.len());
    eprintln!(
        "{} pictures, {} to validate with; {:.1} million parameters in training",
        training.len(),
        measured.sum::<usize>(),
        run.masters().size() as f64 / 1e6,
    );
    let in_step = config.data.batch * config.optimiser.accumulate;
    let settings = Settings {
        batch: config.data.batch,
        first: run.step() * in_step as u64,
        seed: config.seed,
        augmentation: Augmentation {
            size: canvas(&config),
            crop: config.data.crop.map(|[least, greatest]| (least, greatest)),
            flip: config.data.flip,
        },
    };
    let mut batches = Batches::new(Arc::new(training), settings);
    stop::listen("step")?;
    let mut progress = Progress::new(config.run.steps);
    let mut metrics = Metrics::open(&arguments.output, run.step())?;
    let mut last = None;
    let ending = run.go(
        &mut finetune,
        &mut batches,
        &validation,
        stop::flag(),
        &mut |event| {
            progress.show(event);
            metrics.record(event);
            if let Event::Validation { losses, .. } = event {
                last = Some(losses.clone());
            }
        },
    )?;
    metrics.draw()?;
    match ending {
        cleandift::train::Ending::Stopped => Ok(Ending::Interrupted),
        cleandift::train::Ending::Finished => {
            write(&config, &finetune, &run, last.as_ref(), &arguments.output)?;
            Ok(Ending::Complete)
        }
    }
}

/// Pictures to learn from, and those to validate with.
fn pictures(config: &FinetuneConfig) -> Result<(Dataset, Dataset), Failure> {
    let (training, held_out) = config.data.open(config.seed, &hub::Settings::from_env)?;
    for damage in training.damage().iter().chain(held_out.damage()) {
        eprintln!("warning: {damage}: what is whole of it is used");
    }
    if config.objective.text != Text::None {
        training.require_captions()?;
        held_out.require_captions()?;
    }
    Ok((training, held_out))
}

fn canvas(config: &FinetuneConfig) -> Extent {
    Extent::new(config.data.size, config.data.size)
}

/// Pictures to validate with, in batches as for training.
fn validation(config: &FinetuneConfig, held_out: &Dataset) -> Vec<Batch> {
    let data = &config.data;
    fixed(
        held_out,
        data.validation_pictures,
        data.batch,
        canvas(config),
    )
    .collect()
}

fn start(
    arguments: &TrainArguments,
    config: &FinetuneConfig,
    finetune: &Finetune,
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
    Ok(Run::new(plan, finetune.masters()?, processor.kernels()))
}

/// Writes what was learned, and the model card.
fn write(
    config: &FinetuneConfig,
    finetune: &Finetune,
    run: &Run,
    validation: Option<&Losses>,
    out: &Path,
) -> Result<(), Failure> {
    let exporter = Exporter::new(finetune, run.result(), config.export.dtype.dtype());
    for &export in &config.export.files {
        let path = exporter.write(export, &config.model.base, out)?;
        eprintln!("wrote {}", path.display());
    }
    let card = out.join("README.md");
    let words = model_card(config, run.step(), validation);
    write_file(&card, words.as_bytes())?;
    eprintln!("wrote {}", card.display());
    Ok(())
}
