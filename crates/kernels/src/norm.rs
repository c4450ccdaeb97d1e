//! Normalisations over the channels of a token: layer norm and root mean square.

use crate::simd::{MOST_LANES, Simd};
use crate::threads::for_each_rows;
use crate::{Kernels, Shape};

/// Vectors of channels that are summed side by side.
pub(crate) const STRIP: usize = 4;

/// What a layer norm does to each row, once it has mean 0 and variance 1.
pub(crate) struct LayerNorm<'a> {
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
}

impl Kernels {
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
