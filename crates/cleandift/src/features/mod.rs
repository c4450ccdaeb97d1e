//! What an extraction gives: feature maps by tap, and how they are kept.

mod group;
mod join;
pub mod store;
mod tap;

use crate::image::Extent;

pub use group::TapGroup;
pub(crate) use join::{Parts, join, resampled};
pub use tap::{Tap, UnknownTap};

/// One tap's features of one picture, `[row][column][channel]`, raw values without any
/// normalisation.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureMap {
    extent: Extent,
    channels: usize,
    data: Vec<f32>,
}

impl FeatureMap {
    /// A map of `extent` cells with `channels` values each, from values in
    /// `[row][column][channel]` order.
    ///
    /// # Panics
    /// If the number of values is not `height * width * channels`.
    pub fn new(extent: Extent, channels: usize, data: Vec<f32>) -> Self {
        assert_eq!(data.len(), extent.width * extent.height * channels);
        Self {
            extent,
            channels,
            data,
        }
    }

    /// Columns and rows of cells.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// Values per cell.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// All values, `[row][column][channel]`.
    pub fn values(&self) -> &[f32] {
        &self.data
    }

    /// The descriptor of one cell.
    pub fn cell(&self, column: usize, row: usize) -> &[f32] {
        let start = (row * self.extent.width + column) * self.channels;
        &self.data[start..start + self.channels]
    }

    /// Adds another map of the same shape, value by value.
    pub(crate) fn add(&mut self, other: &Self) {
        self.data
            .iter_mut()
            .zip(&other.data)
            .for_each(|(sum, value)| *sum += value);
    }

    /// Multiplies all values.
    pub(crate) fn scale(&mut self, factor: f32) {
        self.data.iter_mut().for_each(|value| *value *= factor);
    }

    /// The mean over all cells, one value per channel, summed in f64.
    pub fn mean(&self) -> Vec<f32> {
        let mut sums = vec![0.0f64; self.channels];
        for cell in self.data.chunks_exact(self.channels) {
            sums.iter_mut()
                .zip(cell)
                .for_each(|(sum, &value)| *sum += f64::from(value));
        }
        let cells = (self.extent.width * self.extent.height) as f64;
        sums.into_iter().map(|sum| (sum / cells) as f32).collect()
    }

    /// The values in `[channel][row][column]` order, as files keep them.
    pub fn to_channels_first(&self) -> Vec<f32> {
        let cells = self.extent.width * self.extent.height;
        let mut out = vec![0.0; self.data.len()];
        for (cell, values) in self.data.chunks_exact(self.channels).enumerate() {
            for (channel, &value) in values.iter().enumerate() {
                out[channel * cells + cell] = value;
            }
        }
        out
    }
}
