//! A homography from matches of which some are wrong.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, Uniform};

use super::linear::solve;
use crate::image::Extent;

/// A homography, row by row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Homography(pub [f64; 9]);

/// How wrong matches are dealt with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Estimator {
    /// The most matches within this error, in pixels (Fischler and Bolles 1981).
    Ransac {
        /// The error.
        threshold: f64,
    },
    /// The least median of squared errors (Rousseeuw 1984): needs no threshold, and more than half
    /// of the matches right.
    LeastMedian,
}

impl Estimator {
    /// In words.
    pub fn name(self) -> String {
        match self {
            Self::Ransac { threshold } => format!("RANSAC within {threshold} px"),
            Self::LeastMedian => "least median of squares".to_owned(),
        }
    }
}

/// Samples of four matches.
const SAMPLES: usize = 2000;

/// The seed of samples.
const SEED: u64 = 0;

/// Steps of the refinement over all right matches.
const REFINEMENTS: usize = 10;

impl Homography {
    /// Where a point goes.
    pub fn map(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let h = &self.0;
        let w = h[6] * x + h[7] * y + h[8];
        [
            (h[0] * x + h[1] * y + h[2]) / w,
            (h[3] * x + h[4] * y + h[5]) / w,
        ]
    }

    /// The mean distance between where this and another homography take the four corners of a
    /// picture.
    pub fn corner_error(&self, other: &Self, picture: Extent) -> f64 {
        let (right, bottom) = ((picture.width - 1) as f64, (picture.height - 1) as f64);
        let corners = [[0.0, 0.0], [right, 0.0], [0.0, bottom], [right, bottom]];
        let distance = |corner: [f64; 2]| {
            let (a, b) = (self.map(corner), other.map(corner));
            (a[0] - b[0]).hypot(a[1] - b[1])
        };
        corners.map(distance).iter().sum::<f64>() / 4.0
    }

    fn error(&self, [from, to]: &[[f64; 2]; 2]) -> f64 {
        let mapped = self.map(*from);
        let error = (mapped[0] - to[0]).hypot(mapped[1] - to[1]);
        if error.is_nan() { f64::INFINITY } else { error }
    }
}

/// The homography that matches `[from, to]` follow; `None` from fewer than four, or if all samples
/// are degenerate. The same for the same matches.
pub fn estimate(matches: &[[[f64; 2]; 2]], estimator: Estimator) -> Option<Homography> {
    if matches.len() < 4 {
        return None;
    }
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let place = Uniform::new(0, matches.len()).expect("four matches or more");
    let mut best: Option<(f64, Homography)> = None;
    for _ in 0..SAMPLES {
        let chosen: [usize; 4] = std::array::from_fn(|_| place.sample(&mut random));
        if (1..4).any(|i| chosen[..i].contains(&chosen[i])) {
            continue;
        }
        let sample: Vec<_> = chosen.iter().map(|&index| matches[index]).collect();
        let Some(found) = fit(&sample) else { continue };
        let cost = cost(&found, matches, estimator);
        if best.is_none_or(|(lowest, _)| cost < lowest) {
            best = Some((cost, found));
        }
    }
    let (cost, best) = best?;
    let limit = match estimator {
        Estimator::Ransac { threshold } => threshold,
        // Rousseeuw's robust standard deviation, as OpenCV uses it, times 2.5.
        Estimator::LeastMedian => {
            let correction = 1.0 + 5.0 / (matches.len() as f64 - 4.0).max(1.0);
            (2.5 * 1.4826 * correction * cost.sqrt()).max(1e-3)
        }
    };
    let right: Vec<_> = matches
        .iter()
        .filter(|&m| best.error(m) <= limit)
        .copied()
        .collect();
    Some(refine(fit(&right).unwrap_or(best), &right))
}

fn cost(found: &Homography, matches: &[[[f64; 2]; 2]], estimator: Estimator) -> f64 {
    match estimator {
        Estimator::Ransac { threshold } => {
            let errors = matches.iter().map(|m| found.error(m));
            // Of equally many, the ones that fit better.
            errors
                .map(|error| (error / threshold).powi(2).min(1.0))
                .sum()
        }
        Estimator::LeastMedian => {
            let mut squares: Vec<f64> = matches.iter().map(|m| found.error(m).powi(2)).collect();
            let middle = squares.len() / 2;
            *squares.select_nth_unstable_by(middle, f64::total_cmp).1
        }
    }
}

/// The homography through four matches, or the one of least algebraic error through more, in
/// coordinates that are centred and scaled first (Hartley 1997), with the last entry fixed to one
/// there.
fn fit(matches: &[[[f64; 2]; 2]]) -> Option<Homography> {
    if matches.len() < 4 {
        return None;
    }
    let (from, to) = (Scaling::of(matches, 0), Scaling::of(matches, 1));
    let (mut a, mut b) = ([[0.0; 8]; 8], [0.0; 8]);
    for [source, target] in matches {
        let ([x, y], [u, v]) = (from.apply(*source), to.apply(*target));
        let rows = [
            ([x, y, 1.0, 0.0, 0.0, 0.0, -u * x, -u * y], u),
            ([0.0, 0.0, 0.0, x, y, 1.0, -v * x, -v * y], v),
        ];
        for (row, value) in rows {
            for i in 0..8 {
                (0..8).for_each(|j| a[i][j] += row[i] * row[j]);
                b[i] += row[i] * value;
            }
        }
    }
    let [h0, h1, h2, h3, h4, h5, h6, h7] = solve(a, b)?;
    let scaled = [h0, h1, h2, h3, h4, h5, h6, h7, 1.0];
    Some(Homography(product(
        &to.inverse(),
        &product(&scaled, &from.matrix()),
    )))
}

/// Least squared distance in the second picture, by Gauss and Newton.
fn refine(mut found: Homography, matches: &[[[f64; 2]; 2]]) -> Homography {
    let total = |h: &Homography| matches.iter().map(|m| h.error(m).powi(2)).sum::<f64>();
    let last = found.0[8];
    if matches.len() <= 4 || last.abs() < 1e-12 {
        return found;
    }
    found.0.iter_mut().for_each(|value| *value /= last);
    for _ in 0..REFINEMENTS {
        let (mut a, mut b) = ([[0.0; 8]; 8], [0.0; 8]);
        for [[x, y], target] in matches {
            let h = &found.0;
            let w = h[6] * x + h[7] * y + 1.0;
            let [u, v] = found.map([*x, *y]);
            let (p, q, r) = (x / w, y / w, 1.0 / w);
            let rows = [
                ([p, q, r, 0.0, 0.0, 0.0, -u * p, -u * q], target[0] - u),
                ([0.0, 0.0, 0.0, p, q, r, -v * p, -v * q], target[1] - v),
            ];
            for (row, value) in rows {
                for i in 0..8 {
                    (0..8).for_each(|j| a[i][j] += row[i] * row[j]);
                    b[i] += row[i] * value;
                }
            }
        }
        let Some(step) = solve(a, b) else { break };
        let mut next = found;
        next.0
            .iter_mut()
            .zip(step)
            .for_each(|(value, step)| *value += step);
        if total(&next) >= total(&found) {
            break;
        }
        found = next;
    }
    found
}

/// Centring and scaling of points: mean zero, mean distance √2.
struct Scaling {
    centre: [f64; 2],
    scale: f64,
}

impl Scaling {
    fn of(matches: &[[[f64; 2]; 2]], side: usize) -> Self {
        let count = matches.len() as f64;
        let mean = |axis: usize| matches.iter().map(|m| m[side][axis]).sum::<f64>() / count;
        let centre = [mean(0), mean(1)];
        let distances = matches
            .iter()
            .map(|m| (m[side][0] - centre[0]).hypot(m[side][1] - centre[1]));
        let distance = distances.sum::<f64>() / count;
        let scale = if distance > 0.0 {
            2f64.sqrt() / distance
        } else {
            1.0
        };
        Self { centre, scale }
    }

    fn apply(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        [
            (x - self.centre[0]) * self.scale,
            (y - self.centre[1]) * self.scale,
        ]
    }

    fn matrix(&self) -> [f64; 9] {
        let (s, [x, y]) = (self.scale, self.centre);
        [s, 0.0, -s * x, 0.0, s, -s * y, 0.0, 0.0, 1.0]
    }

    fn inverse(&self) -> [f64; 9] {
        let (s, [x, y]) = (self.scale, self.centre);
        [1.0 / s, 0.0, x, 0.0, 1.0 / s, y, 0.0, 0.0, 1.0]
    }
}

fn product(a: &[f64; 9], b: &[f64; 9]) -> [f64; 9] {
    std::array::from_fn(|index| {
        let (row, column) = (index / 3, index % 3);
        (0..3).map(|k| a[3 * row + k] * b[3 * k + column]).sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUE: Homography = Homography([0.9, 0.1, 12.0, -0.05, 1.1, -7.0, 2e-4, -1e-4, 1.0]);

    fn matches(wrong: usize) -> Vec<[[f64; 2]; 2]> {
        let point = |i: usize| [(i * 37 % 200) as f64, (i * 71 % 150) as f64];
        (0..60)
            .map(|i| match i < wrong {
                true => [point(i), [(i * 53 % 190) as f64, (i * 29 % 140) as f64]],
                false => [point(i), TRUE.map(point(i))],
            })
            .collect()
    }

    #[test]
    fn exact_matches_give_the_homography_and_wrong_ones_do_not_matter() {
        let extent = Extent::new(200, 150);
        for estimator in [Estimator::Ransac { threshold: 3.0 }, Estimator::LeastMedian] {
            for wrong in [0, 25] {
                let found = estimate(&matches(wrong), estimator).unwrap();
                let error = found.corner_error(&TRUE, extent);
                assert!(error < 1e-6, "{estimator:?}, {wrong} wrong: {error}");
            }
        }
        assert!(estimate(&matches(0)[..3], Estimator::LeastMedian).is_none());
    }

    /// By hand: a shift by (3, 4) moves every corner by 5.
    #[test]
    fn corner_errors() {
        let identity = Homography([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        let shift = Homography([1.0, 0.0, 3.0, 0.0, 1.0, 4.0, 0.0, 0.0, 1.0]);
        assert_eq!(identity.corner_error(&shift, Extent::new(10, 10)), 5.0);
    }
}
