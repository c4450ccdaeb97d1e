//! Gradients of what works on each value alone; and sums of gradients.

use crate::Kernels;
use crate::activation::{Activation, Gate, exp, normal_distribution, silu};
use crate::simd::Simd;
use crate::threads::for_each_rows;

impl Kernels {
    /// `dx = dy silu'(x)`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn silu_gradient(&self, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        self.activation_gradient(Activation::Silu, x, dy, dx);
    }

    /// `dx = dy gelu'(x)`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn gelu_gradient(&self, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        self.activation_gradient(Activation::Gelu, x, dy, dx);
    }

    /// `dx = dy quick_gelu'(x)`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn quick_gelu_gradient(&self, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        self.activation_gradient(Activation::QuickGelu, x, dy, dx);
    }

    fn activation_gradient(&self, kind: Activation, x: &[f32], dy: &[f32], dx: &mut [f32]) {
        assert_eq!(x.len(), dy.len(), "length of dy");
        assert_eq!(x.len(), dx.len(), "length of dx");
        for_each_rows(x, 1, dx, 1, |first, x, dx| {
            let dy = &dy[first..][..x.len()];
            // SAFETY: this machine has this table's instruction set; the lengths are equal.
            unsafe { (self.activation_gradient)(kind, x, dy, dx) }
        });
    }

    /// The gradient of [`Kernels::gated`]: of `x` `[rows, 2 * channels]`, into `dx` as long, for
    /// `dy` `[rows, channels]`.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn gated_gradient(
        &self,
        x: &[f32],
        channels: usize,
        gate: Gate,
        dy: &[f32],
        dx: &mut [f32],
    ) {
        assert_eq!(x.len(), 2 * dy.len(), "length of dy");
        assert_eq!(x.len(), dx.len(), "length of dx");
        assert_eq!(dy.len() % channels, 0, "dy is not whole rows");
        let row = 2 * channels;
        for_each_rows(x, row, dx, row, |first, x, dx| {
            let dy = &dy[first * channels..][..x.len() / 2];
            // SAFETY: this machine has this table's instruction set; the rows are whole.
            unsafe { (self.gated_gradient)(gate, channels, x, dy, dx) }
        });
    }

    /// `into += x`: gradients of a value that was used more than once.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn accumulate(&self, x: &[f32], into: &mut [f32]) {
        assert_eq!(x.len(), into.len(), "length of into");
        // SAFETY: this machine has this table's instruction set; the lengths are equal.
        for_each_rows(x, 1, into, 1, |_, x, into| unsafe {
            (self.accumulate)(x, into)
        });
    }
}

/// A function of one value and its derivative, on vectors.
trait Derivative {
    fn both<V: Simd>(x: V) -> [V; 2];
}

struct Silu;
struct Gelu;
struct QuickGelu;

impl Derivative for Silu {
    #[inline(always)]
    fn both<V: Simd>(x: V) -> [V; 2] {
        [silu(x), silu_derivative(x)]
    }
}

impl Derivative for Gelu {
    /// `Φ(x) + x φ(x)`, of the normal distribution and its density.
    #[inline(always)]
    fn both<V: Simd>(x: V) -> [V; 2] {
        const DENSITY_AT_0: f32 = 0.398_942_3;
        let distribution = normal_distribution(x);
        // Beyond 20 both are 0 or 1, and an infinite `x` times no density would be a NaN.
        let bounded = x.constant(20.0).min(x.constant(-20.0).max(x));
        let density = exp(bounded.mul(bounded).mul(x.constant(-0.5)));
        let slope = bounded.mul(x.constant(DENSITY_AT_0));
        [x.mul(distribution), density.mul_add(slope, distribution)]
    }
}

impl Derivative for QuickGelu {
    #[inline(always)]
    fn both<V: Simd>(x: V) -> [V; 2] {
        let scaled = x.mul(x.constant(1.702));
        let [sigmoid, _] = sigmoids(scaled);
        // x σ(s x) is silu(s x) / s, whose derivative is that of SiLU at s x.
        [x.mul(sigmoid), silu_derivative(scaled)]
    }
}

/// `σ(x) (1 + x σ(-x))` with `σ(x) = 1 / (1 + e^-x)`: `1 - σ(x)` would cancel.
#[inline(always)]
pub(super) fn silu_derivative<V: Simd>(x: V) -> V {
    let [sigmoid, complement] = sigmoids(x);
    // Beyond 87 it is 0 or 1, and an infinite `x` times nothing would be a NaN.
    let x = x.constant(87.0).min(x.constant(-87.0).max(x));
    sigmoid.mul(complement.mul_add(x, x.constant(1.0)))
}

/// `σ(x)` and `σ(-x)`, by the exponential that does not overflow.
#[inline(always)]
fn sigmoids<V: Simd>(x: V) -> [V; 2] {
    let e = exp(x.constant(0.0).sub(x.abs()));
    let upper = x.constant(1.0).add(e).reciprocal();
    let lower = e.mul(upper);
    [x.if_negative(lower, upper), x.if_negative(upper, lower)]
}

/// `dx = dy f'(x)` of every value.
///
/// # Safety
/// The machine has `V`'s instruction set; the slices are as long.
#[inline(always)]
pub(crate) unsafe fn activation_gradient_body<V: Simd>(
    kind: Activation,
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) {
    // SAFETY: the caller's promise.
    unsafe {
        match kind {
            Activation::Silu => gradient::<V, Silu>(x, dy, dx),
            Activation::Gelu => gradient::<V, Gelu>(x, dy, dx),
            Activation::QuickGelu => gradient::<V, QuickGelu>(x, dy, dx),
        }
    }
}

/// # Safety
/// As [`activation_gradient_body`]'s.
#[inline(always)]
unsafe fn gradient<V: Simd, F: Derivative>(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    // SAFETY: the slices are as long; the last vector touches only what is left.
    unsafe {
        for i in (0..x.len()).step_by(V::LANES) {
            let left = x.len() - i;
            let [_, derivative] = F::both(V::load_up_to(x.as_ptr().add(i), left));
            V::load_up_to(dy.as_ptr().add(i), left)
                .mul(derivative)
                .store_up_to(dx.as_mut_ptr().add(i), left);
        }
    }
}

/// The gradient of a gated product, row by row.
///
/// # Safety
/// The machine has `V`'s instruction set; `x` and `dx` are rows of `2 * channels`, `dy` as many
/// of `channels`.
#[inline(always)]
pub(crate) unsafe fn gated_gradient_body<V: Simd>(
    gate: Gate,
    channels: usize,
    x: &[f32],
    dy: &[f32],
    dx: &mut [f32],
) {
    let rows = x.chunks(2 * channels).zip(dy.chunks(channels));
    for ((x, dy), dx) in rows.zip(dx.chunks_mut(2 * channels)) {
        // SAFETY: the rows are whole.
        unsafe {
            match gate {
                Gate::Gelu => gated_row::<V, Gelu>(x, dy, dx),
                Gate::Silu => gated_row::<V, Silu>(x, dy, dx),
            }
        }
    }
}

/// # Safety
/// The machine has `V`'s instruction set; `x` and `dx` are twice as long as `dy`.
#[inline(always)]
unsafe fn gated_row<V: Simd, F: Derivative>(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let (values, gates) = x.split_at(dy.len());
    let (value_gradients, gate_gradients) = dx.split_at_mut(dy.len());
    // SAFETY: the five slices are as long; the last vector touches only what is left.
    unsafe {
        for i in (0..dy.len()).step_by(V::LANES) {
            let left = dy.len() - i;
            let [gate, derivative] = F::both(V::load_up_to(gates.as_ptr().add(i), left));
            let dy = V::load_up_to(dy.as_ptr().add(i), left);
            let value = V::load_up_to(values.as_ptr().add(i), left);
            dy.mul(gate)
                .store_up_to(value_gradients.as_mut_ptr().add(i), left);
            dy.mul(value)
                .mul(derivative)
                .store_up_to(gate_gradients.as_mut_ptr().add(i), left);
        }
    }
}

/// `into += x`.
///
/// # Safety
/// The machine has `V`'s instruction set; the slices are as long.
#[inline(always)]
pub(crate) unsafe fn accumulate_body<V: Simd>(x: &[f32], into: &mut [f32]) {
    // SAFETY: the slices are as long; the last vector touches only what is left.
    unsafe {
        for i in (0..x.len()).step_by(V::LANES) {
            let (left, into) = (x.len() - i, into.as_mut_ptr().add(i));
            V::load_up_to(into, left)
                .add(V::load_up_to(x.as_ptr().add(i), left))
                .store_up_to(into, left);
        }
    }
}
