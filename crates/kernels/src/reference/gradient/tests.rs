//! The reference's gradients against central differences of the reference's values.
//!
//! Everything lies on multiples of 1/64 and moves by 2^-12, so that every number is an `f32`
//! exactly; the differences' own error is then some 2^-24 of third derivatives.

use crate::reference::{self, gradient};
use crate::self_test::noise;
use crate::{Attention, Convolution, Gate, Padding, Shape};

type Function = fn(f64) -> f64;

const STEP: f32 = 1.0 / 4096.0;

/// The error of central differences with this step, for functions whose third derivative is not
/// far larger than the first.
const LIMIT: f64 = 2e-6;

fn on_grid(seed: u64, count: usize) -> Vec<f32> {
    let values = noise(seed, count);
    values.iter().map(|x| (x * 64.0).round() / 64.0).collect()
}

/// Compares `found`, the gradient of `sum(dy * f(x))`, with differences in every value of `x`.
fn check(what: &str, x: &[f32], dy: &[f32], f: impl Fn(&[f32]) -> Vec<f64>, found: &[f64]) {
    let value = |x: &[f32]| -> f64 {
        let y = f(x);
        assert_eq!(y.len(), dy.len(), "{what}");
        y.iter().zip(dy).map(|(y, dy)| y * f64::from(*dy)).sum()
    };
    assert_eq!(found.len(), x.len(), "{what}");
    let mut moved = x.to_vec();
    let (mut error, mut norm) = (0.0, 0.0);
    for (i, found) in found.iter().enumerate() {
        moved[i] = x[i] + STEP;
        let above = value(&moved);
        moved[i] = x[i] - STEP;
        let below = value(&moved);
        moved[i] = x[i];
        let expected = (above - below) / (2.0 * f64::from(STEP));
        error += (found - expected).powi(2);
        norm += expected.powi(2);
    }
    let error = (error / norm).sqrt();
    eprintln!("{what}: {error:.1e}");
    assert!(error < LIMIT, "{what}: {error:e}");
}

#[test]
fn of_activations() {
    let x: Vec<f32> = on_grid(1, 60).iter().map(|x| 4.0 * x).collect();
    let dy = on_grid(2, 60);
    let pairs: [(&str, Function, Function); 3] = [
        ("silu", reference::silu, gradient::silu),
        ("gelu", reference::gelu, gradient::gelu),
        ("quick gelu", reference::quick_gelu, gradient::quick_gelu),
    ];
    for (what, f, derivative) in pairs {
        let values = x.iter().zip(&dy);
        let found: Vec<f64> = values
            .map(|(x, dy)| derivative(f64::from(*x)) * f64::from(*dy))
            .collect();
        let f = |x: &[f32]| x.iter().map(|x| f(f64::from(*x))).collect();
        check(what, &x, &dy, f, &found);
    }
    for gate in [Gate::Gelu, Gate::Silu] {
        let found = gradient::gated(&x, 10, gate, &dy[..30]);
        let f = |x: &[f32]| reference::gated(x, 10, gate);
        check("gated", &x, &dy[..30], f, &found);
    }
}

#[test]
fn of_products() {
    let (rows, inputs, outputs) = (4, 5, 3);
    let (x, w) = (on_grid(1, rows * inputs), on_grid(2, outputs * inputs));
    let (b, dy) = (on_grid(3, outputs), on_grid(4, rows * outputs));
    let product = |x: &[f32], w: &[f32], b: &[f32]| reference::product(x, w, inputs, Some(b));
    let found = gradient::product_input(&dy, &w, outputs, inputs);
    check("dx", &x, &dy, |x| product(x, &w, &b), &found);
    let found = gradient::product_weight(&x, &dy, inputs, outputs);
    check("dw", &w, &dy, |w| product(&x, w, &b), &found);
    let found = gradient::row_sums(&dy, outputs);
    check("db", &b, &dy, |b| product(&x, &w, b), &found);
}

#[test]
fn of_convolutions() {
    let uneven = Padding {
        top: 0,
        left: 1,
        bottom: 2,
        right: 0,
    };
    for (kernel, stride, padding) in [
        (3, 1, Padding::all(1)),
        (3, 2, Padding::all(1)),
        (3, 2, uneven),
        (1, 2, Padding::default()),
    ] {
        let geometry = Convolution {
            images: 2,
            height: 5,
            width: 4,
            stride,
            padding,
        };
        let sides @ [outputs, inputs, _] = [3, 2, kernel];
        let x = on_grid(1, 2 * 5 * 4 * inputs);
        let w = on_grid(2, outputs * inputs * kernel * kernel);
        let (rows, columns) = geometry.output(kernel);
        let dy = on_grid(3, 2 * rows * columns * outputs);
        let convolve = |x: &[f32], w: &[f32]| reference::convolution(x, &geometry, w, sides, None);
        let found = gradient::convolution_input(&dy, &geometry, &w, sides);
        check("dx", &x, &dy, |x| convolve(x, &w), &found);
        let found = gradient::convolution_weight(&x, &dy, &geometry, sides);
        check("dw", &w, &dy, |w| convolve(&x, w), &found);
    }
}

#[test]
fn of_norms() {
    let shape = Shape {
        images: 2,
        pixels: 3,
        channels: 8,
    };
    let (x, dy) = (on_grid(1, shape.len()), on_grid(2, shape.len()));
    let (w, b) = (on_grid(3, 8), on_grid(4, 8));

    let layer = |x: &[f32], w: &[f32], b: &[f32]| reference::layer_norm(x, w, b, 0.125);
    let [dx, dw, db] = gradient::layer_norm(&x, &w, 0.125, &dy);
    check("layer norm dx", &x, &dy, |x| layer(x, &w, &b), &dx);
    check("layer norm dw", &w, &dy, |w| layer(&x, w, &b), &dw);
    check("layer norm db", &b, &dy, |b| layer(&x, &w, b), &db);

    for scale in [on_grid(5, 8), on_grid(5, 16)] {
        let rms = |x: &[f32], scale: &[f32]| reference::rms_norm(x, shape, scale, 0.125);
        let [dx, dscale] = gradient::rms_norm(&x, shape, &scale, 0.125, &dy);
        check("rms norm dx", &x, &dy, |x| rms(x, &scale), &dx);
        check(
            "rms norm dscale",
            &scale,
            &dy,
            |scale| rms(&x, scale),
            &dscale,
        );
    }

    for silu in [false, true] {
        let group =
            |x: &[f32], w: &[f32], b: &[f32]| reference::group_norm(x, shape, 2, 0.125, w, b, silu);
        let [dx, dw, db] = gradient::group_norm(&x, shape, 2, 0.125, &w, &b, silu, &dy);
        check("group norm dx", &x, &dy, |x| group(x, &w, &b), &dx);
        check("group norm dw", &w, &dy, |w| group(&x, w, &b), &dw);
        check("group norm db", &b, &dy, |b| group(&x, &w, b), &db);
    }
}

#[test]
fn of_attention() {
    for (queries, keys, causal, shared) in [
        (4, 4, true, false),
        (3, 5, false, true),
        (3, 5, false, false),
    ] {
        let shape = Attention {
            images: 2,
            queries,
            keys,
            heads: 2,
            head_size: 3,
            causal,
        };
        let (q, dout) = (on_grid(1, 2 * queries * 6), on_grid(4, 2 * queries * 6));
        let stacks = if shared { 1 } else { 2 };
        let (k, v) = (on_grid(2, stacks * keys * 6), on_grid(3, stacks * keys * 6));
        let attend = |q: &[f32], k: &[f32], v: &[f32]| reference::attention(&shape, q, k, v);
        let [dq, dk, dv] = gradient::attention(&shape, &q, &k, &v, &dout);
        check("dq", &q, &dout, |q| attend(q, &k, &v), &dq);
        check("dk", &k, &dout, |k| attend(&q, k, &v), &dk);
        check("dv", &v, &dout, |v| attend(&q, &k, v), &dv);
    }
}
