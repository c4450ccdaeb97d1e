//! Gradients of attention, with scores for a block of queries at a time.
//!
//! With `P = softmax(q kᵀ s)`, `s = 1 / sqrt(head size)`, and `dP = dout vᵀ`:
//! `dv = Pᵀ dout`, `dS = s P (dP - rowsum(P dP))`, `dq = dS k`, `dk = dSᵀ q`.
//! (Dao et al., arXiv 2205.14135, appendix B.)
//!
//! # Blocking
//!
//! A task has a part of the queries of one head. For each [`BLOCK_ROWS`] of them it takes the
//! scores and `dP` of all keys, so memory grows with the keys, not with their square, and no
//! product is taken twice; turns them, row by row, into `P` and `dS`; and adds the three products.
//! Both lie in blocks of [`BLOCK_KEYS`] keys, each small enough for the second cache while it is
//! multiplied.
//!
//! Where there are many queries, a head's are cut into at most [`PARTS`] parts, each with its own
//! sums of `dk` and `dv`, which are added in order; images follow each other.

use crate::activation::exp;
use crate::attention::{Factors, Pack, Packed, Side};
use crate::backward::gemm::{OuterProducts, RowsToPack};
use crate::gemm::{BLOCK_ROWS, Block, Start};
use crate::simd::Simd;
use crate::threads::{self, Output, piece};
use crate::{Attention, Kernels};
use rayon::prelude::*;
use std::ops::Range;

/// Keys of a block: a multiple of every instruction set's panel.
const BLOCK_KEYS: usize = 128;

/// Floats from a row of a block to the next: no power of two, or a column's values would fall on
/// few lines of the cache.
const STRIDE: usize = BLOCK_KEYS + 16;

/// Floats of a block.
const BLOCK: usize = BLOCK_ROWS * STRIDE;

/// Most parts of a head's queries, each but the first with gradients of all keys and values.
const PARTS: usize = 4;

/// Fewest blocks of queries in a part, but the last.
const BLOCKS_IN_PART: usize = 11;

impl Kernels {
    /// The gradients of [`Kernels::attention`]: `dq`, `dk` and `dv`, as long as `q`, `k` and `v`,
    /// from that of its output, `dout`. Where all images share keys and values, `dk` and `dv` are
    /// sums over the images, in their order.
    ///
    /// # Panics
    /// If a length does not fit, there is no key, or a causal attention has more queries than
    /// keys.
    #[allow(clippy::too_many_arguments)] // the operation's own: none belongs with another
    pub fn attention_gradient(
        &self,
        shape: &Attention,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        dout: &[f32],
        dq: &mut [f32],
        dk: &mut [f32],
        dv: &mut [f32],
    ) {
        let channels = shape.heads * shape.head_size;
        let (of_queries, of_keys) = (shape.queries * channels, shape.keys * channels);
        assert_eq!(q.len(), shape.images * of_queries, "length of q");
        assert_eq!(dout.len(), q.len(), "length of dout");
        assert_eq!(dq.len(), q.len(), "length of dq");
        let shared = k.len() == of_keys;
        assert!(shared || k.len() == shape.images * of_keys, "length of k");
        assert_eq!(v.len(), k.len(), "length of v");
        assert_eq!(dk.len(), k.len(), "length of dk");
        assert_eq!(dv.len(), v.len(), "length of dv");
        assert!(shape.keys > 0, "attention without keys");
        assert!(!shape.causal || shape.queries <= shape.keys, "causal");
        dk.fill(0.0);
        dv.fill(0.0);
        if q.is_empty() {
            return;
        }
        if shape.keys == 1 {
            // The only key's weight is 1, whatever the scores are.
            dq.fill(0.0);
            let queries = dout.par_chunks(dout.len() / v.len() * channels);
            let values = dv.par_chunks_mut(channels).zip(queries);
            values.for_each(|(dv, dout)| self.row_sums(dout, channels, dv));
            return;
        }

        if shared {
            let queries = q.chunks(of_queries).zip(dout.chunks(of_queries));
            for ((q, dout), dq) in queries.zip(dq.chunks_mut(of_queries)) {
                self.image_gradient(shape, [q, dout], [k, v], dq, [&mut *dk, &mut *dv]);
            }
            return;
        }
        let queries = q.par_chunks(of_queries).zip(dout.par_chunks(of_queries));
        let queries = queries.zip(dq.par_chunks_mut(of_queries));
        let keys = k.par_chunks(of_keys).zip(v.par_chunks(of_keys));
        let sums = dk.par_chunks_mut(of_keys).zip(dv.par_chunks_mut(of_keys));
        let images = queries.zip(keys.zip(sums));
        images.for_each(|(((q, dout), dq), ((k, v), (dk, dv)))| {
            self.image_gradient(shape, [q, dout], [k, v], dq, [dk, dv]);
        });
    }

    /// The gradients of one image: writes `dq`, adds to `dk` and `dv`.
    fn image_gradient(
        &self,
        shape: &Attention,
        [q, dout]: [&[f32]; 2],
        [k, v]: [&[f32]; 2],
        dq: &mut [f32],
        [dk, dv]: [&mut [f32]; 2],
    ) {
        let pack = |side| Pack {
            shape,
            side,
            factors: Factors::Single,
            width: self.panel_width,
        };
        let (by_channels, by_tokens) = (pack(Side::Keys), pack(Side::Values));
        let (columns, rows) = (by_channels.size(k), by_tokens.size(k));
        let partial = 2 * (Parts::of(shape).count - 1) * dk.len();
        threads::with_scratch(2 * columns + rows + partial, |scratch| {
            let (keys, rest) = scratch.split_at_mut(columns);
            let (values, rest) = rest.split_at_mut(columns);
            let (key_rows, partial) = rest.split_at_mut(rows);
            let operands = Operands {
                shape,
                q,
                dout,
                keys: self.pack_heads(&by_channels, k, keys),
                values: self.pack_heads(&by_channels, v, values),
                key_rows: self.pack_heads(&by_tokens, k, key_rows),
                dq: Output::new(dq),
            };
            self.add_parts(&operands, [dk, dv], partial);
        });
    }

    /// Writes `dq` and adds to `dk` and `dv`, part by part.
    fn add_parts(&self, operands: &Operands<'_>, [dk, dv]: [&mut [f32]; 2], partial: &mut [f32]) {
        let shape = operands.shape;
        partial.fill(0.0);
        let parts = Parts::of(shape);
        let of_keys = dk.len();
        let sums = [Output::new(dk), Output::new(dv)];
        let partial_sums = Output::new(partial);
        threads::for_each(shape.heads * parts.count, |task| {
            let (head, part) = (task / parts.count, task % parts.count);
            let sums = match part {
                0 => sums,
                // SAFETY: `partial` has two gradients for each part but the first.
                _ => unsafe {
                    let first = partial_sums.from((2 * part - 2) * of_keys);
                    [first, first.from(of_keys)]
                },
            };
            self.part_gradient(operands, head, parts.queries(shape, part), sums);
        });
        for part in partial.chunks(2 * of_keys) {
            let (keys, values) = part.split_at(of_keys);
            self.accumulate(keys, dk);
            self.accumulate(values, dv);
        }
    }

    /// Packs a head's channels of some tokens as panels `[panel][token][channel in the panel]`.
    fn pack_head<'a>(&self, rows: impl Iterator<Item = &'a [f32]>, size: usize, to: &mut [f32]) {
        let rows: Vec<*const f32> = rows.map(<[f32]>::as_ptr).collect();
        // SAFETY: each row has `size` floats.
        unsafe {
            (self.pack_rows)(RowsToPack {
                rows: &rows,
                columns: size,
                width: self.panel_width,
                to,
            });
        }
    }

    /// Channels of a head, filled up to whole panels.
    fn head_panels(&self, shape: &Attention) -> usize {
        shape.head_size.next_multiple_of(self.panel_width)
    }

    /// One task: some queries of one head; adds to the gradients of keys and values at `sums`.
    fn part_gradient(
        &self,
        operands: &Operands<'_>,
        head: usize,
        queries: Range<usize>,
        sums: [Output; 2],
    ) {
        let shape = operands.shape;
        let scores = shape.keys.div_ceil(BLOCK_KEYS) * BLOCK;
        let rows = BLOCK_ROWS * self.head_panels(shape);
        threads::with_scratch(2 * scores + 2 * rows, |scratch| {
            let (weights, rest) = scratch.split_at_mut(scores);
            let (gradients, rest) = rest.split_at_mut(scores);
            let (q_rows, dout_rows) = rest.split_at_mut(rows);
            for first in queries.clone().step_by(BLOCK_ROWS) {
                let count = BLOCK_ROWS.min(queries.end - first);
                let seen = match shape.causal {
                    true => shape.keys.min(first + count),
                    false => shape.keys,
                };
                let block = QueryBlock {
                    operands,
                    head,
                    first,
                    count,
                    seen,
                };
                self.scores(&block, operands.q, operands.keys, weights);
                self.scores(&block, operands.dout, operands.values, gradients);
                let step = SoftmaxGradient {
                    weights: &mut *weights,
                    gradients: &mut *gradients,
                    rows: count,
                    seen,
                    causal: shape.causal.then_some(first),
                    scale: 1.0 / (shape.head_size as f32).sqrt(),
                };
                // SAFETY: this machine has this table's instruction set.
                unsafe { (self.softmax_gradient)(step) };
                self.pack_head(block.rows(operands.q), shape.head_size, q_rows);
                self.pack_head(block.rows(operands.dout), shape.head_size, dout_rows);
                self.add_query_gradients(&block, gradients);
                self.add_key_gradients(&block, gradients, q_rows, sums[0]);
                self.add_key_gradients(&block, weights, dout_rows, sums[1]);
            }
        });
    }

    /// The products of a block of rows with all keys (or values) that any of them sees.
    fn scores(&self, block: &QueryBlock<'_>, tokens: &[f32], packed: Packed<'_>, to: &mut [f32]) {
        let head = packed.head(block.head);
        let mut rows = [std::ptr::null(); BLOCK_ROWS];
        for (pointer, row) in rows.iter_mut().zip(block.rows(tokens)) {
            *pointer = row.as_ptr();
        }
        for (i, keys) in block.key_blocks().enumerate() {
            // SAFETY: each row has `head_size` floats; the output is rows of `STRIDE` of which
            // no more than `BLOCK_KEYS` are columns.
            unsafe {
                (self.product)(&Block {
                    rows: &rows[..block.count],
                    depth: block.operands.shape.head_size,
                    panels: head.from(keys.start / self.panel_width, 0, self.panel_width),
                    panel_stride: head.panel,
                    columns: keys.len(),
                    start: Start::Nothing,
                    residual: None,
                    out: to[i * BLOCK..].as_mut_ptr(),
                    out_stride: STRIDE,
                });
            }
        }
    }

    /// `dq = dS k` of a block of queries.
    fn add_query_gradients(&self, block: &QueryBlock<'_>, gradients: &[f32]) {
        let Operands {
            shape,
            dq,
            key_rows,
            ..
        } = *block.operands;
        let head = key_rows.head(block.head);
        for (i, keys) in block.key_blocks().enumerate() {
            let rows: [*const f32; BLOCK_ROWS] =
                std::array::from_fn(|row| gradients[i * BLOCK + row * STRIDE..].as_ptr());
            // SAFETY: each row has `BLOCK_KEYS` floats; no other task has this head of these
            // queries.
            unsafe {
                (self.product)(&Block {
                    rows: &rows[..block.count],
                    depth: keys.len(),
                    panels: head.from(0, keys.start, self.panel_width),
                    panel_stride: head.panel,
                    columns: shape.head_size,
                    start: match i {
                        0 => Start::Nothing,
                        _ => Start::Output,
                    },
                    residual: None,
                    out: dq.at(block.first_float()),
                    out_stride: shape.heads * shape.head_size,
                });
            }
        }
    }

    /// Adds `dSᵀ q` to `dk`, or `Pᵀ dout` to `dv`.
    fn add_key_gradients(&self, block: &QueryBlock<'_>, a: &[f32], rows: &[f32], sums: Output) {
        let shape = block.operands.shape;
        let channels = shape.heads * shape.head_size;
        for (i, keys) in block.key_blocks().enumerate() {
            // SAFETY: `a` has `count` rows of at least `BLOCK_KEYS` floats; no other task has this
            // head of these sums.
            unsafe {
                (self.outer_products)(&OuterProducts {
                    a: a[i * BLOCK..].as_ptr(),
                    a_stride: STRIDE,
                    depth: block.count,
                    rows: keys.len(),
                    panels: rows,
                    columns: shape.head_size,
                    add: true,
                    out: sums.at(keys.start * channels + block.head * shape.head_size),
                    out_stride: channels,
                });
            }
        }
    }
}

/// How the queries of a head are cut, by their number alone.
struct Parts {
    /// Queries in each part but the last.
    size: usize,
    count: usize,
}

impl Parts {
    fn of(shape: &Attention) -> Self {
        let blocks = shape.queries.div_ceil(BLOCK_ROWS);
        let size = blocks.div_ceil(PARTS).max(BLOCKS_IN_PART) * BLOCK_ROWS;
        Self {
            size,
            count: shape.queries.div_ceil(size).max(1),
        }
    }

    fn queries(&self, shape: &Attention, part: usize) -> Range<usize> {
        piece(shape.queries, self.size, part)
    }
}

/// What the tasks of an image read, and where they write `dq`.
struct Operands<'a> {
    shape: &'a Attention,
    q: &'a [f32],
    dout: &'a [f32],
    /// Keys and values for products over channels.
    keys: Packed<'a>,
    values: Packed<'a>,
    /// Keys for products over tokens.
    key_rows: Packed<'a>,
    dq: Output,
}

/// Some queries of one head, and the keys that any of them sees: `0..seen`.
struct QueryBlock<'a> {
    operands: &'a Operands<'a>,
    head: usize,
    first: usize,
    count: usize,
    seen: usize,
}

impl QueryBlock<'_> {
    fn key_blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let seen = self.seen;
        (0..seen.div_ceil(BLOCK_KEYS)).map(move |i| piece(seen, BLOCK_KEYS, i))
    }

    /// The place of the first query's head in its image.
    fn first_float(&self) -> usize {
        let Attention {
            heads, head_size, ..
        } = *self.operands.shape;
        (self.first * heads + self.head) * head_size
    }

    /// The head's channels of each query.
    fn rows<'t>(&self, tokens: &'t [f32]) -> impl Iterator<Item = &'t [f32]> + use<'t> {
        let Attention {
            heads, head_size, ..
        } = *self.operands.shape;
        let first = self.first_float();
        (0..self.count).map(move |row| &tokens[first + row * heads * head_size..][..head_size])
    }
}

/// Scores and gradients of weights, to be turned into weights and gradients of scores.
pub(crate) struct SoftmaxGradient<'a> {
    /// Scores, then `P`: blocks of rows of [`STRIDE`].
    weights: &'a mut [f32],
    /// `dP`, then `dS`: as the weights.
    gradients: &'a mut [f32],
    rows: usize,
    /// Keys that any row sees.
    seen: usize,
    /// The number of the first query, for a causal attention.
    causal: Option<usize>,
    /// Factor of the scores.
    scale: f32,
}

/// Turns the scores of each row into `P = softmax`, and `dP` into
/// `dS = scale P (dP - rowsum(P dP))`.
///
/// # Safety
/// The machine has `V`'s instruction set.
#[inline(always)]
pub(crate) unsafe fn softmax_gradient_body<V: Simd>(step: SoftmaxGradient<'_>) {
    let blocks = step.seen.div_ceil(BLOCK_KEYS);
    for row in 0..step.rows {
        let sees = match step.causal {
            Some(first) => step.seen.min(first + row + 1),
            None => step.seen,
        };
        // What a row does not see has weight 0: of the last block seen, and of those behind it.
        for block in sees / BLOCK_KEYS..blocks {
            let first = block * BLOCK + row * STRIDE;
            let visible = sees.saturating_sub(block * BLOCK_KEYS);
            step.weights[first..][visible..BLOCK_KEYS].fill(f32::NEG_INFINITY);
            step.gradients[first..][visible..BLOCK_KEYS].fill(0.0);
        }
        // SAFETY: every block has whole vectors of keys in each row.
        unsafe {
            row_gradient::<V>(
                &mut *step.weights,
                &mut *step.gradients,
                row,
                blocks,
                step.scale,
            )
        };
    }
}

/// One row of all blocks.
///
/// # Safety
/// The machine has `V`'s instruction set; both slices have the blocks.
#[inline(always)]
unsafe fn row_gradient<V: Simd>(
    weights: &mut [f32],
    gradients: &mut [f32],
    row: usize,
    blocks: usize,
    scale: f32,
) {
    let last = blocks * BLOCK;
    let (weights, gradients) = (&mut weights[..last], &mut gradients[..last]);
    let first = row * STRIDE;
    // SAFETY: a row of a block is whole vectors, inside both slices.
    unsafe {
        let mut largest = V::fill(f32::NEG_INFINITY);
        for block in (first..last).step_by(BLOCK) {
            for i in (block..block + BLOCK_KEYS).step_by(V::LANES) {
                largest = V::load(weights.as_ptr().add(i)).max(largest);
            }
        }
        let (factor, minus) = (V::fill(scale), V::fill(-(largest.largest() * scale)));
        let (mut sum, mut weighted) = (V::fill(0.0), V::fill(0.0));
        for block in (first..last).step_by(BLOCK) {
            for i in (block..block + BLOCK_KEYS).step_by(V::LANES) {
                let place = weights.as_mut_ptr().add(i);
                let weight = exp(V::load(place).mul_add(factor, minus));
                weight.store(place);
                sum = sum.add(weight);
                weighted = weight.mul_add(V::load(gradients.as_ptr().add(i)), weighted);
            }
        }
        let sum = sum.sum();
        let mean = V::fill(weighted.sum() / sum);
        let sum = V::fill(1.0 / sum);
        for block in (first..last).step_by(BLOCK) {
            for i in (block..block + BLOCK_KEYS).step_by(V::LANES) {
                let (weight, gradient) =
                    (weights.as_mut_ptr().add(i), gradients.as_mut_ptr().add(i));
                let p = V::load(weight).mul(sum);
                p.store(weight);
                V::load(gradient)
                    .sub(mean)
                    .mul(p.mul(factor))
                    .store(gradient);
            }
        }
    }
}
