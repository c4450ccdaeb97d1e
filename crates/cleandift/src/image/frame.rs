//! The mapping between a picture's points, the canvas that the network sees, and the cells of a
//! feature map: the only place where coordinates are converted.
//!
//! Everywhere a point `(x, y)` has x to the right and y down, and the centre of the first pixel
//! (or cell) lies at `(0, 0)`; its edges are at `-0.5` and `0.5`.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Width and height, in pixels or cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Extent {
    /// An extent of `width` columns and `height` rows.
    pub const fn new(width: usize, height: usize) -> Self {
        Self { width, height }
    }
}

impl std::fmt::Display for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// Where a picture lies on the canvas that was given to the network.
///
/// The picture was resized by `scale` and its top left edge put at `offset` (in canvas pixels,
/// negative when the canvas shows a crop of it).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// The picture as it was decoded, upright.
    pub picture: Extent,
    /// The canvas: what was encoded.
    pub canvas: Extent,
    /// Canvas pixels per picture pixel, horizontally and vertically.
    pub scale: [f64; 2],
    /// The picture's top left edge on the canvas, in canvas pixels.
    pub offset: [f64; 2],
}

impl Frame {
    /// The frame of a picture squashed onto the whole canvas.
    pub fn squash(picture: Extent, canvas: Extent) -> Self {
        Self::placed(picture, canvas, [0, 0], canvas)
    }

    /// The frame of a picture that was resized to `resized` and whose top left corner was then put
    /// at pixel `offset` (x, y) of the canvas.
    pub fn placed(picture: Extent, resized: Extent, offset: [i64; 2], canvas: Extent) -> Self {
        Self {
            picture,
            canvas,
            scale: [
                resized.width as f64 / picture.width as f64,
                resized.height as f64 / picture.height as f64,
            ],
            offset: offset.map(|pixels| pixels as f64),
        }
    }

    /// From a point of the picture to a point of the canvas.
    pub fn to_canvas(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        [
            (x + 0.5) * self.scale[0] + self.offset[0] - 0.5,
            (y + 0.5) * self.scale[1] + self.offset[1] - 0.5,
        ]
    }

    /// From a point of the canvas to a point of the picture (which may lie outside it).
    pub fn to_picture(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        [
            (x + 0.5 - self.offset[0]) / self.scale[0] - 0.5,
            (y + 0.5 - self.offset[1]) / self.scale[1] - 0.5,
        ]
    }

    /// From a point of the picture to a position among the cells of a map of extent `map`, by the
    /// rule of bilinear resizing without aligned corners (`F.interpolate` with `align_corners=False`). Not clamped.
    pub fn to_cell(&self, map: Extent, point: [f64; 2]) -> [f64; 2] {
        let [x, y] = self.to_canvas(point);
        [
            (x + 0.5) * map.width as f64 / self.canvas.width as f64 - 0.5,
            (y + 0.5) * map.height as f64 / self.canvas.height as f64 - 0.5,
        ]
    }

    /// From a position among the cells of a map of extent `map` to a point of the picture.
    pub fn from_cell(&self, map: Extent, [x, y]: [f64; 2]) -> [f64; 2] {
        self.to_picture([
            (x + 0.5) * self.canvas.width as f64 / map.width as f64 - 0.5,
            (y + 0.5) * self.canvas.height as f64 / map.height as f64 - 0.5,
        ])
    }

    /// Whether the canvas shows this point of the picture (false outside a crop).
    pub fn shows(&self, point: [f64; 2]) -> bool {
        let [x, y] = self.to_canvas(point);
        let inside = |v: f64, n: usize| v >= -0.5 && v <= n as f64 - 0.5;
        inside(x, self.canvas.width) && inside(y, self.canvas.height)
    }

    /// The columns and rows of the picture whose pixel centres the canvas shows.
    pub fn shown(&self) -> [Range<usize>; 2] {
        let [width, height] = [self.canvas.width as f64, self.canvas.height as f64];
        let [left, top] = self.to_picture([-0.5, -0.5]);
        let [right, bottom] = self.to_picture([width - 0.5, height - 0.5]);
        let pixels = |first: f64, last: f64, count: usize| {
            let end = ((last.floor() + 1.0).max(0.0) as usize).min(count);
            (first.ceil().max(0.0) as usize).min(end)..end
        };
        [
            pixels(left, right, self.picture.width),
            pixels(top, bottom, self.picture.height),
        ]
    }

    /// The frame of the same view when the picture itself is resized to `picture`.
    pub fn with_picture(&self, picture: Extent) -> Self {
        let [x, y] = self.scale;
        Self {
            picture,
            scale: [
                x * self.picture.width as f64 / picture.width as f64,
                y * self.picture.height as f64 / picture.height as f64,
            ],
            ..*self
        }
    }
}
