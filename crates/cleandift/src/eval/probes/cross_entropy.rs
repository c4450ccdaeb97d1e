//! Classes as a probe's target.

use rayon::prelude::*;

use super::Objective;

/// The mean negative logarithm of the probability that a softmax of the outputs gives to the true
/// class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrossEntropy {
    classes: usize,
}

impl CrossEntropy {
    /// For this many classes.
    pub fn new(classes: usize) -> Self {
        Self { classes }
    }
}

impl Objective for CrossEntropy {
    type Target = u8;

    fn outputs(&self) -> usize {
        self.classes
    }

    fn loss(&self, _step: usize, logits: &[f32], targets: &[u8]) -> (f64, Vec<f32>) {
        let scale = 1.0 / targets.len() as f64;
        let mut gradient = vec![0.0; logits.len()];
        let losses: Vec<f64> = gradient
            .par_chunks_exact_mut(self.classes)
            .zip(logits.par_chunks_exact(self.classes))
            .zip(targets)
            .map(|((gradient, logits), &target)| {
                softmax_loss(logits, target.into(), scale, gradient)
            })
            .collect();
        // Summed in order, whatever thread they came from.
        let total: f64 = losses.iter().sum();
        (total * scale, gradient)
    }
}

/// The negative logarithm of the probability of `target`; `scale` times its gradient goes into
/// `gradient`.
pub(super) fn softmax_loss(logits: &[f32], target: usize, scale: f64, gradient: &mut [f32]) -> f64 {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let power = |logit: f32| f64::from(logit - highest).exp();
    let sum: f64 = logits.iter().map(|&logit| power(logit)).sum();
    for (index, (slope, &logit)) in gradient.iter_mut().zip(logits).enumerate() {
        let known = f64::from(u8::from(index == target));
        *slope = (scale * (power(logit) / sum - known)) as f32;
    }
    sum.ln() - f64::from(logits[target] - highest)
}

/// The class of the highest output of each cell; of equal ones the first.
pub fn classes(logits: &[f32], outputs: usize) -> Vec<usize> {
    let highest = |cell: &[f32]| {
        let mut best = 0;
        for (index, logit) in cell.iter().enumerate() {
            if *logit > cell[best] {
                best = index;
            }
        }
        best
    };
    logits.chunks_exact(outputs).map(highest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits 0 and ln 3 give the probabilities 1/4 and 3/4.
    #[test]
    fn a_case_computed_by_hand() {
        let objective = CrossEntropy::new(2);
        let logits = [0.0, 3f32.ln(), 0.0, 3f32.ln()];
        let (loss, gradient) = objective.loss(0, &logits, &[0, 1]);
        let expected = (4f64.ln() + (4.0f64 / 3.0).ln()) / 2.0;
        assert!((loss - expected).abs() < 1e-6, "{loss}");
        for (found, expected) in gradient.iter().zip([-0.375, 0.375, 0.125, -0.125]) {
            assert!((found - expected).abs() < 1e-6, "{gradient:?}");
        }
    }

    #[test]
    fn of_equal_outputs_the_first_wins() {
        assert_eq!(classes(&[1.0, 1.0, 0.0, 0.0, 2.0, 2.0], 3), [0, 1]);
    }
}
