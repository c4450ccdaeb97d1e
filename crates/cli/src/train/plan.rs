//! What a run needs, before it starts: memory, disk, time.

use std::path::Path;

use cleandift::engine::cpu::Processor;
use cleandift::train::finetune::{Estimate, FinetuneConfig};

use crate::failure::Ending;
use crate::machine::{ROUNDS, TASKS, multiply_adds};
use crate::training::{Needs, print_time};

/// The share of the processor's peak that a step reaches, about; Winograd's algorithms need fewer
/// multiplications than are counted.
const SHARE_OF_PEAK: f64 = 0.6;

/// Memory and disk of a run by its estimate.
pub fn needs(config: &FinetuneConfig, estimate: &Estimate) -> Needs {
    let passes = [
        ("teacher", estimate.teacher),
        ("codec and text encoder", estimate.encoders),
        ("values and gradients of a pass", estimate.arena),
        ("the teacher's features", estimate.targets),
    ];
    let keep = config.run.keep;
    Needs::new(
        estimate.footprint,
        &passes,
        estimate.memory(),
        &config.optimiser,
        keep,
    )
}

/// Prints what the config asks for, and does nothing.
pub fn print(
    config: &FinetuneConfig,
    estimate: &Estimate,
    processor: &Processor,
    pictures: usize,
    out: &Path,
) -> Ending {
    needs(config, estimate).print(out);
    let passes = config.optimiser.accumulate;
    let in_step = passes * config.data.batch;
    let adds = estimate.multiply_adds * passes as u64;
    let rate = SHARE_OF_PEAK * peak(processor);
    let seconds = adds as f64 / rate;
    println!(
        "a step:      {in_step} pictures, {:.1} GMAC, about {seconds:.1} s",
        adds as f64 / 1e9
    );
    print_time(config.run.steps, in_step, pictures, seconds);
    println!(
        "trained:     {:.2} million values",
        estimate.trained as f64 / 1e6
    );
    println!("nothing was done (--dry-run)");
    Ending::Complete
}

/// Multiply-adds a second of all threads together, at most.
fn peak(processor: &Processor) -> f64 {
    let tasks = TASKS * processor.threads();
    let samples = (0..3).map(|_| multiply_adds(processor, tasks, ROUNDS));
    samples.fold(0.0, f64::max)
}
