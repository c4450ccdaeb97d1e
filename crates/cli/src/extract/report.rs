//! `report.json`: what was done, what was not, and why.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cleandift::checkpoint::{WriteError, write_file};
use serde::Serialize;

use super::Shard;

/// Counts, and the pictures that failed.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Pictures in all.
    pub total: usize,
    /// Pictures done in this run.
    pub done: usize,
    /// Pictures whose output was there.
    pub skipped: usize,
    /// Pictures that could not be done.
    pub failed: Vec<Failed>,
    /// Whether the run reached its end.
    pub complete: bool,
    #[serde(skip)]
    file: PathBuf,
    #[serde(skip)]
    written: Option<Instant>,
}

/// A picture that could not be done.
#[derive(Debug, Serialize)]
pub struct Failed {
    /// The picture's path.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// The report is written that often, so that little of it is lost with the run.
const INTERVAL: Duration = Duration::from_secs(5);

impl Report {
    /// The report of a run, or of one part of it.
    pub fn new(folder: &Path, shard: Option<Shard>, total: usize, skipped: usize) -> Self {
        let name = match shard {
            None => "report.json".to_owned(),
            Some(Shard { index, count }) => format!("report-{index}-of-{count}.json"),
        };
        Self {
            total,
            skipped,
            file: folder.join(name),
            ..Self::default()
        }
    }

    /// Writes the report, unless that was done a moment ago.
    pub fn write_now_and_then(&mut self) -> Result<(), WriteError> {
        match self.written {
            Some(written) if written.elapsed() < INTERVAL => Ok(()),
            _ => self.write(),
        }
    }

    /// Writes the report.
    pub fn write(&mut self) -> Result<(), WriteError> {
        self.written = Some(Instant::now());
        let text = serde_json::to_string_pretty(self).expect("a report is plain data");
        write_file(&self.file, format!("{text}\n").as_bytes())
    }
}
