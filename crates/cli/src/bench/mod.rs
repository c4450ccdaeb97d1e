//! `cleandift bench`: what a model costs on this machine, stage by stage and layer by layer, and
//! how near that is to what the machine allows.

mod limits;
mod print;
mod report;
mod stage;
mod work;

use std::io::{BufRead, Write};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use cleandift::checkpoint::Published;
use cleandift::engine::cpu::Profile;
use cleandift::extractor::{Extractor, Model, Request};
use cleandift::image::Size;
use serde_json::{Value, json};

use crate::arguments::{ModelArguments, parse_positive};
use crate::failure::{Ending, Failure};
use limits::Limits;
use report::Report;
use work::Work;

/// Measure what a model costs on this machine
///
/// A model is run on built-in pictures: the first time, when weights are read and packed, is
/// told apart from the later ones. Peak and bandwidth of the machine are measured before and after.
#[derive(Args)]
pub struct BenchArguments {
    #[command(flatten)]
    model: ModelArguments,

    /// A full-size model without any file, its weights random
    #[arg(long, value_name = "MODEL", conflicts_with = "model")]
    random_weights: Option<RandomWeights>,

    /// Taps, as for `extract`
    #[arg(long, value_name = "LIST", alias = "tap")]
    taps: Option<String>,

    /// The canvas: 512, or 768x512 (width x height); default: what the model was trained at
    #[arg(long, value_name = "SIZE")]
    size: Option<Size>,

    /// Time the text encoder on this prompt; without it the text encoder is left out, and the
    /// U-Net gets zeros for its embeddings
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,

    /// Pictures in one pass
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_positive)]
    images: usize,

    /// Runs after the first one
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = parse_positive)]
    runs: usize,

    /// List every layer, not only every type of layer
    #[arg(long)]
    layers: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Wait for a line on standard input before each run after the first and answer with its
    /// seconds as a line of JSON, to alternate with other programs; the report comes at the end of
    /// the input
    #[arg(long, conflicts_with = "runs")]
    interactive: bool,
}

/// The models whose shapes are known without a file.
#[derive(Clone, Copy, ValueEnum)]
enum RandomWeights {
    /// Stable Diffusion 1.5
    Sd15,
    /// Stable Diffusion 2.1
    Sd21,
}

impl From<RandomWeights> for Published {
    fn from(model: RandomWeights) -> Self {
        match model {
            RandomWeights::Sd15 => Self::Sd15,
            RandomWeights::Sd21 => Self::Sd21,
        }
    }
}

/// Seed of the random weights: any will do.
const SEED: u64 = 0;

/// Measures and prints.
pub fn run(arguments: &BenchArguments) -> Result<Ending, Failure> {
    let profile = Arc::new(Profile::default());
    let processor = arguments.model.processor()?;
    let before = Limits::measure(&processor);
    let (name, model) = arguments.model()?;
    let request = Request {
        taps: arguments.taps.clone(),
        ..Request::default()
    };
    let timed = processor.clone().with_profile(Arc::clone(&profile));
    let extractor = Extractor::new(model, request, timed)?;
    let mut work = Work::new(&extractor, profile, arguments.size, arguments.images)?;
    work.prepare(arguments.prompt.as_deref(), arguments.runs)?;
    work.run()?;
    if arguments.interactive {
        answer_lines(&mut work)?;
    } else {
        for _ in 0..arguments.runs {
            work.run()?;
        }
    }
    let limits = before.joined(Limits::measure(&processor)).medians();
    let report = Report::new(name, &extractor, work, limits);
    match (arguments.interactive, arguments.json) {
        (true, _) => println!("{}", serde_json::to_string(&report)?),
        (_, true) => println!("{}", serde_json::to_string_pretty(&report)?),
        _ => print::report(&report, arguments.layers),
    }
    Ok(Ending::Complete)
}

impl BenchArguments {
    /// The model, and what to call it.
    fn model(&self) -> Result<(String, Model), Failure> {
        if let Some(shapes) = self.random_weights {
            let published = Published::from(shapes);
            let name = format!("{}, random weights", published.name());
            return Ok((name, Model::random_like(published, SEED)));
        }
        let source = self.model.source()?;
        Ok((source.name(), source.model()?))
    }
}

/// A run for each line of standard input, and a line for each run; the first line tells what the
/// stages give, and that all is ready.
fn answer_lines(work: &mut Work) -> Result<(), Failure> {
    let shapes = work.shapes().map(|(stage, shape)| (stage, json!(shape)));
    answer(shapes)?;
    for line in std::io::stdin().lock().lines() {
        line?;
        answer(work.run()?.map(|(stage, seconds)| (stage, json!(seconds))))?;
    }
    Ok(())
}

fn answer<const N: usize>(stages: [(&str, Value); N]) -> std::io::Result<()> {
    let stages = stages.map(|(stage, value)| (stage.to_owned(), value));
    println!("{}", Value::Object(stages.into_iter().collect()));
    std::io::stdout().flush()
}
