//! Features that any picture has by itself: floors that a model should stay above, and a reference
//! that it may not reach.

use std::num::NonZeroUsize;
use std::sync::Arc;

use super::sift::dense_sift;
use super::{Canvas, Image, Seen, Source};
use crate::eval::{EvalError, Settings};
use crate::features::FeatureMap;
use crate::image::{Extent, Pixels};

/// What is taken from a cell's pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelFeature {
    /// All values of all pixels, `[row][column][3]`.
    Raw,
    /// The mean colour.
    Colour,
    /// Histograms of gradients around it: dense, upright SIFT.
    Sift,
}

/// Pixels as features: cells of [`PixelSource::CELL`] x [`PixelSource::CELL`] pixels of the canvas.
pub struct PixelSource {
    feature: PixelFeature,
    canvas: Canvas,
}

impl PixelSource {
    /// Pixels on each side of a cell.
    pub const CELL: usize = 8;

    /// The name of the only map.
    pub const TAP: &'static str = "pixels";

    /// Features of pixels on a canvas, whose sides must be multiples of [`PixelSource::CELL`].
    pub fn new(feature: PixelFeature, canvas: Canvas) -> Self {
        Self { feature, canvas }
    }
}

impl Source for PixelSource {
    fn settings(&self) -> Settings {
        let mut settings = self.canvas.settings();
        let feature = match self.feature {
            PixelFeature::Raw => "raw pixels",
            PixelFeature::Colour => "mean colour",
            PixelFeature::Sift => "dense SIFT",
        };
        settings.insert("features".to_owned(), feature.into());
        settings.insert("cell".to_owned(), Self::CELL.into());
        settings
    }

    fn see(&mut self, image: &Image) -> Result<Arc<Seen>, EvalError> {
        let multiple = NonZeroUsize::new(Self::CELL).expect("not zero");
        let (pixels, frame) = self.canvas.place(image, multiple)?;
        let map = match self.feature {
            PixelFeature::Raw => cells(&pixels, Self::CELL),
            PixelFeature::Colour => mean_colours(&cells(&pixels, Self::CELL)),
            PixelFeature::Sift => dense_sift(&pixels, Self::CELL),
        };
        Ok(Arc::new(Seen {
            frame,
            maps: vec![(Self::TAP.to_owned(), map)],
        }))
    }
}

/// Each cell's pixels side by side, `[row][column][3]`.
fn cells(pixels: &Pixels, side: usize) -> FeatureMap {
    let Extent { width, height } = pixels.extent();
    let extent = Extent::new(width / side, height / side);
    let mut values = Vec::with_capacity(pixels.values().len());
    for cell in 0..extent.width * extent.height {
        let (left, top) = (cell % extent.width * side, cell / extent.width * side);
        for row in top..top + side {
            let start = (row * width + left) * 3;
            values.extend_from_slice(&pixels.values()[start..start + side * 3]);
        }
    }
    FeatureMap::new(extent, side * side * 3, values)
}

/// The mean red, green and blue of each cell.
fn mean_colours(raw: &FeatureMap) -> FeatureMap {
    let mean = |cell: &[f32], channel: usize| {
        let values = cell.iter().skip(channel).step_by(3);
        let sum: f64 = values.map(|&value| f64::from(value)).sum();
        (sum * 3.0 / cell.len() as f64) as f32
    };
    let cells = raw.values().chunks_exact(raw.channels());
    let values = cells.flat_map(|cell| (0..3).map(move |channel| mean(cell, channel)));
    FeatureMap::new(raw.extent(), 3, values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_hold_their_own_pixels_in_order() {
        // A pixel's value is its number: 4 x 2 pixels in two cells of 2 x 2.
        let values = (0..24).map(|index| index as f32).collect();
        let map = cells(&Pixels::new(Extent::new(4, 2), values), 2);
        let first = [
            0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0,
        ];
        assert_eq!(map.cell(0, 0), first);
        assert_eq!(map.cell(1, 0)[0], 6.0);
        // (0 + 3 + 12 + 15) / 4
        assert_eq!(mean_colours(&map).cell(0, 0), [7.5, 8.5, 9.5]);
    }
}
