//! The gradient of a convolution's input by Winograd's transforms: a convolution of `dy`.
//!
//! A task has [`TILES`] tiles by [`COLUMNS`] inputs. For each [`PIECE`] of the outputs it
//! transforms the tiles of `dy` and the turned kernels, multiplies them at each point, and adds;
//! at the end the 36 sums of each tile and input are transformed back.
//!
//! Where weights are few, all kernels are turned and transformed first, and the forward pass by tiles
//! is run on `dy`.

use super::kernel::KernelsToPoints;
use super::transform::POINTS;
use super::{GAP, Results, Side, Strip, Tiles};
use crate::backward::conv::COLUMNS;
use crate::backward::conv::planes::NO_PLANES;
use crate::gemm::{BLOCK_ROWS, Block, Start};
use crate::threads::{self, Output, piece};
use crate::{Convolution, Kernels, Layer, Maps, Winograd};
use std::ops::Range;

/// Tiles of a task.
const TILES: usize = BLOCK_ROWS;

/// Outputs that are transformed together.
const PIECE: usize = 64;

/// Floats of a point of the transformed gradients, kernels and sums of a task.
const GRADIENTS: usize = TILES * PIECE + GAP;
const KERNELS: usize = PIECE * COLUMNS + GAP;
const SUMS: usize = TILES * COLUMNS + GAP;

/// What the tasks read.
struct Operands<'a> {
    tiles: Tiles,
    outputs: usize,
    inputs: usize,
    dy: &'a [f32],
    weight: &'a [f32],
}

impl Kernels {
    /// See [`Kernels::convolution_input_gradient`].
    pub(in crate::backward) fn winograd_input_gradient(
        &self,
        dy: &[f32],
        geometry: &Convolution,
        weight: &[f32],
        [outputs, inputs, _]: [usize; 3],
        dx: &mut [f32],
    ) {
        let operands = Operands {
            tiles: Tiles::of(geometry),
            outputs,
            inputs,
            dy,
            weight,
        };
        let dx = Output::new(dx);
        let blocks = operands.tiles.count.div_ceil(TILES);
        threads::for_each(blocks * inputs.div_ceil(COLUMNS), |index| {
            let tiles = piece(operands.tiles.count, TILES, index % blocks);
            let inputs = piece(inputs, COLUMNS, index / blocks);
            threads::with_scratch(POINTS * (GRADIENTS + KERNELS + SUMS), |scratch| {
                let (gradients, rest) = scratch.split_at_mut(POINTS * GRADIENTS);
                let (kernels, sums) = rest.split_at_mut(POINTS * KERNELS);
                for start in (0..outputs).step_by(PIECE) {
                    let outputs = start..outputs.min(start + PIECE);
                    self.transform_gradients(&operands, &tiles, &outputs, gradients);
                    self.transform_kernels(&operands, &inputs, &outputs, kernels);
                    self.add_points(&tiles, &inputs, &outputs, [gradients, kernels], sums);
                }
                self.write_tiles(&operands, &tiles, &inputs, sums, dx);
            });
        });
    }

    /// See [`Kernels::convolution_input_gradient`]; for few weights.
    pub(in crate::backward) fn winograd_input_gradient_by_tiles(
        &self,
        dy: &[f32],
        geometry: &Convolution,
        weight: &[f32],
        [outputs, inputs, _]: [usize; 3],
        dx: &mut [f32],
    ) {
        let width = self.panel_width;
        let size = self.winograd_bytes(Winograd::Four, inputs, outputs) / size_of::<f32>();
        let mut panels = threads::take_scratch(size);
        let point = size / POINTS;
        let mut planes = NO_PLANES;
        for output in 0..outputs {
            for first in (0..inputs).step_by(COLUMNS) {
                let kernels = COLUMNS.min(inputs - first);
                let task = KernelsToPoints {
                    from: &weight[(output * inputs + first) * 9..],
                    kernels,
                    planes: &mut planes,
                    to: &mut panels[first * outputs + output * width..size],
                    panel: outputs * width,
                    point,
                };
                // SAFETY: this machine has this table's instruction set.
                unsafe { (self.kernels_to_points)(task) };
            }
        }
        let weights = self.winograd_weights(Winograd::Four, panels, inputs, outputs);
        let layer = Layer {
            x: dy,
            maps: Maps {
                images: geometry.images,
                height: geometry.height,
                width: geometry.width,
            },
            norm: None,
            bias: None,
            residual: None,
        };
        self.convolution_winograd(&layer, &weights, None, dx);
        threads::keep_scratch(weights.into_panels());
    }

    /// The tiles of a piece of `dy`, `[point][tile][output]`.
    fn transform_gradients(
        &self,
        operands: &Operands<'_>,
        tiles: &Range<usize>,
        outputs: &Range<usize>,
        to: &mut [f32],
    ) {
        for (i, tile) in tiles.clone().enumerate() {
            let (first, place) = operands.tiles.place(tile);
            let strip = Strip {
                place,
                from: &operands.dy[first * operands.outputs + outputs.start..],
                pixel: operands.outputs,
                channels: outputs.len(),
                to: &mut to[i * PIECE..],
                stride: GRADIENTS,
            };
            // SAFETY: this machine has this table's instruction set; the strip's pixels are those
            // of one map, and a point has `PIECE` floats for each tile.
            unsafe { (self.winograd_transform)(Side::Input, strip) };
        }
    }

    /// The turned kernels of a piece of the outputs, `[point][panel][output][input in the panel]`.
    fn transform_kernels(
        &self,
        operands: &Operands<'_>,
        inputs: &Range<usize>,
        outputs: &Range<usize>,
        to: &mut [f32],
    ) {
        let mut planes = NO_PLANES;
        for (row, output) in outputs.clone().enumerate() {
            let first = output * operands.inputs + inputs.start;
            // SAFETY: this machine has this table's instruction set.
            unsafe {
                (self.kernels_to_points)(KernelsToPoints {
                    from: &operands.weight[first * 9..],
                    kernels: inputs.len(),
                    planes: &mut planes,
                    to: &mut to[row * self.panel_width..],
                    panel: outputs.len() * self.panel_width,
                    point: KERNELS,
                });
            }
        }
    }

    /// Adds the products of a piece of the outputs to the sums `[point][tile][input]`; the first
    /// writes over what was there.
    fn add_points(
        &self,
        tiles: &Range<usize>,
        inputs: &Range<usize>,
        outputs: &Range<usize>,
        [gradients, kernels]: [&[f32]; 2],
        sums: &mut [f32],
    ) {
        let mut rows = [std::ptr::null(); TILES];
        for point in 0..POINTS {
            for (i, row) in rows.iter_mut().enumerate() {
                *row = gradients[point * GRADIENTS + i * PIECE..].as_ptr();
            }
            // SAFETY: each row has the piece's outputs; the sums of a point are rows of `COLUMNS`.
            unsafe {
                (self.product)(&Block {
                    rows: &rows[..tiles.len()],
                    depth: outputs.len(),
                    panels: &kernels[point * KERNELS..][..outputs.len() * COLUMNS],
                    panel_stride: outputs.len() * self.panel_width,
                    columns: inputs.len(),
                    start: match outputs.start {
                        0 => Start::Nothing,
                        _ => Start::Output,
                    },
                    residual: None,
                    out: sums[point * SUMS..].as_mut_ptr(),
                    out_stride: COLUMNS,
                });
            }
        }
    }

    fn write_tiles(
        &self,
        operands: &Operands<'_>,
        tiles: &Range<usize>,
        inputs: &Range<usize>,
        sums: &[f32],
        dx: Output,
    ) {
        for (i, tile) in tiles.clone().enumerate() {
            let (first, place) = operands.tiles.place(tile);
            // SAFETY: this machine has this table's instruction set; a point has `COLUMNS` floats
            // for each tile; no other task has this tile and these inputs.
            unsafe {
                (self.winograd_results)(Results {
                    place,
                    from: &sums[i * COLUMNS..],
                    stride: SUMS,
                    channels: inputs.len(),
                    to: dx.at(first * operands.inputs + inputs.start),
                    pixel: operands.inputs,
                });
            }
        }
    }
}
