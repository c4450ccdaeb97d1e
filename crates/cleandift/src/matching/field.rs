//! A feature map laid over its picture, as a function of the picture's points.

use rayon::prelude::*;

use super::descriptor::{Descriptor, SHORTEST, dot};
use super::error::MatchError;
use super::scan::Raster;
use crate::features::FeatureMap;
use crate::image::{Extent, Frame};

/// A feature map over its picture: a vector at every point, by bilinear interpolation between
/// cells as `F.interpolate(mode="bilinear", align_corners=False)` does it.
///
/// Prepared once a picture (a few dot products a cell), then used as the source or the target of
/// any number of matches. The upsampled map never exists.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    pub(super) map: &'a FeatureMap,
    pub(super) frame: Frame,
    pub(super) raster: Raster,
    gram: Gram,
}

/// Dot products of each cell with itself and its neighbours, `[row][column]`; beyond the last
/// column or row the cell itself stands for its neighbour.
#[derive(Clone, Debug)]
struct Gram {
    /// With itself.
    square: Vec<f64>,
    /// With the cell to the right.
    right: Vec<f64>,
    /// With the cell below.
    below: Vec<f64>,
    /// Mean over the two diagonals of the square that has this cell at its top left.
    cross: Vec<f64>,
}

/// Squared lengths along a line between two rows of cells, by column.
#[derive(Clone, Debug, Default)]
pub(super) struct Lengths {
    /// Of the blend of the two cells in a column.
    square: Vec<f64>,
    /// Dot product of that blend with the one to the right.
    right: Vec<f64>,
}

/// A position along an axis of cells: `low` and `high = low + 1` (or `low` at the end), blended
/// with weights `1 - fraction` and `fraction`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Between {
    pub(super) low: usize,
    pub(super) high: usize,
    pub(super) fraction: f64,
}

impl Between {
    /// The position, clamped to the first and the last of `cells` cells.
    pub(super) fn new(position: f64, cells: usize) -> Self {
        let position = position.clamp(0.0, (cells - 1) as f64);
        let low = position as usize;
        Self {
            low,
            high: (low + 1).min(cells - 1),
            fraction: position - low as f64,
        }
    }

    /// The blend of the values at the two cells; exactly their value if they are equal.
    pub(super) fn blend(self, values: &[f64]) -> f64 {
        values[self.low] + self.fraction * (values[self.high] - values[self.low])
    }
}

/// |(1 - t) x + t y|² from a = |x|², b = x·y, c = |y|²; exactly a if all three are equal.
fn blended_square(a: f64, b: f64, c: f64, t: f64) -> f64 {
    a + t * (2.0 * (b - a) + t * (a - 2.0 * b + c))
}

impl Lengths {
    /// One over the length of the sample at a column position (the length not below
    /// `F.normalize`'s 1e-12).
    pub(super) fn inverse(&self, column: Between) -> f64 {
        let Between {
            low,
            high,
            fraction,
        } = column;
        let square = blended_square(
            self.square[low],
            self.right[low],
            self.square[high],
            fraction,
        );
        1.0 / square.max(0.0).sqrt().max(SHORTEST)
    }
}

impl<'a> Field<'a> {
    /// Lays `map`, computed from the canvas of `frame`, over the picture of `frame`.
    ///
    /// # Errors
    /// If the map is empty or not finite, or the canvas shows no pixel of the picture.
    pub fn new(map: &'a FeatureMap, frame: &Frame) -> Result<Self, MatchError> {
        let extent = map.extent();
        if extent.width * extent.height * map.channels() == 0 {
            return Err(MatchError::EmptyMap {
                extent,
                channels: map.channels(),
            });
        }
        let raster = Raster::new(frame, extent);
        if raster.is_empty() {
            return Err(MatchError::NothingShown {
                picture: frame.picture,
                canvas: frame.canvas,
            });
        }
        let gram = Gram::new(map);
        if let Some(cell) = gram.square.iter().position(|square| !square.is_finite()) {
            return Err(MatchError::NotFinite {
                column: cell % extent.width,
                row: cell / extent.width,
            });
        }
        Ok(Self {
            map,
            frame: *frame,
            raster,
            gram,
        })
    }

    /// Columns and rows of cells.
    pub fn extent(&self) -> Extent {
        self.map.extent()
    }

    /// The picture and where it lies on the canvas.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The direction of the features at a point of the picture: the bilinear sample there.
    ///
    /// # Errors
    /// If the point lies outside the picture or is not shown by the canvas.
    pub fn descriptor(&self, point: [f64; 2]) -> Result<Descriptor, MatchError> {
        let [x, y] = self.position(point)?;
        let Extent { width, height } = self.extent();
        let (column, row) = (Between::new(x, width), Between::new(y, height));
        let (u, v) = (column.fraction, row.fraction);
        Ok(Descriptor::blend(
            self.map,
            &[
                ([column.low, row.low], (1.0 - u) * (1.0 - v)),
                ([column.high, row.low], u * (1.0 - v)),
                ([column.low, row.high], (1.0 - u) * v),
                ([column.high, row.high], u * v),
            ],
        ))
    }

    /// The direction of the features of the cell that holds a point of the picture, without
    /// interpolation.
    ///
    /// # Errors
    /// If the point lies outside the picture or is not shown by the canvas.
    pub fn cell_descriptor(&self, point: [f64; 2]) -> Result<Descriptor, MatchError> {
        let [x, y] = self.position(point)?;
        let Extent { width, height } = self.extent();
        // A point on the border between two cells belongs to the second, also if rounding has
        // put it a little before.
        let holding =
            |position: f64, cells: usize| ((position + 0.5 + 1e-9) as usize).min(cells - 1);
        let cell = [holding(x, width), holding(y, height)];
        Ok(Descriptor::blend(self.map, &[(cell, 1.0)]))
    }

    /// Cosine similarities of a descriptor with every cell, `[row][column]`.
    ///
    /// # Errors
    /// If the descriptor has another number of channels.
    pub fn cell_similarities(&self, descriptor: &Descriptor) -> Result<Vec<f64>, MatchError> {
        let dots = self.dots(std::slice::from_ref(descriptor))?.swap_remove(0);
        let cosine = |(dot, square): (&f64, &f64)| {
            (dot * (1.0 / square.sqrt().max(SHORTEST))).clamp(-1.0, 1.0)
        };
        Ok(dots.iter().zip(&self.gram.square).map(cosine).collect())
    }

    /// Dot products of each descriptor with every cell: one map `[row][column]` a descriptor.
    pub(super) fn dots(&self, descriptors: &[Descriptor]) -> Result<Vec<Vec<f64>>, MatchError> {
        let channels = self.map.channels();
        if let Some(other) = descriptors.iter().find(|d| d.values().len() != channels) {
            return Err(MatchError::Channels {
                source_channels: other.values().len(),
                target_channels: channels,
            });
        }
        let by_cell: Vec<Vec<f64>> = (self.map.values().par_chunks_exact(channels))
            .map(|cell| descriptors.iter().map(|d| dot(d.values(), cell)).collect())
            .collect();
        let of_descriptor = |index: usize| by_cell.iter().map(|dots| dots[index]).collect();
        Ok((0..descriptors.len()).map(of_descriptor).collect())
    }

    /// Squared lengths of the samples along a line at a row position.
    pub(super) fn lengths(&self, row: Between) -> Lengths {
        let Gram {
            square,
            right,
            below,
            cross,
        } = &self.gram;
        let width = self.extent().width;
        let (low, high) = (row.low * width, row.high * width);
        let along = |at: &[f64], between: &[f64]| {
            (0..width)
                .map(|i| blended_square(at[low + i], between[low + i], at[high + i], row.fraction))
                .collect()
        };
        Lengths {
            square: along(square, below),
            right: along(right, cross),
        }
    }

    /// Where a point lies among the cells.
    fn position(&self, point: [f64; 2]) -> Result<[f64; 2], MatchError> {
        let Frame {
            picture, canvas, ..
        } = self.frame;
        let [x, y] = point;
        let inside = |v: f64, pixels: usize| (-0.5..=pixels as f64 - 0.5).contains(&v);
        if !(inside(x, picture.width) && inside(y, picture.height)) {
            return Err(MatchError::Outside { point, picture });
        }
        if !self.frame.shows(point) {
            return Err(MatchError::NotShown {
                point,
                picture,
                canvas,
            });
        }
        Ok(self.frame.to_cell(self.extent(), point))
    }
}

impl Gram {
    fn new(map: &FeatureMap) -> Self {
        let Extent { width, height } = map.extent();
        let products: Vec<[f64; 4]> = (0..width * height)
            .into_par_iter()
            .map(|cell| {
                let (column, row) = (cell % width, cell / width);
                let (next, under) = ((column + 1).min(width - 1), (row + 1).min(height - 1));
                let here = map.cell(column, row);
                let right = map.cell(next, row);
                let below = map.cell(column, under);
                let falling = dot(here, map.cell(next, under));
                let rising = dot(right, below);
                [
                    dot(here, here),
                    dot(here, right),
                    dot(here, below),
                    0.5 * (falling + rising),
                ]
            })
            .collect();
        let [square, right, below, cross] =
            std::array::from_fn(|kind| products.iter().map(|of_cell| of_cell[kind]).collect());
        Self {
            square,
            right,
            below,
            cross,
        }
    }
}
