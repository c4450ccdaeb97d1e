//! What the algorithms ask of an instruction set: one vector of floats and a dozen operations.
//!
//! Every algorithm of this crate is written once, generic over [`Simd`], and `#[inline(always)]`
//! all the way down, so that the compiler melts it into the `#[target_feature]` functions that
//! the files of [`crate::isa`] instantiate. No closure lies on that path: a closure is a function
//! of its own without those features; algorithms that vary take a type instead.
//!
//! A value of a vector type proves that its instruction set is there: the constructors are
//! `unsafe` and ask for it, everything else is safe.

use crate::half::Half;

/// Vectors in the width of a panel of packed weights (see [`crate::gemm`]), for every
/// instruction set: with two, each weight loaded serves [`Simd::ROWS`] multiply-adds and each
/// input broadcast serves two.
pub(crate) const PANEL_VECTORS: usize = 2;

/// The most lanes of any instruction set.
pub(crate) const MOST_LANES: usize = 16;

/// A vector of `LANES` floats.
pub(crate) trait Simd: Copy {
    /// Floats in a vector.
    const LANES: usize;

    /// Rows of the product's register tile: `ROWS * PANEL_VECTORS` sums, `PANEL_VECTORS`
    /// weights and one input must fit in the registers. At most 8.
    const ROWS: usize;

    /// Every lane `value`.
    ///
    /// # Safety
    /// The machine has this instruction set.
    unsafe fn fill(value: f32) -> Self;

    /// `LANES` floats from `from`, of any alignment.
    ///
    /// # Safety
    /// The machine has this instruction set, and the floats may be read.
    unsafe fn load(from: *const f32) -> Self;

    /// The first `count <= LANES` floats from `from`, zeros after them.
    ///
    /// # Safety
    /// The machine has this instruction set, and `count` floats may be read.
    unsafe fn load_partial(from: *const f32, count: usize) -> Self;

    /// Writes the columns of a square of `LANES` rows, `stride` floats apart at `from`, one after
    /// the other to `to`.
    ///
    /// # Safety
    /// The machine has this instruction set, the square can be read, and as much written.
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32);

    /// Has the cache line at `from` fetched; any address will do.
    fn prefetch(from: *const f32);

    /// `self * 2^exponent` for integers from -126 to 127 and a result that is a normal number;
    /// anything for other lanes.
    #[inline(always)]
    fn times_exp2(self, exponent: Self) -> Self {
        self.mul(exponent.exp2_of_integer())
    }

    /// `1 / self` within two units in the last place, for lanes from 2^-125 to 2^125.
    fn reciprocal(self) -> Self;

    /// `LANES` numbers of half precision, widened.
    ///
    /// # Safety
    /// The machine has this instruction set, and the numbers may be read.
    unsafe fn load_half(from: *const u16, format: Half) -> Self;

    /// Writes all lanes.
    ///
    /// # Safety
    /// `LANES` floats may be written.
    unsafe fn store(self, to: *mut f32);

    /// Writes the first `count <= LANES` lanes.
    ///
    /// # Safety
    /// `count` floats may be written.
    unsafe fn store_partial(self, to: *mut f32, count: usize);

    /// The first `left` floats from `from`, zeros after them; all lanes if there are enough.
    ///
    /// # Safety
    /// The machine has this instruction set, and `left` floats, or `LANES`, may be read.
    #[inline(always)]
    unsafe fn load_up_to(from: *const f32, left: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            if left >= Self::LANES {
                Self::load(from)
            } else {
                Self::load_partial(from, left)
            }
        }
    }

    /// Writes the first `left` lanes; all lanes if there is room.
    ///
    /// # Safety
    /// `left` floats, or `LANES`, may be written.
    #[inline(always)]
    unsafe fn store_up_to(self, to: *mut f32, left: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            if left >= Self::LANES {
                self.store(to)
            } else {
                self.store_partial(to, left)
            }
        }
    }

    /// Every lane `value`: [`Simd::fill`] where a vector is at hand already.
    fn constant(self, value: f32) -> Self;

    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self - other`.
    fn sub(self, other: Self) -> Self;
    /// `self * other`.
    fn mul(self, other: Self) -> Self;
    /// `self * factor + term`, rounded once where the machine can.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The larger; `other` where either is NaN.
    fn max(self, other: Self) -> Self;
    /// The smaller; `other` where either is NaN.
    fn min(self, other: Self) -> Self;
    /// The magnitude; NaN stays.
    fn abs(self) -> Self;
    /// The nearest integer, ties to even.
    fn round(self) -> Self;
    /// The square root, rounded once.
    fn sqrt(self) -> Self;
    /// `2^self` for integers from -126 to 127; anything for other lanes.
    fn exp2_of_integer(self) -> Self;
    /// `then` in the lanes where `self < 0`, elsewhere (and for NaN) `otherwise`.
    fn if_negative(self, then: Self, otherwise: Self) -> Self;
    /// The sum of the lanes, always in the same order.
    fn sum(self) -> f32;
    /// The largest lane; lanes that are NaN may be passed over.
    fn largest(self) -> f32;
}

/// What products of bf16 ask beyond that: lanes then hold pairs of numbers of half precision.
pub(crate) trait Pairs: Simd {
    /// Rounds the first `left` floats from `from`, at most `2 * LANES`, to bf16 (nearest, ties to
    /// even), zeros after them; two in a lane.
    ///
    /// # Safety
    /// The machine has this instruction set, and the floats may be read.
    unsafe fn round_pairs(from: *const f32, left: usize) -> Self;

    /// `sum` plus the products of both numbers of each lane.
    fn dot(self, other: Self, sum: Self) -> Self;
}
