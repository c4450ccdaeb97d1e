//! AVX-512 (its foundation, `avx512f`): sixteen floats in a register, thirty-two registers.

use crate::half::Half;
use crate::simd::{Pairs, Simd};
use std::arch::x86_64::*;

/// Sixteen floats in a register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

/// The mask of the first `count <= 16` lanes.
#[inline(always)]
fn mask(count: usize) -> __mmask16 {
    debug_assert!(count <= 16);
    ((1_u32 << count) - 1) as __mmask16
}

impl Simd for Avx512 {
    const LANES: usize = 16;

    // Sixteen sums hide the latency of two multiply-adders; more rows would need more pointers
    // than there are registers for addresses.
    const ROWS: usize = 8;

    #[inline(always)]
    unsafe fn fill(value: f32) -> Self {
        // SAFETY: the caller has AVX-512.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has AVX-512 and lets sixteen floats be read.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller has AVX-512 and lets `count` floats be read; the mask hides the rest.
        Self(unsafe { _mm512_maskz_loadu_ps(mask(count), from) })
    }

    #[inline(always)]
    unsafe fn load_half(from: *const u16, format: Half) -> Self {
        // SAFETY: the caller has AVX-512 and lets sixteen numbers be read.
        Self(unsafe {
            let bits = _mm256_loadu_si256(from.cast());
            match format {
                Half::F16 => _mm512_cvtph_ps(bits),
                Half::Bf16 => {
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(bits)))
                }
            }
        })
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32) {
        // Pairs of rows, then fours, then quarters of registers change places, twice. Loops, not
        // closures, which would be functions without these instructions.
        // SAFETY: the caller has AVX-512, and lets the square be read and as much written.
        unsafe {
            // By `c`: of rows 4 g to 4 g + 3, columns `c`, `c + 4`, `c + 8` and `c + 12`.
            let mut fours = [[_mm512_setzero_ps(); 4]; 4];
            #[allow(clippy::needless_range_loop)] // the second index of `fours`
            for g in 0..4 {
                let row = from.add(4 * g * stride);
                let (a, b) = (_mm512_loadu_ps(row), _mm512_loadu_ps(row.add(stride)));
                let row = row.add(2 * stride);
                let (c, d) = (_mm512_loadu_ps(row), _mm512_loadu_ps(row.add(stride)));
                let (upper, lower) = (_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
                fours[0][g] = _mm512_shuffle_ps::<0x44>(upper, lower);
                fours[1][g] = _mm512_shuffle_ps::<0xee>(upper, lower);
                let (upper, lower) = (_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
                fours[2][g] = _mm512_shuffle_ps::<0x44>(upper, lower);
                fours[3][g] = _mm512_shuffle_ps::<0xee>(upper, lower);
            }
            for (c, [a, b, d, e]) in fours.into_iter().enumerate() {
                let even = [
                    _mm512_shuffle_f32x4::<0x88>(a, b),
                    _mm512_shuffle_f32x4::<0x88>(d, e),
                ];
                let odd = [
                    _mm512_shuffle_f32x4::<0xdd>(a, b),
                    _mm512_shuffle_f32x4::<0xdd>(d, e),
                ];
                let columns = [
                    _mm512_shuffle_f32x4::<0x88>(even[0], even[1]),
                    _mm512_shuffle_f32x4::<0x88>(odd[0], odd[1]),
                    _mm512_shuffle_f32x4::<0xdd>(even[0], even[1]),
                    _mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1]),
                ];
                for (quarter, column) in columns.into_iter().enumerate() {
                    _mm512_storeu_ps(to.add((quarter * 4 + c) * 16), column);
                }
            }
        }
    }

    #[inline(always)]
    fn prefetch(from: *const f32) {
        // SAFETY: a prefetch of any address does nothing else; SSE is in every x86-64 machine.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    fn times_exp2(self, exponent: Self) -> Self {
        // SAFETY: `self` proves AVX-512.
        Self(unsafe { _mm512_scalef_ps(self.0, exponent.0) })
    }

    #[inline(always)]
    fn reciprocal(self) -> Self {
        // Fourteen bits, then twice as many by a step of Newton's.
        // SAFETY: `self` proves AVX-512.
        Self(unsafe {
            let guess = _mm512_rcp14_ps(self.0);
            let error = _mm512_fnmadd_ps(self.0, guess, _mm512_set1_ps(1.0));
            _mm512_fmadd_ps(guess, error, guess)
        })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: `self` proves AVX-512; the caller lets sixteen floats be written.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, count: usize) {
        // SAFETY: `self` proves AVX-512; the caller lets `count` floats be written; the mask
        // hides the rest.
        unsafe { _mm512_mask_storeu_ps(to, mask(count), self.0) }
    }

    #[inline(always)]
    fn constant(self, value: f32) -> Self {
        // SAFETY: `self` proves AVX-512.
        unsafe { Self::fill(value) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX-512.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX-512.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX-512.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: `self` proves AVX-512.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX-512.
        Self(unsafe { _mm512_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX-512.
        Self(unsafe { _mm512_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: `self` proves AVX-512.
        Self(unsafe { _mm512_abs_ps(self.0) })
    }

    #[inline(always)]
    fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: `self` proves AVX-512.
        Self(unsafe { _mm512_roundscale_ps::<NEAREST>(self.0) })
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: `self` proves AVX-512.
        Self(unsafe { _mm512_sqrt_ps(self.0) })
    }

    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        // SAFETY: `self` proves AVX-512.
        Self(unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        })
    }

    #[inline(always)]
    fn if_negative(self, then: Self, otherwise: Self) -> Self {
        // SAFETY: `self` proves AVX-512.
        Self(unsafe {
            let negative = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, _mm512_setzero_ps());
            _mm512_mask_blend_ps(negative, otherwise.0, then.0)
        })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_reduce_add_ps(self.0) }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
}

impl Pairs for Avx512 {
    #[inline(always)]
    unsafe fn round_pairs(from: *const f32, left: usize) -> Self {
        // SAFETY: the caller has AVX-512 with its bf16 products, and lets the floats be read. The
        // second vector's address is used only where there is a float.
        Self(unsafe {
            let low = Self::load_up_to(from, left);
            let high = match left.saturating_sub(Self::LANES) {
                0 => Self::fill(0.0),
                left => Self::load_up_to(from.add(Self::LANES), left),
            };
            let pairs = _mm512_cvtne2ps_pbh(high.0, low.0);
            std::mem::transmute::<__m512bh, __m512>(pairs)
        })
    }

    #[inline(always)]
    fn dot(self, other: Self, sum: Self) -> Self {
        // SAFETY: `self` proves AVX-512 with its bf16 products; all are 512 bits.
        Self(unsafe {
            let pairs = |vector: Self| std::mem::transmute::<__m512, __m512bh>(vector.0);
            _mm512_dpbf16_ps(sum.0, pairs(self), pairs(other))
        })
    }
}

super::table!(
    Avx512,
    "avx512",
    std::arch::is_x86_feature_detected!("avx512f"),
    #[target_feature(enable = "avx512f")],
    pairs: std::arch::is_x86_feature_detected!("avx512bf16"),
    #[target_feature(enable = "avx512f,avx512bf16")]
);
