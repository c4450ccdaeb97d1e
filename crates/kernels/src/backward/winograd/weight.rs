//! The gradient of a convolution's weight by Winograd's transforms.
//!
//! A task has [`ROWS`] outputs by [`COLUMNS`] inputs. It walks over the tiles of all maps,
//! [`TILES`] at a time, transforms its channels of `dy` and `x`, and adds their outer products at
//! each point; at the end the 36 sums of each kernel become its nine taps.

use super::kernel::PointsToKernels;
use super::transform::POINTS;
use super::{GAP, Side, Strip, Tiles};
use crate::Kernels;
use crate::backward::conv::COLUMNS;
use crate::backward::conv::planes::NO_PLANES;
use crate::backward::conv::weight::{ROWS, WeightTask};
use crate::backward::gemm::OuterProducts;
use crate::threads::{self, Output};
use std::ops::Range;

/// Tiles whose outer products are added in registers.
const TILES: usize = 64;

/// Floats of a point of the transformed gradients, pixels and sums of a task.
const GRADIENTS: usize = TILES * ROWS + GAP;
const PIXELS: usize = TILES * COLUMNS + GAP;
const SUMS: usize = ROWS * COLUMNS + GAP;

impl Kernels {
    /// One task of [`Kernels::convolution_weight_gradient`].
    pub(in crate::backward) fn winograd_weight_gradient(&self, task: &WeightTask<'_>, dw: Output) {
        let tiles = Tiles::of(task.geometry);
        threads::with_scratch(POINTS * (GRADIENTS + PIXELS + SUMS), |scratch| {
            let (gradients, rest) = scratch.split_at_mut(POINTS * GRADIENTS);
            let (panels, sums) = rest.split_at_mut(POINTS * PIXELS);
            for start in (0..tiles.count).step_by(TILES) {
                let block = start..tiles.count.min(start + TILES);
                self.transform_outputs(task, &tiles, &block, gradients);
                self.transform_inputs(task, &tiles, &block, panels);
                for point in 0..POINTS {
                    // SAFETY: `gradients` has a row of `ROWS` floats for each tile; the sums of a
                    // point are `ROWS` rows of `COLUMNS`.
                    unsafe {
                        (self.outer_products)(&OuterProducts {
                            a: gradients[point * GRADIENTS..].as_ptr(),
                            a_stride: ROWS,
                            depth: block.len(),
                            rows: task.outputs.len(),
                            panels: &panels[point * PIXELS..],
                            columns: task.inputs.len(),
                            add: start > 0,
                            out: sums[point * SUMS..].as_mut_ptr(),
                            out_stride: COLUMNS,
                        });
                    }
                }
            }
            self.write_kernels(task, sums, dw);
        });
    }

    /// The task's outputs of some tiles of `dy`, `[point][tile][output]`.
    fn transform_outputs(
        &self,
        task: &WeightTask<'_>,
        tiles: &Tiles,
        block: &Range<usize>,
        to: &mut [f32],
    ) {
        for (i, tile) in block.clone().enumerate() {
            let (first, place) = tiles.place(tile);
            let strip = Strip {
                place,
                from: &task.dy[first * task.sides[0] + task.outputs.start..],
                pixel: task.sides[0],
                channels: task.outputs.len(),
                to: &mut to[i * ROWS..],
                stride: GRADIENTS,
            };
            // SAFETY: this machine has this table's instruction set; the strip's pixels are those
            // of one map, and a point has `ROWS` floats for each tile.
            unsafe { (self.winograd_transform)(Side::Output, strip) };
        }
    }

    /// The task's inputs of some tiles of `x`, `[point][panel][tile][input in the panel]`.
    fn transform_inputs(
        &self,
        task: &WeightTask<'_>,
        tiles: &Tiles,
        block: &Range<usize>,
        to: &mut [f32],
    ) {
        for (i, tile) in block.clone().enumerate() {
            let (first, place) = tiles.place(tile);
            for column in (0..task.inputs.len()).step_by(self.panel_width) {
                let strip = Strip {
                    place,
                    from: &task.x[first * task.sides[1] + task.inputs.start + column..],
                    pixel: task.sides[1],
                    channels: self.panel_width.min(task.inputs.len() - column),
                    to: &mut to[column * block.len() + i * self.panel_width..],
                    stride: PIXELS,
                };
                // SAFETY: this machine has this table's instruction set; the strip's pixels are
                // those of one map, and a panel has its width for each tile.
                unsafe { (self.winograd_transform)(Side::Input, strip) };
            }
        }
    }

    /// Transforms the sums `[point][output][input]` into the task's kernels.
    fn write_kernels(&self, task: &WeightTask<'_>, sums: &[f32], dw: Output) {
        let mut planes = NO_PLANES;
        for output in 0..task.outputs.len() {
            // SAFETY: this machine has this table's instruction set; no other task has these
            // outputs and inputs of `dw`.
            unsafe {
                (self.points_to_kernels)(PointsToKernels {
                    from: &sums[output * COLUMNS..],
                    point: SUMS,
                    planes: &mut planes,
                    to: task.kernels(dw, output),
                });
            }
        }
    }
}
