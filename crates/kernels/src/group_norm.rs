//! Group norm: over the pixels of a map and the channels of each group; alone, or in the way into a
//! convolution.
//!
//! It is made in two steps, since other operations can do either on their way: [`Moments`] of each
//! channel, which a convolution gathers while it writes its output, and the [`Normalisation`] that
//! follows from them, which the next convolution applies while it reads.
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
use crate::simd::{MOST_LANES, Simd};
use crate::threads::{for_each_rows, piece, rows_in_task};
use crate::{Kernels, Shape};
use rayon::prelude::*;
use std::cell::UnsafeCell;
use std::ops::Range;

/// Rows that are summed in single precision.
const RUN: usize = 64;

/// Vectors of channels that are summed side by side.
const STRIP: usize = 4;

/// The sums of `x` and `x^2` of each channel of each image: what a group norm is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    channels: usize,
    /// `[image][sums, then squares][channel]`.
    values: Vec<f64>,
}

impl Moments {
    /// Zeros.
    pub fn new(images: usize, channels: usize) -> Self {
        Self {
            channels,
            values: vec![0.0; images * 2 * channels],
        }
    }

    /// Sums and sums of squares of an image.
    fn of(&self, image: usize) -> (&[f64], &[f64]) {
        self.values[image * 2 * self.channels..][..2 * self.channels].split_at(self.channels)
    }

    /// The relative error (2-norm) of the moments against those of `values`, in double precision.
    pub(crate) fn error(&self, values: &[f32]) -> f64 {
        let images = self.values.len() / (2 * self.channels);
        let mut truth = Self::new(images, self.channels);
        let image = values.len() / images;
        for (i, value) in values.iter().map(|value| f64::from(*value)).enumerate() {
            let place = i / image * 2 * self.channels + i % self.channels;
            truth.values[place] += value;
            truth.values[place + self.channels] += value * value;
        }
        let distance = |(a, b): (&f64, &f64)| (a - b) * (a - b);
        let square: f64 = self.values.iter().zip(&truth.values).map(distance).sum();
        (square / truth.values.iter().map(|value| value * value).sum::<f64>()).sqrt()
    }

    /// Adds what was summed of some values' distances from their channel's origin, for `count`
    /// values a channel from channel `first` on.
    fn shifted(count: f64, origin: f32, sum: f32, square: f32) -> (f64, f64) {
        let [origin, sum, square] = [origin, sum, square].map(f64::from);
        (
            count * origin + sum,
            square + origin * (2.0 * sum + count * origin),
        )
    }
}

/// Sums that the tasks of another operation gather of their outputs: each part is one task's, and
/// parts are added in order.
pub(crate) struct Gathered {
    channels: usize,
    /// `[part][sums, then squares][channel]`; empty if nobody wants them.
    parts: Vec<UnsafeCell<f64>>,
}

// SAFETY: parts are written through `Gathered::put`, whose callers promise that no two write the
// same; they are read when all are done, through a unique reference.
unsafe impl Sync for Gathered {}

impl Gathered {
    /// For `parts` parts, if they are wanted.
    pub(crate) fn new(wanted: bool, parts: usize, channels: usize) -> Self {
        let count = if wanted { parts * 2 * channels } else { 0 };
        Self {
            channels,
            parts: (0..count).map(|_| UnsafeCell::new(0.0)).collect(),
        }
    }

    pub(crate) fn is_wanted(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Puts down some channels of a part: origins, sums and squares, one after the other, of
    /// `count` values a channel.
    ///
    /// # Safety
    /// No other task has these channels of the part.
    pub(crate) unsafe fn put(
        &self,
        part: usize,
        channels: &Range<usize>,
        count: usize,
        sums: &[f32],
    ) {
        let n = channels.len();
        let part = &self.parts[part * 2 * self.channels..][..2 * self.channels];
        for (i, channel) in channels.clone().enumerate() {
            let (sum, square) =
                Moments::shifted(count as f64, sums[i], sums[n + i], sums[2 * n + i]);
            // SAFETY: the caller's promise.
            unsafe {
                *part[channel].get() = sum;
                *part[self.channels + channel].get() = square;
            }
        }
    }

    /// Adds up `parts` parts an image.
    pub(crate) fn reduce(mut self, parts: usize, moments: &mut Moments) {
        let width = 2 * self.channels;
        assert_eq!(moments.channels, self.channels, "channels of the moments");
        assert_eq!(
            moments.values.len() * parts,
            self.parts.len(),
            "images of the moments"
        );
        moments.values.fill(0.0);
        for (i, part) in self.parts.chunks_mut(width).enumerate() {
            let total = &mut moments.values[i / parts * width..][..width];
            for (total, value) in total.iter_mut().zip(part) {
                *total += *value.get_mut();
            }
        }
    }
}

/// A group norm of some images as it is applied, `(x - centre) * scale + shift` for each channel,
/// then SiLU if wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalisation {
    channels: usize,
    silu: bool,
    /// `[image][centre, scale, shift][channel]`.
    values: Vec<f32>,
}

impl Normalisation {
    /// To mean 0 and variance 1 for each group of channels of each image, then
    /// `* weight + bias` (a value per channel), then SiLU if `silu`; `moments` are those of
    /// `pixels` pixels, and `eps` is added to the variance.
    ///
    /// # Panics
    /// If a length does not fit, or `groups` does not divide the channels.
    pub fn new(
        moments: &Moments,
        pixels: usize,
        groups: usize,
        eps: f32,
        [weight, bias]: [&[f32]; 2],
        silu: bool,
    ) -> Self {
        let channels = moments.channels;
        assert_eq!(weight.len(), channels, "length of weight");
        assert_eq!(bias.len(), channels, "length of bias");
        assert_eq!(channels % groups, 0, "{groups} groups of {channels}");
        let images = moments.values.len() / (2 * channels);
        let mut values = vec![0.0; images * 3 * channels];
        let size = channels / groups;
        for (image, values) in values.chunks_mut(3 * channels).enumerate() {
            let (sums, squares) = moments.of(image);
            let (centre, rest) = values.split_at_mut(channels);
            let (scale, shift) = rest.split_at_mut(channels);
            for first in (0..channels).step_by(size) {
                let group = first..first + size;
                let count = (pixels * size) as f64;
                let mean = sums[group.clone()].iter().sum::<f64>() / count;
                let square = squares[group.clone()].iter().sum::<f64>() / count;
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
        }
        Self {
            channels,
            silu,
            values,
        }
    }

    /// Images and channels.
    pub(crate) fn extent(&self) -> [usize; 2] {
        [self.values.len() / (3 * self.channels), self.channels]
    }

    /// What is done to some channels of an image.
    pub(crate) fn part(&self, image: usize, channels: Range<usize>) -> Affine<'_> {
        let values = &self.values[image * 3 * self.channels..][..3 * self.channels];
        let row = |i: usize| &values[i * self.channels..][channels.clone()];
        Affine {
            centre: row(0),
            scale: row(1),
            shift: row(2),
            silu: self.silu,
        }
    }
}

/// `(x - centre) * scale + shift` for each channel, then SiLU if wanted.
#[derive(Clone, Copy)]
pub(crate) struct Affine<'a> {
    centre: &'a [f32],
    scale: &'a [f32],
    shift: &'a [f32],
    silu: bool,
}

/// Pixels that are copied to whole vectors, and normalised on the way.
pub(crate) struct Run<'a> {
    /// From the first pixel's first wanted channel on.
    pub(crate) from: &'a [f32],
    /// Floats from a pixel to the next.
    pub(crate) pixel: usize,
    /// Channels that are wanted of each.
    pub(crate) channels: usize,
    pub(crate) affine: Option<Affine<'a>>,
    /// Pixels of `stride` floats, of which those after the channels become zeros.
    pub(crate) to: &'a mut [f32],
    pub(crate) stride: usize,
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
        let moments = self.moments(x, shape);
        let norm = Normalisation::new(&moments, pixels, groups, eps, [weight, bias], silu);
        self.normalise(x, shape, &norm, out);
    }

    /// Applies a group norm.
    ///
    /// # Panics
    /// If a length does not fit.
    pub fn normalise(&self, x: &[f32], shape: Shape, norm: &Normalisation, out: &mut [f32]) {
        let Shape {
            images,
            pixels,
            channels,
        } = shape;
        assert_eq!(x.len(), shape.len(), "length of x");
        assert_eq!(out.len(), x.len(), "length of out");
        assert_eq!(
            norm.extent(),
            [images, channels],
            "images and channels of the norm"
        );
        let size = (pixels * channels).max(1);
        let maps = x.par_chunks(size).zip(out.par_chunks_mut(size));
        maps.enumerate().for_each(|(image, (x, out))| {
            let affine = norm.part(image, 0..channels);
            for_each_rows(x, channels, out, channels, |_, x, out| {
                let run = Run {
                    from: x,
                    pixel: channels,
                    channels,
                    affine: Some(affine),
                    to: out,
                    stride: channels,
                };
                // SAFETY: this machine has this table's instruction set; the rows are whole.
                unsafe { (self.copy_pixels)(run) };
            });
        });
    }

    /// The moments of each channel of each image, summed in the same order whatever the threads.
    ///
    /// # Panics
    /// If a length does not fit.
    pub fn moments(&self, x: &[f32], shape: Shape) -> Moments {
        let channels = shape.channels;
        assert_eq!(x.len(), shape.len(), "length of x");
        let rows = rows_in_task(channels).next_multiple_of(RUN) * channels;
        let mut total = Moments::new(shape.images, channels);
        let images = x.par_chunks((shape.pixels * channels).max(1));
        let totals = total.values.par_chunks_mut(2 * channels);
        images.zip(totals).for_each(|(x, total)| {
            let parts: Vec<Vec<f64>> = (0..x.len().div_ceil(rows))
                .into_par_iter()
                .map(|i| {
                    let mut part = vec![0.0; 2 * channels];
                    // SAFETY: this machine has this table's instruction set; the rows are whole.
                    unsafe { (self.moments)(&x[piece(x.len(), rows, i)], &mut part) };
                    part
                })
                .collect();
            for part in &parts {
                for (total, part) in total.iter_mut().zip(part) {
                    *total += part;
                }
            }
        });
        total
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
pub(crate) unsafe fn moments_body<V: Simd>(x: &[f32], moments: &mut [f64]) {
    let channels = moments.len() / 2;
    for run in x.chunks(RUN * channels) {
        let wide = channels - channels % (STRIP * V::LANES);
        // SAFETY: the strips end at the last channel.
        unsafe {
            for first in (0..wide).step_by(STRIP * V::LANES) {
                add_strip::<V, STRIP>(run, first, moments);
            }
            for first in (wide..channels).step_by(V::LANES) {
                add_strip::<V, 1>(run, first, moments);
            }
        }
    }
}

/// Adds the moments of `N` vectors of channels from `first` on.
///
/// # Safety
/// The machine has `V`'s instruction set, `run` is whole rows, and all but the last vector
/// are inside a row.
#[inline(always)]
unsafe fn add_strip<V: Simd, const N: usize>(run: &[f32], first: usize, moments: &mut [f64]) {
    let (all_sums, all_squares) = moments.split_at_mut(moments.len() / 2);
    let channels = all_sums.len();
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
            let (sum, square) =
                Moments::shifted(n, origins[v][lane], sums[v][lane], squares[v][lane]);
            all_sums[c] += sum;
            all_squares[c] += square;
        }
    }
}

/// Copies pixels, normalised if wanted: a vector of channels of all pixels, then the next.
///
/// # Safety
/// The machine has `V`'s instruction set, `from` has `channels` floats of each pixel, and `to` is
/// whole pixels of `stride` floats, at least as many as channels.
#[inline(always)]
pub(crate) unsafe fn copy_pixels_body<V: Simd>(run: Run<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match run.affine {
            None => copy_pixels::<V, Plain>(run, Plain),
            Some(affine) if affine.silu => copy_pixels::<V, Normal<true>>(run, Normal(affine)),
            Some(affine) => copy_pixels::<V, Normal<false>>(run, Normal(affine)),
        }
    }
}

/// What is done to a vector of channels of each pixel.
trait Change {
    /// The change's constants for channels from `channel` on.
    unsafe fn constants<V: Simd>(&self, channel: usize, left: usize) -> [V; 3];
    fn apply<V: Simd>(x: V, constants: [V; 3]) -> V;
}

/// Nothing.
struct Plain;
/// An affine map, and SiLU or not.
struct Normal<'a, const SILU: bool>(Affine<'a>);

impl Change for Plain {
    #[inline(always)]
    unsafe fn constants<V: Simd>(&self, _: usize, _: usize) -> [V; 3] {
        // SAFETY: the caller has the instruction set.
        [unsafe { V::fill(0.0) }; 3]
    }

    #[inline(always)]
    fn apply<V: Simd>(x: V, _: [V; 3]) -> V {
        x
    }
}

impl<const SILU: bool> Change for Normal<'_, SILU> {
    #[inline(always)]
    unsafe fn constants<V: Simd>(&self, channel: usize, left: usize) -> [V; 3] {
        let Affine {
            centre,
            scale,
            shift,
            ..
        } = self.0;
        // SAFETY: the caller has the instruction set; each has `left` values from `channel` on.
        [centre, scale, shift]
            .map(|values| unsafe { V::load_up_to(values.as_ptr().add(channel), left) })
    }

    #[inline(always)]
    fn apply<V: Simd>(x: V, [centre, scale, shift]: [V; 3]) -> V {
        let y = x.sub(centre).mul_add(scale, shift);
        if SILU { silu(y) } else { y }
    }
}

/// # Safety
/// As [`copy_pixels_body`]'s.
#[inline(always)]
unsafe fn copy_pixels<V: Simd, C: Change>(run: Run<'_>, change: C) {
    let Run {
        from,
        pixel,
        channels,
        to,
        stride,
        ..
    } = run;
    let strips = channels / (STRIP * V::LANES) * STRIP * V::LANES;
    let strip = Strip {
        from: from.as_ptr(),
        pixel,
        channels,
        pixels: to.len() / stride,
        to: to.as_mut_ptr(),
        stride,
        change,
    };
    // SAFETY: the caller's promise; the strips end before the last channel.
    unsafe {
        for first in (0..strips).step_by(STRIP * V::LANES) {
            strip.copy::<V, STRIP>(first);
        }
        for first in (strips..stride).step_by(V::LANES) {
            strip.copy::<V, 1>(first);
        }
    }
}

/// Pixels whose channels are copied some vectors at a time.
struct Strip<C> {
    from: *const f32,
    pixel: usize,
    channels: usize,
    pixels: usize,
    to: *mut f32,
    stride: usize,
    change: C,
}

impl<C: Change> Strip<C> {
    /// Copies `N` vectors of channels of every pixel, from channel `first` on.
    ///
    /// # Safety
    /// As [`copy_pixels_body`]'s; all but the last vector are inside a pixel.
    #[inline(always)]
    unsafe fn copy<V: Simd, const N: usize>(&self, first: usize) {
        let left = |v: usize| self.channels.saturating_sub(first + v * V::LANES);
        // SAFETY: the caller's promise; no channel beyond the last is read.
        unsafe {
            let mut constants = [[V::fill(0.0); 3]; N];
            for (v, constants) in constants.iter_mut().enumerate() {
                let channel = (first + v * V::LANES).min(self.channels);
                *constants = self.change.constants::<V>(channel, left(v));
            }
            for p in 0..self.pixels {
                for (v, constants) in constants.iter().enumerate() {
                    let channel = first + v * V::LANES;
                    let x = match left(v) {
                        0 => V::fill(0.0),
                        left => V::load_up_to(self.from.add(p * self.pixel + channel), left),
                    };
                    // Lanes beyond the channels are zeros: 0 * 0 + 0, and SiLU keeps it.
                    let to = self.to.add(p * self.stride + channel);
                    C::apply(x, *constants).store_up_to(to, self.stride - channel);
                }
            }
        }
    }
}
