//! Gradients of layer norm and RMS norm, which normalise each row by itself.

use super::sums::{RUN, Sums, Terms, total};
use crate::norm::{STRIP, row_moments, total as total_of_lanes};
use crate::simd::Simd;
use crate::threads::rows_in_task;
use crate::{Kernels, Shape};
use rayon::prelude::*;

/// A norm of each row by itself: layer norm, or RMS norm if it is not centred.
#[derive(Clone, Copy)]
pub(crate) struct RowNorm<'a> {
    weight: &'a [f32],
    eps: f32,
    centred: bool,
}

impl Kernels {
    /// The gradients of [`Kernels::layer_norm`]: `dx`, for `x` and `dy` `[rows, channels]`, and
    /// those of weight and bias, a value for each channel.
    ///
    /// # Panics
    /// If a length does not fit.
    #[allow(clippy::too_many_arguments)] // the operation's own: none belongs with another
    pub fn layer_norm_gradient(
        &self,
        x: &[f32],
        weight: &[f32],
        eps: f32,
        dy: &[f32],
        dx: &mut [f32],
        dweight: &mut [f32],
        dbias: &mut [f32],
    ) {
        assert_eq!(dweight.len(), weight.len(), "length of dweight");
        assert_eq!(dbias.len(), weight.len(), "length of dbias");
        assert_eq!(x.len() % weight.len(), 0, "x is not whole rows");
        let norm = RowNorm {
            weight,
            eps,
            centred: true,
        };
        let sums = self.row_norm_gradient(x, &norm, dy, dx);
        sums.write_weighted(dweight);
        sums.write_plain(dbias);
    }

    /// The gradients of [`Kernels::rms_norm`]: `dx`, and `dscale`, as long as `scale`: one row of
    /// channels for each image, or their sum if one scale served all.
    ///
    /// # Panics
    /// If a length does not fit.
    #[allow(clippy::too_many_arguments)] // the operation's own: none belongs with another
    pub fn rms_norm_gradient(
        &self,
        x: &[f32],
        shape: Shape,
        scale: &[f32],
        eps: f32,
        dy: &[f32],
        dx: &mut [f32],
        dscale: &mut [f32],
    ) {
        let Shape {
            pixels, channels, ..
        } = shape;
        assert_eq!(x.len(), shape.len(), "length of x");
        assert_eq!(dscale.len(), scale.len(), "length of dscale");
        let scales = shape.rows_of(scale);
        let image = (pixels * channels).max(1);
        let images: Vec<Sums> = x
            .chunks(image)
            .zip(dy.chunks(image))
            .zip(dx.chunks_mut(image))
            .enumerate()
            .map(|(i, ((x, dy), dx))| {
                let norm = RowNorm {
                    weight: scales(i),
                    eps,
                    centred: false,
                };
                self.row_norm_gradient(x, &norm, dy, dx)
            })
            .collect();
        if scale.len() == channels {
            total(channels, &images).write_weighted(dscale);
            return;
        }
        dscale.fill(0.0);
        for (sums, dscale) in images.iter().zip(dscale.chunks_mut(channels)) {
            sums.write_weighted(dscale);
        }
    }

    /// The gradient of a norm of rows; the sums make those of its parameters.
    fn row_norm_gradient(&self, x: &[f32], norm: &RowNorm<'_>, dy: &[f32], dx: &mut [f32]) -> Sums {
        assert_eq!(dy.len(), x.len(), "length of dy");
        assert_eq!(dx.len(), x.len(), "length of dx");
        let channels = norm.weight.len();
        let task = rows_in_task(channels) * channels;
        let parts: Vec<Sums> = x
            .par_chunks(task)
            .zip(dy.par_chunks(task))
            .zip(dx.par_chunks_mut(task))
            .map(|((x, dy), dx)| {
                let mut sums = Sums::zeros(channels);
                // SAFETY: this machine has this table's instruction set; the rows are whole.
                unsafe { (self.row_norm_gradient)(x, dy, norm, dx, &mut sums) };
                sums
            })
            .collect();
        total(channels, &parts)
    }
}

/// Rows that were normalised each by itself.
struct Rows<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    channels: usize,
    statistics: &'a [RowStatistics],
}

impl Terms for Rows<'_> {
    #[inline(always)]
    unsafe fn at<V: Simd>(&self, row: usize, channel: usize, left: usize) -> [V; 2] {
        let place = row * self.channels + channel;
        // SAFETY: the caller's promise.
        unsafe {
            let dy = V::load_up_to(self.dy.as_ptr().add(place), left);
            let x = V::load_up_to(self.x.as_ptr().add(place), left);
            [dy, dy.mul(self.statistics[row].normal(x))]
        }
    }
}

/// What normalises a row: `(x - centre - rest) * factor`.
#[derive(Clone, Copy, Default)]
struct RowStatistics {
    centre: f32,
    /// What is left of the mean once it was rounded.
    rest: f32,
    factor: f32,
}

impl RowStatistics {
    /// Those of a row, as the forward norms take them.
    ///
    /// # Safety
    /// The machine has `V`'s instruction set.
    #[inline(always)]
    unsafe fn of<V: Simd>(row: &[f32], norm: &RowNorm<'_>) -> Self {
        let count = row.len() as f64;
        // SAFETY: the caller's promise.
        unsafe {
            let mut centre = 0.0;
            let (mut sum, mut square) = row_moments::<V>(row, centre);
            if norm.centred {
                centre = (f64::from(sum) / count) as f32;
                (sum, square) = row_moments::<V>(row, centre);
            } else {
                sum = 0.0;
            }
            let rest = f64::from(sum) / count;
            let variance = f64::from(square) / count - rest * rest;
            Self {
                centre,
                rest: rest as f32,
                factor: (1.0 / (variance + f64::from(norm.eps)).sqrt()) as f32,
            }
        }
    }

    #[inline(always)]
    fn normal<V: Simd>(&self, x: V) -> V {
        x.sub(x.constant(self.centre))
            .sub(x.constant(self.rest))
            .mul(x.constant(self.factor))
    }
}

/// The gradient of a norm of rows: `dx`, and what the rows add to the sums.
///
/// # Safety
/// The machine has `V`'s instruction set; `x`, `dy` and `dx` are as many whole rows.
#[inline(always)]
pub(crate) unsafe fn row_norm_gradient_body<V: Simd>(
    x: &[f32],
    dy: &[f32],
    norm: &RowNorm<'_>,
    dx: &mut [f32],
    sums: &mut Sums,
) {
    let channels = norm.weight.len();
    let run = RUN * channels;
    for ((x, dy), dx) in x.chunks(run).zip(dy.chunks(run)).zip(dx.chunks_mut(run)) {
        let mut statistics = [RowStatistics::default(); RUN];
        let rows = x.chunks(channels).zip(dy.chunks(channels));
        let rows = rows.zip(dx.chunks_mut(channels));
        for (((x, dy), dx), statistics) in rows.zip(&mut statistics) {
            // SAFETY: the rows are whole.
            unsafe {
                *statistics = RowStatistics::of::<V>(x, norm);
                row_gradient::<V>(x, dy, norm, statistics, dx);
            }
        }
        let terms = Rows {
            x,
            dy,
            channels,
            statistics: &statistics,
        };
        // SAFETY: the caller's promise.
        unsafe { sums.add::<V>(&terms, x.len() / channels) };
    }
}

/// `dx = r (g - mean(g) - n mean(g n))` of one row.
///
/// # Safety
/// The machine has `V`'s instruction set; the slices are as long as the norm's weight.
#[inline(always)]
unsafe fn row_gradient<V: Simd>(
    x: &[f32],
    dy: &[f32],
    norm: &RowNorm<'_>,
    statistics: &RowStatistics,
    dx: &mut [f32],
) {
    let channels = dx.len();
    // SAFETY: the last vector touches only what is left: its other lanes of `g` are zeros.
    unsafe {
        let mut plain = [V::fill(0.0); STRIP];
        let mut weighted = [V::fill(0.0); STRIP];
        for c in (0..channels).step_by(V::LANES) {
            let left = channels - c;
            let g = V::load_up_to(dy.as_ptr().add(c), left)
                .mul(V::load_up_to(norm.weight.as_ptr().add(c), left));
            let normal = statistics.normal(V::load_up_to(x.as_ptr().add(c), left));
            let s = c / V::LANES % STRIP;
            plain[s] = plain[s].add(g);
            weighted[s] = g.mul_add(normal, weighted[s]);
        }
        let mean = |sum: f32| (f64::from(sum) / channels as f64) as f32;
        let plain = V::fill(match norm.centred {
            true => mean(total_of_lanes(plain)),
            false => 0.0,
        });
        let weighted = V::fill(-mean(total_of_lanes(weighted)));
        for c in (0..channels).step_by(V::LANES) {
            let left = channels - c;
            let g = V::load_up_to(dy.as_ptr().add(c), left)
                .mul(V::load_up_to(norm.weight.as_ptr().add(c), left));
            let normal = statistics.normal(V::load_up_to(x.as_ptr().add(c), left));
            normal
                .mul_add(weighted, g.sub(plain))
                .mul(V::fill(statistics.factor))
                .store_up_to(dx.as_mut_ptr().add(c), left);
        }
    }
}
