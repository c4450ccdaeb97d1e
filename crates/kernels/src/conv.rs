//! Convolution as an implicit product: the pixels under each tap are rows of a matrix.
//!
//! Under one tap of the kernel, an output pixel sees one input pixel, whose channels lie side by
//! side: a row that the product's body reads where it is. So a convolution is a product whose
//! reduction runs over taps, then channels, with other row pointers for each tap, and a row of
//! zeros where a tap falls on the padding. Nothing is copied, except where pixels are so small (the
//! first layer's) that a tap alone is too short a sum: there a block's patches are gathered.

use crate::Kernels;
use crate::gemm::{Added, BLOCK_ROWS, Cut};
use crate::group_norm::Normalisation;
use crate::packed::{PackedMatrix, Stored};
use crate::threads::{self, Output};
use std::ops::Range;

/// Zeros around a map, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Columns to the left.
    pub left: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Padding {
    /// The same on all sides.
    pub const fn all(pixels: usize) -> Self {
        Self {
            top: pixels,
            left: pixels,
            bottom: pixels,
            right: pixels,
        }
    }
}

/// How a kernel moves over maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Convolution {
    /// Maps in the stack.
    pub images: usize,
    /// Rows of an input map.
    pub height: usize,
    /// Columns of an input map.
    pub width: usize,
    /// Input pixels from an output pixel to the next.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: Padding,
}

impl Convolution {
    /// Rows and columns of an output map, for a kernel of `kernel` by `kernel`.
    ///
    /// # Panics
    /// If the kernel is larger than the padded map, or the stride is 0.
    pub fn output(&self, kernel: usize) -> (usize, usize) {
        let steps = |size: usize, before: usize, after: usize| {
            let padded = size + before + after;
            assert!(padded >= kernel, "kernel of {kernel} on {padded} pixels");
            (padded - kernel) / self.stride + 1
        };
        let Padding {
            top,
            left,
            bottom,
            right,
        } = self.padding;
        (
            steps(self.height, top, bottom),
            steps(self.width, left, right),
        )
    }

    /// The input pixel under a tap of the output pixel `(image, y, x)`, counted over all maps;
    /// none on the padding.
    pub(crate) fn source(
        &self,
        [image, y, x]: [usize; 3],
        tap_y: usize,
        tap_x: usize,
    ) -> Option<usize> {
        let y = (y * self.stride + tap_y).checked_sub(self.padding.top)?;
        let x = (x * self.stride + tap_x).checked_sub(self.padding.left)?;
        (y < self.height && x < self.width).then(|| (image * self.height + y) * self.width + x)
    }

    /// What the kernel sees at each of some output pixels, `[place][tap][input]`.
    fn patches(&self, places: &[[usize; 3]], x: &[f32], w: &PackedMatrix) -> Vec<f32> {
        let inputs = w.inputs();
        let mut patches = vec![0.0; places.len() * w.taps() * inputs];
        for (i, to) in patches.chunks_mut(inputs).enumerate() {
            let (place, tap) = (places[i / w.taps()], i % w.taps());
            if let Some(pixel) = self.source(place, tap / w.kernel(), tap % w.kernel()) {
                to.copy_from_slice(&x[pixel * inputs..][..inputs]);
            }
        }
        patches
    }
}

/// A stack of maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maps {
    /// Maps in the stack.
    pub images: usize,
    /// Rows of a map.
    pub height: usize,
    /// Columns of a map.
    pub width: usize,
}

/// What a 3x3 convolution of stride 1, with one pixel of zeros around each map, reads, and what
/// stands around it in a network and is done on the way.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// `[images, height, width, inputs]`.
    pub x: &'a [f32],
    /// The extent of `x`.
    pub maps: Maps,
    /// A group norm of `x`, and SiLU, before the convolution.
    pub norm: Option<&'a Normalisation>,
    /// Added to each pixel: a value per output, or as many for each image.
    pub bias: Option<&'a [f32]>,
    /// Added to the output, and as long.
    pub residual: Option<&'a [f32]>,
}

impl<'a> Layer<'a> {
    /// Channels of a pixel of `x`.
    pub(crate) fn inputs(&self) -> usize {
        self.x.len() / (self.maps.images * self.maps.height * self.maps.width).max(1)
    }

    /// Some channels of an image's bias.
    pub(crate) fn bias_of(
        &self,
        outputs: usize,
        image: usize,
        channels: &Range<usize>,
    ) -> Option<&'a [f32]> {
        let bias = self.bias?;
        let first = if bias.len() == outputs {
            0
        } else {
            image * outputs
        };
        Some(&bias[first..][channels.clone()])
    }

    /// Panics if a length does not fit.
    pub(crate) fn check(&self, inputs: usize, outputs: usize, extent: [usize; 2], out: &[f32]) {
        let Maps {
            images,
            height,
            width,
        } = self.maps;
        assert_eq!(
            self.x.len(),
            images * height * width * inputs,
            "length of x"
        );
        assert_eq!(
            out.len(),
            images * extent[0] * extent[1] * outputs,
            "length of out"
        );
        if let Some(norm) = self.norm {
            assert_eq!(
                norm.extent(),
                [images, inputs],
                "images and channels of the norm"
            );
        }
        if let Some(bias) = self.bias {
            assert!(
                [outputs, images * outputs].contains(&bias.len()),
                "length of bias"
            );
        }
        if let Some(residual) = self.residual {
            assert_eq!(residual.len(), out.len(), "length of residual");
        }
    }
}

impl Kernels {
    /// Convolves `x` `[images, height, width, inputs]` into `out`
    /// `[images, output height, output width, outputs]`.
    ///
    /// # Panics
    /// If a length does not fit, or the weight was not packed, or for another instruction set.
    pub fn convolution<'a>(
        &self,
        x: &[f32],
        geometry: &Convolution,
        w: &PackedMatrix,
        added: impl Into<Added<'a>>,
        out: &mut [f32],
    ) {
        let added = added.into();
        let inputs = w.inputs();
        let (height, width) = geometry.output(w.kernel());
        let rows = geometry.images * height * width;
        let pixels = geometry.images * geometry.height * geometry.width;
        self.check_weight(w);
        added.check(w, out);
        assert!(!matches!(w.stored(), Stored::Rows(_)), "an unpacked weight");
        assert_eq!(x.len(), pixels * inputs, "length of x");
        assert_eq!(out.len(), rows * w.outputs(), "length of out");

        let zeros = vec![0.0; inputs];
        let out = Output::new(out);
        let cut = Cut::new(w, rows);
        threads::for_each(cut.count(), |index| {
            let task = cut.task(index);
            let mut places = [[0; 3]; BLOCK_ROWS];
            for (place, row) in places.iter_mut().zip(task.rows.clone()) {
                *place = [row / (height * width), row / width % height, row % width];
            }
            let places = &places[..task.rows.len()];
            let mut pointers = [std::ptr::null(); BLOCK_ROWS];
            let mut patches = Vec::new();
            if w.patches() {
                patches = geometry.patches(places, x, w);
                let rows = patches.chunks(w.taps() * inputs);
                for (pointer, patch) in pointers.iter_mut().zip(rows) {
                    *pointer = patch.as_ptr();
                }
            }
            for piece in w.pieces() {
                if patches.is_empty() {
                    let (tap_y, tap_x) = (piece.tap / w.kernel(), piece.tap % w.kernel());
                    for (pointer, place) in pointers.iter_mut().zip(places) {
                        *pointer = match geometry.source(*place, tap_y, tap_x) {
                            Some(pixel) => x[pixel * inputs + piece.inputs.start..].as_ptr(),
                            None => zeros.as_ptr(),
                        };
                    }
                }
                // SAFETY: each pointer is at the piece's first input of a pixel of `x`, whose
                // length was checked, or of a patch, or at as many zeros; `out` and `added` were
                // checked too; tasks don't overlap.
                unsafe { self.add_piece(&pointers, w, &piece, &added, &task, out) };
            }
        });
    }
}
