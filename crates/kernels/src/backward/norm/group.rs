//! Gradients of group norm, which normalises groups of channels of an image.
//!
//! Three passes over the image: its statistics; the gradient before SiLU, `dz`, kept where `dx` will
//! be, with the sums that the means of each group and the gradients of weight and bias are made
//! from; then `dx` from `dz`.
//!
//! A map's mean may be far larger than its deviation. So the statistics are sums of distances from
//! the image's first pixel, small numbers, made into sums of values in double precision, where
//! cancellation has room; and the mean is taken off in single precision, with what its rounding left
//! over in a shift, as in the forward pass.

use super::sums::{RUN, Sums, Terms, total};
use crate::backward::activation::silu_derivative;
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
/// `dx = dz * scale - n * slope - offset`, a value for each channel.
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
        let image = (pixels * channels).max(1);
        let maps = x.par_chunks(image).zip(dy.par_chunks(image));
        let maps = maps.zip(dx.par_chunks_mut(image));
        let sums = maps.map(|((x, dy), dx)| {
            let mut norm = GroupNorm::with(weight, bias, silu);
            norm.normalise_groups(
                &self.distances(x, channels),
                &x[..channels],
                groups,
                pixels,
                eps,
            );
            let task = rows_in_task(channels) * channels;
            let parts: Vec<Sums> = x
                .par_chunks(task)
                .zip(dy.par_chunks(task))
                .zip(dx.par_chunks_mut(task))
                .map(|((x, dy), dz)| {
                    let mut sums = Sums::zeros(channels);
                    // SAFETY: this machine has this table's instruction set; the rows are whole.
                    unsafe { (self.group_norm_sums)(x, dy, &norm, dz, &mut sums) };
                    sums
                })
                .collect();
            let sums = total(channels, &parts);
            let slopes = norm.slopes(&sums, groups, pixels);
            // SAFETY: as above; `slopes` has a value for each channel too.
            for_each_rows(x, channels, dx, channels, |_, x, dx| unsafe {
                (self.group_norm_gradient)(x, &norm, &slopes, dx)
            });
            sums
        });
        let sums: Vec<Sums> = sums.collect();
        let all = total(channels, &sums);
        all.write_weighted(dweight);
        all.write_plain(dbias);
    }

    /// The sums of an image's distances from its first pixel, and of their squares.
    fn distances(&self, x: &[f32], channels: usize) -> Sums {
        let parts: Vec<Sums> = x
            .par_chunks(rows_in_task(channels) * channels)
            .map(|rows| {
                let mut sums = Sums::zeros(channels);
                // SAFETY: this machine has this table's instruction set; the rows are whole, and
                // the origin is one.
                unsafe { (self.distance_sums)(rows, &x[..channels], &mut sums) };
                sums
            })
            .collect();
        total(channels, &parts)
    }
}

/// The channels of each group.
fn group_ranges(channels: usize, groups: usize) -> impl Iterator<Item = Range<usize>> {
    let size = channels / groups;
    (0..groups).map(move |group| group * size..(group + 1) * size)
}

impl<'a> GroupNorm<'a> {
    fn with(weight: &'a [f32], bias: &'a [f32], silu: bool) -> Self {
        let zeros = || vec![0.0; weight.len()];
        Self {
            centre: zeros(),
            factor: zeros(),
            shift: zeros(),
            weight,
            bias,
            silu,
        }
    }

    /// Sets mean and deviation of each group from the sums of the distances from `origin`, and of
    /// their squares.
    fn normalise_groups(
        &mut self,
        distances: &Sums,
        origin: &[f32],
        groups: usize,
        pixels: usize,
        eps: f32,
    ) {
        let n = pixels as f64;
        for group in group_ranges(origin.len(), groups) {
            let count = n * group.len() as f64;
            let (mut sum, mut square) = (0.0, 0.0);
            for c in group.clone() {
                let (origin, distance) = (f64::from(origin[c]), distances.plain[c]);
                sum += n * origin + distance;
                square += distances.weighted[c] + origin * (2.0 * distance + n * origin);
            }
            let mean = sum / count;
            // `max` would hide a NaN.
            let variance = match square / count - mean * mean {
                negative if negative < 0.0 => 0.0,
                variance => variance,
            };
            let factor = 1.0 / (variance + f64::from(eps)).sqrt();
            for c in group {
                self.centre[c] = mean as f32;
                self.factor[c] = factor as f32;
                self.shift[c] = ((f64::from(self.centre[c]) - mean) * factor) as f32;
            }
        }
    }

    /// The slopes of one image, from its sums.
    fn slopes(&self, sums: &Sums, groups: usize, pixels: usize) -> GroupSlopes {
        let channels = self.weight.len();
        let mut slopes = GroupSlopes {
            scale: vec![0.0; channels],
            slope: vec![0.0; channels],
            offset: vec![0.0; channels],
        };
        for group in group_ranges(channels, groups) {
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

    /// The normalised values of some channels of a row.
    ///
    /// # Safety
    /// The machine has `V`'s instruction set; `left` floats, or a vector, can be read at `x` and
    /// from `channel` on of each parameter.
    #[inline(always)]
    unsafe fn normal<V: Simd>(&self, x: *const f32, channel: usize, left: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            let of = |values: &[f32]| values.as_ptr().add(channel);
            V::load_up_to(x, left)
                .sub(V::load_up_to(of(&self.centre), left))
                .mul_add(
                    V::load_up_to(of(&self.factor), left),
                    V::load_up_to(of(&self.shift), left),
                )
        }
    }
}

/// Distances from an origin, and their squares.
struct Distances<'a> {
    x: &'a [f32],
    origin: &'a [f32],
}

impl Terms for Distances<'_> {
    #[inline(always)]
    unsafe fn at<V: Simd>(&self, row: usize, channel: usize, left: usize) -> [V; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let x = self.x.as_ptr().add(row * self.origin.len() + channel);
            let origin = V::load_up_to(self.origin.as_ptr().add(channel), left);
            let distance = V::load_up_to(x, left).sub(origin);
            [distance, distance.mul(distance)]
        }
    }
}

/// The sums of the distances of some pixels from `origin`, and of their squares.
///
/// # Safety
/// The machine has `V`'s instruction set, and `x` is whole rows, as long as `origin`.
#[inline(always)]
pub(crate) unsafe fn distance_sums_body<V: Simd>(x: &[f32], origin: &[f32], sums: &mut Sums) {
    for x in x.chunks(RUN * origin.len()) {
        // SAFETY: the caller's promise.
        unsafe { sums.add::<V>(&Distances { x, origin }, x.len() / origin.len()) };
    }
}

/// Gradients before SiLU, and those times normalised values.
struct Pixels<'a> {
    x: &'a [f32],
    dz: &'a [f32],
    norm: &'a GroupNorm<'a>,
}

impl Terms for Pixels<'_> {
    #[inline(always)]
    unsafe fn at<V: Simd>(&self, row: usize, channel: usize, left: usize) -> [V; 2] {
        let place = row * self.norm.weight.len() + channel;
        // SAFETY: the caller's promise.
        unsafe {
            let dz = V::load_up_to(self.dz.as_ptr().add(place), left);
            let x = self.x.as_ptr().add(place);
            [dz, dz.mul(self.norm.normal::<V>(x, channel, left))]
        }
    }
}

/// The gradients `dz` of some pixels before SiLU, and what they add to the sums of their norm.
///
/// # Safety
/// The machine has `V`'s instruction set; `x`, `dy` and `dz` are as many whole rows.
#[inline(always)]
pub(crate) unsafe fn group_norm_sums_body<V: Simd>(
    x: &[f32],
    dy: &[f32],
    norm: &GroupNorm<'_>,
    dz: &mut [f32],
    sums: &mut Sums,
) {
    let channels = norm.weight.len();
    let run = RUN * channels;
    for ((x, dy), dz) in x.chunks(run).zip(dy.chunks(run)).zip(dz.chunks_mut(run)) {
        // SAFETY: the caller's promise.
        unsafe {
            match norm.silu {
                true => before_silu::<V>(x, dy, norm, dz),
                false => dz.copy_from_slice(dy),
            }
            sums.add::<V>(&Pixels { x, dz, norm }, x.len() / channels);
        }
    }
}

/// `dz = dy silu'(n * weight + bias)`.
///
/// # Safety
/// As [`group_norm_sums_body`]'s.
#[inline(always)]
unsafe fn before_silu<V: Simd>(x: &[f32], dy: &[f32], norm: &GroupNorm<'_>, dz: &mut [f32]) {
    let channels = norm.weight.len();
    let rows = x.chunks(channels).zip(dy.chunks(channels));
    for ((x, dy), dz) in rows.zip(dz.chunks_mut(channels)) {
        for c in (0..channels).step_by(V::LANES) {
            let left = channels - c;
            // SAFETY: the rows and the norm have a value per channel.
            unsafe {
                let z = norm.normal::<V>(x.as_ptr().add(c), c, left).mul_add(
                    V::load_up_to(norm.weight.as_ptr().add(c), left),
                    V::load_up_to(norm.bias.as_ptr().add(c), left),
                );
                V::load_up_to(dy.as_ptr().add(c), left)
                    .mul(silu_derivative(z))
                    .store_up_to(dz.as_mut_ptr().add(c), left);
            }
        }
    }
}

/// Turns the gradients before SiLU of some pixels of an image into those of the norm's input.
///
/// # Safety
/// The machine has `V`'s instruction set; `x` and `dx` are as many whole rows.
#[inline(always)]
pub(crate) unsafe fn group_norm_gradient_body<V: Simd>(
    x: &[f32],
    norm: &GroupNorm<'_>,
    slopes: &GroupSlopes,
    dx: &mut [f32],
) {
    let channels = norm.weight.len();
    for (x, dx) in x.chunks(channels).zip(dx.chunks_mut(channels)) {
        for c in (0..channels).step_by(V::LANES) {
            let left = channels - c;
            // SAFETY: the rows, the norm and the slopes have a value per channel.
            unsafe {
                let of = |values: &[f32]| values.as_ptr().add(c);
                let normal = norm.normal::<V>(of(x), c, left);
                let place = dx.as_mut_ptr().add(c);
                V::load_up_to(place, left)
                    .mul(V::load_up_to(of(&slopes.scale), left))
                    .sub(normal.mul(V::load_up_to(of(&slopes.slope), left)))
                    .sub(V::load_up_to(of(&slopes.offset), left))
                    .store_up_to(place, left);
            }
        }
    }
}
