//! Depth as the mean of bins, and the loss that it is learned with.

use rayon::prelude::*;

use super::Objective;

/// Depths of evenly spaced bins: a probe's outputs, cut off below zero and raised by 0.1, are the
/// bins' weights, and the depth is their weighted mean.
///
/// That is what the probe published with CleanDIFT does (after AdaBins, arXiv 2011.14141, and
/// DINOv2): 256 bins from 0.1 m to 10 m. It is learned with the scale-invariant loss of Eigen et
/// al. (NIPS 2014) in the form that DINOv2 uses: the root of Var(g) + 0.15 mean(g)², for g the
/// difference of the logarithms of predicted and true depth. In the first 100 steps the variance
/// is left out.
#[derive(Clone, Debug, PartialEq)]
pub struct DepthBins {
    depths: Vec<f64>,
}

/// What is added to every bin's weight, so that their sum is never zero.
const FLOOR: f64 = 0.1;

/// What is added to a depth before its logarithm is taken.
const EPSILON: f64 = 1e-3;

/// The share of the mean in the loss.
const MEAN_SHARE: f64 = 0.15;

/// Steps without the variance.
const WARM_UP: usize = 100;

impl DepthBins {
    /// `count` bins from `min` to `max` metres.
    ///
    /// # Panics
    /// If there are fewer than two.
    pub fn new(min: f64, max: f64, count: usize) -> Self {
        assert!(count > 1, "at least two bins");
        let step = (max - min) / (count - 1) as f64;
        Self {
            depths: (0..count).map(|bin| min + step * bin as f64).collect(),
        }
    }

    /// The bins of the published probe.
    pub fn published() -> Self {
        Self::new(0.1, 10.0, 256)
    }

    /// Depths in metres from a probe's outputs, `[cell][bin]`.
    ///
    /// # Panics
    /// If the outputs are not whole cells.
    pub fn depths(&self, logits: &[f32]) -> Vec<f32> {
        assert_eq!(logits.len() % self.depths.len(), 0, "whole cells");
        let cells = logits.chunks_exact(self.depths.len());
        cells.map(|cell| self.depth(cell).0 as f32).collect()
    }

    /// The depth of a cell, and the sum of its bins' weights.
    fn depth(&self, logits: &[f32]) -> (f64, f64) {
        let (mut sum, mut weighted) = (0.0, 0.0);
        for (&logit, depth) in logits.iter().zip(&self.depths) {
            let weight = f64::from(logit.max(0.0)) + FLOOR;
            sum += weight;
            weighted += weight * depth;
        }
        (weighted / sum, sum)
    }
}

impl Objective for DepthBins {
    /// Metres.
    type Target = f32;

    fn outputs(&self) -> usize {
        self.depths.len()
    }

    fn loss(&self, step: usize, logits: &[f32], targets: &[f32]) -> (f64, Vec<f32>) {
        let bins = self.depths.len();
        let predicted: Vec<_> = logits
            .par_chunks_exact(bins)
            .map(|cell| self.depth(cell))
            .collect();
        let differences: Vec<f64> = predicted
            .iter()
            .zip(targets)
            .map(|((depth, _), &target)| {
                (depth + EPSILON).ln() - (f64::from(target) + EPSILON).ln()
            })
            .collect();
        let count = differences.len() as f64;
        let mean = differences.iter().sum::<f64>() / count;
        // With one cell there is no variance.
        let spread = match step >= WARM_UP && count > 1.0 {
            true => 1.0 / (count - 1.0),
            false => 0.0,
        };
        let squares: f64 = differences.iter().map(|g| (g - mean) * (g - mean)).sum();
        let loss = (spread * squares + MEAN_SHARE * mean * mean).sqrt();
        let mut gradient = vec![0.0; logits.len()];
        if loss == 0.0 {
            return (loss, gradient);
        }
        let known = predicted.par_iter().zip(&differences);
        let cells = logits.par_chunks_exact(bins).zip(known);
        gradient.par_chunks_exact_mut(bins).zip(cells).for_each(
            |(gradient, (logits, ((depth, sum), g)))| {
                let at_difference = (spread * (g - mean) + MEAN_SHARE * mean / count) / loss;
                let at_depth = at_difference / (depth + EPSILON) / sum;
                for ((slope, &logit), bin) in gradient.iter_mut().zip(logits).zip(&self.depths) {
                    if logit > 0.0 {
                        *slope = (at_depth * (bin - depth)) as f32;
                    }
                }
            },
        );
        (loss, gradient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bins at 1 and 3 m with weights 0.1 (from -5) and 0.3 (from 0.2): the mean is 2.5 m.
    #[test]
    fn a_depth_computed_by_hand() {
        let bins = DepthBins::new(1.0, 3.0, 2);
        let depths = bins.depths(&[-5.0, 0.2, 0.0, 0.0]);
        assert!((depths[0] - 2.5).abs() < 1e-6, "{depths:?}");
        assert!((depths[1] - 2.0).abs() < 1e-6, "{depths:?}");
    }

    /// A tenth too far everywhere has no variance: the loss is √0.15 ln 1.1, but for the epsilon.
    #[test]
    fn a_common_factor_costs_little() {
        let bins = DepthBins::new(1.0, 3.0, 2);
        let logits = [-5.0, 0.2, 0.0, 0.0];
        let targets = [2.5 / 1.1, 2.0 / 1.1];
        let (loss, _) = bins.loss(WARM_UP, &logits, &targets);
        assert!((loss - 0.15f64.sqrt() * 1.1f64.ln()).abs() < 1e-4, "{loss}");
    }

    /// Central differences of the loss itself, with and without the variance.
    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        let bins = DepthBins::new(0.1, 10.0, 4);
        let logits = [
            0.3f32, -0.2, 0.9, 0.1, 0.5, 0.4, -0.7, 0.2, 0.8, 0.6, 0.35, -0.3,
        ];
        let targets = [3.0, 5.5, 1.2];
        for step in [0, WARM_UP] {
            let (_, gradient) = bins.loss(step, &logits, &targets);
            for (index, slope) in gradient.iter().enumerate() {
                let shifted = |by: f32| {
                    let mut logits = logits;
                    logits[index] += by;
                    bins.loss(step, &logits, &targets).0
                };
                let expected = (shifted(1e-3) - shifted(-1e-3)) / 2e-3;
                let error = (f64::from(*slope) - expected).abs();
                assert!(error < 1e-5, "{step} {index}: {slope} {expected}");
            }
        }
    }
}
