//! What can go wrong in an evaluation.

use std::io;
use std::path::{Path, PathBuf};

use crate::archive::ArchiveError;
use crate::checkpoint::{CheckpointError, WriteError};
use crate::extractor::ExtractError;
use crate::graph::ReadError;
use crate::image::ImageError;
use crate::matching::MatchError;

/// An evaluation that failed.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A file or folder of the data set is not there.
    #[error("{}: is missing; {expected}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// What should be there.
        expected: String,
    },
    /// A file of the data set cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file of the data set does not say what it should.
    #[error("{}: found {found}, expected {expected}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// A picture cannot be read or fitted.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Features cannot be made.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// A tensor cannot be read.
    #[error(transparent)]
    Tensor(#[from] ReadError),
    /// Maps cannot be matched.
    #[error("{item}: {source}")]
    Match {
        /// The item that was being evaluated.
        item: String,
        /// Why.
        source: MatchError,
    },
    /// Stored features cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Results of other settings are in the way.
    #[error(
        "{}: holds results of other settings: `{key}` is {found}, now it would be {expected}; \
         choose another folder, or --overwrite",
        path.display()
    )]
    OtherSettings {
        /// The file with the results.
        path: PathBuf,
        /// The setting.
        key: String,
        /// What it was.
        found: String,
        /// What it would be.
        expected: String,
    },
    /// A tap that the source does not give.
    #[error("{image}: there are no features `{tap}`, only {known}")]
    NoTap {
        /// The picture.
        image: String,
        /// What was asked for.
        tap: String,
        /// What there is.
        known: String,
    },
    /// Two results that are not of the same question.
    #[error("{0}")]
    Incomparable(String),
    /// A setting that this task or protocol cannot follow.
    #[error("{0}")]
    Unsuitable(String),
    /// The run was asked to stop; what was done is kept.
    #[error("stopped; run the same command again to go on")]
    Stopped,
}

impl EvalError {
    /// A file of the data set that does not say what it should.
    pub fn malformed(path: &Path, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Malformed {
            path: path.to_owned(),
            found: found.into(),
            expected: expected.into(),
        }
    }

    /// A file or folder of the data set that is not there.
    pub fn missing(path: &Path, expected: impl Into<String>) -> Self {
        Self::Missing {
            path: path.to_owned(),
            expected: expected.into(),
        }
    }

    /// A matching error with the item it happened at.
    pub fn matching(item: &str) -> impl Fn(MatchError) -> Self {
        move |source| Self::Match {
            item: item.to_owned(),
            source,
        }
    }
}

impl From<ArchiveError> for EvalError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Missing { path, expected } => {
                Self::missing(&path, format!("expected {expected}"))
            }
            ArchiveError::Read { path, source } => Self::Read { path, source },
            ArchiveError::Malformed {
                path,
                found,
                expected,
            } => Self::malformed(&path, found, expected),
        }
    }
}
