//! `cleandift models verify`: every weight of a model is read.

use std::path::PathBuf;

use clap::Args;
use cleandift::extractor::{self, PartReport};
use cleandift::graph::Parameters;

use crate::failure::{Ending, Failure};
use crate::source;

/// What to verify.
#[derive(Args)]
pub struct VerifyArguments {
    /// A model in any layout, or its name
    model: PathBuf,

    /// A Stable Diffusion folder for what the model lacks
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,

    /// The SHA-256 that one of its files must have
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
}

/// Runs the command: prints what holds, and fails with what does not.
pub fn run(arguments: &VerifyArguments) -> Result<Ending, Failure> {
    let checkpoint = source::checkpoint(&arguments.model, arguments.base.as_deref())?;
    let mut sound = true;
    for report in extractor::inspect(&checkpoint) {
        let wrong = faults(&report)?;
        sound &= wrong.is_empty();
        let verdict = match wrong.is_empty() {
            true => "fits, all values finite".to_owned(),
            false => wrong.join("; "),
        };
        println!(
            "{}: {} tensors: {verdict}",
            report.part,
            report.weights.len()
        );
    }

    let hash = checkpoint.sha256()?;
    for file in &hash.files {
        println!("{}  {}", file.sha256, file.path.display());
    }
    println!(
        "{}  all of them, as manifests and reports name the weights",
        hash.combined
    );
    if let Some(expected) = &arguments.sha256 {
        let is_there = |hash: &str| hash.eq_ignore_ascii_case(expected);
        if !hash.files.iter().any(|file| is_there(&file.sha256)) {
            return Err(Failure::new(format!(
                "{}: no file has the SHA-256 {expected}: it is damaged, or another one",
                arguments.model.display()
            )));
        }
    }
    match sound {
        true => Ok(Ending::Complete),
        false => Err(Failure::new(format!(
            "{}: cannot be trusted: see above",
            arguments.model.display()
        ))),
    }
}

/// What is wrong with a part: tensors that do not fit, and the first value of each tensor that is
/// not finite.
fn faults(report: &PartReport) -> Result<Vec<String>, Failure> {
    let mut faults = Vec::new();
    match &report.check {
        Err(error) => faults.push(error.to_string()),
        Ok(check) => {
            faults.extend(
                check
                    .missing
                    .iter()
                    .map(|name| format!("`{name}` is missing")),
            );
            faults.extend(check.misshaped.iter().map(|wrong| {
                format!(
                    "`{}` is {:?}, expected {:?}",
                    wrong.name, wrong.found, wrong.expected
                )
            }));
        }
    }
    let misshaped = |name: &str| {
        let check = report.check.as_ref().ok();
        check.is_some_and(|check| check.misshaped.iter().any(|wrong| wrong.name == name))
    };
    for name in report.weights.names() {
        // What has another shape may be of any size, and is of no use.
        if misshaped(name) {
            continue;
        }
        if let Some(index) = report.weights.first_non_finite(name)? {
            faults.push(format!(
                "`{name}` has a value that is not finite at index {index}"
            ));
        }
    }
    Ok(faults)
}
