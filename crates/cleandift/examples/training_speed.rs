//! How long the way forth and back through a U-Net takes, with random weights:
//!
//! ```text
//! cargo run --release --example training_speed -- [LATENT] [THREADS] [BATCH] [tiny] [keep] [adam]
//! ```
//!
//! LATENT is the side of the latent (32), THREADS their number (0: all of the machine's), BATCH the
//! images of a step (1), `keep` keeps everything between the ways instead of computing blocks again,
//! `adam` changes the weights as their gradients come: with both moments, three times the weights'
//! memory. The network is Stable Diffusion 2.1's U-Net with its 865.9 million parameters, or a small
//! one that learns from pictures of 64 x 64 (`tiny`: LATENT 16, BATCH 64). The loss is the squared
//! distance of the U-Net's output from a random target; all parameters have a gradient. Printed are
//! the arena's size, the seconds of each way, and a table by kinds of operation. The first of two
//! runs warms up and is not printed.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cleandift::engine::cpu::{Phase, Processor, Recompute, TrainingProgram};
use cleandift::graph::{Builder, Distance, Graph, Node, Operation, Parameters, Shape, Tensor};
use cleandift::networks::config::UnetConfig;
use cleandift::networks::random;
use cleandift::networks::unet::{self, LATENT, SAMPLE, TEXT, TIMESTEP};
use cleandift::train::Masters;
use cleandift::train::optimiser::{Optimiser, OptimiserConfig};

/// Name of the map that the U-Net's output is compared with.
const TARGET: &str = "target";

/// Random values for all of a graph's parameters.
fn random_masters(graph: &Graph) -> Masters {
    let parameters = graph.parameters().into_iter();
    Masters::new(parameters.map(|parameter| {
        let values = random::values(parameter, 1);
        (parameter.name.clone(), parameter.shape.clone(), values)
    }))
}

/// A U-Net on 4 x 4 pixels a cell, conditioned on one token.
fn tiny() -> UnetConfig {
    UnetConfig {
        in_channels: 48,
        out_channels: 48,
        channels: [48, 96, 128, 144],
        heads: [Some(2), Some(4), Some(4), None],
        mid_heads: 4,
        cross_attention_dim: 128,
        groups: 16,
        epsilon: 1e-5,
        linear_projection: true,
        sample_size: 16,
    }
}

/// Stable Diffusion 2.1's U-Net.
fn sd21() -> UnetConfig {
    UnetConfig {
        in_channels: 4,
        out_channels: 4,
        channels: [320, 640, 1280, 1280],
        heads: [Some(5), Some(10), Some(20), None],
        mid_heads: 20,
        cross_attention_dim: 1024,
        groups: 32,
        epsilon: 1e-5,
        linear_projection: true,
        sample_size: 96,
    }
}

fn graph(config: &UnetConfig, side: usize, tokens: usize) -> Graph {
    let mut b = Builder::new();
    let latent = Shape::map(side, side, config.in_channels);
    let x = b.input(LATENT, latent);
    let timestep = b.input(TIMESTEP, Shape::vector(1));
    let text = b.input(TEXT, Shape::tokens(tokens, config.cross_attention_dim));
    unet::build(&mut b, config, x, timestep, text);
    let sample = b.find_output(SAMPLE).expect("a U-Net has an output");
    let target = b.input(TARGET, latent);
    let loss = b.distance(sample, target, Distance::Squared);
    b.output("loss", loss);
    // Of the U-Net's outputs none but the loss is to be differentiated.
    cleandift::graph::prune(&b.finish(), &["loss"]).expect("the loss is an output")
}

fn wave(images: usize, shape: Shape) -> Tensor<f32> {
    let values = (0..images * shape.size()).map(|i| (i as f32 * 12.9898).sin());
    Tensor::new(images, shape, values.collect())
}

/// What the table has a row for.
fn kind(node: &Node) -> String {
    match &node.operation {
        Operation::Convolution { kernel, stride, .. } => {
            format!("convolution {kernel}x{kernel}, stride {stride}")
        }
        operation => {
            let words = format!("{operation:?}");
            let end = words.find([' ', '(']).unwrap_or(words.len());
            words[..end].to_owned()
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words = ["tiny", "keep", "adam"];
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let mut numbers = arguments.iter().filter(|a| !words.contains(&a.as_str()));
    let side: usize = numbers.next().map_or(Ok(32), |number| number.parse())?;
    let threads: usize = numbers.next().map_or(Ok(0), |number| number.parse())?;
    let batch: usize = numbers.next().map_or(Ok(1), |number| number.parse())?;
    let recompute = if has("keep") {
        Recompute::Nothing
    } else {
        Recompute::Blocks
    };

    let (config, tokens) = if has("tiny") {
        (tiny(), 1)
    } else {
        (sd21(), 77)
    };
    let graph = graph(&config, side, tokens);
    let processor = Processor::from_env(threads)?;
    let program = TrainingProgram::compile(&processor, &graph, batch, |_| true, recompute);
    println!(
        "latent {side}x{side}, batch {batch}, {}, {} threads, arena {:.2} GB",
        processor.kernels().name(),
        processor.threads(),
        program.arena_bytes() as f64 / 1e9
    );
    let masters = Arc::new(random_masters(&graph));
    let parameters: Arc<dyn Parameters> = masters.clone();
    let timestep = Tensor::new(batch, Shape::vector(1), vec![261.0; batch]);
    let latent = wave(batch, Shape::map(side, side, config.in_channels));
    let text = wave(batch, Shape::tokens(tokens, config.cross_attention_dim));
    let inputs = [
        (LATENT, &latent),
        (TARGET, &latent),
        (TEXT, &text),
        (TIMESTEP, &timestep),
    ];

    let adam = OptimiserConfig::default();
    let mut optimiser = Optimiser::new(adam, processor.kernels(), BTreeMap::new());
    for run in 0..2 {
        let mut table: BTreeMap<(String, &str), (usize, Duration)> = BTreeMap::new();
        let mut forward = Duration::ZERO;
        let mut reversed = false;
        let mut observer = |node: &Node, phase: Phase, time: Duration| {
            reversed |= phase == Phase::Backward;
            let phase = match (phase, reversed) {
                (Phase::Backward, _) => "backward",
                (_, false) => "forward",
                (_, true) => "again",
            };
            forward += if reversed { Duration::ZERO } else { time };
            let row = table.entry((kind(node), phase)).or_default();
            *row = (row.0 + 1, row.1 + time);
        };
        let mut updates = Duration::ZERO;
        let mut sink = |name: &str, gradient: &[f32]| {
            if has("adam") {
                let start = Instant::now();
                optimiser.apply(&masters, name, gradient, 1, 1e-5);
                updates += start.elapsed();
            }
        };
        let start = Instant::now();
        let losses = program.run_observed(&parameters, &inputs, &mut sink, &mut observer)?;
        let whole = start.elapsed();
        if run == 0 {
            continue;
        }
        println!(
            "loss {:.6}: forward {:.2} s, backward {:.2} s, updates {:.2} s, together {:.2} s",
            losses[0].1.data[0],
            forward.as_secs_f64(),
            (whole - forward - updates).as_secs_f64(),
            updates.as_secs_f64(),
            whole.as_secs_f64()
        );
        let mut rows: Vec<_> = table.into_iter().collect();
        rows.sort_by_key(|(_, (_, time))| std::cmp::Reverse(*time));
        for ((kind, phase), (count, time)) in rows {
            println!(
                "{kind:28} {phase:8} {count:4} times {:8.3} s",
                time.as_secs_f64()
            );
        }
    }
    Ok(())
}
