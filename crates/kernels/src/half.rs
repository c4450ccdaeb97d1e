//! Half precision: weights that are kept in it and widened on the way, and products of bf16.
//!
//! Widening is exact, so what is computed from half-precision weights is what f32 weights of the
//! same values would give, to the bit. Products of bf16 round what they multiply to eight bits and
//! sum in f32: they are made where the machine has an instruction for them, and only of sums as they
//! stand. Winograd's transforms would lose too much.

use crate::simd::{Pairs, Simd};

/// A format of sixteen bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// IEEE 754's: five bits of exponent, ten of fraction.
    F16,
    /// The upper half of an f32.
    Bf16,
}

/// The distance of the exponents' biases of f16 and f32, as a factor.
const BIAS: f32 = f32::from_bits((112 + 127) << 23);

impl Half {
    /// The number as f32; infinities and NaNs of f16 become other numbers.
    #[inline(always)]
    pub(crate) fn widen(self, bits: u16) -> f32 {
        let bits = u32::from(bits);
        match self {
            Self::Bf16 => f32::from_bits(bits << 16),
            Self::F16 => {
                let magnitude = f32::from_bits((bits & 0x7fff) << 13) * BIAS;
                f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
            }
        }
    }

    /// The number in this format, if it is one.
    pub(crate) fn exactly(self, value: f32) -> Option<u16> {
        let bits = match self {
            Self::Bf16 => (value.to_bits() >> 16) as u16,
            Self::F16 => {
                let magnitude = (value.abs() / BIAS).to_bits() >> 13;
                let sign = (value.to_bits() >> 16) as u16 & 0x8000;
                u16::try_from(magnitude)
                    .ok()
                    .filter(|bits| *bits < 0x7c00)?
                    | sign
            }
        };
        (self.widen(bits).to_bits() == value.to_bits()).then_some(bits)
    }

    /// All numbers in this format, if they are.
    pub(crate) fn all(self, values: &[f32]) -> Option<Vec<u16>> {
        values.iter().map(|value| self.exactly(*value)).collect()
    }
}

/// Two numbers rounded to bf16 (nearest, ties to even) in a float's room.
pub(crate) fn pair(even: f32, odd: f32) -> f32 {
    let round = |value: f32| {
        let bits = value.to_bits();
        match value.is_nan() {
            true => bits >> 16 | 0x40,
            false => (bits + 0x7fff + (bits >> 16 & 1)) >> 16,
        }
    };
    f32::from_bits(round(even) | round(odd) << 16)
}

/// Rounds rows of `width` numbers, two of which go into the room of one.
pub(crate) fn pair_rows(rows: &[f32], width: usize, to: &mut [f32]) {
    for (to, from) in to.chunks_exact_mut(width).zip(rows.chunks_exact(2 * width)) {
        let (even, odd) = from.split_at(width);
        for (to, (even, odd)) in to.iter_mut().zip(even.iter().zip(odd)) {
            *to = pair(*even, *odd);
        }
    }
}

/// Widens as many numbers as there are floats.
///
/// # Safety
/// The machine has `V`'s instruction set; the slices are as long, and that is whole vectors.
#[inline(always)]
pub(crate) unsafe fn widen_body<V: Simd>(format: Half, from: &[u16], to: &mut [f32]) {
    for i in (0..to.len()).step_by(V::LANES) {
        // SAFETY: the caller's promise.
        unsafe { V::load_half(from.as_ptr().add(i), format).store(to.as_mut_ptr().add(i)) };
    }
}

/// Rounds `count` floats to pairs of bf16, one float's room each; an odd one's partner is zero, as
/// is what is left of the last vector.
///
/// # Safety
/// The machine has `V`'s instruction set, the floats can be read, and whole vectors of pairs written.
#[inline(always)]
pub(crate) unsafe fn round_body<V: Pairs>(from: *const f32, count: usize, to: *mut f32) {
    for i in (0..count).step_by(2 * V::LANES) {
        // SAFETY: the caller's promise.
        unsafe { V::round_pairs(from.add(i), count - i).store(to.add(i / 2)) };
    }
}
