//! What works on each value alone: activations, gates, additions; and the functions under them.

use crate::simd::Simd;
use crate::threads::for_each_rows;
use crate::{Kernels, Shape};
use rayon::prelude::*;

/// A function of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    Silu,
    Gelu,
    QuickGelu,
}

/// What is done to the gate of a gated product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// GEGLU: the exact GELU.
    Gelu,
    /// SwiGLU.
    Silu,
}

impl Kernels {
    /// `out = x / (1 + exp(-x))`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn silu(&self, x: &[f32], out: &mut [f32]) {
        self.activate(Activation::Silu, x, out);
    }

    /// `out = x (1 + erf(x / sqrt(2))) / 2`: GELU itself, not its approximation by tanh.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn gelu(&self, x: &[f32], out: &mut [f32]) {
        self.activate(Activation::Gelu, x, out);
    }

    /// `out = x / (1 + exp(-1.702 x))`, as in OpenAI's CLIP.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn quick_gelu(&self, x: &[f32], out: &mut [f32]) {
        self.activate(Activation::QuickGelu, x, out);
    }

    fn activate(&self, kind: Activation, x: &[f32], out: &mut [f32]) {
        assert_eq!(x.len(), out.len(), "length of out");
        // SAFETY: this machine has this table's instruction set; the lengths are equal.
        for_each_rows(x, 1, out, 1, |_, x, out| unsafe {
            (self.activate)(kind, x, out)
        });
    }

    /// `out = value * gate(x)` of `x` `[rows, 2 * channels]`, the values in the first half of a
    /// row, the gates in the second; `out` is `[rows, channels]`.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn gated(&self, x: &[f32], channels: usize, gate: Gate, out: &mut [f32]) {
        assert_eq!(x.len(), 2 * out.len(), "length of out");
        assert_eq!(out.len() % channels, 0, "out is not whole rows");
        // SAFETY: this machine has this table's instruction set; the rows are whole.
        for_each_rows(x, 2 * channels, out, channels, |_, x, out| unsafe {
            (self.gated)(gate, channels, x, out)
        });
    }

    /// `out = a + b`, where `b` is as long as `a`, or one row of channels for each image, or one
    /// for all.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn add(&self, a: &[f32], shape: Shape, b: &[f32], out: &mut [f32]) {
        let Shape {
            pixels, channels, ..
        } = shape;
        assert_eq!(a.len(), shape.len(), "length of a");
        assert_eq!(out.len(), a.len(), "length of out");
        if b.len() == a.len() {
            for_each_rows(a, 1, out, 1, |first, a, out| {
                let b = &b[first..][..a.len()];
                // SAFETY: this machine has this table's instruction set; the lengths are equal.
                unsafe { (self.add)(a, b, out) }
            });
            return;
        }
        let rows = shape.rows_of(b);
        let images = out.par_chunks_mut((pixels * channels).max(1));
        images.enumerate().for_each(|(image, out)| {
            let a = &a[image * pixels * channels..][..out.len()];
            // SAFETY: this machine has this table's instruction set; `a` is whole rows.
            for_each_rows(a, channels, out, channels, |_, a, out| unsafe {
                (self.add)(a, rows(image), out)
            });
        });
    }
}

/// A function of one value, on vectors.
trait Map {
    fn apply<V: Simd>(x: V) -> V;
}

struct Silu;
struct Gelu;
struct QuickGelu;

impl Map for Silu {
    #[inline(always)]
    fn apply<V: Simd>(x: V) -> V {
        silu(x)
    }
}

impl Map for Gelu {
    #[inline(always)]
    fn apply<V: Simd>(x: V) -> V {
        x.mul(normal_distribution(x))
    }
}

impl Map for QuickGelu {
    #[inline(always)]
    fn apply<V: Simd>(x: V) -> V {
        x.mul(sigmoid(x.mul(x.constant(1.702))))
    }
}

/// An activation of every value.
///
/// # Safety
/// The machine has `V`'s instruction set; `out` is as long as `x`.
#[inline(always)]
pub(crate) unsafe fn activate_body<V: Simd>(kind: Activation, x: &[f32], out: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe {
        match kind {
            Activation::Silu => map::<V, Silu>(x, out),
            Activation::Gelu => map::<V, Gelu>(x, out),
            Activation::QuickGelu => map::<V, QuickGelu>(x, out),
        }
    }
}

/// # Safety
/// As [`activate_body`]'s.
#[inline(always)]
unsafe fn map<V: Simd, F: Map>(x: &[f32], out: &mut [f32]) {
    // SAFETY: both slices are as long; the last vector touches only what is left.
    unsafe {
        for i in (0..x.len()).step_by(V::LANES) {
            let left = x.len() - i;
            let y = F::apply(V::load_up_to(x.as_ptr().add(i), left));
            y.store_up_to(out.as_mut_ptr().add(i), left);
        }
    }
}

/// A gated product, row by row.
///
/// # Safety
/// The machine has `V`'s instruction set; `x` is rows of `2 * channels`, `out` as many of
/// `channels`.
#[inline(always)]
pub(crate) unsafe fn gated_body<V: Simd>(gate: Gate, channels: usize, x: &[f32], out: &mut [f32]) {
    for (x, out) in x.chunks(2 * channels).zip(out.chunks_mut(channels)) {
        let (values, gates) = x.split_at(channels);
        // SAFETY: the three slices are as long.
        unsafe {
            match gate {
                Gate::Gelu => gated_row::<V, Gelu>(values, gates, out),
                Gate::Silu => gated_row::<V, Silu>(values, gates, out),
            }
        }
    }
}

/// # Safety
/// The machine has `V`'s instruction set; the slices are as long.
#[inline(always)]
unsafe fn gated_row<V: Simd, F: Map>(values: &[f32], gates: &[f32], out: &mut [f32]) {
    // SAFETY: the slices are as long; the last vector touches only what is left.
    unsafe {
        for i in (0..out.len()).step_by(V::LANES) {
            let left = out.len() - i;
            let gate = F::apply(V::load_up_to(gates.as_ptr().add(i), left));
            V::load_up_to(values.as_ptr().add(i), left)
                .mul(gate)
                .store_up_to(out.as_mut_ptr().add(i), left);
        }
    }
}

/// `b` added to each run of `a` that is as long.
///
/// # Safety
/// The machine has `V`'s instruction set; `a` and `out` are as long, a multiple of `b`'s length.
#[inline(always)]
pub(crate) unsafe fn add_body<V: Simd>(a: &[f32], b: &[f32], out: &mut [f32]) {
    for (a, out) in a.chunks(b.len()).zip(out.chunks_mut(b.len())) {
        // SAFETY: the three slices are as long; the last vector touches only what is left.
        unsafe {
            for i in (0..b.len()).step_by(V::LANES) {
                let left = b.len() - i;
                V::load_up_to(a.as_ptr().add(i), left)
                    .add(V::load_up_to(b.as_ptr().add(i), left))
                    .store_up_to(out.as_mut_ptr().add(i), left);
            }
        }
    }
}

/// `x / (1 + exp(-x))`.
#[inline(always)]
pub(crate) fn silu<V: Simd>(x: V) -> V {
    x.mul(sigmoid(x))
}

/// `1 / (1 + exp(-x))`, by the exponential that does not overflow; 0 where that is.
#[inline(always)]
fn sigmoid<V: Simd>(x: V) -> V {
    let e = exp(x.constant(0.0).sub(x.abs()));
    let upper = x.constant(1.0).add(e).reciprocal();
    x.if_negative(e.mul(upper), upper)
}

/// `e^x` within 2 units in the last place for `x <= 0`; 0 below -87.3, where normal numbers end.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`, so `e^x = 2^n e^r`, and `e^r` is a polynomial of degree 6
/// whose relative error is 3.1e-9 (least maximum, by Lawson's iteration on Chebyshev nodes).
/// `ln 2` is taken in two parts, the first so short that `n` times it is exact.
#[inline(always)]
pub(crate) fn exp<V: Simd>(x: V) -> V {
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const P: [f32; 5] = [
        0.5,
        0.166_665_21,
        0.041_668_39,
        0.008_368_71,
        0.001_381_461_3,
    ];
    const END: f32 = -87.3;
    let distance = x.sub(x.constant(END));
    // `x` comes second, so that a NaN stays one.
    let x = x.constant(END).max(x);
    let n = x.mul(x.constant(std::f32::consts::LOG2_E)).round();
    let r = n.mul_add(x.constant(-LN_2_HIGH), x);
    let r = n.mul_add(x.constant(-LN_2_LOW), r);
    let p = polynomial(r, &P);
    let e = r.mul(r).mul_add(p, r).add(x.constant(1.0));
    distance.if_negative(x.constant(0.0), e.times_exp2(n))
}

/// The distribution function of the normal distribution, `(1 + erf(x / sqrt(2))) / 2`, within
/// 1e-7 absolutely, and of small relative error in the lower tail.
///
/// Up to `z = |x| = 1` it is `1/2 + x Q(x^2)`, `Q` within 7.4e-9. The tail beyond a larger `z` is
/// `exp(-z^2 / 2) t P(t)` with `t = 1 / (1 + 0.35 z)`, a form that Hastings used (Approximations
/// for Digital Computers, 1955); the relative error of `P` is 3.2e-8 for `z` up to 14, beyond which
/// the tail is below the smallest `f32`. (Least maxima, found as above.)
#[inline(always)]
pub(crate) fn normal_distribution<V: Simd>(x: V) -> V {
    const Q: [f32; 5] = [
        0.398_942_2,
        -0.066_488_73,
        0.009_964_167,
        -0.001_165_350_8,
        0.000_092_468_385,
    ];
    const P: [f32; 9] = [
        0.139_621_4,
        0.139_861_87,
        0.119_832_87,
        0.105_507_99,
        -0.023_109_814,
        0.159_174_13,
        -0.255_714_24,
        0.143_971_68,
        -0.029_145_928,
    ];
    let (half, one) = (x.constant(0.5), x.constant(1.0));
    let z = x.abs();
    let square = x.mul(x);
    let middle = x.mul_add(polynomial(square, &Q), half);
    // From 30 on the density is 0 whatever stands beside it.
    let t = x
        .constant(30.0)
        .min(z)
        .mul_add(x.constant(0.35), one)
        .reciprocal();
    let density = exp(square.mul(x.constant(-0.5)));
    let tail = density.mul(t).mul(polynomial(t, &P));
    let outer = x.if_negative(tail, one.sub(tail));
    z.sub(one).if_negative(middle, outer)
}

/// `c[0] + c[1] x + c[2] x^2 + ...` (Horner).
#[inline(always)]
fn polynomial<V: Simd, const N: usize>(x: V, c: &[f32; N]) -> V {
    let mut sum = x.constant(c[N - 1]);
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        sum = sum.mul_add(x, x.constant(c[i]));
    }
    sum
}
