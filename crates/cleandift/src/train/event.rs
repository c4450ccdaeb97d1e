//! What a run tells those who watch it.

use std::path::PathBuf;
use std::time::Duration;

use super::Losses;

/// Something that happened in a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A step was made.
    Step {
        /// Its number, from 1.
        step: u64,
        /// The mean losses of its samples, before the step.
        losses: Losses,
        /// The learning rate that it was made with.
        rate: f64,
        /// The norm of all gradients, if it was needed for clipping.
        norm: Option<f64>,
        /// Samples in it.
        samples: usize,
        /// How long it took.
        time: Duration,
    },
    /// The losses of the validation pictures, with fixed noise.
    Validation {
        /// After which step.
        step: u64,
        /// Their means with the parameters as they are.
        losses: Losses,
        /// Their means with the averaged parameters, if there are any.
        averaged: Option<Losses>,
    },
    /// The state was written.
    Saved {
        /// After which step.
        step: u64,
        /// The folder.
        path: PathBuf,
    },
    /// Pictures that could not be read were left out since the last step.
    Skipped {
        /// In which step.
        step: u64,
        /// How many of the run's pictures could not be read so far.
        total: u64,
        /// The last one, and why.
        last: String,
    },
}
