//! Gradients of a 3x3 convolution by Winograd's F(4x4, 3x3), for maps that pay for its transforms.
//!
//! The forward pass is `out = Aᵀ [(G w Gᵀ) · (Bᵀ x B)] A`, see [`crate::winograd`]. The gradient of
//! the input is a convolution of `dy` with the kernel turned by half a turn, inputs and outputs
//! exchanged: the forward pass once more. That of the weight follows from the formula: with
//! `V = Bᵀ x B` and `dM = A dy Aᵀ` of each tile, at each of the 36 points
//! `dU = sum over tiles of dM Vᵀ`, a sum of outer products over outputs and inputs, and
//! `dw = Gᵀ dU G`.

use crate::backward::conv::{COLUMNS, WeightTask};
use crate::backward::gemm::OuterProducts;
use crate::simd::Simd;
use crate::threads::{self, Output};
use crate::winograd::{OUTPUTS, POINTS, SIDE, across, input_row};
use crate::{Convolution, Kernels, Maps};
use rayon::prelude::*;

/// Tiles that are transformed before their outer products are added.
const TILES: usize = 64;

/// Floats after each point's, so that the 36 values of a place are not all in the same lines of
/// the first cache.
const GAP: usize = 16;

impl Kernels {
    /// See [`Kernels::convolution_input_gradient`].
    pub(super) fn winograd_input_gradient(
        &self,
        dy: &[f32],
        geometry: &Convolution,
        weight: &[f32],
        [outputs, inputs, _]: [usize; 3],
        dx: &mut [f32],
    ) {
        let maps = Maps {
            images: geometry.images,
            height: geometry.height,
            width: geometry.width,
        };
        let packed = self.pack_winograd(&turned(weight, outputs, inputs), inputs, outputs);
        self.convolution_winograd(dy, maps, &packed, None, dx);
    }

    /// One task of [`Kernels::convolution_weight_gradient`].
    pub(super) fn winograd_weight_gradient(&self, task: &WeightTask<'_>, dw: Output) {
        let Convolution {
            images,
            height,
            width,
            ..
        } = *task.geometry;
        let across = width.div_ceil(OUTPUTS);
        let in_map = height.div_ceil(OUTPUTS) * across;
        let tiles = images * in_map;
        let (rows, columns) = (task.outputs.len(), task.inputs.len());
        let transformed = TILES.min(tiles) * COLUMNS + GAP;
        let summed = rows * COLUMNS + GAP;
        threads::with_scratch(POINTS * (2 * transformed + summed), |scratch| {
            let (gradients, rest) = scratch.split_at_mut(POINTS * transformed);
            let (panels, sums) = rest.split_at_mut(POINTS * transformed);
            sums.fill(0.0);
            for start in (0..tiles).step_by(TILES) {
                let depth = TILES.min(tiles - start);
                for i in 0..depth {
                    let (image, tile) = ((start + i) / in_map, (start + i) % in_map);
                    let place = TilePlace {
                        first_pixel: image * height * width,
                        map: [height, width],
                        corner: [tile / across * OUTPUTS, tile % across * OUTPUTS],
                    };
                    self.transform_tile(task, &place, [i, depth], gradients, panels, transformed);
                }
                for point in 0..POINTS {
                    // SAFETY: `gradients` has a row of `COLUMNS >= rows` floats for each tile; the
                    // sums are `rows` rows of `COLUMNS`.
                    unsafe {
                        (self.outer_products)(&OuterProducts {
                            a: gradients[point * transformed..].as_ptr(),
                            a_stride: COLUMNS,
                            depth,
                            rows,
                            panels: &panels[point * transformed..][..depth * COLUMNS],
                            columns,
                            out: sums[point * summed..].as_mut_ptr(),
                            out_stride: COLUMNS,
                        });
                    }
                }
            }
            // SAFETY: no other task has these outputs and inputs.
            unsafe {
                task.write(dw, |output, input, kernel| {
                    let from = &sums[output * COLUMNS + input..];
                    let points = std::array::from_fn(|point| from[point * summed]);
                    kernel.copy_from_slice(&kernel_gradient(&points));
                })
            };
        });
    }

    /// Transforms the task's channels of one tile, the `i`-th of `depth`: of `dy` into rows
    /// `[point][tile][output]`, of `x` into panels `[point][panel][tile][input in the panel]`.
    fn transform_tile(
        &self,
        task: &WeightTask<'_>,
        place: &TilePlace,
        [i, depth]: [usize; 2],
        gradients: &mut [f32],
        panels: &mut [f32],
        stride: usize,
    ) {
        let [outputs, inputs, _] = task.sides;
        let first = place.first_pixel * outputs + task.outputs.start;
        let strip = Strip {
            map: place.map,
            corner: place.corner,
            from: &task.dy[first..],
            pixel: outputs,
            channels: task.outputs.len(),
            to: &mut gradients[i * COLUMNS..],
            stride,
        };
        // SAFETY: this machine has this table's instruction set; the strip's pixels are those of
        // one map, and its channels of each point are inside `gradients`.
        unsafe { (self.winograd_gradient)(Side::Output, strip) };
        for column in (0..task.inputs.len()).step_by(self.panel_width) {
            let first = place.first_pixel * inputs + task.inputs.start + column;
            let strip = Strip {
                map: place.map,
                corner: place.corner,
                from: &task.x[first..],
                pixel: inputs,
                channels: self.panel_width.min(task.inputs.len() - column),
                to: &mut panels[column * depth + i * self.panel_width..],
                stride,
            };
            // SAFETY: as above, inside `panels`.
            unsafe { (self.winograd_gradient)(Side::Input, strip) };
        }
    }
}

/// The weight `[outputs, inputs, 3, 3]` as `[inputs, outputs, 3, 3]`, each kernel turned by half a
/// turn.
fn turned(weight: &[f32], outputs: usize, inputs: usize) -> Vec<f32> {
    let mut turned = vec![0.0; weight.len()];
    turned
        .par_chunks_mut(outputs * 9)
        .enumerate()
        .for_each(|(input, to)| {
            for (output, to) in to.chunks_exact_mut(9).enumerate() {
                let from = &weight[(output * inputs + input) * 9..][..9];
                for (to, from) in to.iter_mut().zip(from.iter().rev()) {
                    *to = *from;
                }
            }
        });
    turned
}

/// `Gᵀ u G`, worked in f64.
fn kernel_gradient(points: &[f32; POINTS]) -> [f32; 9] {
    let row = |[a, b, c, d, e, f]: [f64; SIDE]| {
        let (near, far) = (b + c, d + e);
        [
            a / 4.0 - near / 6.0 + far / 24.0,
            (c - b) / 6.0 + (d - e) / 12.0,
            (far - near) / 6.0 + f,
        ]
    };
    let columns: [[f64; 3]; SIDE] =
        std::array::from_fn(|x| row(std::array::from_fn(|y| f64::from(points[y * SIDE + x]))));
    let mut out = [0.0; 9];
    for y in 0..3 {
        let values = row(std::array::from_fn(|x| columns[x][y]));
        for (x, value) in values.into_iter().enumerate() {
            out[y * 3 + x] = value as f32;
        }
    }
    out
}

/// A tile of one of the maps.
struct TilePlace {
    /// The number of the map's first pixel.
    first_pixel: usize,
    map: [usize; 2],
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
    /// Rows and columns of the map.
    map: [usize; 2],
    /// Row and column of the tile's first output.
    corner: [usize; 2],
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
        input_row(pixels)
    }
}

impl Transform for Gradient {
    const PIXELS: usize = OUTPUTS;
    const BORDER: usize = 0;

    /// `A y` of four values.
    #[inline(always)]
    fn row<V: Simd>([a, b, c, d, ..]: [V; SIDE]) -> [V; SIDE] {
        let (two, four) = (a.constant(2.0), a.constant(4.0));
        let (even, odd) = (a.add(c), b.add(d));
        let far_even = c.mul_add(four, a);
        let far_odd = d.mul_add(four, b).mul(two);
        [
            a,
            even.add(odd),
            even.sub(odd),
            far_even.add(far_odd),
            far_even.sub(far_odd),
            d,
        ]
    }
}

/// Transforms a strip: point `p`'s channels go to `to[p * stride ..]`.
///
/// # Safety
/// The machine has `V`'s instruction set, `from` holds the strip's channels of each pixel of the
/// map, and `to` those of each point.
#[inline(always)]
pub(crate) unsafe fn gradient_body<V: Simd>(side: Side, strip: Strip<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match side {
            Side::Input => transform::<V, Input>(strip),
            Side::Output => transform::<V, Gradient>(strip),
        }
    }
}

/// # Safety
/// As [`gradient_body`]'s.
#[inline(always)]
unsafe fn transform<V: Simd, T: Transform>(strip: Strip<'_>) {
    let [height, width] = strip.map;
    let [top, left_edge] = strip.corner;
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
