//! The instruction set of any machine: arrays of floats, which the compiler turns into whatever the
//! target's baseline has (SSE2, NEON).

use crate::half::Half;
use crate::simd::{Pairs, Simd};

/// `L` floats, for register tiles of `R` rows.
#[derive(Clone, Copy)]
pub(crate) struct Array<const L: usize, const R: usize>([f32; L]);

/// As wide as the registers of the usual baselines.
type Portable = Array<4, 4>;

impl<const L: usize, const R: usize> Array<L, R> {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }

    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Self(self.0.map(f))
    }

    /// All lanes in one, the upper half onto the lower until one is left.
    #[inline(always)]
    fn halved(mut self, f: impl Fn(f32, f32) -> f32) -> f32 {
        let mut half = L / 2;
        while half > 0 {
            for i in 0..half {
                self.0[i] = f(self.0[i], self.0[i + half]);
            }
            half /= 2;
        }
        self.0[0]
    }
}

impl<const L: usize, const R: usize> Simd for Array<L, R> {
    const LANES: usize = L;
    const ROWS: usize = R;

    #[inline(always)]
    unsafe fn fill(value: f32) -> Self {
        Self([value; L])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller lets `L` floats be read; an array of floats is aligned as a float.
        Self(unsafe { from.cast::<[f32; L]>().read() })
    }

    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; L];
        for (i, lane) in lanes.iter_mut().enumerate().take(count) {
            // SAFETY: `i < count`, and the caller lets `count` floats be read.
            *lane = unsafe { from.add(i).read() };
        }
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn load_half(from: *const u16, format: Half) -> Self {
        // SAFETY: the caller lets `L` numbers be read; an array of them is aligned as one.
        let numbers = unsafe { from.cast::<[u16; L]>().read() };
        Self(numbers.map(|bits| format.widen(bits)))
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32) {
        for column in 0..L {
            for row in 0..L {
                // SAFETY: the caller lets the square be read, and as much written.
                unsafe {
                    to.add(column * L + row)
                        .write(from.add(row * stride + column).read())
                };
            }
        }
    }

    #[inline(always)]
    fn prefetch(_: *const f32) {}

    #[inline(always)]
    fn reciprocal(self) -> Self {
        self.map(|value| 1.0 / value)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller lets `L` floats be written.
        unsafe { to.cast::<[f32; L]>().write(self.0) }
    }

    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, count: usize) {
        for (i, lane) in self.0.into_iter().enumerate().take(count) {
            // SAFETY: `i < count`, and the caller lets `count` floats be written.
            unsafe { to.add(i).write(lane) }
        }
    }

    #[inline(always)]
    fn constant(self, value: f32) -> Self {
        Self([value; L])
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    // Two roundings: `f32::mul_add` is a library call where the baseline has no such instruction.
    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        self.mul(factor).add(term)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        self.map(f32::abs)
    }

    // Adding and subtracting 1.5 * 2^23 leaves no room for a fraction; `round_ties_even` would be
    // a library call on the baseline. Exact below 2^22, which is all that `exp` asks for.
    #[inline(always)]
    fn round(self) -> Self {
        const SHIFT: f32 = 12_582_912.0;
        self.map(|x| (x + SHIFT) - SHIFT)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        self.map(f32::sqrt)
    }

    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        self.map(|x| f32::from_bits(((x as i32).wrapping_add(127) as u32) << 23))
    }

    #[inline(always)]
    fn if_negative(self, then: Self, otherwise: Self) -> Self {
        Self(std::array::from_fn(|i| {
            if self.0[i] < 0.0 {
                then.0[i]
            } else {
                otherwise.0[i]
            }
        }))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        self.halved(|a, b| a + b)
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        self.halved(f32::max)
    }
}

/// For the tests of the algorithm on machines without the instructions.
impl<const L: usize, const R: usize> Pairs for Array<L, R> {
    #[inline(always)]
    unsafe fn round_pairs(from: *const f32, left: usize) -> Self {
        let value = |i: usize| match i < left {
            // SAFETY: the caller lets `left` floats be read.
            true => unsafe { from.add(i).read() },
            false => 0.0,
        };
        Self(std::array::from_fn(|i| {
            crate::half::pair(value(2 * i), value(2 * i + 1))
        }))
    }

    #[inline(always)]
    fn dot(self, other: Self, sum: Self) -> Self {
        let parts = |pair: f32| {
            let bits = pair.to_bits();
            [bits << 16, bits & 0xffff_0000].map(f32::from_bits)
        };
        Self(std::array::from_fn(|i| {
            let ([a, b], [c, d]) = (parts(self.0[i]), parts(other.0[i]));
            sum.0[i] + a * c + b * d
        }))
    }
}

super::table!(Portable, "portable", true);

/// The same algorithms with the sizes of AVX-512, for the tests of machines that lack it.
#[cfg(test)]
pub(crate) mod wide {
    use crate::simd::Simd;

    type Wide = super::Array<16, 8>;

    crate::isa::table!(Wide, "wide", true, pairs: true);
}
