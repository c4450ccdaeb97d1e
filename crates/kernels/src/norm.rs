//! Normalisations: over groups of channels of a whole map, and over the channels of a token.
//!
//! # Rounding
//!
//! A map may hold thirty million values whose mean is far larger than their deviation, so sums in
//! single precision, and the textbook `mean(x^2) - mean(x)^2`, would lose everything. Group norm
//! sums, for each channel and each [`RUN`] of rows, the distances from the run's first row: small
//! numbers, few of them, in registers. These sums are carried into sums of `x` and `x^2` in double
//! precision, where cancellation has room. (Chan, Golub and LeVeque, The American Statistician
//! 37:3, 1983.) One pass over memory instead of two.
//!
//! The result is formed as `(x - centre) * scale + shift`: the mean in single precision and, in
//! the shift, what that rounding left over.

use crate::activation::silu;
use crate::simd::Simd;
use crate::threads::{for_each_rows, piece, rows_in_task};
use crate::{Kernels, Shape};
use rayon::prelude::*;

/// Rows that are summed in single precision.
pub(crate) const RUN: usize = 64;

/// Vectors of channels that are summed side by side.
pub(crate) const STRIP: usize = 4;

/// The most lanes of any instruction set.
pub(crate) const MOST_LANES: usize = 16;

/// The sums of `x` and `x^2` of each channel.
pub(crate) struct Moments {
    pub(crate) sums: Vec<f64>,
    pub(crate) squares: Vec<f64>,
}

impl Moments {
    fn new(channels: usize) -> Self {
        Self {
            sums: vec![0.0; channels],
            squares: vec![0.0; channels],
        }
    }
}

/// `(x - centre) * scale + shift` for each channel, then SiLU if wanted.
pub(crate) struct Affine<'a> {
    centre: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    silu: bool,
}

/// What a layer norm does to each row, once it has mean 0 and variance 1.
pub(crate) struct LayerNorm<'a> {
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
}

impl Kernels {
    /// Normalises each group of channels of each image to mean 0 and variance 1, then
    /// `* weight + bias` (a value per channel), then SiLU if `silu`; `x` and `out` are
    /// `[images, pixels, channels]`. `eps` is added to the variance.
    ///
    /// # Panics
    /// If a length does not fit, or `groups` does not divide the channels.
    #[allow(clippy::too_many_arguments)] // the operation's own: none belongs with another
    pub fn group_norm(
        &self,
        x: &[f32],
        shape: Shape,
        groups: usize,
        eps: f32,
        weight: &[f32],
        bias: &[f32],
        silu: bool,
        out: &mut [f32],
    ) {
        let Shape {
            pixels, channels, ..
        } = shape;
        assert_eq!(x.len(), shape.len(), "length of x");
        assert_eq!(out.len(), x.len(), "length of out");
        assert_eq!(weight.len(), channels, "length of weight");
        assert_eq!(bias.len(), channels, "length of bias");
        assert_eq!(channels % groups, 0, "{groups} groups of {channels}");
        if x.is_empty() {
            return;
        }
        let image = pixels * channels;
        for (x, out) in x.chunks(image).zip(out.chunks_mut(image)) {
            let moments = self.moments(x, channels);
            let mut centre = vec![0.0; channels];
            let mut scale = vec![0.0; channels];
            let mut shift = vec![0.0; channels];
            let size = channels / groups;
            for first in (0..channels).step_by(size) {
                let group = first..first + size;
                let count = (pixels * size) as f64;
                let mean = moments.sums[group.clone()].iter().sum::<f64>() / count;
                let square = moments.squares[group.clone()].iter().sum::<f64>() / count;
                // `max` would hide a NaN.
                let variance = match square - mean * mean {
                    negative if negative < 0.0 => 0.0,
                    variance => variance,
                };
                let deviation = (variance + f64::from(eps)).sqrt();
                for c in group {
                    let factor = f64::from(weight[c]) / deviation;
                    centre[c] = mean as f32;
                    scale[c] = factor as f32;
                    let left_over = mean - f64::from(centre[c]);
                    shift[c] = (f64::from(bias[c]) - left_over * factor) as f32;
                }
            }
            let affine = Affine {
                centre: &centre,
                scale: &scale,
                shift: &shift,
                silu,
            };
            // SAFETY: this machine has this table's instruction set; the rows are whole, and
            // `affine` has a value per channel.
            for_each_rows(x, channels, out, channels, |_, x, out| unsafe {
                (self.normalise)(x, &affine, out)
            });
        }
    }

    /// The moments of a map, summed in the same order whatever the threads.
    pub(crate) fn moments(&self, x: &[f32], channels: usize) -> Moments {
        let rows = rows_in_task(channels).next_multiple_of(RUN) * channels;
        let parts: Vec<Moments> = (0..x.len().div_ceil(rows))
            .into_par_iter()
            .map(|i| {
                let mut part = Moments::new(channels);
                // SAFETY: this machine has this table's instruction set; the rows are whole.
                unsafe { (self.moments)(&x[piece(x.len(), rows, i)], &mut part) };
                part
            })
            .collect();
        let mut total = Moments::new(channels);
        for part in &parts {
            for c in 0..channels {
                total.sums[c] += part.sums[c];
                total.squares[c] += part.squares[c];
            }
        }
        total
    }

    /// Normalises each row to mean 0 and variance 1, then `* weight + bias`; `x` and `out` are
    /// `[rows, channels]` with a weight per channel. `eps` is added to the variance.
    ///
    /// # Panics
    /// If a length does not fit.
    pub fn layer_norm(&self, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        let channels = weight.len();
        assert_eq!(bias.len(), channels, "length of bias");
        assert_eq!(x.len() % channels, 0, "x is not whole rows");
        assert_eq!(out.len(), x.len(), "length of out");
        let norm = LayerNorm { weight, bias, eps };
        // SAFETY: this machine has this table's instruction set; the rows are whole.
        for_each_rows(x, channels, out, channels, |_, x, out| unsafe {
            (self.layer_norm)(x, &norm, out)
        });
    }

    /// `out = x * scale / sqrt(mean(x^2) + eps)` with the mean over a pixel's channels; `scale`
    /// is one row of channels for each image, or one for all.
    ///
    /// # Panics
    /// If a length does not fit.
    pub fn rms_norm(&self, x: &[f32], shape: Shape, scale: &[f32], eps: f32, out: &mut [f32]) {
        let Shape {
            pixels, channels, ..
        } = shape;
        assert_eq!(x.len(), shape.len(), "length of x");
        assert_eq!(out.len(), x.len(), "length of out");
        let scales = shape.rows_of(scale);
        let image = (pixels * channels).max(1);
        for (i, (x, out)) in x.chunks(image).zip(out.chunks_mut(image)).enumerate() {
            // SAFETY: this machine has this table's instruction set; the rows are whole.
            for_each_rows(x, channels, out, channels, |_, x, out| unsafe {
                (self.rms_norm)(x, scales(i), eps, out)
            });
        }
    }
}

/// Adds the moments of whole rows.
///
/// Strips of channels outside, rows inside: a strip's sums stay in registers for a run of rows,
/// and the run stays in cache until its last strip is done.
///
/// # Safety
/// The machine has `V`'s instruction set, and `x` is whole rows.
#[inline(always)]
pub(crate) unsafe fn moments_body<V: Simd>(x: &[f32], moments: &mut Moments) {
    let channels = moments.sums.len();
    for run in x.chunks(RUN * channels) {
        let wide = channels - channels % (STRIP * V::LANES);
        // SAFETY: the strips end at the last channel.
        unsafe {
            for first in (0..wide).step_by(STRIP * V::LANES) {
                moments.add_strip::<V, STRIP>(run, first);
            }
            for first in (wide..channels).step_by(V::LANES) {
                moments.add_strip::<V, 1>(run, first);
            }
        }
    }
}

impl Moments {
    /// Adds the moments of `N` vectors of channels from `first` on.
    ///
    /// # Safety
    /// The machine has `V`'s instruction set, `run` is whole rows, and all but the last vector
    /// are inside a row.
    #[inline(always)]
    unsafe fn add_strip<V: Simd, const N: usize>(&mut self, run: &[f32], first: usize) {
        let channels = self.sums.len();
        let rows = run.len() / channels;
        let mut origins = [[0.0_f32; MOST_LANES]; N];
        let mut sums = [[0.0_f32; MOST_LANES]; N];
        let mut squares = [[0.0_f32; MOST_LANES]; N];
        // SAFETY: the caller's promise; a vector at the end of a row reads only what is left.
        unsafe {
            let mut origin = [V::fill(0.0); N];
            let mut sum = [V::fill(0.0); N];
            let mut square = [V::fill(0.0); N];
            for row in 0..rows {
                for v in 0..N {
                    let channel = first + v * V::LANES;
                    let place = run.as_ptr().add(row * channels + channel);
                    let x = V::load_up_to(place, channels - channel);
                    if row == 0 {
                        origin[v] = x;
                    }
                    let distance = x.sub(origin[v]);
                    sum[v] = sum[v].add(distance);
                    square[v] = distance.mul_add(distance, square[v]);
                }
            }
            for v in 0..N {
                origin[v].store(origins[v].as_mut_ptr());
                sum[v].store(sums[v].as_mut_ptr());
                square[v].store(squares[v].as_mut_ptr());
            }
        }
        let n = rows as f64;
        for v in 0..N {
            let start = first + v * V::LANES;
            let end = channels.min(start + V::LANES);
            for (lane, c) in (start..end).enumerate() {
                let origin = f64::from(origins[v][lane]);
                let sum = f64::from(sums[v][lane]);
                self.sums[c] += n * origin + sum;
                self.squares[c] += f64::from(squares[v][lane]) + origin * (2.0 * sum + n * origin);
            }
        }
    }
}

/// Applies `affine` to whole rows.
///
/// # Safety
/// The machine has `V`'s instruction set, `x` is whole rows, and `out` is as long.
#[inline(always)]
pub(crate) unsafe fn normalise_body<V: Simd>(x: &[f32], affine: &Affine<'_>, out: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe {
        match affine.silu {
            true => normalise::<V, true>(x, affine, out),
            false => normalise::<V, false>(x, affine, out),
        }
    }
}

/// # Safety
/// As [`normalise_body`]'s.
#[inline(always)]
unsafe fn normalise<V: Simd, const SILU: bool>(x: &[f32], affine: &Affine<'_>, out: &mut [f32]) {
    let channels = affine.centre.len();
    for (x, out) in x.chunks(channels).zip(out.chunks_mut(channels)) {
        for c in (0..channels).step_by(V::LANES) {
            let left = channels - c;
            // SAFETY: `x`, `out` and the affine's parts have a value per channel.
            unsafe {
                let y = V::load_up_to(x.as_ptr().add(c), left)
                    .sub(V::load_up_to(affine.centre.as_ptr().add(c), left))
                    .mul_add(
                        V::load_up_to(affine.scale.as_ptr().add(c), left),
                        V::load_up_to(affine.shift.as_ptr().add(c), left),
                    );
                let y = if SILU { silu(y) } else { y };
                y.store_up_to(out.as_mut_ptr().add(c), left);
            }
        }
    }
}

/// Layer norm of whole rows: the mean, then the moments of the distances from it (which also
/// correct the mean's rounding), then the result; a row stays in the first cache.
///
/// # Safety
/// The machine has `V`'s instruction set, `x` is whole rows, `out` is as long, and `weight` and
/// `bias` have a value per channel.
#[inline(always)]
pub(crate) unsafe fn layer_norm_body<V: Simd>(x: &[f32], norm: &LayerNorm<'_>, out: &mut [f32]) {
    let LayerNorm { weight, bias, eps } = *norm;
    let channels = weight.len();
    let count = channels as f64;
    for (x, out) in x.chunks(channels).zip(out.chunks_mut(channels)) {
        // SAFETY: the caller's promise.
        unsafe {
            let (sum, _) = row_moments::<V>(x, 0.0);
            let centre = (f64::from(sum) / count) as f32;
            let (sum, square) = row_moments::<V>(x, centre);
            let left_over = f64::from(sum) / count;
            let variance = f64::from(square) / count - left_over * left_over;
            let factor = 1.0 / (variance + f64::from(eps)).sqrt();
            let (centre, factor) = (V::fill(centre), V::fill(factor as f32));
            let left_over = V::fill(left_over as f32);
            for c in (0..channels).step_by(V::LANES) {
                let left = channels - c;
                let x = V::load_up_to(x.as_ptr().add(c), left);
                x.sub(centre)
                    .sub(left_over)
                    .mul(factor)
                    .mul_add(
                        V::load_up_to(weight.as_ptr().add(c), left),
                        V::load_up_to(bias.as_ptr().add(c), left),
                    )
                    .store_up_to(out.as_mut_ptr().add(c), left);
            }
        }
    }
}

/// RMS norm of whole rows.
///
/// # Safety
/// The machine has `V`'s instruction set, `x` is whole rows, `out` is as long, and `scale` has a
/// value per channel.
#[inline(always)]
pub(crate) unsafe fn rms_norm_body<V: Simd>(x: &[f32], scale: &[f32], eps: f32, out: &mut [f32]) {
    let channels = scale.len();
    for (x, out) in x.chunks(channels).zip(out.chunks_mut(channels)) {
        // SAFETY: the caller's promise.
        unsafe {
            let (_, square) = row_moments::<V>(x, 0.0);
            let mean = f64::from(square) / channels as f64;
            let factor = V::fill((1.0 / (mean + f64::from(eps)).sqrt()) as f32);
            for c in (0..channels).step_by(V::LANES) {
                let left = channels - c;
                let scale = V::load_up_to(scale.as_ptr().add(c), left).mul(factor);
                V::load_up_to(x.as_ptr().add(c), left)
                    .mul(scale)
                    .store_up_to(out.as_mut_ptr().add(c), left);
            }
        }
    }
}

/// The sum of the distances of a row's values from `centre`, and of their squares.
///
/// # Safety
/// The machine has `V`'s instruction set.
#[inline(always)]
pub(crate) unsafe fn row_moments<V: Simd>(row: &[f32], centre: f32) -> (f32, f32) {
    let whole = row.len() - row.len() % V::LANES;
    // SAFETY: vectors up to `whole` are full; the last one reads what is left, and the centre's
    // lanes after that are zeros too.
    unsafe {
        let mut sums = [V::fill(0.0); STRIP];
        let mut squares = [V::fill(0.0); STRIP];
        for i in (0..row.len()).step_by(V::LANES) {
            let place = row.as_ptr().add(i);
            let distance = if i < whole {
                V::load(place).sub(V::fill(centre))
            } else {
                let (left, centre) = (row.len() - i, [centre; MOST_LANES]);
                V::load_partial(place, left).sub(V::load_partial(centre.as_ptr(), left))
            };
            let s = i / V::LANES % STRIP;
            sums[s] = sums[s].add(distance);
            squares[s] = distance.mul_add(distance, squares[s]);
        }
        (total(sums), total(squares))
    }
}

/// The sum of all lanes of a strip.
#[inline(always)]
pub(crate) fn total<V: Simd>([a, b, c, d]: [V; STRIP]) -> f32 {
    a.add(b).add(c.add(d)).sum()
}
