//! The gradient of a convolution's input, directly.
//!
//! An input pixel was seen, under some taps, by one output pixel each: `dx` is the sum over these
//! taps of `dy` there times the tap's weights. With a stride, which taps these are depends on the
//! pixel's row and column modulo the stride: pixels that agree in it are a *phase*, and a task has
//! pixels of one phase only, so that no zeros are multiplied but those beyond the edges. A task has
//! [`ROWS`] pixels by [`COLUMNS`] inputs; for each [`PIECE`] of the outputs it packs the weights of
//! its inputs, then adds the products of all its pixels.

use super::COLUMNS;
use super::planes::NO_PLANES;
use crate::backward::gemm::RowsToPack;
use crate::gemm::{BLOCK_ROWS, Block, Start};
use crate::threads::{self, Output, piece};
use crate::{Convolution, Kernels, Padding};
use std::ops::Range;

/// Pixels of a task: so many that packing its weights is a small part.
const ROWS: usize = 6 * BLOCK_ROWS;

/// Most outputs whose weights are packed together.
const PIECE: usize = 128;

impl Kernels {
    /// See [`Kernels::convolution_input_gradient`].
    pub(super) fn direct_input_gradient(
        &self,
        dy: &[f32],
        geometry: &Convolution,
        weight: &[f32],
        sides: [usize; 3],
        dx: &mut [f32],
    ) {
        let [_, inputs, kernel] = sides;
        let (height, width) = geometry.output(kernel);
        let operands = Operands {
            geometry,
            seen: [height, width],
            sides,
            dy,
            weight,
        };
        let mut tasks = Vec::new();
        for phase in phases(geometry) {
            let pixels = phase.pixels(geometry);
            for group in 0..inputs.div_ceil(COLUMNS) {
                tasks.extend((0..pixels.div_ceil(ROWS)).map(|i| Task {
                    phase,
                    pixels: piece(pixels, ROWS, i),
                    inputs: piece(inputs, COLUMNS, group),
                }));
            }
        }
        let dx = Output::new(dx);
        threads::for_each(tasks.len(), |index| {
            self.input_gradient(&operands, &tasks[index], dx)
        });
    }

    fn input_gradient(&self, operands: &Operands<'_>, task: &Task, dx: Output) {
        let [outputs, inputs, kernel] = operands.sides;
        let taps = task.phase.taps(operands.geometry, kernel);
        let cells: Vec<[usize; 3]> = task.pixels.clone().map(|i| task.phase.cell(i)).collect();
        let packed = taps.len() * PIECE.min(outputs) * COLUMNS;
        threads::with_scratch(packed + cells.len() * COLUMNS, |scratch| {
            let (panels, sums) = scratch.split_at_mut(packed);
            if taps.is_empty() {
                sums.fill(0.0);
            }
            for start in (0..outputs).step_by(PIECE) {
                let piece = start..outputs.min(start + PIECE);
                self.pack_taps(operands, &taps, piece.clone(), &task.inputs, panels);
                let blocks = cells.chunks(BLOCK_ROWS);
                for (cells, sums) in blocks.zip(sums.chunks_mut(BLOCK_ROWS * COLUMNS)) {
                    self.add_taps(operands, &taps, piece.clone(), cells, panels, task, sums);
                }
            }
            for (cell, sums) in cells.iter().zip(sums.chunks(COLUMNS)) {
                let pixel = task.phase.pixel(operands.geometry, *cell);
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

    /// Adds, for a block of pixels, what a piece of the outputs gives under all taps; the first
    /// writes over what was there.
    #[allow(clippy::too_many_arguments)] // the parts of a task
    fn add_taps(
        &self,
        operands: &Operands<'_>,
        taps: &[Tap],
        outputs: Range<usize>,
        cells: &[[usize; 3]],
        panels: &[f32],
        task: &Task,
        sums: &mut [f32],
    ) {
        let depth = outputs.len();
        let zeros = [0.0; PIECE];
        for (i, tap) in taps.iter().enumerate() {
            let mut rows = [zeros.as_ptr(); BLOCK_ROWS];
            for (row, cell) in rows.iter_mut().zip(cells) {
                if let Some(pixel) = tap.seen(operands.seen, *cell) {
                    *row = operands.dy[pixel * operands.sides[0] + outputs.start..].as_ptr();
                }
            }
            // SAFETY: each row is the piece's values of a pixel of `dy`, whose length was
            // checked, or as many zeros; the sums are rows of `COLUMNS`.
            unsafe {
                (self.product)(&Block {
                    rows: &rows[..cells.len()],
                    depth,
                    panels: &panels[i * depth * COLUMNS..][..depth * COLUMNS],
                    panel_stride: depth * self.panel_width,
                    columns: task.inputs.len(),
                    start: match outputs.start + i {
                        0 => Start::Nothing,
                        _ => Start::Output,
                    },
                    residual: None,
                    out: sums.as_mut_ptr(),
                    out_stride: COLUMNS,
                });
            }
        }
    }

    /// Packs a piece of the outputs' weights for some inputs as panels
    /// `[tap][panel][output][input in the panel]`.
    fn pack_taps(
        &self,
        operands: &Operands<'_>,
        taps: &[Tap],
        outputs: Range<usize>,
        inputs: &Range<usize>,
        panels: &mut [f32],
    ) {
        let [_, all, kernel] = operands.sides;
        let (width, depth, area) = (self.panel_width, outputs.len(), kernel * kernel);
        let row = |output: usize| &operands.weight[(output * all + inputs.start) * area..];
        if taps.is_empty() {
            return;
        }
        if area == 1 {
            let rows = std::array::from_fn::<_, PIECE, _>(|i| {
                row(outputs.start + i.min(depth - 1)).as_ptr()
            });
            // SAFETY: each row has the task's inputs.
            unsafe {
                (self.pack_rows)(RowsToPack {
                    rows: &rows[..depth],
                    columns: inputs.len(),
                    width,
                    to: panels,
                });
            }
            return;
        }
        let mut planes = NO_PLANES;
        for (i, output) in outputs.enumerate() {
            // SAFETY: this machine has this table's instruction set.
            unsafe { (self.planes)(row(output), inputs.len(), &mut planes) };
            for (t, tap) in taps.iter().enumerate() {
                let to = &mut panels[t * depth * COLUMNS..][..depth * COLUMNS];
                let plane = &planes[tap.index * COLUMNS..][..inputs.len()];
                for (panel, from) in plane.chunks(width).enumerate() {
                    to[(panel * depth + i) * width..][..from.len()].copy_from_slice(from);
                }
            }
        }
    }
}

/// What the tasks read.
struct Operands<'a> {
    geometry: &'a Convolution,
    /// Rows and columns of an output map.
    seen: [usize; 2],
    /// Outputs, inputs and the kernel's side.
    sides: [usize; 3],
    dy: &'a [f32],
    weight: &'a [f32],
}

/// Some pixels of a phase, and some of their channels.
struct Task {
    phase: Phase,
    pixels: Range<usize>,
    inputs: Range<usize>,
}

/// The pixels of all maps whose rows and columns leave the same rest by the stride: the first of
/// them, and how many there are on each axis of a map. Its *cells* are these pixels, counted
/// without those between them.
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

    /// Image, row and column of a cell.
    fn cell(&self, index: usize) -> [usize; 3] {
        let [rows, columns] = self.counts;
        [
            index / columns / rows,
            index / columns % rows,
            index % columns,
        ]
    }

    /// The number of a cell's pixel, counted over all maps.
    fn pixel(&self, geometry: &Convolution, [image, row, column]: [usize; 3]) -> usize {
        let y = self.first[0] + row * geometry.stride;
        let x = self.first[1] + column * geometry.stride;
        (image * geometry.height + y) * geometry.width + x
    }

    /// The taps under which its pixels were seen, in order.
    fn taps(&self, geometry: &Convolution, kernel: usize) -> Vec<Tap> {
        let Padding { top, left, .. } = geometry.padding;
        let stride = geometry.stride as isize;
        let from_tap = |index: usize| {
            [
                (self.first[0] + top) as isize - (index / kernel) as isize,
                (self.first[1] + left) as isize - (index % kernel) as isize,
            ]
        };
        (0..kernel * kernel)
            .filter(|index| from_tap(*index).iter().all(|steps| steps % stride == 0))
            .map(|index| Tap {
                index,
                shift: from_tap(index).map(|steps| steps / stride),
            })
            .collect()
    }
}

/// A tap of the kernel, for the pixels of a phase.
struct Tap {
    index: usize,
    /// From a cell's row and column to those of the output pixel that saw it.
    shift: [isize; 2],
}

impl Tap {
    /// The output pixel that saw a cell, counted over all maps; none beyond the edges.
    fn seen(&self, [height, width]: [usize; 2], [image, row, column]: [usize; 3]) -> Option<usize> {
        let y = row.checked_add_signed(self.shift[0])?;
        let x = column.checked_add_signed(self.shift[1])?;
        (y < height && x < width).then(|| (image * height + y) * width + x)
    }
}
