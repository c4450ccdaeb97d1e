//! The commands that look at machines and models, run as a person runs them.

mod bench;
mod doctor;
mod inspect;
mod reconstruct;
mod sample;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program, on the machine's own choice of kernels.
fn cleandift() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cleandift"));
    command.env_remove("CLEANDIFT_KERNELS");
    command
}

/// A golden file of the library: see its `tests/golden/README.md`.
fn golden(path: &str) -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    crates.join("cleandift/tests/golden").join(path)
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The only line that begins with `start`, cut into words, without the start.
fn words<'o>(output: &'o Output, start: &str) -> Vec<&'o str> {
    let mut lines = stdout(output)
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix(start));
    let line = lines.next().unwrap_or_else(|| panic!("no line `{start}`"));
    assert_eq!(lines.next(), None, "several lines `{start}`");
    line.split_whitespace().collect()
}
