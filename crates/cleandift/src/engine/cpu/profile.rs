//! How long each step of a program takes.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// One step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepTime {
    /// The node that is computed: its place in the program's graph. What is fused with it counts
    /// for it.
    pub node: usize,
    /// From the kernel's call to its return, on all threads together.
    pub time: Duration,
}

/// Collects the times of all steps that a [`Processor`](super::Processor) runs.
#[derive(Debug, Default)]
pub struct Profile {
    steps: Mutex<Vec<StepTime>>,
}

impl Profile {
    pub(super) fn add(&self, step: StepTime) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.push(step);
    }

    /// The steps since the last call, in the order they were run.
    pub fn take(&self) -> Vec<StepTime> {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut steps)
    }
}
