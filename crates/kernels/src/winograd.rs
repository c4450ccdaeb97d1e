//! 3x3 convolution, stride 1, by Winograd's F(4x4, 3x3): a quarter of the multiplications.
//!
//! Six by six pixels give four by four outputs: both are seen as polynomials in two variables and
//! multiplied at 36 points, where a product of polynomials is a product of numbers. So
//! `out = Aᵀ [(G w Gᵀ) · (Bᵀ x B)] A`, where `·` is, at each point, a product of matrices over all
//! tiles, inputs and outputs: 36 multiplications per output and input for 16 outputs, against 144.
//! (Lavin and Gray, arXiv 1509.09308.) In f32 the rounding error is three to four times that of
//! direct convolution; with half-precision operands it would be too large.
//!
//! # Blocking
//!
//! A task has [`TILES`] tiles of one image. It transforms their pixels into `[point][tile][input]`
//! (a few hundred kilobytes to some megabytes, written once and read once per panel), multiplies
//! each point's rows with that point's weights, and transforms the 36 results of each tile and
//! output back. Inputs are never split among threads, and a tile's arithmetic does not depend on
//! its neighbours: the same bits for any cut.

use crate::Kernels;
use crate::gemm::{Block, Panels, Start};
use crate::simd::Simd;
use crate::threads::{self, Output, piece};
use rayon::prelude::*;

/// Outputs of a tile, along a side.
pub(crate) const OUTPUTS: usize = 4;
/// Pixels of a tile, along a side.
pub(crate) const SIDE: usize = OUTPUTS + 2;
/// Points at which polynomials are multiplied: 0, 1, -1, 2, -2 and infinity on each axis.
pub(crate) const POINTS: usize = SIDE * SIDE;
/// Tiles of a task: a multiple of every instruction set's [`Simd::ROWS`].
const TILES: usize = 48;

/// Inputs of a piece of the reduction.
const PIECE: usize = 512;

/// Weights of a 3x3 convolution at the 36 points, `[point][panel][input][output in the panel]`,
/// for one instruction set: four times the memory of the kernel itself.
#[derive(Clone, Debug)]
pub struct WinogradWeights {
    panels: Panels,
    outputs: usize,
    inputs: usize,
    panel_width: usize,
    table: &'static str,
}

impl WinogradWeights {
    /// Memory that they take.
    pub fn bytes(&self) -> usize {
        size_of_val::<[f32]>(&self.panels)
    }

    /// Floats of one point's weights.
    fn point(&self) -> usize {
        self.outputs.next_multiple_of(self.panel_width) * self.inputs
    }
}

/// A stack of maps under a 3x3 kernel with one pixel of zeros around each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maps {
    /// Maps in the stack.
    pub images: usize,
    /// Rows of a map.
    pub height: usize,
    /// Columns of a map.
    pub width: usize,
}

impl Kernels {
    /// Memory that the weights of a 3x3 convolution will take at the 36 points.
    pub fn winograd_bytes(&self, outputs: usize, inputs: usize) -> usize {
        outputs.next_multiple_of(self.panel_width) * inputs * POINTS * size_of::<f32>()
    }

    /// Transforms the weight `[outputs, inputs, 3, 3]` of a convolution.
    ///
    /// # Panics
    /// If the length of `weight` is another, or `inputs` is 0.
    pub fn pack_winograd(&self, weight: &[f32], outputs: usize, inputs: usize) -> WinogradWeights {
        assert_eq!(weight.len(), outputs * inputs * 9, "length of weight");
        assert!(inputs > 0, "a weight without inputs");
        let width = self.panel_width;
        let mut packed = WinogradWeights {
            panels: Panels::zeros(outputs.next_multiple_of(width) * inputs * POINTS),
            outputs,
            inputs,
            panel_width: width,
            table: self.name,
        };
        let point = packed.point();
        let to = Output::new(&mut packed.panels);
        (0..outputs.div_ceil(width))
            .into_par_iter()
            .for_each(|panel| {
                for output in panel * width..outputs.min((panel + 1) * width) {
                    for input in 0..inputs {
                        let kernel = &weight[(output * inputs + input) * 9..][..9];
                        let place = (panel * inputs + input) * width + output % width;
                        for (i, value) in transformed_kernel(kernel).into_iter().enumerate() {
                            // SAFETY: `place` is inside a point's weights; each panel is written by
                            // one task.
                            unsafe { *to.at(i * point + place) = value };
                        }
                    }
                }
            });
        packed
    }

    /// Convolves `x` `[images, height, width, inputs]` into `out`
    /// `[images, height, width, outputs]`.
    ///
    /// # Panics
    /// If a length does not fit, or the weights were packed for another instruction set.
    pub fn convolution_winograd(
        &self,
        x: &[f32],
        maps: Maps,
        w: &WinogradWeights,
        bias: Option<&[f32]>,
        out: &mut [f32],
    ) {
        let Maps {
            images,
            height,
            width,
        } = maps;
        let pixels = height * width;
        assert_eq!(
            w.table, self.name,
            "the weight was packed for another table"
        );
        assert_eq!(x.len(), images * pixels * w.inputs, "length of x");
        assert_eq!(out.len(), images * pixels * w.outputs, "length of out");
        assert!(
            bias.is_none_or(|bias| bias.len() == w.outputs),
            "length of bias"
        );

        let across = width.div_ceil(OUTPUTS);
        let tiles = height.div_ceil(OUTPUTS) * across;
        let blocks = tiles.div_ceil(TILES);
        let out = Output::new(out);
        threads::for_each(images * blocks, |task| {
            let (image, block) = (task / blocks, task % blocks);
            let tiles = piece(tiles, TILES, block);
            let x = &x[image * pixels * w.inputs..][..pixels * w.inputs];
            let inputs = POINTS * tiles.len() * w.inputs;
            let outputs = POINTS * tiles.len() * w.outputs;
            threads::with_scratch(inputs + outputs, |scratch| {
                let (transformed, products) = scratch.split_at_mut(inputs);
                for (i, tile) in tiles.clone().enumerate() {
                    let corner = [tile / across * OUTPUTS, tile % across * OUTPUTS];
                    let patch = Patch {
                        map: [height, width],
                        corner,
                        channels: w.inputs,
                    };
                    // SAFETY: this machine has this table's instruction set; `x` is one map, and
                    // the tile's part of each point is inside `transformed`.
                    unsafe {
                        let to = transformed.as_mut_ptr().add(i * w.inputs);
                        (self.winograd_input)(&patch, x, to, tiles.len() * w.inputs);
                    }
                }
                self.multiply(w, tiles.len(), transformed, products);
                for (i, tile) in tiles.clone().enumerate() {
                    let corner = [tile / across * OUTPUTS, tile % across * OUTPUTS];
                    let patch = Patch {
                        map: [height, width],
                        corner,
                        channels: w.outputs,
                    };
                    // SAFETY: as above; the tile's outputs are this task's alone.
                    unsafe {
                        let from = products.as_ptr().add(i * w.outputs);
                        let to = out.at(image * pixels * w.outputs);
                        (self.winograd_output)(&patch, from, tiles.len() * w.outputs, bias, to);
                    }
                }
            });
        });
    }

    /// At each point, all tiles' inputs times that point's weights.
    fn multiply(&self, w: &WinogradWeights, tiles: usize, from: &[f32], to: &mut [f32]) {
        let mut rows = [std::ptr::null(); TILES];
        let pieces = w.inputs.div_ceil(PIECE);
        let depth = w.inputs.div_ceil(pieces);
        for point in 0..POINTS {
            let from = &from[point * tiles * w.inputs..][..tiles * w.inputs];
            let to = &mut to[point * tiles * w.outputs..][..tiles * w.outputs];
            for index in 0..pieces {
                let inputs = piece(w.inputs, depth, index);
                for (tile, row) in rows.iter_mut().enumerate().take(tiles) {
                    *row = from[tile * w.inputs + inputs.start..].as_ptr();
                }
                // SAFETY: each row has the piece's inputs; `to` is `[tiles, outputs]`.
                unsafe {
                    (self.product)(&Block {
                        rows: &rows[..tiles],
                        depth: inputs.len(),
                        panels: &w.panels[point * w.point() + inputs.start * w.panel_width..],
                        panel_stride: w.inputs * w.panel_width,
                        columns: w.outputs,
                        start: if index == 0 {
                            Start::Nothing
                        } else {
                            Start::Output
                        },
                        out: to.as_mut_ptr(),
                        out_stride: w.outputs,
                    });
                }
            }
        }
    }
}

/// `G w Gᵀ`, worked in f64.
fn transformed_kernel(kernel: &[f32]) -> [f32; POINTS] {
    let row = |[a, b, c]: [f64; 3]| {
        [
            a / 4.0,
            -(a + b + c) / 6.0,
            -(a - b + c) / 6.0,
            (a + 2.0 * b + 4.0 * c) / 24.0,
            (a - 2.0 * b + 4.0 * c) / 24.0,
            c,
        ]
    };
    let at = |y: usize, x: usize| f64::from(kernel[y * 3 + x]);
    let columns: [[f64; SIDE]; 3] = std::array::from_fn(|x| row([at(0, x), at(1, x), at(2, x)]));
    let mut out = [0.0; POINTS];
    for y in 0..SIDE {
        for (x, value) in row([columns[0][y], columns[1][y], columns[2][y]])
            .into_iter()
            .enumerate()
        {
            out[y * SIDE + x] = value as f32;
        }
    }
    out
}

/// A tile's place on a map.
pub(crate) struct Patch {
    /// Rows and columns of the map.
    map: [usize; 2],
    /// Row and column of the tile's first output.
    corner: [usize; 2],
    channels: usize,
}

impl Patch {
    /// The map's pixel under pixel (`y`, `x`) of the tile; none on the zeros around it.
    #[inline(always)]
    fn source(&self, y: usize, x: usize) -> Option<usize> {
        let y = (self.corner[0] + y).checked_sub(1)?;
        let x = (self.corner[1] + x).checked_sub(1)?;
        (y < self.map[0] && x < self.map[1]).then(|| y * self.map[1] + x)
    }
}

/// `Bᵀ x` of six values.
#[inline(always)]
pub(crate) fn input_row<V: Simd>([a, b, c, d, e, f]: [V; SIDE]) -> [V; SIDE] {
    let (two, four, five) = (a.constant(2.0), a.constant(4.0), a.constant(5.0));
    let minus = a.constant(-4.0);
    let even = c.mul_add(minus, e);
    let odd = b.mul_add(minus, d);
    let steps = d.sub(b).mul(two);
    let ends = e.sub(c);
    [
        a.mul_add(four, e).sub(c.mul(five)),
        even.add(odd),
        even.sub(odd),
        ends.add(steps),
        ends.sub(steps),
        b.mul_add(four, f).sub(d.mul(five)),
    ]
}

/// `Aᵀ m` of six values.
#[inline(always)]
pub(crate) fn output_row<V: Simd>([a, b, c, d, e, f]: [V; SIDE]) -> [V; OUTPUTS] {
    let (sum, difference) = (b.add(c), b.sub(c));
    let (far_sum, far_difference) = (d.add(e), d.sub(e));
    [
        a.add(sum).add(far_sum),
        far_difference.mul_add(a.constant(2.0), difference),
        far_sum.mul_add(a.constant(4.0), sum),
        far_difference.mul_add(a.constant(8.0), difference).add(f),
    ]
}

/// One row of six columns.
#[inline(always)]
pub(crate) fn across<V: Simd, const N: usize>(columns: &[[V; N]; SIDE], row: usize) -> [V; SIDE] {
    let [a, b, c, d, e, f] = columns;
    [a[row], b[row], c[row], d[row], e[row], f[row]]
}

/// Transforms a tile's pixels: point `p`'s channels go to `to[p * stride ..]`.
///
/// # Safety
/// The machine has `V`'s instruction set, `x` is the map that the patch is on, and `channels`
/// floats can be written at each point's place.
#[inline(always)]
pub(crate) unsafe fn input_body<V: Simd>(patch: &Patch, x: &[f32], to: *mut f32, stride: usize) {
    for channel in (0..patch.channels).step_by(V::LANES) {
        let left = patch.channels - channel;
        // SAFETY: a source is a pixel of the map; the caller's promise for the rest.
        unsafe {
            let mut half = [[V::fill(0.0); SIDE]; SIDE];
            for (column, half) in half.iter_mut().enumerate() {
                let mut pixels = [V::fill(0.0); SIDE];
                for (row, pixel) in pixels.iter_mut().enumerate() {
                    if let Some(source) = patch.source(row, column) {
                        let from = x.as_ptr().add(source * patch.channels + channel);
                        *pixel = V::load_up_to(from, left);
                    }
                }
                *half = input_row(pixels);
            }
            for row in 0..SIDE {
                let values = input_row(across(&half, row));
                for (column, value) in values.into_iter().enumerate() {
                    value.store_up_to(to.add((row * SIDE + column) * stride + channel), left);
                }
            }
        }
    }
}

/// Transforms a tile's 36 products, point `p`'s at `from[p * stride ..]`, into outputs of the map.
///
/// # Safety
/// The machine has `V`'s instruction set, `channels` floats can be read at each point's place and
/// of the bias, and the tile's outputs on the map at `to` are this thread's to write.
#[inline(always)]
pub(crate) unsafe fn output_body<V: Simd>(
    patch: &Patch,
    from: *const f32,
    stride: usize,
    bias: Option<&[f32]>,
    to: *mut f32,
) {
    let [height, width] = patch.map;
    let [top, left_edge] = patch.corner;
    for channel in (0..patch.channels).step_by(V::LANES) {
        let left = patch.channels - channel;
        // SAFETY: rows and columns beyond the map are left out; the caller's promise for the rest.
        unsafe {
            let start = match bias {
                Some(bias) => V::load_up_to(bias.as_ptr().add(channel), left),
                None => V::fill(0.0),
            };
            let mut half = [[V::fill(0.0); OUTPUTS]; SIDE];
            for (column, half) in half.iter_mut().enumerate() {
                let mut values = [V::fill(0.0); SIDE];
                for (row, value) in values.iter_mut().enumerate() {
                    let place = (row * SIDE + column) * stride + channel;
                    *value = V::load_up_to(from.add(place), left);
                }
                *half = output_row(values);
            }
            for row in 0..OUTPUTS.min(height - top) {
                let values = output_row(across(&half, row));
                let columns = OUTPUTS.min(width - left_edge);
                for (column, value) in values.into_iter().enumerate().take(columns) {
                    let pixel = (top + row) * width + left_edge + column;
                    let to = to.add(pixel * patch.channels + channel);
                    value.add(start).store_up_to(to, left);
                }
            }
        }
    }
}
