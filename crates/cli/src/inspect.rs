//! `cleandift models inspect`: what a model's files hold, whether they fit, and what it costs to
//! run them. No weight is read.

mod cost;
mod print;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use cleandift::checkpoint::{Checkpoint, Weights};
use cleandift::extractor::{self, Model, PartReport};
use cleandift::graph::{Check, Parameters};
use cleandift::image::Size;
use cleandift::networks::heads::HeadsConfig;
use serde::Serialize;

use crate::failure::{Ending, Failure};
use crate::source;
use cost::Cost;

/// What to inspect.
#[derive(Args)]
pub struct InspectArguments {
    /// A Stable Diffusion folder or single file, a CleanDIFT `_unet` or `_full` file, its name, or a
    /// model inside the program: tiny, tiny-base
    model: PathBuf,

    /// A Stable Diffusion folder for what the model lacks
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,

    /// The taps whose cost is counted
    #[arg(long, value_name = "LIST", default_value = "us3,us6,us10")]
    taps: String,

    /// The canvas that is counted for: 768, or 512x384 (width x height); default: what the model
    /// was trained at
    #[arg(long, value_name = "SIZE")]
    size: Option<Size>,

    /// Count each node, too
    #[arg(long)]
    nodes: bool,

    /// Print JSON, with all names
    #[arg(long)]
    json: bool,
}

/// Everything that is known about a model.
#[derive(Serialize)]
struct Report {
    model: String,
    base: Option<String>,
    kind: &'static str,
    /// The published model whose shapes the U-Net has.
    known_model: Option<&'static str>,
    /// The timestep that a full file's student runs at.
    timestep: Option<f64>,
    /// The taps that have a projection head.
    heads: Vec<String>,
    parts: Vec<PartSummary>,
    /// What is nowhere, and what to do about it.
    lacking: Option<String>,
    /// Why the model cannot be used; `None` if it can.
    unusable: Option<String>,
    /// What a picture costs, if it can be counted.
    cost: Option<Cost>,
    /// Why it cannot.
    uncounted: Option<String>,
}

/// One part, in plain data.
#[derive(Serialize)]
struct PartSummary {
    part: &'static str,
    config: Option<String>,
    tensors: usize,
    parameters: u64,
    bytes: u64,
    /// Tensors by storage type.
    storage: BTreeMap<String, usize>,
    usable: bool,
    /// Why the config cannot be used.
    error: Option<String>,
    fitting: usize,
    missing: Vec<String>,
    misshaped: Vec<Misshaped>,
    unused: Vec<String>,
}

#[derive(Serialize)]
struct Misshaped {
    name: String,
    found: Vec<usize>,
    expected: Vec<usize>,
}

/// Opens, checks, counts, prints.
pub fn run(arguments: &InspectArguments) -> Result<Ending, Failure> {
    let checkpoint = source::checkpoint(&arguments.model, arguments.base.as_deref())?;
    let mut report = report(arguments, &checkpoint);
    if arguments.json {
        if let (false, Some(cost)) = (arguments.nodes, &mut report.cost) {
            cost.forget_nodes();
        }
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print::report(&report, arguments.nodes);
    }
    match report.unusable.or(report.uncounted) {
        None => Ok(Ending::Complete),
        Some(reason) => Err(Failure::new(reason)),
    }
}

fn report(arguments: &InspectArguments, checkpoint: &Checkpoint) -> Report {
    let parts = extractor::inspect(checkpoint);
    let model = Model::open(checkpoint);
    let heads = checkpoint
        .heads()
        .map(|heads| HeadsConfig::from_weights(heads));
    // Classes need no tokenizer.
    let small = model.as_ref().is_ok_and(Model::is_small);
    let lacking = [
        checkpoint.vae().err(),
        checkpoint.text_encoder().err(),
        checkpoint.tokenizer().err().filter(|_| !small),
    ];
    let cost = cost::count(
        checkpoint,
        model.as_ref().ok(),
        &arguments.taps,
        arguments.size,
    );
    let (cost, uncounted) = match cost {
        Ok(cost) => (Some(cost), None),
        Err(failure) => (None, Some(failure.to_string())),
    };
    Report {
        model: checkpoint.path().display().to_string(),
        base: checkpoint.base().map(|base| base.display().to_string()),
        kind: checkpoint.kind().words(),
        known_model: checkpoint.known_model(),
        timestep: checkpoint.timestep(),
        heads: match &heads {
            Some(Ok(heads)) => heads.taps().map(str::to_owned).collect(),
            _ => Vec::new(),
        },
        parts: parts.iter().map(PartSummary::new).collect(),
        lacking: lacking
            .into_iter()
            .flatten()
            .next()
            .map(|error| error.to_string()),
        unusable: model.err().map(|error| Failure::from(error).to_string()),
        cost,
        uncounted,
    }
}

impl PartSummary {
    fn new(report: &PartReport) -> Self {
        let weights = &report.weights;
        let (check, error) = match &report.check {
            Ok(check) => (check.clone(), None),
            Err(error) => (Check::default(), Some(error.to_string())),
        };
        let misshaped = check.misshaped.into_iter().map(|wrong| Misshaped {
            name: wrong.name,
            found: wrong.found,
            expected: wrong.expected,
        });
        Self {
            part: report.part,
            config: report.config.as_ref().map(ToString::to_string),
            tensors: weights.len(),
            parameters: weights.parameter_count(),
            bytes: weights.bytes(),
            storage: storage(weights),
            usable: report.is_usable(),
            error,
            fitting: check.fitting,
            missing: check.missing,
            misshaped: misshaped.collect(),
            unused: check.unused,
        }
    }
}

/// How many tensors are stored in which way.
fn storage(weights: &Weights) -> BTreeMap<String, usize> {
    let mut storage = BTreeMap::new();
    let names = weights.names();
    for dtype in names.into_iter().filter_map(|name| weights.dtype(name)) {
        *storage.entry(dtype.to_string()).or_default() += 1;
    }
    storage
}
