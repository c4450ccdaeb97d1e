//! `pretrain`: a small diffusion model from nothing.

mod plan;

use std::sync::Arc;

use cleandift::checkpoint::Dtype;
use cleandift::engine::cpu::Processor;
use cleandift::extractor::Model;
use cleandift::graph::check;
use cleandift::hub;
use cleandift::train::data::{Classes, Dataset};
use cleandift::train::pretrain::{Diffusion, PretrainConfig, initial, parameters_of, write_model};
use cleandift::train::{self, Masters, Plan, config, state};

use crate::failure::{Ending, Failure};
use crate::source;
use crate::training::{self, Pictures, TrainingArguments};

/// Trains until all steps are made, or until it is interrupted.
pub fn run(arguments: &TrainingArguments) -> Result<Ending, Failure> {
    let config: PretrainConfig = arguments.config()?;
    config.check()?;
    let processor = Processor::from_env(arguments.threads)?;
    let (training, held_out, classes) = pictures(&config)?;
    let mut objective = Diffusion::new(&config, Arc::clone(&classes), &processor);
    if arguments.dry_run {
        return plan::print(&config, objective, training, &arguments.output);
    }
    plan::needs(&config, &objective).check(&arguments.output)?;
    let plan = Plan {
        optimiser: config.optimiser,
        schedule: config.schedule,
        run: config.run.clone(),
        config: config::to_json(&config),
        sources: training::sources([&training, &held_out], &[])?,
        out: arguments.output.clone(),
    };
    let mut run = arguments.start(plan, &processor, || first_values(&config, &objective))?;
    let _lock = arguments.lock()?;
    let validation = config.data.validation_batches(&held_out);
    training::warn_of_unreadable(&validation);
    let measured = validation.iter().map(|batch| batch.samples.len());
    eprintln!(
        "{} pictures in {} classes, {} to validate with; {:.1} million parameters",
        training.len(),
        classes.names().len(),
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
    let (steps, out) = (config.run.steps, &arguments.output);
    let (ending, _) = training::go(&mut run, &mut objective, pictures, steps, out)?;
    let model = out.join("model");
    write_model(&model, &config, &classes, run.result(), Dtype::F32)?;
    eprintln!("the model is in {}", model.display());
    Ok(match ending {
        train::Ending::Finished => Ending::Complete,
        train::Ending::Stopped => Ending::Interrupted,
    })
}

/// Pictures to train on, those to validate with, and their classes.
fn pictures(config: &PretrainConfig) -> Result<(Dataset, Dataset, Arc<Classes>), Failure> {
    let (training, held_out) = config.data.open(config.seed, &hub::Settings::from_env)?;
    let classes = match &config.model.classes {
        Some(list) => Classes::open(list)?,
        None => Classes::of_names(&training)?,
    };
    training::warn_of_damage([&training, &held_out]);
    let training = training.classified(&classes)?;
    Ok((training, held_out.classified(&classes)?, Arc::new(classes)))
}

/// The parameters to begin with: drawn, or those of a model or a state.
fn first_values(config: &PretrainConfig, objective: &Diffusion) -> Result<Masters, Failure> {
    let graph = objective.graph(config.model.latent(config.data.size));
    let Some(from) = &config.model.from else {
        let parameters = graph.parameters().into_iter();
        return Ok(Masters::new(parameters.map(|parameter| {
            let values = initial(parameter, config.seed);
            (parameter.name.clone(), parameter.shape.clone(), values)
        })));
    };
    let masters = match state::is_state(from) {
        true => state::State::read_parameters(from)?,
        false => parameters_of(&Model::open(&source::checkpoint(from, None)?)?)?,
    };
    let found = check(&[&graph], &masters);
    match found.misshaped.first() {
        None if found.missing.is_empty() => Ok(masters),
        None => Err(Failure::new(format!(
            "{}: `{}` is missing: it is another model",
            from.display(),
            found.missing[0]
        ))),
        Some(wrong) => Err(Failure::new(format!(
            "{}: `{}` is {:?}, expected {:?}: it is another model, or has other classes",
            from.display(),
            wrong.name,
            wrong.found,
            wrong.expected
        ))),
    }
}
