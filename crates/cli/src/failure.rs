//! How a command ends, in words and as an exit code.

use std::fmt;
use std::process::ExitCode;

/// Why a command could not do its work, in words for a person: what happened, where, what to do.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// A failure in these words.
    pub fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

/// Every error of the library is worded for people already; its causes follow after colons, unless
/// the words before hold them.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut words = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let next = error.to_string();
            if !words.contains(&next) {
                words = format!("{words}: {next}");
            }
            cause = error.source();
        }
        Self(words)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything was done.
    Complete,
    /// It ran to the end, and some inputs failed.
    SomeFailed,
    /// It was interrupted and left whole files only.
    Interrupted,
}

impl From<Ending> for ExitCode {
    /// 0, 3 and 130; 1 is for a [`Failure`], 2 for wrong arguments.
    fn from(ending: Ending) -> Self {
        ExitCode::from(match ending {
            Ending::Complete => 0,
            Ending::SomeFailed => 3,
            Ending::Interrupted => 130,
        })
    }
}
