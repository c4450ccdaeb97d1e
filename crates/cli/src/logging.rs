//! `--log`: what the program and its libraries do, line by line on standard error.

use std::sync::OnceLock;
use std::time::Instant;

use clap::ValueEnum;
use log::{LevelFilter, Log, Metadata, Record};

/// How much is told; each level includes those before it.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Level {
    /// What goes on although it should not.
    Warn,
    /// What is tried again.
    Info,
    /// Every request to a hub.
    Debug,
    /// What libraries below do, too.
    Trace,
}

/// Starts to log.
pub fn start(level: Level) {
    let filter = match level {
        Level::Warn => LevelFilter::Warn,
        Level::Info => LevelFilter::Info,
        Level::Debug => LevelFilter::Debug,
        Level::Trace => LevelFilter::Trace,
    };
    BEGUN.get_or_init(Instant::now);
    if log::set_logger(&Lines).is_ok() {
        log::set_max_level(filter);
    }
}

static BEGUN: OnceLock<Instant> = OnceLock::new();

struct Lines;

impl Log for Lines {
    /// Below `trace`, this program alone speaks.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("cleandift") || log::max_level() == LevelFilter::Trace
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let seconds = BEGUN.get_or_init(Instant::now).elapsed().as_secs_f64();
            let level = record.level().as_str().to_lowercase();
            eprintln!(
                "{seconds:9.3} {level:5} {}: {}",
                record.target(),
                record.args()
            );
        }
    }

    fn flush(&self) {}
}
