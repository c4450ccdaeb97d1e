//! What commands that train have in common: configs, folders with states, and progress.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use cleandift::checkpoint::Checkpoint;
use cleandift::engine::cpu::Processor;
use cleandift::train::data::{Batch, Batches, Dataset, Settings};
use cleandift::train::finetune::Export;
use cleandift::train::log::METRICS;
use cleandift::train::optimiser::{Footprint, OptimiserConfig};
use cleandift::train::state::{self, Sources};
use cleandift::train::{Ending, Event, Losses, Masters, Objective, Plan, Run, config};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::arguments::parse_threads;
use crate::failure::Failure;
use crate::machine::{self, GIB};
use crate::metrics::Metrics;
use crate::source;
use crate::stop;
use crate::table::Table;

/// What to train, and where to.
#[derive(Args)]
pub struct TrainingArguments {
    /// What to train, and how: a TOML file; models/tiny has one for each command
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,

    /// Folder for the run's states and the result
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,

    /// Change a value of the config: optimiser.rate=1e-4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub overrides: Vec<String>,

    /// Go on from the last state in the folder, if there is one
    #[arg(long)]
    pub resume: bool,

    /// Say what the run needs in memory, disk and time, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Threads; 0 for as many as the machine has. Results don't depend on it
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = parse_threads,
        allow_negative_numbers = true)]
    pub threads: usize,
}

impl TrainingArguments {
    /// The config file, with the overrides.
    pub fn config<C>(&self) -> Result<C, Failure>
    where
        C: Default + Serialize + DeserializeOwned,
    {
        let name = self.config.display().to_string();
        let text = fs::read_to_string(&self.config)
            .map_err(|error| Failure::new(format!("{name}: {error}")))?;
        Ok(config::read(&name, &text, &self.overrides)?)
    }

    /// Keeps other runs out of the folder as long as what is returned lives. File systems that cannot
    /// lock files are taken as they are.
    pub fn lock(&self) -> Result<File, Failure> {
        let out = self.output.display();
        let path = self.output.join(".lock");
        let made = fs::create_dir_all(&self.output).and_then(|()| File::create(&path));
        let file = made.map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(Failure::new(format!(
                "{out}: another run is writing there: wait for it, or write elsewhere"
            ))),
            Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
        }
    }

    /// A run from the last state in the folder, if it is to go on and there is one; else from
    /// `first` values.
    pub fn start(
        &self,
        plan: Plan,
        processor: &Processor,
        first: impl FnOnce() -> Result<Masters, Failure>,
    ) -> Result<Run, Failure> {
        if !self.resume {
            refuse_states(&self.output)?;
        } else if let Some(run) = Run::resume(plan.clone(), processor.kernels())? {
            eprintln!("going on after step {}", run.step());
            return Ok(run);
        }
        refuse_results(&self.output, self.resume)?;
        Ok(Run::new(plan, first()?, processor.kernels()))
    }
}

/// Fails if there is a run in the folder already.
fn refuse_states(out: &Path) -> Result<(), Failure> {
    match state::states(out)?.pop() {
        None => Ok(()),
        Some((step, _)) => Err(Failure::new(format!(
            "{}: holds a run that made {step} steps: go on with --resume, or write elsewhere",
            out.display()
        ))),
    }
}

/// What a run writes beside its states.
const RESULTS: [&str; 6] = [
    "README.md",
    METRICS,
    Export::Folder.file_name(),
    Export::Full.file_name(),
    Export::Lora.file_name(),
    Export::Unet.file_name(),
];

/// Fails if the folder of a new run has what it would write over. A run that is to go on, and was broken
/// off before its first state, has left its losses.
fn refuse_results(out: &Path, resume: bool) -> Result<(), Failure> {
    let mut results = RESULTS.iter().filter(|name| !resume || **name != METRICS);
    match results.find(|name| out.join(name).exists()) {
        None => Ok(()),
        Some(name) => Err(Failure::new(format!(
            "{}: holds {name}, which a run writes: take it away, or write elsewhere",
            out.display()
        ))),
    }
}

/// What a run learns from, for its states: its pictures by name, its models by weights.
pub fn sources(
    [training, held_out]: [&Dataset; 2],
    models: &[(&str, &Checkpoint)],
) -> Result<Sources, Failure> {
    let pictures = [
        ("pictures", training),
        ("pictures to validate with", held_out),
    ];
    let mut sources = Sources::from(pictures.map(|(name, set)| (name.to_owned(), set.identity())));
    for (name, checkpoint) in models {
        let hash = source::hash(checkpoint)?;
        sources.insert((*name).to_owned(), hash[..16].to_owned());
    }
    Ok(sources)
}

/// Tells of archives that are not whole.
pub fn warn_of_damage(parts: [&Dataset; 2]) {
    for damage in parts.into_iter().flat_map(Dataset::damage) {
        eprintln!("warning: {damage}: what is whole of it is used");
    }
}

/// Tells of pictures to validate with that cannot be read.
pub fn warn_of_unreadable(validation: &[Batch]) {
    let skipped: Vec<&String> = validation.iter().flat_map(|b| &b.skipped).collect();
    if let Some(last) = skipped.last() {
        eprintln!(
            "warning: pictures to validate with that are left out: {}; the last: {last}",
            skipped.len()
        );
    }
}

/// What a run learns from.
pub struct Pictures {
    /// To train on.
    pub training: Dataset,
    /// How they become batches.
    pub settings: Settings,
    /// To validate with.
    pub validation: Vec<Batch>,
}

/// Makes a run's steps until all are made or it is interrupted, and tells of them; how it ended, and
/// the last losses of validation, of the parameters that are used in the end.
pub fn go(
    run: &mut Run,
    objective: &mut dyn Objective,
    pictures: Pictures,
    steps: Option<u64>,
    out: &Path,
) -> Result<(Ending, Option<Losses>), Failure> {
    let mut batches = Batches::new(Arc::new(pictures.training), pictures.settings);
    stop::listen("step")?;
    let mut progress = Progress::new(steps);
    let mut metrics = Metrics::open(out, run.step())?;
    let mut last = None;
    let ending = run.go(
        objective,
        &mut batches,
        &pictures.validation,
        stop::flag(),
        &mut |event| {
            progress.show(event);
            metrics.record(event);
            if let Event::Validation {
                losses, averaged, ..
            } = event
            {
                last = Some(averaged.as_ref().unwrap_or(losses).clone());
            }
        },
    )?;
    metrics.draw()?;
    Ok((ending, last))
}

/// What a run needs, known before it starts. Sizes are in bytes.
pub struct Needs {
    /// What the memory is for.
    parts: Vec<(&'static str, usize)>,
    memory: usize,
    /// A state on the disk.
    state: usize,
    /// States that are kept.
    keep: usize,
}

impl Needs {
    /// What steps keep and what `passes` over a batch need; `memory` is all of it.
    pub fn new(
        footprint: Footprint,
        passes: &[(&'static str, usize)],
        memory: usize,
        optimiser: &OptimiserConfig,
        keep: usize,
    ) -> Self {
        let gradients = match optimiser.is_fused() {
            true => "gradients: applied one by one",
            false => "gradients: all at once, for clipping or accumulation",
        };
        let mut parts = vec![
            ("trained parameters, f32", footprint.parameters),
            ("Adam's moments", footprint.moments),
            ("the parameters' average", footprint.average),
            (gradients, footprint.gradients),
        ];
        parts.extend(passes);
        Self {
            parts,
            memory,
            state: footprint.state(),
            keep,
        }
    }

    /// Fails if there is too little memory, or too little room for a state where the run writes.
    pub fn check(&self, out: &Path) -> Result<(), Failure> {
        let remedy = "take a smaller `data.size` or `data.batch` (--dry-run says what it is for)";
        let own = machine::resident_memory().unwrap_or_default();
        let available = machine::available_memory() + own;
        machine::check_memory(self.memory, available, remedy)?;
        match machine::free_disk(out) {
            Some(free) if free < self.state as u64 => Err(Failure::new(format!(
                "{}: a state of this run takes {:.2} GiB, {:.2} GiB are free: choose another disk, or make \
                 room",
                out.display(),
                self.state as f64 / GIB,
                free as f64 / GIB
            ))),
            _ => Ok(()),
        }
    }

    /// Prints them beside what there is.
    pub fn print(&self, out: &Path) {
        let gib = |bytes: usize| bytes as f64 / GIB;
        let mut table = Table::new(1, ["memory", "GiB"]);
        for (name, bytes) in self.parts.iter().chain([&("together", self.memory)]) {
            table.row([(*name).to_owned(), format!("{:.2}", gib(*bytes))]);
        }
        println!("{table}");
        let too_much = |needed: usize, there: u64| match needed as u64 > there {
            true => ": TOO LITTLE for this run",
            false => "",
        };
        let available = machine::available_memory();
        println!(
            "available:   {:.2} GiB{}",
            available as f64 / GIB,
            too_much(self.memory, available)
        );
        let states = (self.keep + 1) * self.state;
        println!(
            "disk:        {:.2} GiB a state, {:.2} GiB for {} of them and the next{}",
            gib(self.state),
            gib(states),
            self.keep,
            machine::free_disk(out).map_or(String::new(), |free| {
                let remark = too_much(states, free);
                format!(", {:.2} GiB are free{remark}", free as f64 / GIB)
            }),
        );
    }
}

/// How long a whole run takes, if it has an end.
pub fn print_time(steps: Option<u64>, in_step: usize, pictures: usize, seconds: f64) {
    let Some(steps) = steps else { return };
    println!(
        "the run:     {steps} steps, {:.1} times through {pictures} pictures, about {:.1} h",
        (steps * in_step as u64) as f64 / pictures as f64,
        seconds * steps as f64 / 3600.0
    );
}

/// Lines for whatever happens; steps are told ten times a minute at most.
struct Progress {
    steps: Option<u64>,
    told: Option<Instant>,
    /// Since the last line: steps' losses, samples, and the time they took.
    losses: Vec<Losses>,
    samples: usize,
    time: Duration,
}

impl Progress {
    /// For a run of so many steps.
    fn new(steps: Option<u64>) -> Self {
        Self {
            steps,
            told: None,
            losses: Vec::new(),
            samples: 0,
            time: Duration::ZERO,
        }
    }

    /// Tells of what happened.
    fn show(&mut self, event: &Event) {
        match event {
            Event::Step {
                step,
                losses,
                rate,
                norm,
                samples,
                time,
            } => {
                self.losses.push(losses.clone());
                self.samples += samples;
                self.time += *time;
                const PAUSE: Duration = Duration::from_secs(6);
                if self.told.is_none_or(|told| told.elapsed() >= PAUSE) {
                    self.step(*step, *rate, *norm);
                }
            }
            Event::Validation {
                step,
                losses,
                averaged,
            } => {
                eprintln!("step {step}: validation loss {}", in_words(losses));
                if let Some(averaged) = averaged {
                    eprintln!("step {step}: of the average {}", in_words(averaged));
                }
            }
            Event::Saved { path, .. } => eprintln!("saved {}", path.display()),
            Event::Skipped { total, last, .. } => {
                eprintln!("pictures left out so far: {total}; the last: {last}");
            }
            _ => {}
        }
    }

    fn step(&mut self, step: u64, rate: f64, norm: Option<f64>) {
        let mean = Losses::mean(self.losses.iter().map(|losses| (losses, 1.0)));
        let seconds = self.time.as_secs_f64();
        let mut words = format!(
            "step {step}: loss {}, rate {rate:.2e}, {:.1} images/s",
            in_words(&mean),
            self.samples as f64 / seconds
        );
        if let Some(norm) = norm {
            words += &format!(", gradient {norm:.3}");
        }
        if let Some(steps) = self.steps {
            let left = steps.saturating_sub(step) as f64 * seconds / self.losses.len() as f64;
            words += &format!(", {:.1} h left", left / 3600.0);
        }
        if let Some(memory) = machine::peak_memory() {
            words += &format!(", {:.2} GB", memory as f64 / 1e9);
        }
        eprintln!("{words}");
        *self = Self {
            told: Some(Instant::now()),
            ..Self::new(self.steps)
        };
    }
}

/// The total, and what it is made of.
fn in_words(losses: &Losses) -> String {
    let parts = losses.parts.iter();
    let parts: Vec<String> = parts
        .map(|(name, loss)| format!("{name} {loss:.4}"))
        .collect();
    match parts.is_empty() {
        true => format!("{:.5}", losses.total),
        false => format!("{:.5} ({})", losses.total, parts.join(" ")),
    }
}
