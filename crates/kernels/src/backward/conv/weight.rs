//! The gradient of a convolution's weight, directly.
//!
//! A task has [`ROWS`] outputs by [`COLUMNS`] inputs, under all taps. It walks over all output
//! pixels, [`PIECE`] at a time, gathers its part of `dy` and, for each tap, of the pixels under
//! it, and adds their outer products.

use super::COLUMNS;
use crate::backward::gemm::{OuterProducts, RowsToPack};
use crate::threads::{self, Output};
use crate::{Convolution, Kernels};
use std::ops::Range;

/// Most outputs of a task: a divisor of the channels of Stable Diffusion's layers.
pub(crate) const ROWS: usize = 80;

/// Outputs of a task where there are `columns` groups of inputs: as many in each, whole register
/// tiles, and at least two tasks.
pub(super) fn rows_in_task(outputs: usize, columns: usize) -> usize {
    const TASKS: usize = 2;
    const TILE: usize = 8;
    let groups = outputs.div_ceil(ROWS).max(TASKS.div_ceil(columns));
    outputs.div_ceil(groups).next_multiple_of(TILE)
}

/// Pixels whose outer products are added in registers.
const PIECE: usize = 128;

/// Some outputs by some inputs of a weight's gradient, and what they are made from.
pub(crate) struct WeightTask<'a> {
    pub(crate) geometry: &'a Convolution,
    /// Outputs, inputs and the kernel's side.
    pub(crate) sides: [usize; 3],
    pub(crate) x: &'a [f32],
    pub(crate) dy: &'a [f32],
    pub(crate) outputs: Range<usize>,
    pub(crate) inputs: Range<usize>,
}

impl Kernels {
    /// One task of [`Kernels::convolution_weight_gradient`].
    pub(super) fn direct_weight_gradient(&self, task: &WeightTask<'_>, dw: Output) {
        let [_, inputs, kernel] = task.sides;
        let (height, width) = task.geometry.output(kernel);
        let pixels = task.geometry.images * height * width;
        let taps = kernel * kernel;
        // The sums of a single tap are the weight's gradient where they are.
        let sums = if taps > 1 { taps * ROWS * COLUMNS } else { 0 };
        threads::with_scratch(PIECE * (ROWS + COLUMNS) + sums, |scratch| {
            let (a, rest) = scratch.split_at_mut(PIECE * ROWS);
            let (panels, sums) = rest.split_at_mut(PIECE * COLUMNS);
            let (to, stride) = match taps {
                // SAFETY: the task's first weight is one of `dw`'s.
                1 => unsafe {
                    let first = task.outputs.start * inputs + task.inputs.start;
                    (dw.from(first), inputs)
                },
                _ => (Output::new(sums), COLUMNS),
            };
            for start in (0..pixels).step_by(PIECE) {
                let count = PIECE.min(pixels - start);
                let mut places = [[0; 3]; PIECE];
                for (place, pixel) in places[..count].iter_mut().zip(start..) {
                    *place = [
                        pixel / (height * width),
                        pixel / width % height,
                        pixel % width,
                    ];
                }
                self.pack_gradients(task, start..start + count, a);
                for tap in 0..taps {
                    let tap_at = [tap / kernel, tap % kernel];
                    self.pack_pixels(task, &places[..count], tap_at, panels);
                    // SAFETY: `a` has a row of `ROWS` floats for each of the pixels; a tap's sums
                    // are `ROWS` rows, and the task's part of `dw` is its own.
                    unsafe {
                        (self.outer_products)(&OuterProducts {
                            a: a.as_ptr(),
                            a_stride: ROWS,
                            depth: count,
                            rows: task.outputs.len(),
                            panels,
                            columns: task.inputs.len(),
                            add: start > 0,
                            out: to.at(tap * ROWS * COLUMNS),
                            out_stride: stride,
                        });
                    }
                }
            }
            if taps == 1 {
                return;
            }
            for output in 0..task.outputs.len() {
                // SAFETY: no other task has these outputs and inputs.
                let kernels = unsafe { task.kernels(dw, output) };
                for (input, kernel) in kernels.chunks_exact_mut(taps).enumerate() {
                    let from = sums[output * COLUMNS + input..].iter();
                    for (to, from) in kernel.iter_mut().zip(from.step_by(ROWS * COLUMNS)) {
                        *to = *from;
                    }
                }
            }
        });
    }

    /// Packs the task's outputs of some pixels of `dy` as rows of [`ROWS`].
    fn pack_gradients(&self, task: &WeightTask<'_>, pixels: Range<usize>, to: &mut [f32]) {
        let mut rows = [std::ptr::null(); PIECE];
        let count = pixels.len();
        for (row, pixel) in rows.iter_mut().zip(pixels) {
            *row = task.dy[pixel * task.sides[0] + task.outputs.start..].as_ptr();
        }
        // SAFETY: each row has the task's outputs.
        unsafe {
            (self.pack_rows)(RowsToPack {
                rows: &rows[..count],
                columns: task.outputs.len(),
                width: ROWS,
                to,
            });
        }
    }

    /// Packs the task's inputs of the pixels under a tap as panels
    /// `[panel][pixel][input in the panel]`, zeros for those on the padding.
    fn pack_pixels(
        &self,
        task: &WeightTask<'_>,
        places: &[[usize; 3]],
        [tap_y, tap_x]: [usize; 2],
        to: &mut [f32],
    ) {
        let zeros = [0.0; COLUMNS];
        let mut rows = [zeros.as_ptr(); PIECE];
        for (row, place) in rows.iter_mut().zip(places) {
            if let Some(pixel) = task.geometry.source(*place, tap_y, tap_x) {
                *row = task.x[pixel * task.sides[1] + task.inputs.start..].as_ptr();
            }
        }
        // SAFETY: each row has the task's inputs, or as many zeros.
        unsafe {
            (self.pack_rows)(RowsToPack {
                rows: &rows[..places.len()],
                columns: task.inputs.len(),
                width: self.panel_width,
                to,
            });
        }
    }
}

impl WeightTask<'_> {
    /// The kernels of the task's inputs for one of its outputs, counted from its first.
    ///
    /// # Safety
    /// `dw` is `[outputs, inputs, kernel, kernel]`, and the task's part this thread's to write.
    pub(crate) unsafe fn kernels<'w>(&self, dw: Output, output: usize) -> &'w mut [f32] {
        let [_, inputs, kernel] = self.sides;
        let first = (self.outputs.start + output) * inputs + self.inputs.start;
        let taps = kernel * kernel;
        // SAFETY: the inputs of an output lie side by side in `dw`; the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(dw.at(first * taps), self.inputs.len() * taps) }
    }
}
