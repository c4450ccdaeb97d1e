//! What a run needs, before it starts: memory, disk, time.

use std::path::Path;
use std::time::Instant;

use cleandift::engine::cpu::Processor;
use cleandift::train::finetune::{Finetune, FinetuneConfig};

use crate::failure::{Ending, Failure};
use crate::training::{gradients_in_words, print_needs, print_time};

/// The share of the processor's peak that a step reaches, about; Winograd's algorithms need fewer
/// multiplications than are counted.
const SHARE_OF_PEAK: f64 = 0.6;

/// Prints what the config asks for, and does nothing.
pub fn print(
    config: &FinetuneConfig,
    finetune: &Finetune,
    processor: &Processor,
    pictures: usize,
    out: &Path,
) -> Result<Ending, Failure> {
    let estimate = finetune.estimate(config.data.canvas(), config.data.batch, &config.optimiser)?;
    let gradients = gradients_in_words(config.optimiser.is_fused());
    let memory = [
        (
            "student and heads: trained parameters, f32",
            estimate.parameters,
        ),
        ("Adam's moments", estimate.moments),
        ("the parameters' average", estimate.average),
        (gradients, estimate.gradients),
        ("teacher", estimate.teacher),
        ("codec and text encoder", estimate.encoders),
        ("values and gradients of a pass", estimate.arena),
        ("the teacher's features", estimate.targets),
    ];
    print_needs(
        &memory,
        estimate.memory(),
        estimate.state,
        config.run.keep,
        out,
    );
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
    Ok(Ending::Complete)
}

/// Multiply-adds a second of all threads together, at most.
fn peak(processor: &Processor) -> f64 {
    const ROUNDS: usize = 1 << 19;
    let tasks = 8 * processor.threads();
    let sample = || {
        let begun = Instant::now();
        let done = processor.install(|| processor.kernels().multiply_adds(tasks, ROUNDS));
        done as f64 / begun.elapsed().as_secs_f64()
    };
    (0..3).map(|_| sample()).fold(0.0, f64::max)
}
