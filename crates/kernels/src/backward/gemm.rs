//! Gradients of a product; and the body under all gradients of weights, a sum of outer products.
//!
//! `dx = dy w` is a product as the forward one is, reduced over outputs, whose panels are runs of
//! `w`'s rows. `dw = dyᵀ x` is reduced over rows: each row of `dy` and `x` adds an outer product. Both
//! factors are then read along a row, so neither is ever transposed. A linear layer is a 1x1
//! convolution of a map one pixel wide: its weight's gradient is that convolution's.

use crate::backward::norm::sums::{Sums, total};
use crate::gemm::{Block, Cut, PACKING_ROWS, PIECE, Start};
use crate::simd::{PANEL_VECTORS, Simd};
use crate::threads::{self, Output, rows_in_task};
use crate::{Convolution, Kernels, Padding};
use rayon::prelude::*;

impl Kernels {
    /// `dx[r, i] = sum_o dy[r, o] w[o, i]`, for `dy` `[rows, outputs]`, `weight`
    /// `[outputs, inputs]` and `dx` `[rows, inputs]`.
    ///
    /// # Panics
    /// If a length does not fit.
    pub fn product_input_gradient(
        &self,
        dy: &[f32],
        weight: &[f32],
        outputs: usize,
        inputs: usize,
        dx: &mut [f32],
    ) {
        let rows = dy.len() / outputs;
        assert_eq!(dy.len(), rows * outputs, "dy is not whole rows");
        assert_eq!(weight.len(), outputs * inputs, "length of weight");
        assert_eq!(dx.len(), rows * inputs, "length of dx");
        let width = self.panel_width;
        let depth = outputs.div_ceil(outputs.div_ceil(PIECE));
        let dx = Output::new(dx);
        let cut = Cut::of(rows, PACKING_ROWS, inputs.div_ceil(width));
        threads::for_each(cut.count(), |index| {
            let task = cut.task(index);
            let first = task.panels.start * width;
            let mut pointers = [std::ptr::null(); PACKING_ROWS];
            for start in (0..outputs).step_by(depth) {
                for (pointer, row) in pointers.iter_mut().zip(task.rows.clone()) {
                    *pointer = dy[row * outputs + start..].as_ptr();
                }
                let block = Block {
                    rows: &pointers[..task.rows.len()],
                    depth: depth.min(outputs - start),
                    panels: &[],
                    panel_stride: 0,
                    columns: inputs.min(task.panels.end * width) - first,
                    start: match start {
                        0 => Start::Nothing,
                        _ => Start::Output,
                    },
                    residual: None,
                    // SAFETY: the place is in `dx`, whose length was checked.
                    out: unsafe { dx.at(task.rows.start * inputs + first) },
                    out_stride: inputs,
                };
                // SAFETY: each row has `depth` outputs from `start` on; no other task has these rows
                // and panels.
                unsafe {
                    self.product_with(&block, |panel, to| {
                        let column = first + panel * width;
                        let rows = weight[start * inputs + column..].chunks(inputs);
                        let count = width.min(inputs - column);
                        for (to, from) in to.chunks_exact_mut(width).zip(rows) {
                            to[..count].copy_from_slice(&from[..count]);
                        }
                    });
                }
            }
        });
    }

    /// `dw[o, i] = sum_r dy[r, o] x[r, i]`, for `x` `[rows, inputs]`, `dy` `[rows, outputs]` and
    /// `dw` `[outputs, inputs]`.
    ///
    /// # Panics
    /// If a length does not fit.
    pub fn product_weight_gradient(
        &self,
        x: &[f32],
        dy: &[f32],
        inputs: usize,
        outputs: usize,
        dw: &mut [f32],
    ) {
        assert_eq!(dy.len() % outputs, 0, "dy is not whole rows");
        let geometry = rows_as_map(dy.len() / outputs);
        self.convolution_weight_gradient(x, dy, &geometry, [outputs, inputs, 1], dw);
    }

    /// `out[c] = sum_r dy[r, c]`, the gradient of a bias, for `dy` `[rows, channels]`.
    ///
    /// # Panics
    /// If a length does not fit.
    pub fn row_sums(&self, dy: &[f32], channels: usize, out: &mut [f32]) {
        assert_eq!(out.len(), channels, "length of out");
        assert_eq!(dy.len() % channels, 0, "dy is not whole rows");
        let parts: Vec<Sums> = dy
            .par_chunks(rows_in_task(channels) * channels)
            .map(|dy| {
                let mut sums = Sums::zeros(channels);
                // SAFETY: this machine has this table's instruction set; the rows are whole.
                unsafe { (self.row_sums)(dy, &mut sums) };
                sums
            })
            .collect();
        total(channels, &parts).write_plain(out);
    }
}

/// The map whose 1x1 convolution is a product of `rows` rows.
fn rows_as_map(rows: usize) -> Convolution {
    Convolution {
        images: 1,
        height: rows,
        width: 1,
        stride: 1,
        padding: Padding::default(),
    }
}

/// A sum of outer products of one thread: `out[r, c] = sum_k a[k, r] b[k, c]`.
pub(crate) struct OuterProducts<'a> {
    /// The first value of the first row of `a`.
    pub(crate) a: *const f32,
    /// Floats from a row of `a` to the next.
    pub(crate) a_stride: usize,
    /// Rows of `a` and `b`.
    pub(crate) depth: usize,
    /// Rows of the output: values in a row of `a`.
    pub(crate) rows: usize,
    /// `b` as panels `[panel][depth][panel width]`; what the last has too much is not looked at.
    pub(crate) panels: &'a [f32],
    /// Columns of the output.
    pub(crate) columns: usize,
    /// Whether the sums are added to what the output holds, or written over it.
    pub(crate) add: bool,
    /// The first row's first output.
    pub(crate) out: *mut f32,
    /// Floats from a row of the output to the next.
    pub(crate) out_stride: usize,
}

/// Runs a sum of outer products: each panel against all rows, in register tiles.
///
/// # Safety
/// The machine has `V`'s instruction set, `rows` floats can be read at each of the `depth` rows of
/// `a`, and the `columns` floats of each row of the output are this thread's to write.
#[inline(always)]
pub(crate) unsafe fn outer_products_body<V: Simd>(block: &OuterProducts<'_>) {
    let width = PANEL_VECTORS * V::LANES;
    for (i, column) in (0..block.columns).step_by(width).enumerate() {
        let panel = &block.panels[i * block.depth * width..][..block.depth * width];
        let columns = width.min(block.columns - column);
        for row in (0..block.rows).step_by(V::ROWS) {
            let tile = Tile {
                // SAFETY: `row` is one of the block's, in `a` and in the output.
                a: unsafe { block.a.add(row) },
                a_stride: block.a_stride,
                panel,
                columns,
                add: block.add,
                // SAFETY: as above; `column` is one of the block's.
                out: unsafe { block.out.add(row * block.out_stride + column) },
                out_stride: block.out_stride,
            };
            let rows = V::ROWS.min(block.rows - row);
            // SAFETY: the caller's promise; `N` vectors hold the tile's columns.
            unsafe {
                match columns > V::LANES {
                    true => tile.run_rows::<V, PANEL_VECTORS>(rows),
                    false => tile.run_rows::<V, 1>(rows),
                }
            }
        }
    }
}

/// At most `V::ROWS` rows by one panel.
struct Tile<'a> {
    a: *const f32,
    a_stride: usize,
    panel: &'a [f32],
    columns: usize,
    add: bool,
    out: *mut f32,
    out_stride: usize,
}

impl Tile<'_> {
    /// # Safety
    /// As [`outer_products_body`]'s, for `rows <= V::ROWS` rows and no more columns than `N`
    /// vectors have.
    #[inline(always)]
    unsafe fn run_rows<V: Simd, const N: usize>(&self, rows: usize) {
        // SAFETY: the caller's promise; instruction sets with fewer rows never reach (nor
        // contain) the larger ones.
        unsafe {
            match rows {
                1 => self.run::<V, 1, N>(),
                2 => self.run::<V, 2, N>(),
                3 => self.run::<V, 3, N>(),
                4 => self.run::<V, 4, N>(),
                5 if V::ROWS > 4 => self.run::<V, 5, N>(),
                6 if V::ROWS > 4 => self.run::<V, 6, N>(),
                7 if V::ROWS > 6 => self.run::<V, 7, N>(),
                8 if V::ROWS > 6 => self.run::<V, 8, N>(),
                _ => unreachable!("a tile has at most {} rows", V::ROWS),
            }
        }
    }

    /// The tile's sums, all in registers, then their way out.
    ///
    /// # Safety
    /// As [`Tile::run_rows`]'s, and `M` is the number of rows.
    #[inline(always)]
    unsafe fn run<V: Simd, const M: usize, const N: usize>(&self) {
        let width = PANEL_VECTORS * V::LANES;
        // SAFETY: the caller has the instruction set; the panel has `depth` rows of `width`
        // floats, and `a` as many of at least `M`.
        unsafe {
            let mut sums = [[V::fill(0.0); N]; M];
            let (mut a, mut b) = (self.a, self.panel.as_ptr());
            for _ in 0..self.panel.len() / width {
                let mut columns = [V::fill(0.0); N];
                for (v, column) in columns.iter_mut().enumerate() {
                    *column = V::load(b.add(v * V::LANES));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let a = V::fill(*a.add(r));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = a.mul_add(column, *sum);
                    }
                }
                // The row after the last may begin past the end of `a`.
                a = a.wrapping_add(self.a_stride);
                b = b.add(width);
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (v, sum) in sums.into_iter().enumerate() {
                    let column = v * V::LANES;
                    let (out, left) = (
                        self.out.add(r * self.out_stride + column),
                        self.columns - column,
                    );
                    match self.add {
                        true => V::load_up_to(out, left).add(sum).store_up_to(out, left),
                        false => sum.store_up_to(out, left),
                    }
                }
            }
        }
    }
}

/// Rows that are copied side by side, to be a factor of a product:
/// `[panel][row][value in the panel]`.
pub(crate) struct RowsToPack<'a> {
    /// Where each row begins.
    pub(crate) rows: &'a [*const f32],
    /// Values in a row.
    pub(crate) columns: usize,
    /// Values in a row of a panel; the last panel may have fewer.
    pub(crate) width: usize,
    pub(crate) to: &'a mut [f32],
}

/// Packs rows.
///
/// # Safety
/// The machine has `V`'s instruction set, and `columns` floats can be read at each of the rows.
#[inline(always)]
pub(crate) unsafe fn pack_rows_body<V: Simd>(pack: RowsToPack<'_>) {
    let panel = pack.rows.len() * pack.width;
    let needed = pack.columns.div_ceil(pack.width) * panel;
    let to = pack.to[..needed].as_mut_ptr();
    for (i, row) in pack.rows.iter().enumerate() {
        for (p, first) in (0..pack.columns).step_by(pack.width).enumerate() {
            let count = pack.width.min(pack.columns - first);
            for c in (0..count).step_by(V::LANES) {
                let left = count - c;
                // SAFETY: the caller lets the row be read; a panel has room for `width` floats of
                // each row.
                unsafe {
                    V::load_up_to(row.add(first + c), left)
                        .store_up_to(to.add(p * panel + i * pack.width + c), left);
                }
            }
        }
    }
}
