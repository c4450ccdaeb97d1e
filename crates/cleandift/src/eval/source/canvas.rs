//! How pictures get onto a network's canvas, and the windows through which it looks at a large one.

use std::num::NonZeroUsize;

use serde_json::json;

use super::Image;
use crate::eval::{EvalError, Settings};
use crate::features::FeatureMap;
use crate::image::{Extent, Fit, Frame, Pixels, Resample, Size, fit};

/// How pictures get onto the network's canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canvas {
    /// Its size.
    pub size: Size,
    /// How a picture of another shape gets onto it.
    pub fit: Fit,
    /// How it is resampled.
    pub resample: Resample,
    /// The sides, in pixels, of the windows through which a network sees a larger canvas; `None`
    /// if it sees every canvas whole.
    pub window: Option<usize>,
}

impl Canvas {
    /// As settings.
    pub fn settings(&self) -> Settings {
        let words = [
            ("size", json!(self.size.to_string())),
            ("resize", json!(self.fit.to_string())),
            ("resample", json!(self.resample.to_string())),
            ("window", json!(self.window)),
        ];
        let entry = |(key, value): (&str, _)| (key.to_owned(), value);
        words.into_iter().map(entry).collect()
    }

    /// A picture on the canvas, for a network that asks for sides of `multiple`.
    ///
    /// # Errors
    /// If it cannot be read or fitted.
    pub fn place(
        &self,
        image: &Image,
        multiple: NonZeroUsize,
    ) -> Result<(Pixels, Frame), EvalError> {
        let picture = image.open()?;
        Ok(fit(&picture, self.size, self.fit, self.resample, multiple)?)
    }

    /// The windows through which a network sees a canvas of this extent.
    pub fn windows(&self, extent: Extent) -> Windows {
        Windows::over(extent, self.window.unwrap_or(usize::MAX))
    }
}

/// Pixels for each cell of the coarsest maps: windows that begin at its multiples have cells in the
/// same places.
const COARSEST: usize = 64;

/// Windows of one size that cover a canvas, as few as possible and evenly spread: a canvas of 960
/// has four of 512, at 0 and 448 in both directions, as in the code of "A Tale of Two Features"
/// (arXiv 2305.15347).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    canvas: Extent,
    window: Extent,
    /// The windows' first pixels, (x, y).
    corners: Vec<[usize; 2]>,
}

impl Windows {
    /// Windows of at most `side` pixels.
    fn over(canvas: Extent, side: usize) -> Self {
        let starts = |length: usize| {
            let last = length.saturating_sub(side);
            let gaps = length.div_ceil(side) - 1;
            let start = move |index: usize| match index == gaps {
                true => last,
                false => index * last / gaps / COARSEST * COARSEST,
            };
            (0..=gaps).map(start)
        };
        let rows = starts(canvas.height);
        let corners = rows.flat_map(|y| starts(canvas.width).map(move |x| [x, y]));
        Self {
            window: Extent::new(canvas.width.min(side), canvas.height.min(side)),
            corners: corners.collect(),
            canvas,
        }
    }

    /// The size of a window.
    pub fn extent(&self) -> Extent {
        self.window
    }

    /// What each window shows.
    ///
    /// # Panics
    /// If the pixels are not a canvas of these windows.
    pub fn cut(&self, pixels: &Pixels) -> Vec<Pixels> {
        assert_eq!(pixels.extent(), self.canvas);
        let Extent { width, height } = self.window;
        let piece = |&[x, y]: &[usize; 2]| {
            let row = |row: usize| {
                let first = ((y + row) * self.canvas.width + x) * 3;
                &pixels.values()[first..first + width * 3]
            };
            let values = (0..height).flat_map(row).copied().collect();
            Pixels::new(self.window, values)
        };
        self.corners.iter().map(piece).collect()
    }

    /// The map of the canvas from those of the windows: where windows overlap, the mean.
    ///
    /// # Panics
    /// If there are not as many maps as windows.
    pub fn stitch(&self, maps: &[FeatureMap]) -> FeatureMap {
        assert_eq!(maps.len(), self.corners.len());
        if let [whole] = maps {
            return whole.clone();
        }
        let (cells, channels) = (maps[0].extent(), maps[0].channels());
        let on_map = |x: usize, y: usize| {
            [
                x * cells.width / self.window.width,
                y * cells.height / self.window.height,
            ]
        };
        let [width, height] = on_map(self.canvas.width, self.canvas.height);
        let mut values = vec![0.0; width * height * channels];
        let mut counts = vec![0.0; width * height];
        for (map, &[x, y]) in maps.iter().zip(&self.corners) {
            let [left, top] = on_map(x, y);
            for (row, line) in map
                .values()
                .chunks_exact(cells.width * channels)
                .enumerate()
            {
                let first = (top + row) * width + left;
                let sums = &mut values[first * channels..][..line.len()];
                sums.iter_mut()
                    .zip(line)
                    .for_each(|(sum, value)| *sum += value);
                counts[first..first + cells.width]
                    .iter_mut()
                    .for_each(|n| *n += 1.0);
            }
        }
        for (cell, count) in values.chunks_exact_mut(channels).zip(counts) {
            cell.iter_mut().for_each(|value| *value /= count);
        }
        FeatureMap::new(Extent::new(width, height), channels, values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By sd-dino's code: windows of 512 on 960 start at 0 and 448.
    #[test]
    fn windows_cover_the_canvas_of_the_published_code() {
        let windows = Windows::over(Extent::new(960, 960), 512);
        assert_eq!(windows.corners, [[0, 0], [448, 0], [0, 448], [448, 448]]);
        assert_eq!(windows.window, Extent::new(512, 512));
        let small = Windows::over(Extent::new(320, 512), 512);
        assert_eq!(small.corners, [[0, 0]]);
        assert_eq!(small.window, Extent::new(320, 512));
        // 1152 pixels more than a window in three steps; 1140 in multiples of 64, but the last.
        let long = |width| Windows::over(Extent::new(width, 512), 512).corners;
        assert_eq!(long(1664), [[0, 0], [384, 0], [768, 0], [1152, 0]]);
        assert_eq!(long(1652), [[0, 0], [320, 0], [704, 0], [1140, 0]]);
    }

    /// One cell for 64 pixels whose value is its place on the canvas: what overlaps agrees, so the
    /// stitched map is the canvas's own. A window that is one higher lifts what it shares by half.
    #[test]
    fn stitched_maps_are_the_canvas_s() {
        let canvas = Extent::new(960, 64);
        let windows = Windows::over(canvas, 512);
        let map = |left: usize, lift: f32| {
            let values = (left..left + 8).map(|place| place as f32 + lift);
            FeatureMap::new(Extent::new(8, 1), 1, values.collect())
        };
        let stitched = windows.stitch(&[map(0, 0.0), map(7, 0.0)]);
        let places: Vec<f32> = (0..15).map(|place| place as f32).collect();
        assert_eq!(stitched.values(), places);
        let lifted = windows.stitch(&[map(0, 0.0), map(7, 1.0)]);
        assert_eq!(lifted.values()[6..9], [6.0, 7.5, 9.0]);
    }

    #[test]
    fn a_window_shows_its_part() {
        let canvas = Extent::new(128, 64);
        let values: Vec<f32> = (0..128 * 64 * 3).map(|index| index as f32).collect();
        let pixels = Pixels::new(canvas, values);
        let pieces = Windows::over(canvas, 64).cut(&pixels);
        assert_eq!(pieces.len(), 2);
        // The second window's second row begins at row 1, column 64.
        assert_eq!(pieces[1].values()[64 * 3], ((128 + 64) * 3) as f32);
    }
}
