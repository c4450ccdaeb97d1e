//! What a run needs, before it starts: memory and disk as they are known, time as a pass takes it.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cleandift::train::data::{Batches, Dataset};
use cleandift::train::pretrain::{Diffusion, PretrainConfig};
use cleandift::train::{Masters, Objective};

use super::first_values;
use crate::failure::{Ending, Failure};
use crate::training::{gradients_in_words, print_needs, print_time};

/// Prints what the config asks for. One batch is run, and nothing is changed or written.
pub fn print(
    config: &PretrainConfig,
    mut objective: Diffusion,
    dataset: Dataset,
    out: &Path,
) -> Result<Ending, Failure> {
    let data = &config.data;
    let estimate = objective.estimate(
        config.model.latent(data.size),
        data.batch,
        &config.optimiser,
    );
    let gradients = gradients_in_words(config.optimiser.is_fused());
    let memory = [
        ("parameters", estimate.parameters),
        ("Adam's moments", estimate.moments),
        ("the parameters' average", estimate.average),
        (gradients, estimate.gradients),
        ("values and gradients of a pass", estimate.arena),
    ];
    print_needs(
        &memory,
        estimate.memory(),
        estimate.state,
        config.run.keep,
        out,
    );
    let (pictures, passes) = (dataset.len(), config.optimiser.accumulate);
    let masters = Arc::new(first_values(config, &objective)?);
    let seconds = passes as f64 * pass(config, &mut objective, &masters, dataset)?;
    let in_step = passes * data.batch;
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
