//! AVX2 with FMA: eight floats in a register, sixteen registers. Intel since 2013, AMD since 2015.

use crate::half::Half;
use crate::simd::Simd;
use std::arch::x86_64::*;

/// Eight floats in a register.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256);

/// Eight ones, then eight zeros: read from `8 - count` on, a mask of the first `count` lanes.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// The mask of the first `count <= 8` lanes.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn mask(count: usize) -> __m256i {
    debug_assert!(count <= 8);
    // SAFETY: `8 - count ..` leaves at least eight numbers of `MASKS`.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - count).cast()) }
}

impl Simd for Avx2 {
    const LANES: usize = 8;
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn fill(value: f32) -> Self {
        // SAFETY: the caller has AVX2.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has AVX2 and lets eight floats be read.
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller has AVX2 and lets `count` floats be read; the mask hides the rest.
        Self(unsafe { _mm256_maskload_ps(from, mask(count)) })
    }

    #[inline(always)]
    unsafe fn load_half(from: *const u16, format: Half) -> Self {
        // SAFETY: the caller has AVX2 and F16C and lets eight numbers be read.
        Self(unsafe {
            let bits = _mm_loadu_si128(from.cast());
            match format {
                Half::F16 => _mm256_cvtph_ps(bits),
                Half::Bf16 => {
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(bits)))
                }
            }
        })
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32) {
        // Pairs of rows, then fours, then halves of registers change places. Loops, not closures,
        // which would be functions without these instructions.
        // SAFETY: the caller has AVX2, and lets the square be read and as much written.
        unsafe {
            // By `c`: columns `c` and `c + 4` of rows 0 to 3, and of rows 4 to 7.
            let mut fours = [[_mm256_setzero_ps(); 2]; 4];
            #[allow(clippy::needless_range_loop)] // the second index of `fours`
            for half in 0..2 {
                let row = from.add(4 * half * stride);
                let (a, b) = (_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(stride)));
                let row = row.add(2 * stride);
                let (c, d) = (_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(stride)));
                let (upper, lower) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                fours[0][half] = _mm256_shuffle_ps::<0x44>(upper, lower);
                fours[1][half] = _mm256_shuffle_ps::<0xee>(upper, lower);
                let (upper, lower) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
                fours[2][half] = _mm256_shuffle_ps::<0x44>(upper, lower);
                fours[3][half] = _mm256_shuffle_ps::<0xee>(upper, lower);
            }
            for (c, [upper, lower]) in fours.into_iter().enumerate() {
                let first = _mm256_permute2f128_ps::<0x20>(upper, lower);
                let second = _mm256_permute2f128_ps::<0x31>(upper, lower);
                _mm256_storeu_ps(to.add(c * 8), first);
                _mm256_storeu_ps(to.add((c + 4) * 8), second);
            }
        }
    }

    #[inline(always)]
    fn prefetch(from: *const f32) {
        // SAFETY: a prefetch of any address does nothing else; SSE is in every x86-64 machine.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }

    #[inline(always)]
    fn reciprocal(self) -> Self {
        // The estimate there is has too few bits for one step of Newton's.
        // SAFETY: `self` proves AVX2.
        Self(unsafe { _mm256_div_ps(_mm256_set1_ps(1.0), self.0) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: `self` proves AVX2; the caller lets eight floats be written.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn store_partial(self, to: *mut f32, count: usize) {
        // SAFETY: `self` proves AVX2; the caller lets `count` floats be written; the mask hides
        // the rest.
        unsafe { _mm256_maskstore_ps(to, mask(count), self.0) }
    }

    #[inline(always)]
    fn constant(self, value: f32) -> Self {
        // SAFETY: `self` proves AVX2.
        unsafe { Self::fill(value) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX2.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX2.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX2.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: `self` proves AVX2 and FMA, which the table asks for together.
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, term.0) })
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX2.
        Self(unsafe { _mm256_max_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        // SAFETY: `self` proves AVX2.
        Self(unsafe { _mm256_min_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: `self` proves AVX2.
        Self(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }

    #[inline(always)]
    fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: `self` proves AVX2.
        Self(unsafe { _mm256_round_ps::<NEAREST>(self.0) })
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        // SAFETY: `self` proves AVX2.
        Self(unsafe { _mm256_sqrt_ps(self.0) })
    }

    #[inline(always)]
    fn exp2_of_integer(self) -> Self {
        // SAFETY: `self` proves AVX2.
        Self(unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        })
    }

    #[inline(always)]
    fn if_negative(self, then: Self, otherwise: Self) -> Self {
        // SAFETY: `self` proves AVX2.
        Self(unsafe {
            let negative = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, _mm256_setzero_ps());
            _mm256_blendv_ps(otherwise.0, then.0, negative)
        })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let four = _mm_add_ps(
                _mm256_castps256_ps128(self.0),
                _mm256_extractf128_ps::<1>(self.0),
            );
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let four = _mm_max_ps(
                _mm256_castps256_ps128(self.0),
                _mm256_extractf128_ps::<1>(self.0),
            );
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }
}

super::table!(
    Avx2,
    "avx2",
    std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("fma")
        && std::arch::is_x86_feature_detected!("f16c"),
    #[target_feature(enable = "avx2,fma,f16c")]
);
