//! `train`: CleanDIFT's fine-tuning.

mod plan;

use std::path::Path;

use cleandift::checkpoint::{Checkpoint, write_file};
use cleandift::engine::cpu::Processor;
use cleandift::extractor::Model;
use cleandift::hub;
use cleandift::networks::training::STUDENT_TIMESTEP;
use cleandift::train::data::Dataset;
use cleandift::train::finetune::{Design, Exporter, Finetune, FinetuneConfig, Text, model_card};
use cleandift::train::{self, Losses, Plan, Run, config};

use crate::failure::{Ending, Failure};
use crate::source;
use crate::training::{self, Pictures, TrainingArguments};

/// Trains until all steps are made, or until it is interrupted.
pub fn run(arguments: &TrainingArguments) -> Result<Ending, Failure> {
    let config: FinetuneConfig = arguments.config()?;
    config.check()?;
    let processor = Processor::from_env(arguments.threads)?;
    let (training, held_out) = pictures(&config)?;
    let base = source::checkpoint(&config.model.base, None)?;
    let student = config.model.student.as_deref();
    let student = student.map(|path| source::checkpoint(path, Some(&config.model.base)));
    let student = student.transpose()?;
    let first = student.as_ref().unwrap_or(&base);
    let design = Design {
        cache: config.cache.of(first)?,
        ..config.design()?
    };
    let mut finetune = Finetune::new(Model::open(first)?, design, &processor)?;
    let (side, multiple) = (config.data.size, finetune.multiple());
    if !side.is_multiple_of(multiple) {
        return Err(Failure::new(format!(
            "`data.size` is {side}, expected a multiple of {multiple}, the pixels of a latent's cell"
        )));
    }
    let (steps, out) = (config.run.steps, &arguments.output);
    let estimate = finetune.estimate(config.data.canvas(), config.data.batch, &config.optimiser)?;
    if arguments.dry_run {
        return Ok(plan::print(
            &config,
            &estimate,
            &processor,
            training.len(),
            out,
        ));
    }
    plan::needs(&config, &estimate).check(out)?;
    let mut models = vec![("base", &base)];
    models.extend(student.as_ref().map(|student| ("student", student)));
    let plan = Plan {
        optimiser: config.optimiser,
        schedule: config.schedule,
        run: config.run.clone(),
        config: config::to_json(&config),
        sources: training::sources([&training, &held_out], &models)?,
        out: out.clone(),
    };
    let mut run = arguments.start(plan, &processor, || Ok(finetune.masters()?))?;
    let _lock = arguments.lock()?;
    let validation = config.data.validation_batches(&held_out);
    training::warn_of_unreadable(&validation);
    let measured = validation.iter().map(|batch| batch.samples.len());
    eprintln!(
        "{} pictures, {} to validate with; {:.1} million parameters in training",
        training.len(),
        measured.sum::<usize>(),
        run.masters().size() as f64 / 1e6,
    );
    let in_step = config.data.batch * config.optimiser.accumulate;
    let pictures = Pictures {
        settings: config
            .data
            .batches(config.seed, run.step() * in_step as u64),
        training,
        validation,
    };
    match training::go(&mut run, &mut finetune, pictures, steps, out)? {
        (train::Ending::Stopped, _) => Ok(Ending::Interrupted),
        (train::Ending::Finished, last) => {
            write(&config, &finetune, &base, &run, last.as_ref(), out)?;
            Ok(Ending::Complete)
        }
    }
}

/// Pictures to learn from, and those to validate with.
fn pictures(config: &FinetuneConfig) -> Result<(Dataset, Dataset), Failure> {
    let (training, held_out) = config.data.open(config.seed, &hub::Settings::from_env)?;
    training::warn_of_damage([&training, &held_out]);
    if config.objective.text != Text::None {
        training.require_captions()?;
        held_out.require_captions()?;
    }
    Ok((training, held_out))
}

/// Writes what was learned, and the model card.
fn write(
    config: &FinetuneConfig,
    finetune: &Finetune,
    base: &Checkpoint,
    run: &Run,
    validation: Option<&Losses>,
    out: &Path,
) -> Result<(), Failure> {
    let exporter = Exporter::new(finetune, run.result(), config.export.dtype.dtype());
    for &export in &config.export.files {
        let path = exporter.write(export, base, out)?;
        eprintln!("wrote {}", path.display());
    }
    if config.student.learn_timestep {
        eprintln!(
            "note: the student's timestep is {:.2} now; `_full` files say it, with others give it by \
             --timestep",
            run.result().values(STUDENT_TIMESTEP)[0]
        );
    }
    let card = out.join("README.md");
    let words = model_card(config, run.step(), validation);
    write_file(&card, words.as_bytes())?;
    eprintln!("wrote {}", card.display());
    Ok(())
}
