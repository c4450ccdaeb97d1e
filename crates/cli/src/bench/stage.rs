//! Times of one stage of an extraction, and of every layer in it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cleandift::engine::cpu::{Profile, StepTime};

use crate::failure::Failure;

/// The runs of a stage.
#[derive(Default)]
pub struct Stage {
    runs: Vec<Run>,
}

/// One run: seconds in all, and of each node of the stage's graph.
struct Run {
    seconds: f64,
    nodes: BTreeMap<usize, f64>,
}

impl Stage {
    /// Times `work`, and the steps that it leaves in `profile`.
    pub fn time<R>(
        &mut self,
        profile: &Profile,
        work: impl FnOnce() -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        profile.take();
        let begun = Instant::now();
        let result = work()?;
        let seconds = begun.elapsed().as_secs_f64();
        let mut nodes: BTreeMap<usize, f64> = BTreeMap::new();
        for StepTime { node, time } in profile.take() {
            *nodes.entry(node).or_default() += Duration::as_secs_f64(&time);
        }
        self.runs.push(Run { seconds, nodes });
        Ok(result)
    }

    /// Seconds of the last run.
    pub fn last(&self) -> Option<f64> {
        Some(self.runs.last()?.seconds)
    }

    /// Seconds of the first run, if there is one.
    pub fn first(&self) -> Option<f64> {
        Some(self.runs.first()?.seconds)
    }

    /// Seconds of all runs but the first.
    pub fn later(&self) -> Vec<f64> {
        self.later_runs().map(|run| run.seconds).collect()
    }

    /// The median over the later runs of a node's seconds.
    pub fn node(&self, node: usize) -> f64 {
        let seconds = |run: &Run| run.nodes.get(&node).copied().unwrap_or(0.0);
        median(&self.later_runs().map(seconds).collect::<Vec<_>>())
    }

    fn later_runs(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().skip(1)
    }
}

/// The middle value, or the mean of the two in the middle; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => 0.0,
        (length, middle) if length % 2 == 1 => sorted[middle],
        (_, middle) => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), 3.0);
    }

    #[test]
    fn the_first_run_is_told_apart() {
        let profile = Profile::default();
        let mut stage = Stage::default();
        for _ in 0..3 {
            stage.time(&profile, || Ok(())).unwrap();
        }
        assert_eq!(stage.later().len(), 2);
        assert_eq!(stage.last(), Some(stage.later()[1]));
        assert_eq!(stage.node(0), 0.0);
    }
}
