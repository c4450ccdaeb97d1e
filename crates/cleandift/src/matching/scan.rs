//! Similarities of every pixel of a picture, a line at a time: the arg-max and the heat map.

use std::ops::Range;

use rayon::prelude::*;

use super::descriptor::Descriptor;
use super::error::MatchError;
use super::field::{Between, Field};
use crate::image::{Extent, Frame};

/// Lines that one task scans.
const LINES: usize = 8;

/// The pixels of a picture that the canvas shows, as positions among the cells.
#[derive(Clone, Debug)]
pub(super) struct Raster {
    columns: Axis,
    rows: Axis,
}

/// The shown pixels along one side of a picture: the first one, and the position of each.
#[derive(Clone, Debug)]
struct Axis {
    first: usize,
    positions: Vec<Between>,
}

/// A pixel and its similarity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) point: [usize; 2],
    pub(super) similarity: f64,
}

/// A rectangle of pixels: columns and rows.
pub(super) type Block = [Range<usize>; 2];

impl Raster {
    pub(super) fn new(frame: &Frame, map: Extent) -> Self {
        let [columns, rows] = frame.shown();
        let column = |x: usize| {
            let [position, _] = frame.to_cell(map, [x as f64, 0.0]);
            Between::new(position, map.width)
        };
        let row = |y: usize| {
            let [_, position] = frame.to_cell(map, [0.0, y as f64]);
            Between::new(position, map.height)
        };
        Self {
            columns: Axis {
                first: columns.start,
                positions: columns.map(column).collect(),
            },
            rows: Axis {
                first: rows.start,
                positions: rows.map(row).collect(),
            },
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.columns.positions.is_empty() || self.rows.positions.is_empty()
    }

    /// The shown pixel nearest to a point of the picture.
    pub(super) fn nearest(&self, [x, y]: [f64; 2]) -> [usize; 2] {
        let clamp = |v: f64, axis: &Axis| {
            (v.round().max(0.0) as usize).clamp(axis.first, axis.first + axis.positions.len() - 1)
        };
        [clamp(x, &self.columns), clamp(y, &self.rows)]
    }
}

impl Axis {
    /// The position of a pixel, if it is shown.
    fn get(&self, pixel: usize) -> Option<Between> {
        self.positions.get(pixel.checked_sub(self.first)?).copied()
    }

    /// This range of pixels as a range of shown ones.
    fn indices(&self, pixels: &Range<usize>) -> Range<usize> {
        let index = |pixel: usize| pixel.saturating_sub(self.first).min(self.positions.len());
        index(pixels.start)..index(pixels.end)
    }
}

impl Field<'_> {
    /// The similarity of a descriptor with each pixel of the picture, resized to `extent`
    /// (usually the picture's own), `[row][column]`, in -1..=1; NaN where the canvas does not show
    /// the picture.
    ///
    /// # Errors
    /// If the descriptor has another number of channels.
    ///
    /// # Panics
    /// If `extent` is empty.
    pub fn heat_map(
        &self,
        descriptor: &Descriptor,
        extent: Extent,
    ) -> Result<Vec<f32>, MatchError> {
        assert!(extent.width * extent.height > 0, "heat map of {extent}");
        let dots = self.dots(std::slice::from_ref(descriptor))?.swap_remove(0);
        let Raster { columns, rows } = Raster::new(&self.frame.with_picture(extent), self.extent());
        let mut out = vec![f32::NAN; extent.width * extent.height];
        out.par_chunks_exact_mut(extent.width)
            .skip(rows.first)
            .zip(&rows.positions)
            .for_each(|(line, &row)| {
                let lengths = self.lengths(row);
                let along = self.dots_along(&dots, row);
                for (value, &column) in line[columns.first..].iter_mut().zip(&columns.positions) {
                    *value = cosine(column.blend(&along), lengths.inverse(column)) as f32;
                }
            });
        Ok(out)
    }

    /// For each map of dot products the most similar shown pixel outside of its block (the first
    /// in row-major order, if there are several); `None` if the block covers them all.
    pub(super) fn best_pixels(
        &self,
        dots: &[Vec<f64>],
        outside: &[Block],
    ) -> Vec<Option<Candidate>> {
        let lines = self.raster.rows.positions.len();
        let tasks: Vec<Vec<Option<Candidate>>> = (0..lines.div_ceil(LINES))
            .into_par_iter()
            .map(|task| {
                let mut best = vec![None; dots.len()];
                for line in task * LINES..lines.min((task + 1) * LINES) {
                    self.scan_line(line, dots, outside, &mut best);
                }
                best
            })
            .collect();
        let mut best = vec![None; dots.len()];
        for found in tasks {
            for (best, candidate) in best.iter_mut().zip(found) {
                keep_better(best, candidate);
            }
        }
        best
    }

    /// Keeps in `best` what a line of shown pixels has to offer to each map of dot products.
    fn scan_line(
        &self,
        line: usize,
        dots: &[Vec<f64>],
        outside: &[Block],
        best: &mut [Option<Candidate>],
    ) {
        let Raster { columns, rows } = &self.raster;
        let row = rows.positions[line];
        let lengths = self.lengths(row);
        let inverse: Vec<f64> = (columns.positions.iter())
            .map(|&column| lengths.inverse(column))
            .collect();
        for ((dots, [block_columns, block_rows]), best) in dots.iter().zip(outside).zip(best) {
            let along = self.dots_along(dots, row);
            let count = columns.positions.len();
            let spared = if block_rows.contains(&(rows.first + line)) {
                columns.indices(block_columns)
            } else {
                count..count
            };
            for index in (0..spared.start).chain(spared.end..count) {
                let dot = columns.positions[index].blend(&along);
                let candidate = Candidate {
                    point: [columns.first + index, rows.first + line],
                    similarity: cosine(dot, inverse[index]),
                };
                keep_better(best, Some(candidate));
            }
        }
    }

    /// The similarity at a pixel, `None` where the canvas does not show it.
    pub(super) fn similarity(&self, dots: &[f64], [x, y]: [usize; 2]) -> Option<f64> {
        let (column, row) = (self.raster.columns.get(x)?, self.raster.rows.get(y)?);
        let dot = column.blend(&self.dots_along(dots, row));
        Some(cosine(dot, self.lengths(row).inverse(column)))
    }

    /// Dot products along a line at a row position, by column of cells.
    fn dots_along(&self, dots: &[f64], row: Between) -> Vec<f64> {
        let width = self.extent().width;
        (dots[row.low * width..][..width].iter())
            .zip(&dots[row.high * width..][..width])
            .map(|(low, high)| low + row.fraction * (high - low))
            .collect()
    }
}

/// The cosine from a dot product with a unit vector, without what rounding adds beyond 1.
fn cosine(dot: f64, inverse_length: f64) -> f64 {
    (dot * inverse_length).clamp(-1.0, 1.0)
}

/// Replaces `best` if `candidate` is more similar; not if it only equals it.
fn keep_better(best: &mut Option<Candidate>, candidate: Option<Candidate>) {
    let Some(new) = candidate else { return };
    if best.is_none_or(|old| new.similarity > old.similarity) {
        *best = Some(new);
    }
}
