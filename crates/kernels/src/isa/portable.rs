//! The instruction set of any machine: arrays of four floats, which the compiler turns into
//! whatever the target's baseline has (SSE2, NEON).

use crate::simd::Simd;

/// Four floats.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; 4]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }

    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Self(self.0.map(f))
    }
}

impl Simd for Portable {
    const LANES: usize = 4;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn fill(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller lets four floats be read; an array of floats is aligned as a float.
        Self(unsafe { from.cast::<[f32; 4]>().read() })
    }

    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; 4];
        for (i, lane) in lanes.iter_mut().enumerate().take(count) {
            // SAFETY: `i < count`, and the caller lets `count` floats be read.
            *lane = unsafe { from.add(i).read() };
        }
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller lets four floats be written.
        unsafe { to.cast::<[f32; 4]>().write(self.0) }
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
        Self([value; 4])
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

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
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
        let [a, b, c, d] = self.0;
        (a + c) + (b + d)
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        let [a, b, c, d] = self.0;
        a.max(c).max(b.max(d))
    }
}

super::table!(Portable, "portable", true);
