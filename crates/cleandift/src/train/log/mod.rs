//! What a run leaves for people and programs to read: a line of JSON for each event, and the same
//! numbers as TensorBoard reads them.

mod curves;
mod lines;
mod tensorboard;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub use curves::curves;

use super::{Event, Losses};

/// The lines' file in a run's folder.
pub const METRICS: &str = "metrics.jsonl";

/// Metrics that cannot be written, or read again.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}: {source}", path.display())]
pub struct LogError {
    path: PathBuf,
    what: &'static str,
    source: io::Error,
}

/// The files that a run's metrics go to.
#[derive(Debug)]
pub struct Log {
    lines: Growing,
    board: Growing,
}

impl Log {
    /// Opens [`METRICS`] and a new file for TensorBoard in a run's folder, which is made if need be.
    /// A run that goes on after `step` keeps what was written up to there; what a killed run wrote
    /// later will be written again.
    ///
    /// # Errors
    /// If the files cannot be read or written.
    pub fn open(folder: &Path, step: u64) -> Result<Self, LogError> {
        std::fs::create_dir_all(folder).map_err(cannot(folder, "cannot be made"))?;
        let path = folder.join(METRICS);
        lines::forget_after(&path, step).map_err(cannot(&path, "cannot be gone on with"))?;
        let lines = Growing::open(path)?;
        let now = seconds_since_1970();
        let name = format!("events.out.tfevents.{:010}.cleandift.{step}", now as u64);
        let mut board = Growing::open(folder.join(name))?;
        board.write(&tensorboard::beginning(now, step))?;
        Ok(Self { lines, board })
    }

    /// Writes what happened.
    ///
    /// # Errors
    /// If a file cannot be written, for example because the disk is full.
    pub fn write(&mut self, event: &Event) -> Result<(), LogError> {
        self.lines.write(lines::line(event).as_bytes())?;
        let (step, numbers) = numbers(event);
        if !numbers.is_empty() {
            let now = seconds_since_1970();
            self.board
                .write(&tensorboard::scalars(now, step, &numbers))?;
        }
        Ok(())
    }
}

/// A file that grows.
#[derive(Debug)]
struct Growing {
    path: PathBuf,
    file: File,
}

impl Growing {
    fn open(path: PathBuf) -> Result<Self, LogError> {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(cannot(&path, "cannot be written"))?;
        Ok(Self { path, file })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), LogError> {
        let written = self.file.write_all(bytes);
        written.map_err(cannot(&self.path, "cannot be written"))
    }
}

fn cannot(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> LogError {
    let path = path.to_owned();
    move |source| LogError { path, what, source }
}

fn seconds_since_1970() -> f64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// The step of an event, and its numbers by the names that plots have.
fn numbers(event: &Event) -> (u64, Vec<(String, f64)>) {
    let named = |group: &str, losses: &Losses| -> Vec<(String, f64)> {
        let parts = losses.parts.iter();
        let parts = parts.map(|(name, loss)| (format!("{group}/{name}"), *loss));
        std::iter::once((format!("{group}/total"), losses.total))
            .chain(parts)
            .collect()
    };
    match event {
        Event::Step {
            step,
            losses,
            rate,
            norm,
            samples,
            time,
        } => {
            let mut numbers = named("loss", losses);
            numbers.push(("rate".to_owned(), *rate));
            numbers.extend(norm.map(|norm| ("gradient norm".to_owned(), norm)));
            let speed = *samples as f64 / time.as_secs_f64();
            numbers.push(("images per second".to_owned(), speed));
            (*step, numbers)
        }
        Event::Validation {
            step,
            losses,
            averaged,
        } => {
            let mut numbers = named("validation", losses);
            let averaged = averaged.as_ref();
            numbers.extend(
                averaged
                    .into_iter()
                    .flat_map(|losses| named("averaged", losses)),
            );
            (*step, numbers)
        }
        Event::Saved { step, .. } => (*step, Vec::new()),
        Event::Skipped { step, total, .. } => {
            (*step, vec![("pictures left out".to_owned(), *total as f64)])
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn step(step: u64, loss: f64) -> Event {
        Event::Step {
            step,
            losses: Losses {
                total: loss,
                parts: vec![("us6".to_owned(), loss / 2.0)],
            },
            rate: 0.5,
            norm: None,
            samples: 4,
            time: Duration::from_millis(500),
        }
    }

    #[test]
    fn a_run_that_goes_on_writes_each_step_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 0).unwrap();
        (1..=3).for_each(|n| log.write(&step(n, n as f64)).unwrap());
        drop(log);
        let path = folder.path().join(METRICS);
        // Killed while it wrote.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"event\":\"st").unwrap();
        let mut log = Log::open(folder.path(), 2).unwrap();
        log.write(&step(3, 7.0)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = "\
            {\"event\":\"step\",\"step\":1,\"loss/total\":1.0,\"loss/us6\":0.5,\"rate\":0.5,\
            \"images per second\":8.0}\n\
            {\"event\":\"step\",\"step\":2,\"loss/total\":2.0,\"loss/us6\":1.0,\"rate\":0.5,\
            \"images per second\":8.0}\n\
            {\"event\":\"step\",\"step\":3,\"loss/total\":7.0,\"loss/us6\":3.5,\"rate\":0.5,\
            \"images per second\":8.0}\n";
        assert_eq!(text, expected);
        let curves = curves(folder.path()).unwrap();
        assert_eq!(curves["loss/us6"], [(1, 0.5), (2, 1.0), (3, 3.5)]);
    }

    /// Linux's `/dev/full` answers every write as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_told_of() {
        let mut sink = Growing::open("/dev/full".into()).unwrap();
        let error = sink.write(b"x").unwrap_err().to_string();
        assert!(
            error.starts_with("/dev/full: cannot be written: "),
            "{error}"
        );
    }
}
