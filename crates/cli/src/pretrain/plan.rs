//! What a run needs, before it starts: memory and disk as they are known, time as a pass takes it.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cleandift::train::data::{Batches, Dataset};
use cleandift::train::pretrain::{Diffusion, PretrainConfig};
use cleandift::train::{Masters, Objective};

use super::first_values;
use crate::failure::{Ending, Failure};
use crate::training::{Needs, print_time};

/// Memory and disk of a run.
pub fn needs(config: &PretrainConfig, objective: &Diffusion) -> Needs {
    let latent = config.model.latent(config.data.size);
    let optimiser = &config.optimiser;
    let estimate = objective.estimate(latent, config.data.batch, optimiser);
    let passes = [("values and gradients of a pass", estimate.arena)];
    let keep = config.run.keep;
    Needs::new(
        estimate.footprint,
        &passes,
        estimate.memory(),
        optimiser,
        keep,
    )
}

/// Prints what the config asks for. One batch is run, and nothing is changed or written.
pub fn print(
    config: &PretrainConfig,
    mut objective: Diffusion,
    dataset: Dataset,
    out: &Path,
) -> Result<Ending, Failure> {
    needs(config, &objective).print(out);
    let (pictures, passes) = (dataset.len(), config.optimiser.accumulate);
    let masters = Arc::new(first_values(config, &objective)?);
    let seconds = passes as f64 * pass(config, &mut objective, &masters, dataset)?;
    let in_step = passes * config.data.batch;
    println!("a step:      {in_step} pictures, {seconds:.2} s");
    print_time(config.run.steps, in_step, pictures, seconds);
    println!("nothing was done (--dry-run)");
    Ok(Ending::Complete)
}

/// Seconds of a pass over the first batch, once everything is warm.
fn pass(
    config: &PretrainConfig,
    objective: &mut Diffusion,
    masters: &Arc<Masters>,
    dataset: Dataset,
) -> Result<f64, Failure> {
    let mut batches = Batches::new(Arc::new(dataset), config.data.batches(config.seed, 0));
    let batch = batches.next().expect("batches never end")?;
    let mut seconds = 0.0;
    for _ in 0..2 {
        let start = Instant::now();
        objective.run(masters, &batch, &mut |_, _| ())?;
        seconds = start.elapsed().as_secs_f64();
    }
    Ok(seconds)
}
