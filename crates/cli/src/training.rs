//! What commands that train have in common: configs, folders with states, and progress.

use std::path::Path;
use std::time::{Duration, Instant};

use cleandift::train::{Event, Losses, config, state};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::machine;
use crate::table::Table;

/// Reads a config file, with overrides of the command line.
pub fn read_config<C>(path: &Path, overrides: &[String]) -> Result<C, Failure>
where
    C: Default + Serialize + DeserializeOwned,
{
    let name = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::new(format!("{name}: {error}")))?;
    Ok(config::read(&name, &text, overrides)?)
}

/// Fails if there is a run in the folder already.
pub fn refuse_states(out: &Path) -> Result<(), Failure> {
    match state::states(out)?.pop() {
        None => Ok(()),
        Some((step, _)) => Err(Failure::new(format!(
            "{}: holds a run that made {step} steps: go on with --resume, or write elsewhere",
            out.display()
        ))),
    }
}

const GIB: f64 = (1u64 << 30) as f64;

/// What a run needs, before it starts: memory part by part, in bytes, and all of it; then the disk
/// for its states.
pub fn print_needs(
    memory: &[(&str, usize)],
    together: usize,
    state: usize,
    keep: usize,
    out: &Path,
) {
    let gib = |bytes: usize| bytes as f64 / GIB;
    let mut table = Table::new(1, ["memory", "GiB"]);
    for (name, bytes) in memory.iter().chain([&("together", together)]) {
        table.row([(*name).to_owned(), format!("{:.2}", gib(*bytes))]);
    }
    println!("{table}");
    println!(
        "available:   {:.2} GiB",
        machine::available_memory() as f64 / GIB
    );
    println!(
        "disk:        {:.2} GiB a state, {:.2} GiB for {keep} of them and the next{}",
        gib(state),
        gib((keep + 1) * state),
        machine::free_disk(out).map_or(String::new(), |free| {
            format!(", {:.2} GiB are free", free as f64 / GIB)
        }),
    );
}

/// How gradients are held, in words.
pub fn gradients_in_words(fused: bool) -> &'static str {
    match fused {
        true => "gradients: applied one by one",
        false => "gradients: all at once, for clipping or accumulation",
    }
}

/// Lines for whatever happens; steps are told ten times a minute at most.
pub struct Progress {
    steps: Option<u64>,
    told: Option<Instant>,
    /// Since the last line: steps' losses, samples, and the time they took.
    losses: Vec<Losses>,
    samples: usize,
    time: Duration,
}

impl Progress {
    /// For a run of so many steps.
    pub fn new(steps: Option<u64>) -> Self {
        Self {
            steps,
            told: None,
            losses: Vec::new(),
            samples: 0,
            time: Duration::ZERO,
        }
    }

    /// Tells of what happened.
    pub fn show(&mut self, event: &Event) {
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
                eprintln!("{total} pictures left out so far, the last: {last}");
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
