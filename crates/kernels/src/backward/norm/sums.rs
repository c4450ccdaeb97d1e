//! Sums over rows, the gradients of parameters that serve every row.
//!
//! Such sums are long: they are taken in single precision over [`RUN`] rows and carried in double
//! precision. Each task has sums of its own, which are added in the order of the rows.

use crate::simd::{MOST_LANES, Simd};

/// Rows that are summed in single precision.
pub(super) const RUN: usize = 64;

/// Vectors of channels that are summed side by side.
const STRIP: usize = 4;

/// For each channel, sums over rows: of the gradients alone, and of gradients times normalised
/// values.
#[derive(Clone)]
pub(crate) struct Sums {
    pub(super) plain: Vec<f64>,
    pub(super) weighted: Vec<f64>,
}

impl Sums {
    pub(in crate::backward) fn zeros(channels: usize) -> Self {
        Self {
            plain: vec![0.0; channels],
            weighted: vec![0.0; channels],
        }
    }

    pub(in crate::backward) fn write_plain(&self, to: &mut [f32]) {
        write(&self.plain, to);
    }

    pub(super) fn write_weighted(&self, to: &mut [f32]) {
        write(&self.weighted, to);
    }
}

fn write(from: &[f64], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from as f32;
    }
}

/// All parts together, in their order.
pub(in crate::backward) fn total<'a>(
    channels: usize,
    parts: impl IntoIterator<Item = &'a Sums>,
) -> Sums {
    let mut total = Sums::zeros(channels);
    for part in parts {
        for c in 0..channels {
            total.plain[c] += part.plain[c];
            total.weighted[c] += part.weighted[c];
        }
    }
    total
}

/// The terms of both sums, for any place of some rows.
pub(super) trait Terms {
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

impl Sums {
    /// Adds the sums over `rows` rows, at most [`RUN`].
    ///
    /// # Safety
    /// The machine has `V`'s instruction set, and the terms have as many rows.
    #[inline(always)]
    pub(super) unsafe fn add<V: Simd>(&mut self, terms: &impl Terms, rows: usize) {
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
