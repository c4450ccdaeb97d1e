//! Products with packed weights: linear layers, and the body under convolution and attention.
//!
//! # Blocking
//!
//! `out[r, o] = sum_i a[r, i] w[o, i]` is computed in register tiles of `ROWS x panel`: all sums
//! of a tile stay in registers while the reduction runs; each step loads one panel row of weights
//! (two vectors) and broadcasts one input per row. Around the tile, from the inside out:
//!
//! - rows: the tiles of a block of [`BLOCK_ROWS`] rows use the same piece of a panel, which stays
//!   in the first cache ([`PIECE`] inputs by two vectors);
//! - panels: all panels of the task use the same piece of the rows, which stays in the second;
//! - pieces of the reduction: a tile's sum over a piece is added to what the output holds. A sum
//!   of sums also rounds less than one long sum.
//!
//! The inputs are never copied: the body takes a pointer per row, so the rows of a matrix, the
//! pixels under a convolution's tap, and zeros for its padding are all the same to it.
//!
//! Pieces depend on the number of inputs alone and each sum is its own, so neither the number of
//! rows in a tile nor the way tasks are cut changes a bit of any output.

use crate::simd::{PANEL_VECTORS, Simd};
use crate::threads::{self, Output};
use crate::{Kernels, threads::piece};
use rayon::prelude::*;
use std::ops::Range;

/// Rows of a task: a multiple of every instruction set's [`Simd::ROWS`].
pub(crate) const BLOCK_ROWS: usize = 96;

/// Most inputs of a piece of the reduction.
const PIECE: usize = 256;

/// Rows of a panel that are fetched ahead of their use.
const AHEAD: usize = 16;

/// Tasks that a product is cut into, if it is large enough: many threads then end together.
const TASKS: usize = 64;

/// Weights in the order in which [`Kernels::product`] and [`Kernels::convolution`] read them, for
/// one instruction set.
///
/// `[panel][tap][input][output in the panel]`; the last panel is filled up with zeros.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    panels: Panels,
    outputs: usize,
    inputs: usize,
    kernel: usize,
    panel_width: usize,
    table: &'static str,
}

impl PackedMatrix {
    /// Rows of the weight: channels that come out.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Channels that go in; a convolution reduces over `kernel * kernel` times as many values.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Side of the convolution's kernel; 1 for a linear layer.
    pub fn kernel(&self) -> usize {
        self.kernel
    }

    /// The instruction set it was packed for.
    pub fn table(&self) -> &'static str {
        self.table
    }

    /// Memory that the panels take.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.panels)
    }

    /// Overwrites the rows from `first_output` on with those of `weight`, `[rows, inputs]` or
    /// `[rows, inputs, kernel, kernel]`: for weights that arrive in parts, or are several layers
    /// in one.
    ///
    /// # Panics
    /// If `weight` is not whole rows, or does not fit.
    pub fn write_outputs(&mut self, first_output: usize, weight: &[f32]) {
        let row = self.inputs * self.taps();
        let rows = weight.len() / row;
        assert_eq!(weight.len(), rows * row, "weight is not whole rows");
        let end = first_output + rows;
        assert!(end <= self.outputs, "weight has too many rows");
        let (width, taps, inputs) = (self.panel_width, self.taps(), self.inputs);
        self.panels
            .par_chunks_mut(row * width)
            .enumerate()
            .filter(|(i, _)| (i + 1) * width > first_output && i * width < end)
            .for_each(|(i, panel)| {
                let outputs = first_output.max(i * width)..end.min((i + 1) * width);
                let rows = outputs.start - first_output..outputs.end - first_output;
                let rows = &weight[rows.start * row..rows.end * row];
                write_panel(rows, [inputs, taps], width, outputs.start % width, panel);
            });
    }

    /// A panel: `[tap][input][output in the panel]`.
    pub(crate) fn panel(&self, index: usize) -> &[f32] {
        let size = self.taps() * self.inputs * self.panel_width;
        &self.panels[index * size..][..size]
    }

    /// Places of the kernel.
    pub(crate) fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    fn panel_count(&self) -> usize {
        self.outputs.div_ceil(self.panel_width)
    }

    /// Whether all taps together are one piece: pixels so small that a tap alone is too short a
    /// sum.
    pub(crate) fn patches(&self) -> bool {
        self.taps() * self.inputs <= PIECE
    }

    /// The pieces of the reduction, in order: of each tap some inputs.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Piece> + use<> {
        let (taps, inputs) = match self.patches() {
            true => (1, self.taps() * self.inputs),
            false => (self.taps(), self.inputs),
        };
        let count = inputs.div_ceil(PIECE);
        let size = inputs.div_ceil(count);
        (0..taps).flat_map(move |tap| {
            (0..count).map(move |i| Piece {
                tap,
                inputs: piece(inputs, size, i),
            })
        })
    }

    /// The tasks of a product with `rows` rows.
    pub(crate) fn cut(&self, rows: usize) -> Cut {
        let blocks = rows.div_ceil(BLOCK_ROWS);
        let panels = self.panel_count();
        let wanted = TASKS.div_ceil(blocks.max(1)).min(panels).max(1);
        let panels_in_task = panels.div_ceil(wanted).max(1);
        Cut {
            rows,
            blocks,
            panels,
            panels_in_task,
        }
    }
}

/// Writes `rows` `[outputs, inputs, taps]` to a panel `[tap][input][output]` of `width` outputs,
/// from output `first` on.
pub(crate) fn write_panel(
    rows: &[f32],
    [inputs, taps]: [usize; 2],
    width: usize,
    first: usize,
    panel: &mut [f32],
) {
    // Inputs outside: the cache lines that one touches of each row, the next ones touch again.
    for input in 0..inputs {
        for tap in 0..taps {
            let from = rows[input * taps + tap..].iter().step_by(inputs * taps);
            let to = &mut panel[(tap * inputs + input) * width + first..];
            for (to, from) in to.iter_mut().zip(from) {
                *to = *from;
            }
        }
    }
}

/// Floats that begin where a cache line does: a vector of weights is then never in two lines.
#[derive(Debug)]
pub(crate) struct Panels {
    /// With room for the way to the next line. Zeros that the system gives take no time before they
    /// are touched, and are then touched by many threads: for gigabytes of weights that is seconds.
    floats: Vec<f32>,
    first: usize,
    count: usize,
}

/// Floats in a cache line.
const LINE: usize = 16;

impl Panels {
    /// At least `count` zeros.
    pub(crate) fn zeros(count: usize) -> Self {
        let count = count.next_multiple_of(LINE);
        let floats = vec![0.0; count + LINE];
        Self {
            first: floats.as_ptr().align_offset(LINE * size_of::<f32>()),
            floats,
            count,
        }
    }
}

/// The copy begins elsewhere in its own memory.
impl Clone for Panels {
    fn clone(&self) -> Self {
        let mut clone = Self::zeros(self.count);
        clone.copy_from_slice(self);
        clone
    }
}

impl std::ops::Deref for Panels {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.floats[self.first..][..self.count]
    }
}

impl std::ops::DerefMut for Panels {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.floats[self.first..][..self.count]
    }
}

/// Some inputs of one tap: what is summed before it is added to the output.
pub(crate) struct Piece {
    pub(crate) tap: usize,
    pub(crate) inputs: Range<usize>,
}

/// A product as a grid of tasks: blocks of rows by groups of panels.
pub(crate) struct Cut {
    rows: usize,
    blocks: usize,
    panels: usize,
    panels_in_task: usize,
}

impl Cut {
    /// How many tasks there are.
    pub(crate) fn count(&self) -> usize {
        self.blocks * self.panels.div_ceil(self.panels_in_task)
    }

    /// The rows and panels of a task; tasks with the same panels follow each other, so that
    /// threads read the same weights at about the same time.
    pub(crate) fn task(&self, index: usize) -> Task {
        Task {
            rows: piece(self.rows, BLOCK_ROWS, index % self.blocks),
            panels: piece(self.panels, self.panels_in_task, index / self.blocks),
        }
    }
}

/// A block of rows by a group of panels.
pub(crate) struct Task {
    pub(crate) rows: Range<usize>,
    pub(crate) panels: Range<usize>,
}

/// What is added to a product on its way out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Added<'a> {
    /// A value per output.
    pub bias: Option<&'a [f32]>,
    /// As long as the output.
    pub residual: Option<&'a [f32]>,
}

impl<'a> From<Option<&'a [f32]>> for Added<'a> {
    /// A bias, or nothing.
    fn from(bias: Option<&'a [f32]>) -> Self {
        Self {
            bias,
            residual: None,
        }
    }
}

impl Kernels {
    /// Packs the weight `[outputs, inputs]` of a linear layer.
    ///
    /// # Panics
    /// If the length of `weight` is another.
    pub fn pack_linear(&self, weight: &[f32], outputs: usize, inputs: usize) -> PackedMatrix {
        self.pack_convolution(weight, outputs, inputs, 1)
    }

    /// Packs the weight `[outputs, inputs, kernel, kernel]` of a convolution.
    ///
    /// # Panics
    /// If the length of `weight` is another, or `inputs` or `kernel` is 0.
    pub fn pack_convolution(
        &self,
        weight: &[f32],
        outputs: usize,
        inputs: usize,
        kernel: usize,
    ) -> PackedMatrix {
        let mut packed = self.packed_zeros(outputs, inputs, kernel);
        let expected = outputs * inputs * packed.taps();
        assert_eq!(weight.len(), expected, "length of weight");
        packed.write_outputs(0, weight);
        packed
    }

    /// Memory that a weight will take once it is packed; `inputs` counts the kernel's taps too.
    pub fn packed_bytes(&self, outputs: usize, inputs: usize) -> usize {
        outputs.next_multiple_of(self.panel_width) * inputs * size_of::<f32>()
    }

    /// A weight of zeros, to be filled by [`PackedMatrix::write_outputs`].
    ///
    /// # Panics
    /// If `inputs` or `kernel` is 0.
    pub fn packed_zeros(&self, outputs: usize, inputs: usize, kernel: usize) -> PackedMatrix {
        assert!(inputs > 0 && kernel > 0, "a weight without inputs");
        let width = self.panel_width;
        PackedMatrix {
            panels: Panels::zeros(outputs.div_ceil(width) * width * inputs * kernel * kernel),
            outputs,
            inputs,
            kernel,
            panel_width: width,
            table: self.name,
        }
    }

    /// `out[r, o] = sum_i a[r, i] w[o, i] + bias[o] + residual[r, o]`, for `a` `[rows, inputs]` and
    /// `out` `[rows, outputs]`.
    ///
    /// # Panics
    /// If a length does not fit the weight, or the weight is a larger convolution's or was packed
    /// for another instruction set.
    pub fn product<'a>(
        &self,
        a: &[f32],
        w: &PackedMatrix,
        added: impl Into<Added<'a>>,
        out: &mut [f32],
    ) {
        let rows = a.len() / w.inputs;
        let added = added.into();
        self.check_weight(w);
        added.check(w, out);
        assert_eq!(w.kernel, 1, "the weight is a convolution's");
        assert_eq!(a.len(), rows * w.inputs, "length of a");
        assert_eq!(out.len(), rows * w.outputs, "length of out");

        let out = Output::new(out);
        let cut = w.cut(rows);
        threads::for_each(cut.count(), |index| {
            let task = cut.task(index);
            let mut pointers = [std::ptr::null(); BLOCK_ROWS];
            for piece in w.pieces() {
                for (pointer, row) in pointers.iter_mut().zip(task.rows.clone()) {
                    *pointer = a[row * w.inputs + piece.inputs.start..].as_ptr();
                }
                // SAFETY: each pointer is at the piece's first input of its row of `a`, whose
                // length was checked, like those of `out` and `added`; tasks don't overlap.
                unsafe { self.add_piece(&pointers, w, &piece, &added, &task, out) };
            }
        });
    }

    /// Adds one piece of the reduction to a task's outputs; the first begins with what is added.
    ///
    /// # Safety
    /// `pointers` has, for each row of the task, a place where the piece's inputs can be read;
    /// `out` is `[rows, outputs]`, `w` and `added` passed their checks, and the task is one of `w.cut(rows)` that no other thread works on.
    pub(crate) unsafe fn add_piece(
        &self,
        pointers: &[*const f32; BLOCK_ROWS],
        w: &PackedMatrix,
        piece: &Piece,
        added: &Added<'_>,
        task: &Task,
        out: Output,
    ) {
        let panel = w.taps() * w.inputs * w.panel_width;
        let column = task.panels.start * w.panel_width;
        let reduced = piece.tap * w.inputs + piece.inputs.start;
        let corner = task.rows.start * w.outputs + column;
        let start = match added.bias {
            _ if reduced > 0 => Start::Output,
            Some(bias) => Start::Bias(&bias[column..]),
            None => Start::Nothing,
        };
        // SAFETY: `column` is in the task's rows of `out` by the promise on the task, and this
        // table's machine is this one. What the block may read and write is the caller's promise.
        unsafe {
            (self.product)(&Block {
                rows: &pointers[..task.rows.len()],
                depth: piece.inputs.len(),
                panels: &w.panels[task.panels.start * panel + reduced * w.panel_width..],
                panel_stride: panel,
                columns: w.outputs.min(task.panels.end * w.panel_width) - column,
                start,
                residual: added
                    .residual
                    .filter(|_| reduced == 0)
                    .map(|residual| residual[corner..].as_ptr()),
                out: out.at(corner),
                out_stride: w.outputs,
            });
        }
    }

    /// Panics if the weight is of another table.
    pub(crate) fn check_weight(&self, w: &PackedMatrix) {
        assert_eq!(
            w.table, self.name,
            "the weight was packed for another table"
        );
    }
}

impl Added<'_> {
    /// Panics if a length does not fit.
    pub(crate) fn check(&self, w: &PackedMatrix, out: &[f32]) {
        if let Some(bias) = self.bias {
            assert_eq!(bias.len(), w.outputs, "length of bias");
        }
        if let Some(residual) = self.residual {
            assert_eq!(residual.len(), out.len(), "length of residual");
        }
    }
}

/// What a tile's sums are added to.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// Nothing: they overwrite the output.
    Nothing,
    /// A value per output.
    Bias(&'a [f32]),
    /// What the output holds.
    Output,
}

/// A product of one thread: `rows x columns`, reduced over `depth`.
pub(crate) struct Block<'a> {
    /// Where the inputs of each row begin.
    pub(crate) rows: &'a [*const f32],
    /// Inputs, and rows of a panel.
    pub(crate) depth: usize,
    /// Panels from the first on, each from its first row on.
    pub(crate) panels: &'a [f32],
    /// Floats from a panel to the next.
    pub(crate) panel_stride: usize,
    /// Outputs; the last panel may be wider.
    pub(crate) columns: usize,
    /// What the sums are added to.
    pub(crate) start: Start<'a>,
    /// Added too, laid out as the output is.
    pub(crate) residual: Option<*const f32>,
    /// The first row's first output.
    pub(crate) out: *mut f32,
    /// Floats from a row of the output to the next.
    pub(crate) out_stride: usize,
}

/// Runs a block: each panel against all rows, in tiles.
///
/// # Safety
/// The machine has `V`'s instruction set, `depth` floats can be read at each of `rows`, and the
/// block's `columns` floats of each row of the output are this thread's to write.
#[inline(always)]
pub(crate) unsafe fn product_body<V: Simd>(block: &Block<'_>) {
    let width = PANEL_VECTORS * V::LANES;
    for (i, column) in (0..block.columns).step_by(width).enumerate() {
        let panel = &block.panels[i * block.panel_stride..][..block.depth * width];
        for (t, rows) in block.rows.chunks(V::ROWS).enumerate() {
            let tile = Tile {
                rows,
                panel,
                columns: width.min(block.columns - column),
                start: match block.start {
                    Start::Bias(bias) => Start::Bias(&bias[column..]),
                    start => start,
                },
                // SAFETY: the tile's first output is one of the block's, in the output and in what
                // is laid out as it.
                residual: block
                    .residual
                    .map(|from| unsafe { from.add(t * V::ROWS * block.out_stride + column) }),
                // SAFETY: as above.
                out: unsafe { block.out.add(t * V::ROWS * block.out_stride + column) },
                out_stride: block.out_stride,
            };
            // SAFETY: the caller's promise; a tile has as many rows as its number says, and
            // instruction sets with fewer rows never reach (nor contain) the larger ones.
            unsafe {
                match rows.len() {
                    1 => tile.run::<V, 1>(),
                    2 => tile.run::<V, 2>(),
                    3 => tile.run::<V, 3>(),
                    4 => tile.run::<V, 4>(),
                    5 if V::ROWS > 4 => tile.run::<V, 5>(),
                    6 if V::ROWS > 4 => tile.run::<V, 6>(),
                    7 if V::ROWS > 6 => tile.run::<V, 7>(),
                    8 if V::ROWS > 6 => tile.run::<V, 8>(),
                    _ => unreachable!("a tile has at most {} rows", V::ROWS),
                }
            }
        }
    }
}

/// At most `V::ROWS` rows by one panel.
struct Tile<'a> {
    rows: &'a [*const f32],
    panel: &'a [f32],
    columns: usize,
    start: Start<'a>,
    residual: Option<*const f32>,
    out: *mut f32,
    out_stride: usize,
}

impl Tile<'_> {
    /// The tile's sums, all in registers, then their way out.
    ///
    /// # Safety
    /// As [`product_body`]'s, and `M` is the number of rows.
    #[inline(always)]
    unsafe fn run<V: Simd, const M: usize>(&self) {
        let width = PANEL_VECTORS * V::LANES;
        // SAFETY: the caller has the instruction set; the panel has `depth` rows of `width`
        // floats, and each of the rows `depth` inputs.
        unsafe {
            let rows: [*const f32; M] = std::array::from_fn(|r| self.rows[r]);
            let mut sums = [[V::fill(0.0); PANEL_VECTORS]; M];
            let mut weights = self.panel.as_ptr();
            for k in 0..self.panel.len() / width {
                let mut w = [V::fill(0.0); PANEL_VECTORS];
                for (v, w) in w.iter_mut().enumerate() {
                    *w = V::load(weights.add(v * V::LANES));
                }
                for r in 0..M {
                    let a = V::fill(*rows[r].add(k));
                    for v in 0..PANEL_VECTORS {
                        sums[r][v] = a.mul_add(w[v], sums[r][v]);
                    }
                }
                V::prefetch(weights.wrapping_add(AHEAD * width));
                V::prefetch(weights.wrapping_add(AHEAD * width + V::LANES));
                weights = weights.add(width);
            }
            match self.columns >= width {
                true => self.write::<V, M, true>(sums),
                false => self.write::<V, M, false>(sums),
            }
        }
    }

    /// Adds the sums to what they start from, and writes them: a step for all of them, then the
    /// next, so that they stay in registers.
    ///
    /// # Safety
    /// As [`product_body`]'s; `WHOLE` says whether the tile has all columns of the panel.
    #[inline(always)]
    unsafe fn write<V: Simd, const M: usize, const WHOLE: bool>(
        &self,
        mut sums: [[V; PANEL_VECTORS]; M],
    ) {
        // SAFETY: rows and columns are inside the tile; at its right edge only the columns that are
        // there are touched, of the output as of bias and residual.
        unsafe {
            match self.start {
                Start::Nothing => {}
                Start::Bias(bias) => {
                    for v in 0..PANEL_VECTORS {
                        let bias = self.load::<V, WHOLE>(bias.as_ptr(), 0, v);
                        for sums in &mut sums {
                            sums[v] = bias.add(sums[v]);
                        }
                    }
                }
                Start::Output => self.add::<V, M, WHOLE>(self.out, &mut sums),
            }
            if let Some(residual) = self.residual {
                self.add::<V, M, WHOLE>(residual, &mut sums);
            }
            for (r, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    let column = v * V::LANES;
                    let out = self.out.wrapping_add(r * self.out_stride + column);
                    if WHOLE {
                        sum.store(out);
                    } else if column < self.columns {
                        sum.store_up_to(out, self.columns - column);
                    }
                }
            }
        }
    }

    /// Adds what is laid out as the output is.
    ///
    /// # Safety
    /// As [`Tile::write`]'s.
    #[inline(always)]
    unsafe fn add<V: Simd, const M: usize, const WHOLE: bool>(
        &self,
        from: *const f32,
        sums: &mut [[V; PANEL_VECTORS]; M],
    ) {
        for (r, sums) in sums.iter_mut().enumerate() {
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's promise.
                *sum = unsafe { self.load::<V, WHOLE>(from, r, v) }.add(*sum);
            }
        }
    }

    /// A vector of a row of what is laid out as the output is, zeros beyond the last column.
    ///
    /// # Safety
    /// As [`Tile::write`]'s.
    #[inline(always)]
    unsafe fn load<V: Simd, const WHOLE: bool>(&self, from: *const f32, row: usize, v: usize) -> V {
        let column = v * V::LANES;
        let from = from.wrapping_add(row * self.out_stride + column);
        // SAFETY: the caller's promise.
        unsafe {
            if WHOLE {
                V::load(from)
            } else {
                V::load_up_to(from, self.columns.saturating_sub(column))
            }
        }
    }
}
