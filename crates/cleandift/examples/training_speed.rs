//! How long the way forth and back through a U-Net takes, with random weights:
//!
//! ```text
//! cargo run --release --example training_speed -- [LATENT] [THREADS] [BATCH] [WORD..]
//! ```
//!
//! LATENT is the side of the latent (32), THREADS their number (0: all of the machine's), BATCH the
//! images of a step (1). The network is Stable Diffusion 2.1's U-Net with its 865.9 million
//! parameters. The loss is the squared distance of its output from a random target; all parameters
//! have a gradient. Printed are the seconds of each way, and a table by kinds of operation; the first
//! step warms up and is not printed. Words:
//!
//! * `tiny`: a small network, which learns from pictures of 64 x 64 (LATENT 16, BATCH 64);
//! * `keep`: everything is kept between the ways instead of computing blocks again;
//! * `adam`: the weights are changed as their gradients come, with both moments in memory;
//! * `interactive`: a step for each line on the standard input, its seconds as JSON
//!   (`benches/peers`).

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
        heads: [Some(3), Some(6), Some(8), None],
        mid_heads: 9,
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

/// A network with its weights, and what goes in.
struct Training {
    program: TrainingProgram,
    masters: Arc<Masters>,
    inputs: [(&'static str, Tensor<f32>); 4],
    /// Where `adam` is wanted.
    optimiser: Option<Optimiser>,
}

impl Training {
    fn new(arguments: &Arguments) -> Result<Self, Box<dyn Error>> {
        let (config, tokens) = match arguments.has("tiny") {
            true => (tiny(), 1),
            false => (sd21(), 77),
        };
        let [side, threads, batch] = [(0, 32), (1, 0), (2, 1)].map(|(place, default)| {
            let number = arguments.numbers.get(place);
            number.copied().unwrap_or(default)
        });
        let recompute = match arguments.has("keep") {
            true => Recompute::Nothing,
            false => Recompute::Blocks,
        };
        let graph = graph(&config, side, tokens);
        let processor = Processor::from_env(threads)?;
        let program = TrainingProgram::compile(&processor, &graph, batch, |_| true, recompute);
        eprintln!(
            "latent {side}x{side}, batch {batch}, {}, {} threads, arena {:.2} GB",
            processor.kernels().name(),
            processor.threads(),
            program.arena_bytes() as f64 / 1e9
        );
        let latent = wave(batch, Shape::map(side, side, config.in_channels));
        let text = wave(batch, Shape::tokens(tokens, config.cross_attention_dim));
        let timestep = Tensor::new(batch, Shape::vector(1), vec![261.0; batch]);
        Ok(Self {
            masters: Arc::new(random_masters(&graph)),
            optimiser: arguments.has("adam").then(|| {
                let adam = OptimiserConfig::default();
                Optimiser::new(adam, processor.kernels(), BTreeMap::new())
            }),
            program,
            inputs: [
                (LATENT, latent.clone()),
                (TARGET, latent),
                (TEXT, text),
                (TIMESTEP, timestep),
            ],
        })
    }

    fn step(&mut self) -> Result<Times, Box<dyn Error>> {
        let mut times = Times::default();
        let mut reversed = false;
        let (mut forward, mut table) = (Duration::ZERO, BTreeMap::new());
        let mut observer = |node: &Node, phase: Phase, time: Duration| {
            reversed |= phase == Phase::Backward;
            let phase = match (phase, reversed) {
                (Phase::Backward, _) => "backward",
                (_, false) => "forward",
                (_, true) => "again",
            };
            forward += if reversed { Duration::ZERO } else { time };
            let row: &mut (usize, Duration) = table.entry((kind(node), phase)).or_default();
            *row = (row.0 + 1, row.1 + time);
        };
        let mut sink = |name: &str, gradient: &[f32]| {
            if let Some(optimiser) = &mut self.optimiser {
                let start = Instant::now();
                optimiser.apply(&self.masters, name, gradient, 1, 1e-5);
                times.updates += start.elapsed();
            }
        };
        let parameters: Arc<dyn Parameters> = self.masters.clone();
        let inputs = self.inputs.each_ref().map(|(name, tensor)| (*name, tensor));
        let start = Instant::now();
        let program = &self.program;
        let losses = program.run_observed(&parameters, &inputs, &mut sink, &mut observer)?;
        times.whole = start.elapsed();
        times.loss = losses[0].1.data[0];
        (times.forward, times.table) = (forward, table);
        Ok(times)
    }
}

/// How long a step took.
#[derive(Default)]
struct Times {
    loss: f32,
    whole: Duration,
    forward: Duration,
    updates: Duration,
    /// How many nodes of a kind there are in a phase, and their time.
    table: BTreeMap<(String, &'static str), (usize, Duration)>,
}

impl Times {
    fn print(self) {
        let backward = self.whole - self.forward - self.updates;
        println!(
            "loss {:.6}: forward {:.2} s, backward {:.2} s, updates {:.2} s, together {:.2} s",
            self.loss,
            self.forward.as_secs_f64(),
            backward.as_secs_f64(),
            self.updates.as_secs_f64(),
            self.whole.as_secs_f64()
        );
        let mut rows: Vec<_> = self.table.into_iter().collect();
        rows.sort_by_key(|(_, (_, time))| std::cmp::Reverse(*time));
        for ((kind, phase), (count, time)) in rows {
            let seconds = time.as_secs_f64();
            println!("{kind:28} {phase:8} {count:4} times {seconds:8.3} s");
        }
    }
}

struct Arguments {
    words: Vec<String>,
    numbers: Vec<usize>,
}

impl Arguments {
    fn read() -> Result<Self, Box<dyn Error>> {
        let known = ["tiny", "keep", "adam", "interactive"];
        let (words, numbers): (Vec<_>, Vec<_>) = std::env::args()
            .skip(1)
            .partition(|argument| known.contains(&argument.as_str()));
        let numbers = numbers.iter().map(|number| number.parse::<usize>());
        let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { words, numbers })
    }

    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|found| found == word)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::read()?;
    let mut training = Training::new(&arguments)?;
    training.step()?;
    if arguments.has("interactive") {
        println!("{{}}");
        for _ in std::io::stdin().lines() {
            let seconds = training.step()?.whole.as_secs_f64();
            println!("{{\"forward and backward\": {seconds}}}");
        }
    } else {
        training.step()?.print();
    }
    Ok(())
}
