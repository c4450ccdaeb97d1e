//! `cleandift extract`: features of many pictures, kept as files.

mod inputs;
mod plan;
mod progress;
mod report;
mod run;
mod settings;

pub use settings::mode_words;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cleandift::features::store::{Format, Store};

use crate::arguments::{FeatureArguments, ModelArguments, Storage, parse_positive};
use crate::failure::{Ending, Failure};
use crate::source::Source;
use inputs::Job;
use run::Run;

/// Extract features from pictures
#[derive(Args, Debug)]
pub struct ExtractArguments {
    /// Pictures, folders of pictures, patterns such as 'a/*.jpg', lists (.txt, one path a line),
    /// or - for a list on standard input
    #[arg(required = true)]
    inputs: Vec<PathBuf>,

    /// The folder for the features; outputs mirror paths inside an input folder
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Prompts of single pictures: lines of path, tab, prompt; the others get --prompt
    #[arg(long, value_name = "FILE", conflicts_with = "prompt_embeds")]
    prompt_file: Option<PathBuf>,

    /// One vector per tap instead of a map
    #[arg(long, value_name = "HOW")]
    pool: Option<Pool>,

    /// Keep these beside the features, in f32
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    also: Vec<Also>,

    /// How values are stored
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    dtype: Storage,

    /// Pictures that go through the network together
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = parse_positive)]
    batch_size: usize,

    /// safetensors, npy or npz
    #[arg(long, value_name = "FORMAT", default_value = "safetensors")]
    format: Format,

    /// Do only part I of N, counted from 0
    #[arg(long, value_name = "I/N", value_parser = parse_shard)]
    shard: Option<Shard>,

    /// Leave finished outputs alone (this is the default)
    #[arg(long, conflicts_with = "overwrite")]
    resume: bool,

    /// Make all outputs anew
    #[arg(long)]
    overwrite: bool,

    /// Say what would be done, and what it needs, and do nothing
    #[arg(long)]
    dry_run: bool,

    /// One JSON object a line on standard output
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    features: FeatureArguments,
}

/// How a map becomes a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pool {
    /// The mean over all cells.
    Mean,
}

/// What may be kept beside features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Also {
    /// The clean, scaled latent [c, h, w].
    #[value(name = "latents")]
    Latents,
    /// The prompt's embeddings [tokens, d].
    #[value(name = "prompt_embeds")]
    PromptEmbeds,
}

impl Also {
    /// The tensor's name.
    fn name(self) -> &'static str {
        match self {
            Self::Latents => "latents",
            Self::PromptEmbeds => "prompt_embeds",
        }
    }
}

/// A part of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shard {
    index: usize,
    count: usize,
}

fn parse_shard(text: &str) -> Result<Shard, String> {
    let shard = text.split_once('/').and_then(|(index, count)| {
        Some(Shard {
            index: index.parse().ok()?,
            count: count.parse().ok()?,
        })
    });
    match shard {
        Some(shard) if shard.index < shard.count => Ok(shard),
        _ => Err("expected I/N with I from 0 to N-1, e.g. 0/4".to_owned()),
    }
}

/// Runs the command.
pub fn run(arguments: &ExtractArguments) -> Result<Ending, Failure> {
    if arguments.dtype == Storage::Bf16 && arguments.format != Format::Safetensors {
        return Err(Failure::new(format!(
            "{} has no bf16: take --dtype f16 or f32, or --format safetensors",
            arguments.format
        )));
    }
    let all = inputs::gather(arguments)?;
    let (source, extractor) = arguments.model.extractor(arguments.features.request()?)?;
    announce(&source, &extractor, arguments);
    let size = arguments.features.size(&extractor);
    size.check_multiple(extractor.multiple())?;
    let store = Store::new(arguments.output.clone(), arguments.format);
    let names = settings::tensor_names(arguments, &extractor);
    let output = |job: &Job| (job.stem.clone(), names.clone());
    let everything: Vec<_> = all.iter().map(output).collect();
    let jobs: Vec<Job> = match arguments.shard {
        None => all,
        Some(Shard { index, count }) => all.into_iter().skip(index).step_by(count).collect(),
    };
    let finished = match arguments.overwrite {
        true => vec![false; jobs.len()],
        false => finished(&store, &jobs, &names),
    };
    let left = finished.iter().filter(|done| !**done).count();
    let extractor = extractor.expecting(left);
    if arguments.dry_run {
        return plan::print(arguments, &source, &extractor, &jobs, &finished);
    }
    let manifest = settings::manifest(arguments, &source, &extractor)?;
    match arguments.overwrite {
        true => store.replace(&manifest, &everything)?,
        false => manifest.settle(&arguments.output)?,
    }
    plan::check_resources(arguments, &extractor, left)?;
    Run::new(arguments, &extractor, store, &manifest).all(jobs, &finished)
}

/// Which jobs have their features already: whole files, made from a picture of the same length. A
/// picture that was changed, or another one with the same name, is extracted anew.
fn finished(store: &Store, jobs: &[Job], names: &[String]) -> Vec<bool> {
    let outputs: Vec<_> = jobs
        .iter()
        .map(|job| (job.stem.clone(), names.to_vec()))
        .collect();
    let known = store.finished(&outputs).into_iter().zip(jobs);
    let of_this_picture = known.map(|(known, job)| {
        known.is_some_and(|known| known.get(run::PICTURE_BYTES) == run::length(&job.path).as_ref())
    });
    of_this_picture.collect()
}

/// Tells a person what will be run.
fn announce(
    source: &Source,
    extractor: &cleandift::extractor::Extractor,
    arguments: &ExtractArguments,
) {
    if let Some(warning) = source.warning() {
        eprintln!("note: {warning}");
    }
    let taps: Vec<&str> = extractor.groups().iter().map(|g| g.name()).collect();
    eprintln!("model: {}, {}", source.name(), extractor.role().words());
    eprintln!(
        "{}; canvas {}, {}, {}; taps {}; kernels {}, {} threads",
        settings::mode_words(extractor),
        arguments.features.size(extractor),
        arguments.features.resize,
        arguments.features.resample,
        taps.join(", "),
        extractor.processor().kernels().name(),
        extractor.processor().threads(),
    );
}
