//! Gradients of a convolution: of its input, a convolution of `dy` with the kernel turned round;
//! of its weight, at each tap a sum of outer products of output and input pixels.
//!
//! # The input's
//!
//! An input pixel was seen, under some taps, by one output pixel each: `dx` is the sum over these
//! taps of `dy` there times the tap's weights. With a stride, which taps these are depends on the
//! pixel's row and column modulo the stride: pixels that agree in it are a *phase*, and a task has
//! rows of one phase only, so that no zeros are multiplied. A task has [`ROWS`] pixels by
//! [`COLUMNS`] inputs; for each [`PIECE`] of the outputs it packs the weights of its inputs.
//!
//! # The weight's
//!
//! A task has [`COLUMNS`] outputs by as many inputs, under all taps. It walks over all output
//! pixels, [`PIECE`] at a time, gathers its part of `dy` and, for each tap, of the pixels under
//! it, and adds their outer products to sums that become weights at the end.

use crate::backward::gemm::OuterProducts;
use crate::gemm::{BLOCK_ROWS, Block, Start};
use crate::threads::{self, Output, piece};
use crate::{Convolution, Kernels, Padding};
use std::ops::Range;

/// Pixels of a task of the input's gradient: so many that packing its weights is a small part.
const ROWS: usize = 8 * BLOCK_ROWS;

/// Channels of a task: a multiple of every instruction set's panel.
pub(super) const COLUMNS: usize = 96;

/// Most terms of a sum that is taken in registers.
const PIECE: usize = 128;

/// Fewest cells of a map that pay for Winograd's transforms.
const WINOGRAD_CELLS: usize = 32 * 32;

/// Fewest channels, on both sides, that do.
const WINOGRAD_CHANNELS: usize = 32;

impl Kernels {
    /// The gradient of a convolution's input, `dx` `[images, height, width, inputs]`, from that of
    /// its output, `dy` `[images, output height, output width, outputs]`, and its `weight`
    /// `[outputs, inputs, kernel, kernel]`.
    ///
    /// # Panics
    /// If a length does not fit.
    pub fn convolution_input_gradient(
        &self,
        dy: &[f32],
        geometry: &Convolution,
        weight: &[f32],
        sides: [usize; 3],
        dx: &mut [f32],
    ) {
        check(geometry, sides, dx.len(), dy.len(), weight.len());
        if dx.is_empty() {
            return;
        }
        if by_winograd(geometry, sides) {
            self.winograd_input_gradient(dy, geometry, weight, sides, dx);
            return;
        }
        let [_, inputs, _] = sides;
        let tasks = phases(geometry).flat_map(|phase| {
            let rows = (0..phase.pixels(geometry).div_ceil(ROWS))
                .map(move |i| piece(phase.pixels(geometry), ROWS, i));
            (0..inputs.div_ceil(COLUMNS)).flat_map(move |group| {
                rows.clone().map(move |rows| InputTask {
                    phase,
                    rows,
                    inputs: piece(inputs, COLUMNS, group),
                })
            })
        });
        let tasks: Vec<InputTask> = tasks.collect();
        let operands = Operands {
            geometry,
            sides,
            dy,
            weight,
        };
        let dx = Output::new(dx);
        threads::for_each(tasks.len(), |index| {
            self.input_gradient(&operands, &tasks[index], dx)
        });
    }

    /// One task of the input's gradient.
    fn input_gradient(&self, operands: &Operands<'_>, task: &InputTask, dx: Output) {
        let Operands {
            geometry,
            sides: [outputs, inputs, kernel],
            dy,
            ..
        } = *operands;
        let (rows, taps) = (task.rows.len(), task.phase.taps(geometry, kernel));
        let packed = taps.len() * PIECE.min(outputs) * COLUMNS;
        threads::with_scratch(packed + rows * COLUMNS, |scratch| {
            let (panels, sums) = scratch.split_at_mut(packed);
            if taps.is_empty() {
                sums.fill(0.0);
            }
            let zeros = [0.0; PIECE];
            let place = |row: usize| task.phase.pixel(geometry, task.rows.start + row);
            for start in (0..outputs).step_by(PIECE) {
                let depth = PIECE.min(outputs - start);
                let tap_panels = depth * COLUMNS;
                self.pack_taps(operands, &taps, start..start + depth, &task.inputs, panels);
                for first in (0..rows).step_by(BLOCK_ROWS) {
                    let count = BLOCK_ROWS.min(rows - first);
                    for (i, tap) in taps.iter().enumerate() {
                        let mut pointers = [zeros.as_ptr(); BLOCK_ROWS];
                        for (row, pointer) in pointers[..count].iter_mut().enumerate() {
                            if let Some(seen) = seen_by(geometry, kernel, place(first + row), *tap)
                            {
                                *pointer = dy[seen * outputs + start..].as_ptr();
                            }
                        }
                        // SAFETY: each pointer is at the piece's first value of a pixel of `dy`,
                        // whose length was checked, or at as many zeros; the sums are rows of
                        // `COLUMNS`.
                        unsafe {
                            (self.product)(&Block {
                                rows: &pointers[..count],
                                depth,
                                panels: &panels[i * tap_panels..][..tap_panels],
                                panel_stride: depth * self.panel_width,
                                columns: task.inputs.len(),
                                start: match start + i {
                                    0 => Start::Nothing,
                                    _ => Start::Output,
                                },
                                out: sums[first * COLUMNS..].as_mut_ptr(),
                                out_stride: COLUMNS,
                            });
                        }
                    }
                }
            }
            for (row, sums) in sums.chunks(COLUMNS).enumerate() {
                let [image, y, x] = place(row);
                let pixel = (image * geometry.height + y) * geometry.width + x;
                // SAFETY: the pixel is one of `dx`, whose length was checked; no other task has
                // this pixel and these inputs.
                let to = unsafe {
                    let to = dx.at(pixel * inputs + task.inputs.start);
                    std::slice::from_raw_parts_mut(to, task.inputs.len())
                };
                to.copy_from_slice(&sums[..to.len()]);
            }
        });
    }

    /// Packs a piece of the outputs' weights for some inputs as panels
    /// `[tap][panel][output][input in the panel]`.
    fn pack_taps(
        &self,
        operands: &Operands<'_>,
        taps: &[usize],
        outputs: Range<usize>,
        inputs: &Range<usize>,
        panels: &mut [f32],
    ) {
        let [_, all, kernel] = operands.sides;
        let (width, depth, area) = (self.panel_width, outputs.len(), kernel * kernel);
        for (row, output) in outputs.enumerate() {
            let from = &operands.weight[(output * all + inputs.start) * area..];
            let from = &from[..inputs.len() * area];
            for (i, tap) in taps.iter().enumerate() {
                let to = &mut panels[i * depth * COLUMNS..][..depth * COLUMNS];
                for (panel, from) in from.chunks(width * area).enumerate() {
                    let to = &mut to[(panel * depth + row) * width..][..from.len() / area];
                    if area == 1 {
                        to.copy_from_slice(from);
                        continue;
                    }
                    for (to, from) in to.iter_mut().zip(from.chunks_exact(area)) {
                        *to = from[*tap];
                    }
                }
            }
        }
    }

    /// The gradient of a convolution's weight, `dw` `[outputs, inputs, kernel, kernel]`, from its
    /// input `x` `[images, height, width, inputs]` and the gradient of its output, `dy`
    /// `[images, output height, output width, outputs]`.
    ///
    /// # Panics
    /// If a length does not fit.
    pub fn convolution_weight_gradient(
        &self,
        x: &[f32],
        dy: &[f32],
        geometry: &Convolution,
        sides: [usize; 3],
        dw: &mut [f32],
    ) {
        check(geometry, sides, x.len(), dy.len(), dw.len());
        let [outputs, inputs, _] = sides;
        let winograd = by_winograd(geometry, sides);
        let groups = outputs.div_ceil(COLUMNS);
        let dw = Output::new(dw);
        threads::for_each(groups * inputs.div_ceil(COLUMNS), |index| {
            let task = WeightTask {
                geometry,
                sides,
                x,
                dy,
                outputs: piece(outputs, COLUMNS, index % groups),
                inputs: piece(inputs, COLUMNS, index / groups),
            };
            match winograd {
                true => self.winograd_weight_gradient(&task, dw),
                false => self.weight_gradient(&task, dw),
            }
        });
    }

    /// One task of the weight's gradient.
    fn weight_gradient(&self, task: &WeightTask<'_>, dw: Output) {
        let [outputs, _, kernel] = task.sides;
        let (height, width) = task.geometry.output(kernel);
        let pixels = task.geometry.images * height * width;
        let (taps, rows, columns) = (kernel * kernel, task.outputs.len(), task.inputs.len());
        threads::with_scratch(2 * PIECE * COLUMNS + taps * rows * COLUMNS, |scratch| {
            let (a, rest) = scratch.split_at_mut(PIECE * COLUMNS);
            let (panels, sums) = rest.split_at_mut(PIECE * COLUMNS);
            sums.fill(0.0);
            for start in (0..pixels).step_by(PIECE) {
                let pixels = start..pixels.min(start + PIECE);
                for (a, pixel) in a.chunks_mut(COLUMNS).zip(pixels.clone()) {
                    let from = &task.dy[pixel * outputs + task.outputs.start..][..rows];
                    a[..rows].copy_from_slice(from);
                }
                for (tap, sums) in sums.chunks_mut(rows * COLUMNS).enumerate() {
                    let sources = pixels.clone().map(|pixel| {
                        let place = [
                            pixel / (height * width),
                            pixel / width % height,
                            pixel % width,
                        ];
                        task.geometry.source(place, tap / kernel, tap % kernel)
                    });
                    self.pack_pixels(task, sources, pixels.len(), panels);
                    // SAFETY: `a` has a row of at least `rows` floats for each of the pixels; the
                    // sums are `rows` rows of `COLUMNS`.
                    unsafe {
                        (self.outer_products)(&OuterProducts {
                            a: a.as_ptr(),
                            a_stride: COLUMNS,
                            depth: pixels.len(),
                            rows,
                            panels,
                            columns,
                            out: sums.as_mut_ptr(),
                            out_stride: COLUMNS,
                        });
                    }
                }
            }
            // SAFETY: no other task has these outputs and inputs.
            unsafe {
                task.write(dw, |output, input, to| {
                    let from = sums[output * COLUMNS + input..].iter();
                    for (to, from) in to.iter_mut().zip(from.step_by(rows * COLUMNS)) {
                        *to = *from;
                    }
                })
            };
        });
    }

    /// Packs the task's inputs of some pixels as panels `[panel][pixel][input in the panel]`, zeros
    /// for those on the padding.
    fn pack_pixels(
        &self,
        task: &WeightTask<'_>,
        sources: impl Iterator<Item = Option<usize>>,
        count: usize,
        panels: &mut [f32],
    ) {
        let [_, inputs, _] = task.sides;
        let width = self.panel_width;
        for (row, source) in sources.enumerate() {
            for first in (0..task.inputs.len()).step_by(width) {
                let lanes = width.min(task.inputs.len() - first);
                let to = &mut panels[first * count + row * width..][..lanes];
                match source {
                    Some(pixel) => {
                        let from = pixel * inputs + task.inputs.start + first;
                        to.copy_from_slice(&task.x[from..][..lanes]);
                    }
                    None => to.fill(0.0),
                }
            }
        }
    }
}

/// Whether both gradients go through Winograd's transforms: a function of one image's shapes.
fn by_winograd(geometry: &Convolution, [outputs, inputs, kernel]: [usize; 3]) -> bool {
    kernel == 3
        && geometry.stride == 1
        && geometry.padding == Padding::all(1)
        && geometry.height * geometry.width >= WINOGRAD_CELLS
        && outputs.min(inputs) >= WINOGRAD_CHANNELS
}

/// Panics if a length does not fit.
fn check(
    geometry: &Convolution,
    [outputs, inputs, kernel]: [usize; 3],
    x: usize,
    dy: usize,
    weight: usize,
) {
    let pixels = geometry.images * geometry.height * geometry.width;
    assert_eq!(x, pixels * inputs, "length of x");
    assert_eq!(
        weight,
        outputs * inputs * kernel * kernel,
        "length of weight"
    );
    if pixels == 0 {
        assert_eq!(dy, 0, "length of dy");
        return;
    }
    let (height, width) = geometry.output(kernel);
    assert_eq!(
        dy,
        geometry.images * height * width * outputs,
        "length of dy"
    );
}

/// What the tasks of an input's gradient read.
struct Operands<'a> {
    geometry: &'a Convolution,
    /// Outputs, inputs and the kernel's side.
    sides: [usize; 3],
    dy: &'a [f32],
    weight: &'a [f32],
}

/// Some pixels of a phase, and some of their channels.
struct InputTask {
    phase: Phase,
    rows: Range<usize>,
    inputs: Range<usize>,
}

/// The pixels of all maps whose rows and columns leave the same rest by the stride: the first of
/// them, and how many there are on each axis of a map.
#[derive(Clone, Copy)]
struct Phase {
    first: [usize; 2],
    counts: [usize; 2],
}

/// The phases that have pixels.
fn phases(geometry: &Convolution) -> impl Iterator<Item = Phase> + use<> {
    let Convolution {
        height,
        width,
        stride,
        ..
    } = *geometry;
    (0..stride.min(height)).flat_map(move |y| {
        (0..stride.min(width)).map(move |x| Phase {
            first: [y, x],
            counts: [(height - y).div_ceil(stride), (width - x).div_ceil(stride)],
        })
    })
}

impl Phase {
    /// How many pixels it has, on all maps.
    fn pixels(&self, geometry: &Convolution) -> usize {
        geometry.images * self.counts[0] * self.counts[1]
    }

    /// Image, row and column of one of them.
    fn pixel(&self, geometry: &Convolution, index: usize) -> [usize; 3] {
        let [rows, columns] = self.counts;
        let (y, x) = (index / columns % rows, index % columns);
        [
            index / columns / rows,
            self.first[0] + y * geometry.stride,
            self.first[1] + x * geometry.stride,
        ]
    }

    /// The taps under which they were seen, in order.
    fn taps(&self, geometry: &Convolution, kernel: usize) -> Vec<usize> {
        let Padding { top, left, .. } = geometry.padding;
        let rest = [
            (self.first[0] + top) % geometry.stride,
            (self.first[1] + left) % geometry.stride,
        ];
        (0..kernel * kernel)
            .filter(|tap| {
                [
                    tap / kernel % geometry.stride,
                    tap % kernel % geometry.stride,
                ] == rest
            })
            .collect()
    }
}

/// The output pixel, counted over all maps, that saw an input pixel under a tap of its phase; none
/// beyond the edges.
fn seen_by(
    geometry: &Convolution,
    kernel: usize,
    [image, y, x]: [usize; 3],
    tap: usize,
) -> Option<usize> {
    let (height, width) = geometry.output(kernel);
    let y = (y + geometry.padding.top).checked_sub(tap / kernel)? / geometry.stride;
    let x = (x + geometry.padding.left).checked_sub(tap % kernel)? / geometry.stride;
    (y < height && x < width).then(|| (image * height + y) * width + x)
}

/// Some outputs by some inputs of a weight's gradient, and what they are made from.
pub(super) struct WeightTask<'a> {
    pub(super) geometry: &'a Convolution,
    /// Outputs, inputs and the kernel's side.
    pub(super) sides: [usize; 3],
    pub(super) x: &'a [f32],
    pub(super) dy: &'a [f32],
    pub(super) outputs: Range<usize>,
    pub(super) inputs: Range<usize>,
}

impl WeightTask<'_> {
    /// Writes the task's part of the weight; `kernel(output, input, to)` writes one kernel, output
    /// and input counted from the task's first.
    ///
    /// # Safety
    /// `dw` is `[outputs, inputs, kernel, kernel]`, and the task's part this thread's to write.
    pub(super) unsafe fn write(&self, dw: Output, kernel: impl Fn(usize, usize, &mut [f32])) {
        let [_, inputs, side] = self.sides;
        let taps = side * side;
        for output in 0..self.outputs.len() {
            let first = (self.outputs.start + output) * inputs + self.inputs.start;
            // SAFETY: the inputs of an output lie side by side in `dw`; the caller's promise.
            let to = unsafe {
                std::slice::from_raw_parts_mut(dw.at(first * taps), self.inputs.len() * taps)
            };
            for (input, to) in to.chunks_exact_mut(taps).enumerate() {
                kernel(output, input, to);
            }
        }
    }
}
