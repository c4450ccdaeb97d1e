//! The operations that only move, copy or scale values: memory-bound, so plain loops over rows,
//! shared among threads.

use rayon::prelude::*;

use crate::graph::Shape;

/// Values a thread works on at least.
const GRAIN: usize = 1 << 14;

/// Calls `f(cell, out)` for every cell of the result.
fn each_cell(out: &mut [f32], channels: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    let cells = (GRAIN / channels).max(1);
    out.par_chunks_mut(cells * channels)
        .enumerate()
        .for_each(|(chunk, out)| {
            for (place, out) in out.chunks_exact_mut(channels).enumerate() {
                f(chunk * cells + place, out);
            }
        });
}

/// One cell of a map.
fn cell(x: &[f32], channels: usize, index: usize) -> &[f32] {
    &x[index * channels..(index + 1) * channels]
}

/// Channels of `a`, then of `b`.
pub(super) fn concatenate(a: &[f32], left: usize, b: &[f32], right: usize, out: &mut [f32]) {
    each_cell(out, left + right, |index, out| {
        let (first, second) = out.split_at_mut(left);
        first.copy_from_slice(cell(a, left, index));
        second.copy_from_slice(cell(b, right, index));
    });
}

/// Channels `from ..` of each cell.
pub(super) fn slice(x: &[f32], channels: usize, from: usize, kept: usize, out: &mut [f32]) {
    each_cell(out, kept, |index, out| {
        out.copy_from_slice(&cell(x, channels, index)[from..from + kept]);
    });
}

/// `factor * x + shift`, per channel or one for all, in f64.
pub(super) fn affine(x: &[f32], channels: usize, factor: &[f64], shift: &[f64], out: &mut [f32]) {
    let pick = |constants: &[f64], i: usize| constants[i % constants.len()];
    each_cell(out, channels, |index, out| {
        for (i, (out, &x)) in out.iter_mut().zip(cell(x, channels, index)).enumerate() {
            *out = (pick(factor, i) * f64::from(x) + pick(shift, i)) as f32;
        }
    });
}

/// `a * b`, where `b` is as long as `a` or one cell.
pub(super) fn multiply(a: &[f32], b: &[f32], channels: usize, out: &mut [f32]) {
    each_cell(out, channels, |index, out| {
        let b = if b.len() == channels {
            b
        } else {
            cell(b, channels, index)
        };
        for (out, (a, b)) in out.iter_mut().zip(cell(a, channels, index).iter().zip(b)) {
            *out = a * b;
        }
    });
}

/// Nearest neighbour: source index `floor(i * in / out)`.
pub(super) fn upsample(x: &[f32], from: Shape, to: Shape, out: &mut [f32]) {
    each_cell(out, to.channels, |index, out| {
        let row = index / to.width * from.height / to.height;
        let column = index % to.width * from.width / to.width;
        out.copy_from_slice(cell(x, from.channels, row * from.width + column));
    });
}

/// Rows of a table, chosen by index.
pub(super) fn embedding(indices: &[f32], table: &[f32], row: usize, out: &mut [f32]) {
    for (out, &index) in out.chunks_exact_mut(row).zip(indices) {
        out.copy_from_slice(cell(table, row, index as usize));
    }
}

/// `[cos(t w), sin(t w)]` with `w_i = 10000^(-i / half)`, worked in f64.
pub(super) fn time_features(timestep: f32, out: &mut [f32]) {
    let half = out.len() / 2;
    for i in 0..half {
        let frequency = (-(10000f64.ln()) * i as f64 / half as f64).exp();
        wave(f64::from(timestep) * frequency, i, out);
    }
}

/// `[cos(2 pi x W), sin(2 pi x W)]`, worked in f64.
pub(super) fn fourier_features(x: f32, frequencies: &[f32], out: &mut [f32]) {
    for (i, &frequency) in frequencies.iter().enumerate() {
        let turns = f64::from(x) * f64::from(frequency);
        wave(2.0 * std::f64::consts::PI * turns, i, out);
    }
}

/// Cosines fill the first half, sines the second.
fn wave(angle: f64, place: usize, out: &mut [f32]) {
    let half = out.len() / 2;
    out[place] = angle.cos() as f32;
    out[half + place] = angle.sin() as f32;
}

/// Blocks of `factor`² pixels into channels, in (channel, row, column) order.
pub(super) fn pixel_unshuffle(x: &[f32], from: Shape, factor: usize, out: &mut [f32]) {
    let (width, channels) = (from.width / factor, from.channels * factor * factor);
    each_cell(out, channels, |index, out| {
        for (place, out) in out.iter_mut().enumerate() {
            let (channel, place) = (place / (factor * factor), place % (factor * factor));
            let row = index / width * factor + place / factor;
            let column = index % width * factor + place % factor;
            *out = x[(row * from.width + column) * from.channels + channel];
        }
    });
}

/// The inverse of [`pixel_unshuffle`]; `to` is the shape of the result.
pub(super) fn pixel_shuffle(x: &[f32], to: Shape, factor: usize, out: &mut [f32]) {
    let width = to.width / factor;
    each_cell(out, to.channels, |index, out| {
        let (row, column) = (index / to.width, index % to.width);
        let source = row / factor * width + column / factor;
        let place = row % factor * factor + column % factor;
        let source = cell(x, to.channels * factor * factor, source);
        for (channel, out) in out.iter_mut().enumerate() {
            *out = source[channel * factor * factor + place];
        }
    });
}
