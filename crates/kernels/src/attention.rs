//! Attention with a streaming softmax: the scores of all tokens against all tokens never exist.
//!
//! # Blocking
//!
//! The keys of each head are packed as the weights of a product over its channels, the values as
//! the weights of a product over the keys: two copies of what came in, not more. A task is a
//! block of queries of one head; it walks over blocks of [`BLOCK_KEYS`] keys:
//!
//! 1. scores = queries x keys, `[BLOCK_ROWS, BLOCK_KEYS]`, small enough for the second cache;
//! 2. the running maximum of each query grows, its running sum and its output so far shrink by
//!    `exp(old maximum - new maximum)`, the scores become `exp(score - maximum)`;
//! 3. output += scores x values.
//!
//! At the end each output is divided by its sum. In bf16, the factors of 1 and 3 are rounded. (Milakov and Gimelshein, arXiv 1805.02867; Dao
//! et al., arXiv 2205.14135.) Both products are the body of [`crate::gemm`].

use crate::Kernels;
use crate::activation::exp;
use crate::gemm::{BLOCK_ROWS, Block, Start};
use crate::half;
use crate::packed::PanelRows;
use crate::simd::Simd;
use crate::threads::{self, Output, piece};
use rayon::prelude::*;

/// Keys of a block: a multiple of every instruction set's panel.
const BLOCK_KEYS: usize = 128;

/// The extent of an attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Images of queries.
    pub images: usize,
    /// Tokens that ask, of each image.
    pub queries: usize,
    /// Tokens that are asked, of each image or shared by all.
    pub keys: usize,
    /// Heads, side by side in a token's channels.
    pub heads: usize,
    /// Channels of a head.
    pub head_size: usize,
    /// Whether the i-th query sees only the keys `0..=i`.
    pub causal: bool,
}

/// What products multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Factors {
    /// Numbers of f32.
    Single,
    /// Numbers rounded to bf16, in pairs.
    Pairs,
}

/// Which product tokens are packed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// One over channels, with the tokens for outputs.
    Keys,
    /// One over tokens, with the channels for outputs.
    Values,
}

/// How keys or values are packed.
#[derive(Clone, Copy)]
pub(crate) struct Pack<'a> {
    pub(crate) shape: &'a Attention,
    pub(crate) side: Side,
    pub(crate) factors: Factors,
    /// Columns of a panel.
    pub(crate) width: usize,
}

impl Pack<'_> {
    fn columns(&self) -> usize {
        match self.side {
            Side::Keys => self.shape.keys,
            Side::Values => self.shape.head_size,
        }
    }

    fn depth(&self) -> usize {
        match self.side {
            Side::Keys => self.shape.head_size,
            Side::Values => self.shape.keys,
        }
    }

    /// Floats of a panel.
    fn panel(&self) -> usize {
        self.width
            * match self.factors {
                Factors::Single => self.depth(),
                Factors::Pairs => self.depth().div_ceil(2),
            }
    }

    /// Floats of one head of one image.
    fn head(&self) -> usize {
        self.columns().div_ceil(self.width) * self.panel()
    }

    /// Floats of all heads of `tokens`.
    pub(crate) fn size(&self, tokens: &[f32]) -> usize {
        tokens.len() / (self.shape.keys * self.shape.head_size) * self.head()
    }
}

/// The keys or values of all heads, as panels.
#[derive(Clone, Copy)]
pub(crate) struct Packed<'a> {
    panels: &'a [f32],
    /// Floats of one head of one image.
    head: usize,
    /// Floats from a panel to the next.
    pub(crate) panel: usize,
    factors: Factors,
}

impl<'a> Packed<'a> {
    /// The panels of one head.
    pub(crate) fn head(self, index: usize) -> Self {
        Self {
            panels: &self.panels[index * self.head..][..self.head],
            ..self
        }
    }

    /// The panels from one on, each from some row on.
    pub(crate) fn from(self, panel: usize, row: usize, width: usize) -> &'a [f32] {
        let row = match self.factors {
            Factors::Single => row,
            Factors::Pairs => row / 2,
        };
        &self.panels[panel * self.panel + row * width..]
    }
}

impl Kernels {
    /// `out = softmax(q k^T / sqrt(head_size)) v` for each head, with `q` and `out`
    /// `[images, queries, heads * head_size]`, `k` and `v` `[images or 1, keys, heads * head_size]`.
    /// An only key has all the weight, so its value is the output, whatever `q` is.
    ///
    /// # Panics
    /// If a length does not fit, there is no key, or a causal attention has more queries than
    /// keys.
    pub fn attention(&self, shape: &Attention, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
        self.attention_in(Factors::Single, shape, [q, k, v], out);
    }

    /// The same with the factors of both products rounded to bf16; sums and exponentials are in
    /// f32.
    ///
    /// # Panics
    /// As [`Kernels::attention`], or if the machine has no such products ([`Kernels::has_bf16`]).
    pub fn attention_bf16(
        &self,
        shape: &Attention,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        out: &mut [f32],
    ) {
        assert!(self.has_bf16(), "no products of bf16");
        self.attention_in(Factors::Pairs, shape, [q, k, v], out);
    }

    fn attention_in(
        &self,
        factors: Factors,
        shape: &Attention,
        [q, k, v]: [&[f32]; 3],
        out: &mut [f32],
    ) {
        let channels = shape.heads * shape.head_size;
        let one = shape.keys * channels;
        assert_eq!(q.len(), shape.images * shape.queries * channels, "q");
        assert_eq!(out.len(), q.len(), "length of out");
        assert_eq!(k.len(), v.len(), "length of k and v");
        assert!(k.len() == one || k.len() == shape.images * one, "k");
        assert!(shape.keys > 0, "attention without keys");
        assert!(!shape.causal || shape.queries <= shape.keys, "causal");
        if out.is_empty() {
            return;
        }
        if shape.keys == 1 {
            let images = out.par_chunks_mut(shape.queries * channels);
            images.enumerate().for_each(|(image, out)| {
                let value = &v[image * channels % v.len()..][..channels];
                out.chunks_exact_mut(channels)
                    .for_each(|out| out.copy_from_slice(value));
            });
            return;
        }

        let pack = |side| Pack {
            shape,
            side,
            factors,
            width: self.panel_width,
        };
        let (keys, values) = (pack(Side::Keys), pack(Side::Values));
        threads::with_scratch(keys.size(k) + values.size(v), |scratch| {
            let (of_keys, of_values) = scratch.split_at_mut(keys.size(k));
            let keys = self.pack_heads(&keys, k, of_keys);
            let values = self.pack_heads(&values, v, of_values);
            self.attend_all(shape, q, keys, values, out);
        });
    }

    /// All queries against the packed keys and values, of each image or shared.
    fn attend_all(
        &self,
        shape: &Attention,
        q: &[f32],
        keys: Packed<'_>,
        values: Packed<'_>,
        out: &mut [f32],
    ) {
        let channels = shape.heads * shape.head_size;
        let shared = keys.panels.len() == shape.heads * keys.head;
        let out = Output::new(out);
        let blocks = shape.queries.div_ceil(BLOCK_ROWS);
        threads::for_each(shape.images * shape.heads * blocks, |index| {
            let (head, block) = (index / blocks % shape.heads, index % blocks);
            let image = index / blocks / shape.heads;
            let packed_head = head + if shared { 0 } else { image * shape.heads };
            let queries = piece(shape.queries, BLOCK_ROWS, block);
            let first = (image * shape.queries + queries.start) * channels + head * shape.head_size;
            let task = Queries {
                shape,
                first: queries.start,
                rows: std::array::from_fn(|row| {
                    let row = row.min(queries.len() - 1);
                    q[first + row * channels..].as_ptr()
                }),
                count: queries.len(),
                keys: keys.head(packed_head),
                values: values.head(packed_head),
                // SAFETY: the first channel of a head of a query is inside `out`.
                out: unsafe { out.at(first) },
            };
            // SAFETY: the pointers are at the head's channels of `count` queries in slices whose
            // lengths were checked; no other task has this head of these queries.
            threads::with_scratch(queries.len() * BLOCK_KEYS, |scores| unsafe {
                self.attend(&task, scores);
            });
        });
    }

    /// Packs each head of `[images or 1, keys, heads * head_size]`. What the last panel has too much
    /// is not written, nor looked at.
    pub(crate) fn pack_heads<'a>(
        &self,
        pack: &Pack<'_>,
        tokens: &[f32],
        to: &'a mut [f32],
    ) -> Packed<'a> {
        let (width, depth) = (self.panel_width, pack.depth());
        let tasks = to.par_chunks_mut(pack.panel()).enumerate();
        tasks.for_each(|(index, panel)| match pack.factors {
            Factors::Single => self.pack_panel(pack, tokens, index, panel),
            Factors::Pairs => threads::with_scratch(2 * pack.panel(), |rows| {
                self.pack_panel(pack, tokens, index, &mut rows[..depth * width]);
                rows[depth * width..].fill(0.0);
                half::pair_rows(rows, width, panel);
            }),
        });
        Packed {
            panels: to,
            head: pack.head(),
            panel: pack.panel(),
            factors: pack.factors,
        }
    }

    /// A panel, in f32.
    fn pack_panel(&self, pack: &Pack<'_>, tokens: &[f32], index: usize, panel: &mut [f32]) {
        let Attention {
            heads,
            head_size,
            keys,
            ..
        } = *pack.shape;
        let (width, channels) = (self.panel_width, heads * head_size);
        let panels = pack.columns().div_ceil(width);
        let (head, first) = (index / panels, index % panels * width);
        let tokens = &tokens[head / heads * keys * channels + head % heads * head_size..];
        let count = width.min(pack.columns() - first);
        match pack.side {
            Side::Keys => {
                let task = PanelRows {
                    rows: &tokens[first * channels..],
                    row: channels,
                    count,
                    inputs: head_size,
                    taps: 1,
                    first: 0,
                    panel,
                };
                // SAFETY: this machine has this table's instruction set.
                unsafe { (self.write_panel)(task) };
            }
            Side::Values => {
                let rows = tokens[first..].chunks(channels);
                for (to, from) in panel.chunks_exact_mut(width).zip(rows) {
                    to[..count].copy_from_slice(&from[..count]);
                }
            }
        }
    }

    /// A block of queries of one head against all keys; `scores` has room for a block of them.
    ///
    /// # Safety
    /// `head_size` floats can be read at each of the rows, and are this thread's to write in
    /// each of `count` rows of the output.
    unsafe fn attend(&self, task: &Queries<'_>, scores: &mut [f32]) {
        let Attention { head_size, .. } = *task.shape;
        let channels = task.shape.heads * head_size;
        let mut maxima = [f32::NEG_INFINITY; BLOCK_ROWS];
        let mut sums = [0.0; BLOCK_ROWS];

        let seen = match task.shape.causal {
            true => task.shape.keys.min(task.first + task.count),
            false => task.shape.keys,
        };
        for first in (0..seen).step_by(BLOCK_KEYS) {
            let keys = BLOCK_KEYS.min(seen - first);
            // SAFETY: the queries are the caller's; the scores are rows of `BLOCK_KEYS`.
            unsafe {
                let panels = task
                    .keys
                    .from(first / self.panel_width, 0, self.panel_width);
                self.multiply_packed(
                    task.keys,
                    &Block {
                        rows: &task.rows[..task.count],
                        depth: head_size,
                        panels,
                        panel_stride: task.keys.panel,
                        columns: keys,
                        start: Start::Nothing,
                        residual: None,
                        out: scores.as_mut_ptr(),
                        out_stride: BLOCK_KEYS,
                    },
                );
            }
            // SAFETY: this machine has this table's instruction set; the output is the caller's.
            unsafe {
                (self.softmax)(&mut Softmax {
                    scores: &mut *scores,
                    visible: keys,
                    causal: task
                        .shape
                        .causal
                        .then_some(task.first as isize - first as isize + 1),
                    scale: 1.0 / (head_size as f32).sqrt(),
                    maxima: &mut maxima[..task.count],
                    sums: &mut sums[..task.count],
                    out: (first > 0).then_some(task.out),
                    out_stride: channels,
                    head_size,
                });
            }
            let score_rows: [*const f32; BLOCK_ROWS] =
                std::array::from_fn(|row| scores[row.min(task.count - 1) * BLOCK_KEYS..].as_ptr());
            // SAFETY: the scores are rows of `BLOCK_KEYS >= keys` floats; the output is the
            // caller's.
            unsafe {
                let panels = task.values.from(0, first, self.panel_width);
                self.multiply_packed(
                    task.values,
                    &Block {
                        rows: &score_rows[..task.count],
                        depth: keys,
                        panels,
                        panel_stride: task.values.panel,
                        columns: head_size,
                        start: if first > 0 {
                            Start::Output
                        } else {
                            Start::Nothing
                        },
                        residual: None,
                        out: task.out,
                        out_stride: channels,
                    },
                );
            }
        }
        for (row, sum) in sums[..task.count].iter().enumerate() {
            // SAFETY: the caller lets `head_size` floats of each row be written.
            let out =
                unsafe { std::slice::from_raw_parts_mut(task.out.add(row * channels), head_size) };
            out.iter_mut().for_each(|value| *value /= sum);
        }
    }

    /// A product with packed tokens, which `block` has as its panels.
    ///
    /// # Safety
    /// As the product's of `block`.
    unsafe fn multiply_packed(&self, packed: Packed<'_>, block: &Block<'_>) {
        // SAFETY: this machine has this table's instruction set; the caller's promise.
        unsafe {
            match packed.factors {
                Factors::Single => (self.product)(block),
                Factors::Pairs => self.paired_product(block),
            }
        }
    }
}

/// A block of queries of one head.
struct Queries<'a> {
    shape: &'a Attention,
    /// The number of the first query in its image.
    first: usize,
    /// The first channel of each.
    rows: [*const f32; BLOCK_ROWS],
    count: usize,
    /// Those of the head.
    keys: Packed<'a>,
    values: Packed<'a>,
    out: *mut f32,
}

/// One step of the softmax: scores become weights, and what was summed so far shrinks.
pub(crate) struct Softmax<'a> {
    /// Rows of [`BLOCK_KEYS`].
    pub(crate) scores: &'a mut [f32],
    /// Keys in this block.
    pub(crate) visible: usize,
    /// How many of the block's keys the first query sees, for a causal attention; each further
    /// one sees one more.
    pub(crate) causal: Option<isize>,
    /// Factor of the scores.
    pub(crate) scale: f32,
    /// The largest score of each query so far.
    pub(crate) maxima: &'a mut [f32],
    /// The sum of each query's weights so far.
    pub(crate) sums: &'a mut [f32],
    /// The output so far; none before the first block.
    pub(crate) out: Option<*mut f32>,
    /// Floats from a query's output to the next's.
    pub(crate) out_stride: usize,
    /// Floats of a query's output.
    pub(crate) head_size: usize,
}

/// Runs a step of the softmax.
///
/// # Safety
/// The machine has `V`'s instruction set, and `out` has as many rows as there are `maxima`.
#[inline(always)]
pub(crate) unsafe fn softmax_body<V: Simd>(step: &mut Softmax<'_>) {
    let padded = step.visible.next_multiple_of(V::LANES);
    for row in 0..step.maxima.len() {
        let scores = &mut step.scores[row * BLOCK_KEYS..][..padded];
        let visible = match step.causal {
            Some(first) => (first + row as isize).clamp(0, step.visible as isize) as usize,
            None => step.visible,
        };
        scores[visible..].fill(f32::NEG_INFINITY);
        let before = step.maxima[row];
        // SAFETY: `scores` is whole vectors; the output is the caller's promise.
        unsafe {
            let maximum = before.max(largest::<V>(scores) * step.scale);
            let sum = exponentiate::<V>(scores, step.scale, maximum);
            step.maxima[row] = maximum;
            let Some(out) = step.out else {
                step.sums[row] = sum;
                continue;
            };
            let mut factor = [0.0; 1];
            exp(V::fill(before - maximum)).store_partial(factor.as_mut_ptr(), 1);
            step.sums[row] = step.sums[row] * factor[0] + sum;
            if factor[0] != 1.0 {
                scale::<V>(out.add(row * step.out_stride), step.head_size, factor[0]);
            }
        }
    }
}

/// The largest of some scores.
///
/// # Safety
/// The machine has `V`'s instruction set; `scores` is whole vectors.
#[inline(always)]
unsafe fn largest<V: Simd>(scores: &[f32]) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let mut largest = V::fill(f32::NEG_INFINITY);
        for i in (0..scores.len()).step_by(V::LANES) {
            largest = V::load(scores.as_ptr().add(i)).max(largest);
        }
        largest.largest()
    }
}

/// Replaces each score by `exp(score * scale - maximum)`; returns their sum.
///
/// # Safety
/// The machine has `V`'s instruction set; `scores` is whole vectors.
#[inline(always)]
unsafe fn exponentiate<V: Simd>(scores: &mut [f32], scale: f32, maximum: f32) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sum = V::fill(0.0);
        let (scale, minus) = (V::fill(scale), V::fill(-maximum));
        for i in (0..scores.len()).step_by(V::LANES) {
            let place = scores.as_mut_ptr().add(i);
            let weight = exp(V::load(place).mul_add(scale, minus));
            weight.store(place);
            sum = sum.add(weight);
        }
        sum.sum()
    }
}

/// Multiplies `count` floats by `factor`.
///
/// # Safety
/// The machine has `V`'s instruction set; the floats may be written.
#[inline(always)]
unsafe fn scale<V: Simd>(values: *mut f32, count: usize, factor: f32) {
    // SAFETY: the caller's promise; the last vector touches only what is left.
    unsafe {
        let factor = V::fill(factor);
        for i in (0..count).step_by(V::LANES) {
            let (place, left) = (values.add(i), count - i);
            V::load_up_to(place, left)
                .mul(factor)
                .store_up_to(place, left);
        }
    }
}
