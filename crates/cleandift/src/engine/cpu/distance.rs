//! Distances of two maps and their gradients: the losses of training. Sums are taken in f64, cell
//! by cell, in the order of the cells.

use rayon::prelude::*;

use crate::graph::Distance;

/// Cells that a thread works on at least.
const CELLS: usize = 64;

/// The distance of two maps of `channels` values a cell.
pub(super) fn distance(distance: Distance, x: &[f32], target: &[f32], channels: usize) -> f32 {
    let term = |(x, y): (&[f32], &[f32])| match distance {
        Distance::Cosine => {
            let norms = norm(x) * norm(y);
            -dot(x, y) / norms
        }
        Distance::Squared => differences(x, y).map(|d| d * d).sum(),
        Distance::Absolute => differences(x, y).map(f64::abs).sum(),
    };
    let pairs = x
        .par_chunks_exact(channels)
        .zip(target.par_chunks_exact(channels));
    let terms: Vec<f64> = pairs.with_min_len(CELLS).map(term).collect();
    let count = match distance {
        Distance::Cosine => x.len() / channels,
        Distance::Squared | Distance::Absolute => x.len(),
    };
    (terms.iter().sum::<f64>() / count as f64) as f32
}

/// Adds to `dx` the gradient of [`distance`] with respect to `x`, times `dy`. With respect to the
/// target it is the same with the two exchanged.
pub(super) fn distance_gradient(
    distance: Distance,
    x: &[f32],
    target: &[f32],
    channels: usize,
    dy: f32,
    dx: &mut [f32],
) {
    let (dy, values) = (f64::from(dy), x.len() as f64);
    let cells = values / channels as f64;
    let pairs = x
        .par_chunks_exact(channels)
        .zip(target.par_chunks_exact(channels));
    let cells_of = dx
        .par_chunks_exact_mut(channels)
        .zip(pairs)
        .with_min_len(CELLS);
    cells_of.for_each(|(dx, (x, y))| match distance {
        Distance::Cosine => {
            let norms = norm(x) * norm(y);
            let factor = -dy / (cells * norms);
            // Where the norm is held at its least, it is a constant.
            let held = norm(x) == Distance::LEAST_NORM;
            let pull = if held { 0.0 } else { dot(x, y) / dot(x, x) };
            for (dx, (&x, &y)) in dx.iter_mut().zip(x.iter().zip(y)) {
                *dx += (factor * (f64::from(y) - pull * f64::from(x))) as f32;
            }
        }
        Distance::Squared => {
            for (dx, d) in dx.iter_mut().zip(differences(x, y)) {
                *dx += (2.0 * d * dy / values) as f32;
            }
        }
        Distance::Absolute => {
            for (dx, d) in dx.iter_mut().zip(differences(x, y)) {
                let sign = if d == 0.0 { 0.0 } else { d.signum() };
                *dx += (sign * dy / values) as f32;
            }
        }
    });
}

fn differences(x: &[f32], y: &[f32]) -> impl Iterator<Item = f64> {
    x.iter().zip(y).map(|(&x, &y)| f64::from(x) - f64::from(y))
}

fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter()
        .zip(y)
        .map(|(&x, &y)| f64::from(x) * f64::from(y))
        .sum()
}

fn norm(x: &[f32]) -> f64 {
    dot(x, x).sqrt().max(Distance::LEAST_NORM)
}
