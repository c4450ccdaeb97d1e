//! A training run's metrics: files that grow while it runs, and a plot of its losses in the end.

use std::path::{Path, PathBuf};

use cleandift::checkpoint::write_file;
use cleandift::eval::report::{Lines, Series};
use cleandift::eval::statistics::Interval;
use cleandift::train::Event;
use cleandift::train::log::{self, Log};

use crate::failure::Failure;

/// Where a run's metrics go.
pub struct Metrics {
    folder: PathBuf,
    /// None after a failure: a full disk must not end the training.
    log: Option<Log>,
}

/// Points of a curve.
const POINTS: usize = 60;

impl Metrics {
    /// Metrics in a run's folder, after `step`.
    pub fn open(folder: &Path, step: u64) -> Result<Self, Failure> {
        Ok(Self {
            folder: folder.to_owned(),
            log: Some(Log::open(folder, step)?),
        })
    }

    /// Writes what happened; a failure is told once.
    pub fn record(&mut self, event: &Event) {
        let Some(log) = &mut self.log else { return };
        if let Err(error) = log.write(event) {
            eprintln!("warning: {error}; metrics are not written any more");
            self.log = None;
        }
    }

    /// Draws the losses over the steps into `loss.svg`.
    pub fn draw(&self) -> Result<(), Failure> {
        let curves = log::curves(&self.folder)?;
        let totals = curves.iter().filter_map(|(name, curve)| {
            let name = name.strip_suffix("/total")?;
            let name = if name == "loss" { "training" } else { name };
            Some(series(name, curve))
        });
        let lines = Lines {
            title: "Loss",
            axis: "step",
            names: Vec::new(),
            series: totals.collect(),
            words: &|value| format!("{value:.4}"),
        };
        let path = self.folder.join("loss.svg");
        Ok(write_file(&path, lines.draw().svg().as_bytes())?)
    }
}

/// A curve as means of neighbouring steps.
fn series(name: &str, curve: &[(u64, f64)]) -> Series {
    let together = curve.len().div_ceil(POINTS).max(1);
    let mean = |part: &[(u64, f64)]| {
        let count = part.len() as f64;
        let step = part.iter().map(|(step, _)| *step as f64).sum::<f64>() / count;
        let value = part.iter().map(|(_, value)| value).sum::<f64>() / count;
        let interval = Interval {
            value,
            low: value,
            high: value,
        };
        (step, interval)
    };
    Series {
        name: name.to_owned(),
        points: curve.chunks(together).map(mean).collect(),
        level: false,
    }
}
