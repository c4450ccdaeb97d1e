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

use crate::half::Half;
use crate::packed::{PackedMatrix, PanelRows, Piece, Stored};
use crate::simd::{PANEL_VECTORS, Pairs, Simd};
use crate::threads::{self, Output};
use crate::{Kernels, threads::piece};
use std::ops::Range;

/// Rows of a task: a multiple of every instruction set's [`Simd::ROWS`].
pub(crate) const BLOCK_ROWS: usize = 96;

/// Rows of a task that packs its weights itself: so many that packing is a small part, so few that
/// their piece of the inputs stays in the second cache.
pub(crate) const PACKING_ROWS: usize = 6 * BLOCK_ROWS;

/// Most inputs of a piece of the reduction.
pub(crate) const PIECE: usize = 256;

/// Rows of a panel that are fetched ahead of their use.
const AHEAD: usize = 16;

/// Tasks that a product is cut into, if it is large enough: many threads then end together.
const TASKS: usize = 64;

/// A product as a grid of tasks: blocks of rows by groups of panels.
pub(crate) struct Cut {
    rows: usize,
    rows_in_block: usize,
    blocks: usize,
    panels: usize,
    panels_in_task: usize,
}

impl Cut {
    /// The tasks of a product with `rows` rows.
    pub(crate) fn new(w: &PackedMatrix, rows: usize) -> Self {
        let rows_in_block = match w.stored() {
            Stored::Rows(_) => PACKING_ROWS,
            _ => BLOCK_ROWS,
        };
        Self::of(rows, rows_in_block, w.panel_count())
    }

    /// The tasks of a product with `panels` panels.
    pub(crate) fn of(rows: usize, rows_in_block: usize, panels: usize) -> Self {
        let blocks = rows.div_ceil(rows_in_block);
        let wanted = TASKS.div_ceil(blocks.max(1)).min(panels).max(1);
        let panels_in_task = panels.div_ceil(wanted).max(1);
        Self {
            rows,
            rows_in_block,
            blocks,
            panels,
            panels_in_task,
        }
    }

    /// How many tasks there are.
    pub(crate) fn count(&self) -> usize {
        self.blocks * self.panels.div_ceil(self.panels_in_task)
    }

    /// The rows and panels of a task; tasks with the same panels follow each other, so that
    /// threads read the same weights at about the same time.
    pub(crate) fn task(&self, index: usize) -> Task {
        Task {
            rows: piece(self.rows, self.rows_in_block, index % self.blocks),
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
        let rows = a.len() / w.inputs();
        let added = added.into();
        self.check_weight(w);
        added.check(w, out);
        assert_eq!(w.kernel(), 1, "the weight is a convolution's");
        assert_eq!(a.len(), rows * w.inputs(), "length of a");
        assert_eq!(out.len(), rows * w.outputs(), "length of out");

        let out = Output::new(out);
        let cut = Cut::new(w, rows);
        threads::for_each(cut.count(), |index| {
            let task = cut.task(index);
            let mut pointers = [std::ptr::null(); PACKING_ROWS];
            for piece in w.pieces() {
                for (pointer, row) in pointers.iter_mut().zip(task.rows.clone()) {
                    *pointer = a[row * w.inputs() + piece.inputs.start..].as_ptr();
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
    /// `out` is `[rows, outputs]`, `w` and `added` passed their checks, and the task is one of `Cut::new(w, rows)` that no other thread works on.
    pub(crate) unsafe fn add_piece(
        &self,
        pointers: &[*const f32],
        w: &PackedMatrix,
        piece: &Piece,
        added: &Added<'_>,
        task: &Task,
        out: Output,
    ) {
        let width = w.panel_width();
        let column = task.panels.start * width;
        let reduced = piece.tap * w.inputs() + piece.inputs.start;
        let corner = task.rows.start * w.outputs() + column;
        let start = match added.bias {
            _ if reduced > 0 => Start::Output,
            Some(bias) => Start::Bias(&bias[column..]),
            None => Start::Nothing,
        };
        let block = Block {
            rows: &pointers[..task.rows.len()],
            depth: piece.inputs.len(),
            panels: &[],
            panel_stride: w.panel_size(),
            columns: w.outputs().min(task.panels.end * width) - column,
            start,
            residual: added
                .residual
                .filter(|_| reduced == 0)
                .map(|residual| residual[corner..].as_ptr()),
            // SAFETY: `corner` is in the task's rows of `out` by the promise on the task.
            out: unsafe { out.at(corner) },
            out_stride: w.outputs(),
        };
        let first = task.panels.start * w.panel_size() + reduced * width;
        // SAFETY: this table's machine is this one. What the block may read and write is the
        // caller's promise.
        unsafe {
            match w.stored() {
                Stored::Single(panels) => (self.product)(&Block {
                    panels: &panels[first..],
                    ..block
                }),
                Stored::Half(format, numbers) => {
                    self.product_with(&block, |panel, to| {
                        self.widen_panel(
                            *format,
                            &numbers[first..],
                            panel * block.panel_stride,
                            to,
                        );
                    });
                }
                Stored::Rows(rows) => self.product_with(&block, |panel, to| {
                    self.pack_part(w, rows, task.panels.start + panel, &piece.inputs, to);
                }),
                Stored::Pairs(pairs) => self.paired_product(&Block {
                    panels: &pairs[first / 2..],
                    panel_stride: block.panel_stride / 2,
                    ..block
                }),
            }
        }
    }

    /// A block whose panels' pieces are made one after the other, by `write`, in the cache, before
    /// all rows are multiplied with each.
    ///
    /// # Safety
    /// As the product's of `block`.
    pub(crate) unsafe fn product_with(&self, block: &Block<'_>, write: impl Fn(usize, &mut [f32])) {
        let width = self.panel_width;
        threads::with_scratch(block.depth * width, |panel| {
            for (i, column) in (0..block.columns).step_by(width).enumerate() {
                write(i, panel);
                // SAFETY: the columns from `column` on are the block's; the caller's promise.
                unsafe {
                    (self.product)(&Block {
                        panels: panel,
                        columns: width.min(block.columns - column),
                        start: match block.start {
                            Start::Bias(bias) => Start::Bias(&bias[column..]),
                            start => start,
                        },
                        residual: block.residual.map(|residual| residual.add(column)),
                        out: block.out.add(column),
                        ..*block
                    });
                }
            }
        });
    }

    fn widen_panel(&self, format: Half, numbers: &[u16], first: usize, to: &mut [f32]) {
        // SAFETY: this machine has this table's instruction set, and a panel is whole vectors wide.
        unsafe { (self.widen)(format, &numbers[first..][..to.len()], to) };
    }

    /// Some inputs of a panel of a linear layer's weight as stored.
    fn pack_part(
        &self,
        w: &PackedMatrix,
        rows: &[f32],
        panel: usize,
        inputs: &Range<usize>,
        to: &mut [f32],
    ) {
        let (rows, count) = w.part_of_panel(rows, panel, inputs.start);
        let task = PanelRows {
            rows,
            row: w.inputs(),
            count,
            inputs: inputs.len(),
            taps: 1,
            first: 0,
            panel: to,
        };
        // SAFETY: this machine has this table's instruction set.
        unsafe { (self.write_panel)(task) };
    }

    /// A block of products of bf16, whose panels are pairs: its rows are rounded first.
    ///
    /// # Safety
    /// As the product's of `block`, whose `depth` counts single inputs.
    pub(crate) unsafe fn paired_product(&self, block: &Block<'_>) {
        let functions = self.pairs.as_ref();
        let functions = functions.expect("weights are paired where there are such products");
        let depth = block.depth.div_ceil(2);
        let stride = depth.next_multiple_of(self.lanes);
        threads::with_scratch(block.rows.len() * stride, |rounded| {
            let mut rows = [std::ptr::null(); BLOCK_ROWS];
            for (i, row) in block.rows.iter().enumerate() {
                let to = &mut rounded[i * stride..][..stride];
                rows[i] = to.as_ptr();
                // SAFETY: weights are paired only where the machine has the instructions; a row has
                // `depth` floats, and its pairs whole vectors of room.
                unsafe { (functions.round)(*row, block.depth, to.as_mut_ptr()) };
            }
            // SAFETY: the rows are as many pairs; the caller's promise for the rest.
            unsafe {
                (functions.product)(&Block {
                    rows: &rows[..block.rows.len()],
                    depth,
                    ..*block
                });
            }
        });
    }

    /// Panics if the weight is of another table.
    pub(crate) fn check_weight(&self, w: &PackedMatrix) {
        assert_eq!(
            w.table(),
            self.name,
            "the weight was packed for another table"
        );
    }
}

impl Added<'_> {
    /// Panics if a length does not fit.
    pub(crate) fn check(&self, w: &PackedMatrix, out: &[f32]) {
        if let Some(bias) = self.bias {
            assert_eq!(bias.len(), w.outputs(), "length of bias");
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

/// A product of one thread: `rows x columns`, reduced over `depth`; of pairs of inputs, if both rows
/// and panels hold such.
#[derive(Clone, Copy)]
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

/// What is added to a sum, of a broadcast input and a vector of weights.
pub(crate) trait Term<V> {
    fn add(input: V, weights: V, sum: V) -> V;
}

/// One product in each lane.
pub(crate) struct Single;
/// Two, of pairs of bf16.
pub(crate) struct Paired;

impl<V: Simd> Term<V> for Single {
    #[inline(always)]
    fn add(input: V, weights: V, sum: V) -> V {
        input.mul_add(weights, sum)
    }
}

impl<V: Pairs> Term<V> for Paired {
    #[inline(always)]
    fn add(input: V, weights: V, sum: V) -> V {
        input.dot(weights, sum)
    }
}

/// Runs a block: each panel against all rows, in tiles.
///
/// # Safety
/// The machine has `V`'s instruction set, `depth` floats can be read at each of `rows`, and the
/// block's `columns` floats of each row of the output are this thread's to write.
#[inline(always)]
pub(crate) unsafe fn product_body<V: Simd, T: Term<V>>(block: &Block<'_>) {
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
            // SAFETY: the caller's promise; the vectors hold the tile's columns.
            unsafe {
                match tile.columns <= V::LANES {
                    true => tile.run_rows::<V, T, 1>(),
                    false => tile.run_rows::<V, T, PANEL_VECTORS>(),
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
    /// Runs the tile by its number of rows.
    ///
    /// # Safety
    /// As [`product_body`]'s, and the tile's columns are in the first `N` vectors of its panel.
    #[inline(always)]
    unsafe fn run_rows<V: Simd, T: Term<V>, const N: usize>(&self) {
        // SAFETY: the caller's promise; the tile has as many rows as its number says, and
        // instruction sets with fewer rows never reach (nor contain) the larger ones.
        unsafe {
            match self.rows.len() {
                1 => self.run::<V, T, 1, N>(),
                2 => self.run::<V, T, 2, N>(),
                3 => self.run::<V, T, 3, N>(),
                4 => self.run::<V, T, 4, N>(),
                5 if V::ROWS > 4 => self.run::<V, T, 5, N>(),
                6 if V::ROWS > 4 => self.run::<V, T, 6, N>(),
                7 if V::ROWS > 6 => self.run::<V, T, 7, N>(),
                8 if V::ROWS > 6 => self.run::<V, T, 8, N>(),
                _ => unreachable!("a tile has at most {} rows", V::ROWS),
            }
        }
    }

    /// The tile's sums, all in registers, then their way out.
    ///
    /// # Safety
    /// As [`Tile::run_rows`]'s, and `M` is the number of rows.
    #[inline(always)]
    unsafe fn run<V: Simd, T: Term<V>, const M: usize, const N: usize>(&self) {
        let width = PANEL_VECTORS * V::LANES;
        // SAFETY: the caller has the instruction set; the panel has `depth` rows of `width`
        // floats, and each of the rows `depth` inputs.
        unsafe {
            let rows: [*const f32; M] = std::array::from_fn(|r| self.rows[r]);
            let mut sums = [[V::fill(0.0); N]; M];
            let mut weights = self.panel.as_ptr();
            for k in 0..self.panel.len() / width {
                let mut w = [V::fill(0.0); N];
                for (v, w) in w.iter_mut().enumerate() {
                    *w = V::load(weights.add(v * V::LANES));
                }
                for r in 0..M {
                    let a = V::fill(*rows[r].add(k));
                    for v in 0..N {
                        sums[r][v] = T::add(a, w[v], sums[r][v]);
                    }
                }
                for v in 0..N {
                    V::prefetch(weights.wrapping_add(AHEAD * width + v * V::LANES));
                }
                weights = weights.add(width);
            }
            match self.columns >= N * V::LANES {
                true => self.write::<V, M, N, true>(sums),
                false => self.write::<V, M, N, false>(sums),
            }
        }
    }

    /// Adds the sums to what they start from, and writes them: a step for all of them, then the
    /// next, so that they stay in registers.
    ///
    /// # Safety
    /// As [`product_body`]'s; `WHOLE` says whether the tile has all columns of the vectors.
    #[inline(always)]
    unsafe fn write<V: Simd, const M: usize, const N: usize, const WHOLE: bool>(
        &self,
        mut sums: [[V; N]; M],
    ) {
        // SAFETY: rows and columns are inside the tile; at its right edge only the columns that are
        // there are touched, of the output as of bias and residual.
        unsafe {
            match self.start {
                Start::Nothing => {}
                Start::Bias(bias) => {
                    for v in 0..N {
                        let bias = self.load::<V, WHOLE>(bias.as_ptr(), 0, v);
                        for sums in &mut sums {
                            sums[v] = bias.add(sums[v]);
                        }
                    }
                }
                Start::Output => self.add::<V, M, N, WHOLE>(self.out, &mut sums),
            }
            if let Some(residual) = self.residual {
                self.add::<V, M, N, WHOLE>(residual, &mut sums);
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
    unsafe fn add<V: Simd, const M: usize, const N: usize, const WHOLE: bool>(
        &self,
        from: *const f32,
        sums: &mut [[V; N]; M],
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
