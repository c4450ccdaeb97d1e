//! Placing a picture on the canvas that the network sees.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::str::FromStr;

use super::resample::{Axis, interpolate, resize};
use super::{Extent, Frame, ImageError, PIXEL_LIMIT, Picture, Pixels, Resample, Size};

/// How a picture of one shape goes onto a canvas of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fit {
    /// Stretched to the whole canvas, the ratio of the sides ignored.
    Squash,
    /// Resized until it fits inside, centred, the rest black.
    Pad,
    /// Resized until it covers the canvas, the centre kept.
    Crop,
}

/// The accepted names.
const NAMES: [(&str, Fit); 3] = [
    ("squash", Fit::Squash),
    ("pad", Fit::Pad),
    ("crop", Fit::Crop),
];

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES
            .iter()
            .find(|(_, fit)| fit == self)
            .map(|(name, _)| name);
        f.write_str(name.expect("every variant has a name"))
    }
}

impl FromStr for Fit {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let found = NAMES.iter().find(|(name, _)| *name == text);
        found
            .map(|(_, fit)| *fit)
            .ok_or_else(|| ImageError::UnknownName {
                what: "fit",
                text: text.to_owned(),
                accepted: "squash, pad, crop",
            })
    }
}

impl Fit {
    /// The size that the whole picture is resized to, before it is padded or cropped.
    ///
    /// The side that does not follow from the canvas is rounded to the nearest pixel, halves to
    /// even (as numpy's `around` does in the code that padding comes from, sd-dino), at least 1.
    fn resized(self, picture: Extent, canvas: Extent) -> Extent {
        let side = |canvas: usize, picture: usize, other: usize| {
            let exact = canvas as f64 * other as f64 / picture as f64;
            (exact.round_ties_even() as usize).max(1)
        };
        let by_width = Extent::new(
            canvas.width,
            side(canvas.width, picture.width, picture.height),
        );
        let by_height = Extent::new(
            side(canvas.height, picture.height, picture.width),
            canvas.height,
        );
        // Whether the picture is at least as wide in shape as the canvas; sides are below 2^32.
        let wide = picture.width as u64 * canvas.height as u64
            >= picture.height as u64 * canvas.width as u64;
        match (self, wide) {
            (Fit::Squash, _) => canvas,
            (Fit::Pad, true) | (Fit::Crop, false) => by_width,
            (Fit::Pad, false) | (Fit::Crop, true) => by_height,
        }
    }
}

/// Puts a picture on a canvas of `size`: the pixels that the network sees, and where the picture
/// lies among them.
///
/// `multiple` is what the network asks of the canvas's sides. A picture that already has the
/// wanted size is not resampled. Black is -1.
///
/// # Errors
/// If the size does not go with `multiple`, or the canvas (or the image between the two passes of
/// the resampling) would have more than [`PIXEL_LIMIT`] pixels.
pub fn fit(
    picture: &Picture,
    size: Size,
    fit: Fit,
    resample: Resample,
    multiple: NonZeroUsize,
) -> Result<(Pixels, Frame), ImageError> {
    let from = picture.extent();
    let canvas = size.canvas(from, multiple)?;
    let resized = fit.resized(from, canvas);
    let (columns, left) = place(from.width, resized.width, canvas.width);
    let (rows, top) = place(from.height, resized.height, canvas.height);
    for needed in [canvas, Extent::new(columns.shown.len(), from.height)] {
        if needed.width.saturating_mul(needed.height) > PIXEL_LIMIT {
            return Err(ImageError::CanvasTooLarge {
                picture: from,
                canvas,
                needed,
            });
        }
    }
    let part = Part {
        width: columns.shown.len(),
        left: left.max(0) as usize,
        top: top.max(0) as usize,
    };
    let pixels = match resample {
        Resample::Filter(filter) => {
            let rgb = resize(picture.rgb(), &columns, &rows, filter);
            Pixels::from(&Picture::from_rgb(canvas, part.on(canvas, 0, rgb))?)
        }
        Resample::Tensor => {
            let values = interpolate(picture.rgb(), &columns, &rows);
            Pixels::new(canvas, part.on(canvas, -1.0, values))
        }
    };
    Ok((pixels, Frame::placed(from, resized, [left, top], canvas)))
}

/// Centres a side of `resized` pixels on one of `canvas`: what is seen of it, and where on the
/// canvas it begins. Of an odd rest, the smaller half lies before.
fn place(picture: usize, resized: usize, canvas: usize) -> (Axis, i64) {
    let shown: Range<usize> = match resized.checked_sub(canvas) {
        Some(rest) => rest / 2..rest / 2 + canvas,
        None => 0..resized,
    };
    let offset = match canvas.checked_sub(resized) {
        Some(rest) => (rest / 2) as i64,
        None => -(shown.start as i64),
    };
    (
        Axis {
            from: picture,
            to: resized,
            shown,
        },
        offset,
    )
}

/// An image of `width` columns, to be put on a canvas at `left`, `top`.
struct Part {
    width: usize,
    left: usize,
    top: usize,
}

impl Part {
    fn on<T: Copy>(&self, canvas: Extent, background: T, part: Vec<T>) -> Vec<T> {
        let row = canvas.width * 3;
        if part.len() == row * canvas.height {
            return part;
        }
        let mut out = vec![background; row * canvas.height];
        let start = self.left * 3;
        let end = start + self.width * 3;
        for (out, part) in out
            .chunks_exact_mut(row)
            .skip(self.top)
            .zip(part.chunks_exact(self.width * 3))
        {
            out[start..end].copy_from_slice(part);
        }
        out
    }
}
