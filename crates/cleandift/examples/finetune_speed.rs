//! How long a step of CleanDIFT's fine-tuning takes on a Stable Diffusion 2.1 with random weights:
//!
//! ```text
//! cargo run --release --example finetune_speed -- [--size 256] [--timesteps 3] [--runs 3] \
//!     [--threads 0] [--keep] [--repeat] [--adam]
//! ```
//!
//! `--keep` keeps all values for the way back, as PyTorch does by itself, instead of computing blocks
//! again; `--repeat` computes the student once per timestep, as the published trainer does, instead of
//! once per picture; `--adam` changes all parameters as their gradients come, which takes three
//! times their memory. Printed is one line of JSON: seconds of each run, the updates apart, and the
//! most memory that the process had. A first run warms up: it prepares the teacher's weights.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cleandift::checkpoint::Published;
use cleandift::engine::cpu::Processor;
use cleandift::extractor::Model;
use cleandift::image::{Extent, Pixels};
use cleandift::train::Objective;
use cleandift::train::data::{Batch, Sample};
use cleandift::train::finetune::{Finetune, FinetuneConfig, Text};
use cleandift::train::optimiser::{Optimiser, OptimiserConfig};

struct Arguments {
    size: usize,
    timesteps: usize,
    runs: usize,
    threads: usize,
    keep: bool,
    repeat: bool,
    adam: bool,
}

impl Arguments {
    fn read() -> Result<Self, Box<dyn Error>> {
        let mut read = Self {
            size: 256,
            timesteps: 3,
            runs: 3,
            threads: 0,
            keep: false,
            repeat: false,
            adam: false,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || arguments.next().unwrap_or_default().parse::<usize>();
            match argument.as_str() {
                "--size" => read.size = number()?,
                "--timesteps" => read.timesteps = number()?,
                "--runs" => read.runs = number()?,
                "--threads" => read.threads = number()?,
                "--keep" => read.keep = true,
                "--repeat" => read.repeat = true,
                "--adam" => read.adam = true,
                other => return Err(format!("unknown argument `{other}`").into()),
            }
        }
        Ok(read)
    }
}

/// Pictures of waves with these numbers.
fn batch(size: usize, pictures: u64) -> Batch {
    let values = (0..size * size * 3).map(|i| (i as f32 * 0.013).sin());
    let pixels = Pixels::new(Extent::new(size, size), values.collect());
    let sample = |number| Sample {
        number,
        pixels: pixels.clone(),
        caption: None,
    };
    Batch {
        first: 0,
        samples: (0..pictures).map(sample).collect(),
        skipped: Vec::new(),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read()?;
    let mut config = FinetuneConfig::default();
    config.objective.text = Text::None;
    config.objective.recompute = !arguments.keep;
    // As many pairs of student and teacher either way.
    let (pictures, timesteps) = match arguments.repeat {
        true => (arguments.timesteps, 1),
        false => (1, arguments.timesteps),
    };
    config.objective.timesteps = timesteps;
    let batch = batch(arguments.size, pictures as u64);
    let processor = Processor::from_env(arguments.threads)?;
    let model = Model::random_like(Published::Sd21, 1);
    let mut finetune = Finetune::new(model, config.design()?, &processor)?;
    let masters = Arc::new(finetune.masters()?);
    let optimiser = OptimiserConfig::default();
    let rate = optimiser.rate;
    let mut optimiser = Optimiser::new(optimiser, processor.kernels(), BTreeMap::new());
    let (mut seconds, mut updates) = (Vec::new(), Vec::new());
    for run in 0..=arguments.runs as u64 {
        let mut update = Duration::ZERO;
        let begun = Instant::now();
        let mut sink = |name: &str, gradient: &[f32]| {
            if arguments.adam {
                let begun = Instant::now();
                optimiser.apply(&masters, name, gradient, run + 1, rate);
                update += begun.elapsed();
            }
        };
        finetune.run(&masters, &batch, &mut sink)?;
        if run > 0 {
            seconds.push((begun.elapsed() - update).as_secs_f64());
            updates.push(update.as_secs_f64());
        }
    }
    let report = serde_json::json!({
        "kernels": processor.kernels().name(), "threads": processor.threads(),
        "size": arguments.size, "timesteps": arguments.timesteps,
        "keep": arguments.keep, "repeat": arguments.repeat,
        "seconds": seconds, "adam_seconds": updates, "peak_bytes": peak(),
    });
    println!("{report}");
    Ok(())
}

/// The most memory that the process had, where the system tells it.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(1024 * kibibytes)
}
