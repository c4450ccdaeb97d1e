//! How far a run is: a bar on a terminal, a line now and then elsewhere, JSON for machines.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// Shows the progress of a run.
pub struct Progress {
    bar: Option<ProgressBar>,
    json: bool,
    total: usize,
    done: usize,
    begun: Instant,
    said: Instant,
}

/// Lines elsewhere than on a terminal come that often.
const INTERVAL: Duration = Duration::from_secs(10);

impl Progress {
    /// For `total` pictures; with `json` every event is an object on standard output.
    pub fn new(total: usize, json: bool) -> Self {
        let bar = (std::io::stderr().is_terminal() && !json).then(|| {
            let style = "{wide_bar} {pos}/{len}  {per_sec}  {eta} left";
            let style = ProgressStyle::with_template(style).expect("the template is well formed");
            ProgressBar::new(total as u64).with_style(style)
        });
        let now = Instant::now();
        Self {
            bar,
            json,
            total,
            done: 0,
            begun: now,
            said: now,
        }
    }

    /// One more picture has been dealt with.
    pub fn step(&mut self) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.inc(1);
        } else if !self.json && self.said.elapsed() >= INTERVAL {
            self.said = Instant::now();
            let rate = self.done as f64 / self.begun.elapsed().as_secs_f64();
            let left = (self.total - self.done) as f64 / rate;
            eprintln!(
                "{} of {}, {rate:.2} a second, {left:.0} s left",
                self.done, self.total
            );
        }
    }

    /// An event for machines.
    pub fn event(&self, event: &Value) {
        if self.json {
            println!("{event}");
        }
    }

    /// A line for people, above the bar.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
