//! `cleandift eval claim`: the paper's claim, tested on a base model and its fine-tunings.

mod cost;
mod plan;
mod plots;
mod trials;
mod write;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use cleandift::eval::Settings;
use cleandift::eval::claim::{Answer, Findings, Suite, answer, judge_all};
use cleandift::networks::schedule::TIMESTEPS;
use serde_json::json;

use self::trials::Models;
use super::run::Stop;
use crate::arguments::parse_threads;
use crate::eval::common::parse_size;
use crate::failure::{Ending, Failure};
use crate::stop;

/// Test the paper's claim: CleanDIFT against the base's noisy features at their best, on many tasks
#[derive(Args, Debug)]
pub struct ClaimArguments {
    /// The base: a Stable Diffusion folder, or the name of a model
    #[arg(long, value_name = "MODEL", default_value = "tiny-base")]
    base: PathBuf,

    /// The base's fine-tunings, which differ in their seed: CleanDIFT `_unet` or `_full` files,
    /// folders, or names
    #[arg(long, value_name = "MODEL", num_args = 1.., default_value = "tiny")]
    clean: Vec<PathBuf>,

    /// The folder that holds the data sets' folders
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// The folder for the findings, and for all items
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,

    /// Other tasks, timesteps and draws than the built-in ones: a TOML file of the same form
    #[arg(long, value_name = "FILE")]
    suite: Option<PathBuf>,

    /// Threads; 0 for as many as the machine has. Results don't depend on it
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = parse_threads)]
    threads: usize,

    /// Features kept in memory, in GiB at most; what does not fit is made again
    #[arg(long, value_name = "GIB", default_value_t = 2.0, value_parser = parse_size)]
    memory: f64,

    /// Forget the results in the folder
    #[arg(long)]
    overwrite: bool,

    /// Do a small part of each task, say what all of it needs, and keep nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
pub fn run(arguments: &ClaimArguments) -> Result<Ending, Failure> {
    stop::listen("picture")?;
    let suite = arguments.suite()?;
    let models = arguments.models();
    models.check()?;
    let done = match arguments.dry_run {
        true => plan::estimate(arguments, &suite, &models),
        false => arguments.test(&suite, &models),
    };
    match done {
        Ok(()) => Ok(Ending::Complete),
        Err(Stop::Asked) => {
            eprintln!("stopped; the same command goes on where this one ended");
            Ok(Ending::Interrupted)
        }
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

impl ClaimArguments {
    fn suite(&self) -> Result<Suite, Failure> {
        let Some(path) = &self.suite else {
            return Ok(Suite::published());
        };
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        let suite = Suite::parse(&text)?;
        match suite.timesteps.iter().find(|t| **t >= TIMESTEPS) {
            None => Ok(suite),
            Some(timestep) => Err(Failure::new(format!(
                "{}: `timesteps` has {timestep}, expected numbers from 0 to {}",
                path.display(),
                TIMESTEPS - 1
            ))),
        }
    }

    fn models(&self) -> Models {
        Models::new(&self.base, &self.clean, self.threads, self.memory)
    }

    /// Takes away what the suite's tasks have left in the folder.
    fn forget(&self, suite: &Suite) -> Result<(), Stop> {
        let tasks = suite.tasks.iter().map(|task| self.output.join(&task.name));
        let kept = [trials::ITEMS, trials::CHOOSING, super::run::PROBES];
        let folders = tasks.flat_map(|task| kept.map(|name| task.join(name)));
        for folder in folders.filter(|folder| folder.exists()) {
            fs::remove_dir_all(folder)?;
        }
        Ok(())
    }

    fn test(&self, suite: &Suite, models: &Models) -> Result<(), Stop> {
        let begun = Instant::now();
        if self.overwrite {
            self.forget(suite)?;
        }
        fs::create_dir_all(&self.output)?;
        let mut answers: Vec<Answer> = Vec::new();
        for (place, entry) in suite.tasks.iter().enumerate() {
            let folder = self.output.join(&entry.name);
            let contest = entry.open(&self.data, &folder.join(super::run::PROBES))?;
            eprintln!(
                "{} ({} of {}): {} pictures, {:.0} min since the beginning",
                entry.name,
                place + 1,
                suite.tasks.len(),
                contest.images().len(),
                begun.elapsed().as_secs_f64() / 60.0
            );
            let found = trials::run(suite, &contest, models, &folder)?;
            let floors = trials::floors(&contest, models, &folder)?;
            answers.push(answer(&contest, &found.base, &found.clean, &floors)?);
        }
        judge_all(&mut answers);
        let findings = Findings {
            cleandift: env!("CARGO_PKG_VERSION").to_owned(),
            base: models.base_settings()?,
            clean: models.clean_settings()?,
            suite: suite.clone(),
            answers,
        };
        let figures = cost::figures(self, &findings, models)?;
        Ok(write::all(self, &findings, &figures, begun.elapsed())?)
    }
}

/// A model as a report names it.
fn described(origin: &crate::source::Source) -> Result<Settings, Failure> {
    Ok(super::candidates::settings([
        ("model", json!(origin.short_name())),
        ("weights_sha256", json!(origin.hash()?)),
    ]))
}
