//! Gradients of a 3x3 convolution by Winograd's F(4x4, 3x3), for maps that pay for its transforms.
//!
//! The forward pass is `out = Aᵀ [(G w Gᵀ) · (Bᵀ x B)] A`, see [`crate::winograd`]. The gradient of
//! the input is a convolution of `dy` with the kernel turned by half a turn, inputs and outputs
//! exchanged: the forward pass once more. That of the weight follows from the formula: with
//! `V = Bᵀ x B` and `dM = A dy Aᵀ` of each tile, at each of the 36 points
//! `dU = sum over tiles of dM Vᵀ`, a sum of outer products over outputs and inputs, and
//! `dw = Gᵀ dU G`.
//!
//! Weights change with each step of a training, so they are never kept at the 36 points, where they
//! are four times as large: a task transforms those of its channels into its scratch.

mod input;
pub(crate) mod kernel;
mod transform;
mod weight;

use crate::Convolution;
use crate::simd::Simd;
use transform::{OUTPUTS, SIDE, across, gradients_to_points, pixels_to_points, to_outputs};

/// Floats after each point's, so that the 36 values of a place are not all in the same lines of
/// the first cache.
const GAP: usize = 16;

/// The tiles of all maps, counted in their order.
struct Tiles {
    map: [usize; 2],
    /// Tiles of a map, down and across.
    grid: [usize; 2],
    count: usize,
}

impl Tiles {
    fn of(geometry: &Convolution) -> Self {
        let map = [geometry.height, geometry.width];
        let grid = map.map(|side| side.div_ceil(OUTPUTS));
        Self {
            map,
            grid,
            count: geometry.images * grid[0] * grid[1],
        }
    }

    /// The number of its map's first pixel, and a tile's place on the map.
    fn place(&self, tile: usize) -> (usize, Place) {
        let [down, across] = self.grid;
        let image = tile / across / down;
        let corner = [tile / across % down * OUTPUTS, tile % across * OUTPUTS];
        let map = self.map;
        (image * map[0] * map[1], Place { map, corner })
    }
}

/// A tile's place on a map.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// Rows and columns of the map.
    map: [usize; 2],
    /// Row and column of the tile's first output.
    corner: [usize; 2],
}

/// Which side of the convolution a tile is on.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    /// Six by six pixels of the input become `Bᵀ x B`.
    Input,
    /// Four by four gradients of outputs become `A dy Aᵀ`.
    Output,
}

/// Some channels of a tile, and where its 36 points go.
pub(crate) struct Strip<'a> {
    place: Place,
    /// The strip's first channel of the map's first pixel.
    from: &'a [f32],
    /// Floats from a pixel to the next.
    pixel: usize,
    channels: usize,
    /// The channels of the first point.
    to: &'a mut [f32],
    /// Floats from a point to the next.
    stride: usize,
}

/// How the rows and columns of a tile become points.
trait Transform {
    /// Pixels along a side.
    const PIXELS: usize;
    /// Pixels before the tile's first output.
    const BORDER: usize;

    /// Points of a row of pixels, zeros after the last.
    fn row<V: Simd>(pixels: [V; SIDE]) -> [V; SIDE];
}

struct Input;
struct Gradient;

impl Transform for Input {
    const PIXELS: usize = SIDE;
    const BORDER: usize = 1;

    #[inline(always)]
    fn row<V: Simd>(pixels: [V; SIDE]) -> [V; SIDE] {
        pixels_to_points(pixels)
    }
}

impl Transform for Gradient {
    const PIXELS: usize = OUTPUTS;
    const BORDER: usize = 0;

    #[inline(always)]
    fn row<V: Simd>([a, b, c, d, ..]: [V; SIDE]) -> [V; SIDE] {
        gradients_to_points([a, b, c, d])
    }
}

/// Transforms a strip: point `p`'s channels go to `to[p * stride ..]`.
///
/// # Safety
/// The machine has `V`'s instruction set, `from` holds the strip's channels of each pixel of the
/// map, and `to` those of each point.
#[inline(always)]
pub(crate) unsafe fn transform_body<V: Simd>(side: Side, strip: Strip<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match side {
            Side::Input => transform::<V, Input>(strip),
            Side::Output => transform::<V, Gradient>(strip),
        }
    }
}

/// # Safety
/// As [`transform_body`]'s.
#[inline(always)]
unsafe fn transform<V: Simd, T: Transform>(strip: Strip<'_>) {
    let [height, width] = strip.place.map;
    let [top, left_edge] = strip.place.corner;
    for channel in (0..strip.channels).step_by(V::LANES) {
        let left = strip.channels - channel;
        // SAFETY: only pixels of the map are read; the caller's promise for the rest.
        unsafe {
            let mut half = [[V::fill(0.0); SIDE]; SIDE];
            for (column, half) in half.iter_mut().enumerate().take(T::PIXELS) {
                let mut pixels = [V::fill(0.0); SIDE];
                for (row, pixel) in pixels.iter_mut().enumerate().take(T::PIXELS) {
                    // Before the first row or column, the difference is too large a number.
                    let y = (top + row).wrapping_sub(T::BORDER);
                    let x = (left_edge + column).wrapping_sub(T::BORDER);
                    if y < height && x < width {
                        let from = (y * width + x) * strip.pixel + channel;
                        *pixel = V::load_up_to(strip.from.as_ptr().add(from), left);
                    }
                }
                *half = T::row(pixels);
            }
            let to = strip.to.as_mut_ptr().add(channel);
            for row in 0..SIDE {
                let values = T::row(across(&half, row));
                for (column, value) in values.into_iter().enumerate() {
                    value.store_up_to(to.add((row * SIDE + column) * strip.stride), left);
                }
            }
        }
    }
}

/// Some channels of a tile at the 36 points, and the map that they go to.
pub(crate) struct Results<'a> {
    place: Place,
    /// The channels of the first point.
    from: &'a [f32],
    /// Floats from a point to the next.
    stride: usize,
    channels: usize,
    /// The strip's first channel of the map's first pixel.
    to: *mut f32,
    /// Floats from a pixel to the next.
    pixel: usize,
}

/// Transforms the products of a tile into outputs, `Aᵀ m A`.
///
/// # Safety
/// The machine has `V`'s instruction set, `from` holds the channels of each point, and those of the
/// tile's outputs on the map at `to` are this thread's to write.
#[inline(always)]
pub(crate) unsafe fn results_body<V: Simd>(results: Results<'_>) {
    let [height, width] = results.place.map;
    let [top, left_edge] = results.place.corner;
    for channel in (0..results.channels).step_by(V::LANES) {
        let left = results.channels - channel;
        // SAFETY: rows and columns beyond the map are left out; the caller's promise for the rest.
        unsafe {
            let from = results.from.as_ptr().add(channel);
            let mut half = [[V::fill(0.0); OUTPUTS]; SIDE];
            for (column, half) in half.iter_mut().enumerate() {
                let mut values = [V::fill(0.0); SIDE];
                for (row, value) in values.iter_mut().enumerate() {
                    let point = row * SIDE + column;
                    *value = V::load_up_to(from.add(point * results.stride), left);
                }
                *half = to_outputs(values);
            }
            for row in 0..OUTPUTS.min(height - top) {
                let values = to_outputs(across(&half, row));
                let columns = OUTPUTS.min(width - left_edge);
                for (column, value) in values.into_iter().enumerate().take(columns) {
                    let pixel = (top + row) * width + left_edge + column;
                    value.store_up_to(results.to.add(pixel * results.pixel + channel), left);
                }
            }
        }
    }
}
