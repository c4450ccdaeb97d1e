//! Gradients of group norm, which normalises groups of channels of an image.
//!
//! Two passes over the image: the sums that its groups' means and its parameters' gradients are made
//! from, then `dx`.

use super::sums::{Sums, Terms, total};
use crate::backward::activation::silu_derivative;
use crate::norm::{Moments, RUN};
use crate::simd::Simd;
use crate::threads::{for_each_rows, rows_in_task};
use crate::{Kernels, Shape};
use rayon::prelude::*;
use std::ops::Range;

/// A group norm of one image, a value for each channel.
pub(crate) struct GroupNorm<'a> {
    /// `n = (x - centre) * factor + shift`.
    centre: Vec<f32>,
    factor: Vec<f32>,
    shift: Vec<f32>,
    weight: &'a [f32],
    bias: &'a [f32],
    silu: bool,
}

/// How the gradient of a group norm's input follows from that of what was normalised:
/// `dx = g * scale - n * slope - offset`, a value for each channel.
pub(crate) struct GroupSlopes {
    scale: Vec<f32>,
    slope: Vec<f32>,
    offset: Vec<f32>,
}

impl Kernels {
    /// The gradients of [`Kernels::group_norm`] with the same `silu`: `dx`, for `x` and `dy`
    /// `[images, pixels, channels]`, and those of weight and bias, a value for each channel.
    ///
    /// # Panics
    /// If a length does not fit, or `groups` does not divide the channels.
    #[allow(clippy::too_many_arguments)] // the operation's own: none belongs with another
    pub fn group_norm_gradient(
        &self,
        x: &[f32],
        shape: Shape,
        groups: usize,
        eps: f32,
        weight: &[f32],
        bias: &[f32],
        silu: bool,
        dy: &[f32],
        dx: &mut [f32],
        dweight: &mut [f32],
        dbias: &mut [f32],
    ) {
        let Shape {
            pixels, channels, ..
        } = shape;
        assert_eq!(x.len(), shape.len(), "length of x");
        assert_eq!(dy.len(), x.len(), "length of dy");
        assert_eq!(dx.len(), x.len(), "length of dx");
        assert_eq!(channels % groups, 0, "{groups} groups of {channels}");
        for parameter in [weight, bias, &*dweight, &*dbias] {
            assert_eq!(parameter.len(), channels, "length of a parameter");
        }
        let mut all = Sums::zeros(channels);
        let image = (pixels * channels).max(1);
        let maps = x.chunks(image).zip(dy.chunks(image));
        for ((x, dy), dx) in maps.zip(dx.chunks_mut(image)) {
            let norm = self.group_statistics(x, groups, eps, weight, bias, silu);
            let task = rows_in_task(channels) * channels;
            let parts: Vec<Sums> = x
                .par_chunks(task)
                .zip(dy.par_chunks(task))
                .map(|(x, dy)| {
                    let mut sums = Sums::zeros(channels);
                    // SAFETY: this machine has this table's instruction set; the rows are whole.
                    unsafe { (self.group_norm_sums)(x, dy, &norm, &mut sums) };
                    sums
                })
                .collect();
            let sums = total(channels, &parts);
            let slopes = norm.slopes(&sums, groups, pixels);
            for_each_rows(x, channels, dx, channels, |first, x, dx| {
                let dy = &dy[first * channels..][..x.len()];
                // SAFETY: as above; `slopes` has a value for each channel too.
                unsafe { (self.group_norm_gradient)(x, dy, &norm, &slopes, dx) }
            });
            all = total(channels, [&all, &sums]);
        }
        all.write_weighted(dweight);
        all.write_plain(dbias);
    }

    /// The statistics of one image, as [`Kernels::group_norm`] takes them.
    fn group_statistics<'a>(
        &self,
        x: &[f32],
        groups: usize,
        eps: f32,
        weight: &'a [f32],
        bias: &'a [f32],
        silu: bool,
    ) -> GroupNorm<'a> {
        let channels = weight.len();
        let moments = self.moments(x, channels);
        let mut norm = GroupNorm {
            centre: vec![0.0; channels],
            factor: vec![0.0; channels],
            shift: vec![0.0; channels],
            weight,
            bias,
            silu,
        };
        for group in (0..groups).map(|group| group_range(channels, groups, group)) {
            let (mean, deviation) =
                mean_and_deviation(&moments, group.clone(), x.len() / groups, eps);
            for c in group {
                norm.centre[c] = mean as f32;
                norm.factor[c] = (1.0 / deviation) as f32;
                norm.shift[c] = ((f64::from(norm.centre[c]) - mean) / deviation) as f32;
            }
        }
        norm
    }
}

/// The mean of a group's `count` values, and the square root of their variance plus `eps`.
fn mean_and_deviation(
    moments: &Moments,
    group: Range<usize>,
    count: usize,
    eps: f32,
) -> (f64, f64) {
    let mean_of = |sums: &[f64]| sums[group.clone()].iter().sum::<f64>() / count as f64;
    let mean = mean_of(&moments.sums);
    // `max` would hide a NaN.
    let variance = match mean_of(&moments.squares) - mean * mean {
        negative if negative < 0.0 => 0.0,
        variance => variance,
    };
    (mean, (variance + f64::from(eps)).sqrt())
}

/// The channels of a group.
fn group_range(channels: usize, groups: usize, group: usize) -> Range<usize> {
    let size = channels / groups;
    group * size..(group + 1) * size
}

impl GroupNorm<'_> {
    /// The slopes of one image, from its sums.
    fn slopes(&self, sums: &Sums, groups: usize, pixels: usize) -> GroupSlopes {
        let channels = self.weight.len();
        let mut slopes = GroupSlopes {
            scale: vec![0.0; channels],
            slope: vec![0.0; channels],
            offset: vec![0.0; channels],
        };
        for group in (0..groups).map(|group| group_range(channels, groups, group)) {
            let mean = |sums: &[f64]| {
                let weighted = group.clone().map(|c| f64::from(self.weight[c]) * sums[c]);
                weighted.sum::<f64>() / (pixels * group.len()) as f64
            };
            let (plain, weighted) = (mean(&sums.plain), mean(&sums.weighted));
            for c in group.clone() {
                let factor = f64::from(self.factor[c]);
                slopes.scale[c] = self.weight[c] * self.factor[c];
                slopes.slope[c] = (weighted * factor) as f32;
                slopes.offset[c] = (plain * factor) as f32;
            }
        }
        slopes
    }

    /// The gradient of what was multiplied by the weight, and the normalised value, of some
    /// channels of a row.
    ///
    /// # Safety
    /// The machine has `V`'s instruction set; `left` floats, or a vector, can be read at `x`,
    /// `dy` and from `channel` on of each parameter.
    #[inline(always)]
    unsafe fn terms<V: Simd, const SILU: bool>(
        &self,
        x: *const f32,
        dy: *const f32,
        channel: usize,
        left: usize,
    ) -> [V; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let of = |values: &[f32]| values.as_ptr().add(channel);
            let normal = V::load_up_to(x, left)
                .sub(V::load_up_to(of(&self.centre), left))
                .mul_add(
                    V::load_up_to(of(&self.factor), left),
                    V::load_up_to(of(&self.shift), left),
                );
            let dy = V::load_up_to(dy, left);
            if !SILU {
                return [dy, normal];
            }
            let y = normal.mul_add(
                V::load_up_to(of(self.weight), left),
                V::load_up_to(of(self.bias), left),
            );
            [dy.mul(silu_derivative(y)), normal]
        }
    }
}

/// Pixels of an image whose groups of channels were normalised.
struct Pixels<'a, const SILU: bool> {
    x: &'a [f32],
    dy: &'a [f32],
    norm: &'a GroupNorm<'a>,
}

impl<const SILU: bool> Terms for Pixels<'_, SILU> {
    #[inline(always)]
    unsafe fn at<V: Simd>(&self, row: usize, channel: usize, left: usize) -> [V; 2] {
        let place = row * self.norm.weight.len() + channel;
        // SAFETY: the caller's promise.
        unsafe {
            let (x, dy) = (self.x.as_ptr().add(place), self.dy.as_ptr().add(place));
            let [dy, normal] = self.norm.terms::<V, SILU>(x, dy, channel, left);
            [dy, dy.mul(normal)]
        }
    }
}

/// What some pixels of an image add to the sums of its group norm.
///
/// # Safety
/// The machine has `V`'s instruction set; `x` and `dy` are as many whole rows.
#[inline(always)]
pub(crate) unsafe fn group_norm_sums_body<V: Simd>(
    x: &[f32],
    dy: &[f32],
    norm: &GroupNorm<'_>,
    sums: &mut Sums,
) {
    let run = RUN * norm.weight.len();
    for (x, dy) in x.chunks(run).zip(dy.chunks(run)) {
        let rows = x.len() / norm.weight.len();
        // SAFETY: the caller's promise.
        unsafe {
            match norm.silu {
                true => sums.add::<V>(&Pixels::<true> { x, dy, norm }, rows),
                false => sums.add::<V>(&Pixels::<false> { x, dy, norm }, rows),
            }
        }
    }
}

/// The gradient of the input of a group norm, of some pixels of an image.
///
/// # Safety
/// The machine has `V`'s instruction set; `x`, `dy` and `dx` are as many whole rows.
#[inline(always)]
pub(crate) unsafe fn group_norm_gradient_body<V: Simd>(
    x: &[f32],
    dy: &[f32],
    norm: &GroupNorm<'_>,
    slopes: &GroupSlopes,
    dx: &mut [f32],
) {
    // SAFETY: the caller's promise.
    unsafe {
        match norm.silu {
            true => group_gradient::<V, true>(x, dy, norm, slopes, dx),
            false => group_gradient::<V, false>(x, dy, norm, slopes, dx),
        }
    }
}

/// # Safety
/// As [`group_norm_gradient_body`]'s.
#[inline(always)]
unsafe fn group_gradient<V: Simd, const SILU: bool>(
    x: &[f32],
    dy: &[f32],
    norm: &GroupNorm<'_>,
    slopes: &GroupSlopes,
    dx: &mut [f32],
) {
    let channels = norm.weight.len();
    let rows = x.chunks(channels).zip(dy.chunks(channels));
    for ((x, dy), dx) in rows.zip(dx.chunks_mut(channels)) {
        for c in (0..channels).step_by(V::LANES) {
            let left = channels - c;
            // SAFETY: the rows and the slopes have a value per channel.
            unsafe {
                let of = |values: &[f32]| values.as_ptr().add(c);
                let [dy, normal] = norm.terms::<V, SILU>(of(x), of(dy), c, left);
                dy.mul(V::load_up_to(of(&slopes.scale), left))
                    .sub(normal.mul(V::load_up_to(of(&slopes.slope), left)))
                    .sub(V::load_up_to(of(&slopes.offset), left))
                    .store_up_to(dx.as_mut_ptr().add(c), left);
            }
        }
    }
}
