//! Gradients of the normalisations.
//!
//! With `n = (x - mean) r` the normalised values, `r` the inverse deviation, and `g = dy * weight`,
//! `dx = r (g - mean(g) - n mean(g n))`, the means over whatever was normalised together. RMS
//! norm takes no mean off, so its `dx = r (g - n mean(g n))`. The weight's gradient is the sum of
//! `dy n`, the bias's that of `dy`. Statistics are worked out from `x` once more, as the forward
//! pass does.
//!
//! Sums over rows are long: they are taken in single precision over [`RUN`] rows and carried in
//! double precision.

use crate::backward::activation::silu_derivative;
use crate::norm::{MOST_LANES, Moments, RUN, STRIP, row_moments, total as total_of_lanes};
use crate::simd::Simd;
use crate::threads::{for_each_rows, rows_in_task};
use crate::{Kernels, Shape};
use rayon::prelude::*;
use std::ops::Range;

/// For each channel, sums over rows: of the gradients alone, and of gradients times normalised
/// values.
#[derive(Clone)]
pub(crate) struct Sums {
    plain: Vec<f64>,
    weighted: Vec<f64>,
}

impl Sums {
    pub(super) fn zeros(channels: usize) -> Self {
        Self {
            plain: vec![0.0; channels],
            weighted: vec![0.0; channels],
        }
    }

    pub(super) fn write_plain(&self, to: &mut [f32]) {
        write(&self.plain, to);
    }

    fn write_weighted(&self, to: &mut [f32]) {
        write(&self.weighted, to);
    }
}

fn write(from: &[f64], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from as f32;
    }
}

/// All parts together, in their order.
pub(super) fn total<'a>(channels: usize, parts: impl IntoIterator<Item = &'a Sums>) -> Sums {
    let mut total = Sums::zeros(channels);
    for part in parts {
        for c in 0..channels {
            total.plain[c] += part.plain[c];
            total.weighted[c] += part.weighted[c];
        }
    }
    total
}

/// A norm of each row by itself: layer norm, or RMS norm if it is not centred.
#[derive(Clone, Copy)]
pub(crate) struct RowNorm<'a> {
    weight: &'a [f32],
    eps: f32,
    centred: bool,
}

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

/// The terms of both sums, for any place of some rows.
trait Terms {
    /// Those of `left` channels, or a vector of them, of a row.
    ///
    /// # Safety
    /// The machine has `V`'s instruction set; row and channels are inside.
    unsafe fn at<V: Simd>(&self, row: usize, channel: usize, left: usize) -> [V; 2];
}

/// Gradients alone.
struct Plain<'a> {
    dy: &'a [f32],
    channels: usize,
}

impl Terms for Plain<'_> {
    #[inline(always)]
    unsafe fn at<V: Simd>(&self, row: usize, channel: usize, left: usize) -> [V; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let dy = self.dy.as_ptr().add(row * self.channels + channel);
            [V::load_up_to(dy, left), V::fill(0.0)]
        }
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

impl Sums {
    /// Adds the sums over `rows` rows, at most [`RUN`].
    ///
    /// # Safety
    /// The machine has `V`'s instruction set, and the terms have as many rows.
    #[inline(always)]
    unsafe fn add<V: Simd>(&mut self, terms: &impl Terms, rows: usize) {
        let channels = self.plain.len();
        let wide = channels - channels % (STRIP * V::LANES);
        // SAFETY: the strips end at the last channel; the caller's promise.
        unsafe {
            for first in (0..wide).step_by(STRIP * V::LANES) {
                self.add_strip::<V, STRIP>(terms, rows, first);
            }
            for first in (wide..channels).step_by(V::LANES) {
                self.add_strip::<V, 1>(terms, rows, first);
            }
        }
    }

    /// Adds the sums of `N` vectors of channels from `first` on.
    ///
    /// # Safety
    /// As [`Sums::add`]'s, and all but the last vector are inside a row.
    #[inline(always)]
    unsafe fn add_strip<V: Simd, const N: usize>(
        &mut self,
        terms: &impl Terms,
        rows: usize,
        first: usize,
    ) {
        let channels = self.plain.len();
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [[V::fill(0.0); 2]; N];
            for row in 0..rows {
                for (v, [plain, weighted]) in sums.iter_mut().enumerate() {
                    let channel = first + v * V::LANES;
                    let terms = terms.at::<V>(row, channel, channels - channel);
                    *plain = plain.add(terms[0]);
                    *weighted = weighted.add(terms[1]);
                }
            }
            for (v, [plain, weighted]) in sums.into_iter().enumerate() {
                let start = first + v * V::LANES;
                let end = channels.min(start + V::LANES);
                carry(plain, &mut self.plain[start..end]);
                carry(weighted, &mut self.weighted[start..end]);
            }
        }
    }
}

/// Adds each lane to its sum.
#[inline(always)]
fn carry<V: Simd>(run: V, sums: &mut [f64]) {
    let mut lanes = [0.0_f32; MOST_LANES];
    // SAFETY: no vector has more lanes.
    unsafe { run.store(lanes.as_mut_ptr()) };
    for (sum, lane) in sums.iter_mut().zip(lanes) {
        *sum += f64::from(lane);
    }
}

/// Sums of whole rows.
///
/// # Safety
/// The machine has `V`'s instruction set, and `dy` is whole rows.
#[inline(always)]
pub(crate) unsafe fn row_sums_body<V: Simd>(dy: &[f32], sums: &mut Sums) {
    let channels = sums.plain.len();
    for dy in dy.chunks(RUN * channels) {
        // SAFETY: the caller's promise.
        unsafe { sums.add::<V>(&Plain { dy, channels }, dy.len() / channels) };
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
