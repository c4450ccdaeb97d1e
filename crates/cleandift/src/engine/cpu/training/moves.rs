//! The reverse of the operations that only move or scale values, for one image.

use rayon::prelude::*;

use crate::graph::Shape;

/// Cells that a thread works on at least.
const CELLS: usize = 64;

/// Adds `dy` times the other factor; either of `other` and `dx` may be one vector for all cells.
pub(super) fn multiply(other: &[f32], dy: &[f32], dx: &mut [f32]) {
    let vector = other.len().min(dx.len());
    for (cell, dy) in dy.chunks_exact(vector).enumerate() {
        let (theirs, ours) = (cell * vector % other.len(), cell * vector % dx.len());
        let other = &other[theirs..][..vector];
        let dx = &mut dx[ours..][..vector];
        for (dx, (dy, other)) in dx.iter_mut().zip(dy.iter().zip(other)) {
            *dx += dy * other;
        }
    }
}

/// Adds the channels `from .. from + kept` of `dy`.
pub(super) fn part(dy: &[f32], channels: usize, from: usize, kept: usize, dx: &mut [f32]) {
    let cells = dx.par_chunks_exact_mut(kept).with_min_len(CELLS);
    cells
        .zip(dy.par_chunks_exact(channels))
        .for_each(|(dx, dy)| {
            for (dx, dy) in dx.iter_mut().zip(&dy[from..from + kept]) {
                *dx += dy;
            }
        });
}

/// Writes `dy` to the channels from `from` on, zeros to the others.
pub(super) fn widen(dy: &[f32], kept: usize, from: usize, channels: usize, dx: &mut [f32]) {
    let cells = dx.par_chunks_exact_mut(channels).with_min_len(CELLS);
    cells.zip(dy.par_chunks_exact(kept)).for_each(|(dx, dy)| {
        dx.fill(0.0);
        dx[from..from + kept].copy_from_slice(dy);
    });
}

/// Nearest neighbour: a cell has the sum of its copies' gradients, row by row.
pub(super) fn upsample(dy: &[f32], from: Shape, to: Shape, dx: &mut [f32]) {
    let copies = |place: usize, size: usize, copied: usize| {
        (0..copied).filter(move |&copy| copy * size / copied == place)
    };
    let cells = dx.par_chunks_exact_mut(from.channels).with_min_len(CELLS);
    cells.enumerate().for_each(|(cell, dx)| {
        dx.fill(0.0);
        let (row, column) = (cell / from.width, cell % from.width);
        for y in copies(row, from.height, to.height) {
            for x in copies(column, from.width, to.width) {
                let dy = &dy[(y * to.width + x) * to.channels..][..to.channels];
                for (dx, dy) in dx.iter_mut().zip(dy) {
                    *dx += dy;
                }
            }
        }
    });
}

/// Adds the rows of `dy` to the rows of the table that were chosen.
pub(super) fn embedding(indices: &[f32], dy: &[f32], row: usize, table: &mut [f32]) {
    for (&index, dy) in indices.iter().zip(dy.chunks_exact(row)) {
        let row = &mut table[index as usize * row..][..row];
        for (sum, dy) in row.iter_mut().zip(dy) {
            *sum += dy;
        }
    }
}

/// The gradient of the timestep of sinusoidal features, worked in f64.
pub(super) fn time_features(timestep: f32, dy: &[f32]) -> f32 {
    let half = dy.len() / 2;
    let frequency = |i: usize| (-(10000f64.ln()) * i as f64 / half as f64).exp();
    waves(f64::from(timestep), (0..half).map(frequency), dy)
}

/// The gradient of the number that Fourier features are of, worked in f64.
pub(super) fn fourier_features(x: f32, frequencies: &[f32], dy: &[f32]) -> f32 {
    let turns = frequencies
        .iter()
        .map(|&w| std::f64::consts::TAU * f64::from(w));
    waves(f64::from(x), turns, dy)
}

/// The gradient of `x`, given those of the cosines, then the sines, of `x w`.
fn waves(x: f64, frequencies: impl Iterator<Item = f64>, dy: &[f32]) -> f32 {
    let (cosines, sines) = dy.split_at(dy.len() / 2);
    let terms = frequencies.zip(cosines.iter().zip(sines));
    let terms = terms.map(|(w, (&cosine, &sine))| {
        w * (f64::from(sine) * (x * w).cos() - f64::from(cosine) * (x * w).sin())
    });
    terms.sum::<f64>() as f32
}
