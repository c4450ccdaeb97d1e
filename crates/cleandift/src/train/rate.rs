//! The learning rate of each step: it rises, stays, and falls.

use serde::{Deserialize, Serialize};

/// How the rate falls at a run's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fall {
    /// By as much with every step.
    Linear,
    /// Along half a wave of the cosine: slowly at first and at last.
    Cosine,
}

/// The learning rate over the steps of a run: `warmup` steps up, then constant, then `decay` steps
/// down to zero. A run of unknown length has no decay; any of its states can be decayed from later.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Steps in which the rate rises from nothing: the k-th step, from 0, has `k / warmup` of it,
    /// the first none.
    #[serde(default)]
    pub warmup: u64,
    /// Steps at the end of the run in which it falls to nothing; 0: it stays. If they are all that
    /// follow the warm-up, this is the usual cosine (or linear) schedule.
    #[serde(default)]
    pub decay: u64,
    /// How it falls.
    #[serde(default = "Schedule::cosine")]
    pub fall: Fall,
}

impl Schedule {
    fn cosine() -> Fall {
        Fall::Cosine
    }

    /// What the rate is multiplied by in the step after `done` others, in a run of `steps` (or of
    /// unknown length, then without an end).
    pub fn factor(&self, done: u64, steps: Option<u64>) -> f64 {
        let up = if done < self.warmup {
            done as f64 / self.warmup as f64
        } else {
            1.0
        };
        let start = steps.map_or(u64::MAX, |steps| steps.saturating_sub(self.decay));
        let down = match done.checked_sub(start) {
            Some(since) if self.decay > 0 => {
                let share = (since as f64 / self.decay as f64).min(1.0);
                match self.fall {
                    Fall::Linear => 1.0 - share,
                    Fall::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * share).cos()),
                }
            }
            _ => 1.0,
        };
        up * down
    }
}

impl Default for Schedule {
    /// Constant from the first step on.
    fn default() -> Self {
        Self {
            warmup: 0,
            decay: 0,
            fall: Fall::Cosine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_stays_and_falls() {
        let schedule = |fall| Schedule {
            warmup: 4,
            decay: 4,
            fall,
        };
        let factors = |fall, steps| {
            let factor = |done| schedule(fall).factor(done, steps);
            (0..12).map(factor).collect::<Vec<_>>()
        };
        let rising = [0.0, 0.25, 0.5, 0.75];
        let expected = [rising, [1.0; 4], [1.0, 0.75, 0.5, 0.25]].concat();
        assert_eq!(factors(Fall::Linear, Some(12)), expected);
        let expected = [rising, [1.0; 4], [1.0; 4]].concat();
        assert_eq!(factors(Fall::Linear, None), expected);
        let cosine = factors(Fall::Cosine, Some(12));
        // (1 + cos(pi / 4)) / 2 and the like.
        for (found, expected) in cosine[8..].iter().zip([1.0, 0.853_553, 0.5, 0.146_447]) {
            assert!((found - expected).abs() < 1e-6, "{cosine:?}");
        }
    }

    #[test]
    fn a_constant_rate_is_constant() {
        let schedule = Schedule::default();
        assert_eq!(schedule.factor(0, Some(10)), 1.0);
        assert_eq!(schedule.factor(9, Some(10)), 1.0);
    }
}
