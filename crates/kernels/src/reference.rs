//! The kernels as naive loops in double precision: the truth for tests and self-tests.
//!
//! Each takes what its namesake of [`Kernels`](crate::Kernels) takes, weights unpacked, and
//! returns what that writes. No blocking, no cleverness, no threads.

pub mod gradient;

use crate::{Adam, Attention, Convolution, Gate, Maps, Shape};

/// The error function, by its Taylor series up to 3 and its continued fraction from there on.
pub fn erf(x: f64) -> f64 {
    if x.is_nan() || x < 0.0 {
        return if x.is_nan() { x } else { -erf(-x) };
    }
    if x < 3.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            let n = f64::from(n);
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    if x > 27.0 {
        return 1.0;
    }
    let fraction = (1..=60)
        .rev()
        .fold(x, |below, n| x + f64::from(n) / 2.0 / below);
    1.0 - (-x * x).exp() / fraction / std::f64::consts::PI.sqrt()
}

/// `x / (1 + exp(-x))`.
pub fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// `x (1 + erf(x / sqrt(2))) / 2`.
pub fn gelu(x: f64) -> f64 {
    x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)) / 2.0
}

/// `x / (1 + exp(-1.702 x))`.
pub fn quick_gelu(x: f64) -> f64 {
    x / (1.0 + (-1.702 * x).exp())
}

/// See [`Kernels::product`](crate::Kernels::product); `weight` is `[outputs, inputs]`.
pub fn product(a: &[f32], weight: &[f32], inputs: usize, bias: Option<&[f32]>) -> Vec<f64> {
    let mut out = Vec::new();
    for row in a.chunks(inputs) {
        for (o, weight) in weight.chunks(inputs).enumerate() {
            let products = row
                .iter()
                .zip(weight)
                .map(|(a, w)| f64::from(*a) * f64::from(*w));
            out.push(products.sum::<f64>() + bias.map_or(0.0, |bias| f64::from(bias[o])));
        }
    }
    out
}

/// See [`Kernels::convolution`](crate::Kernels::convolution); `weight` is
/// `[outputs, inputs, kernel, kernel]`.
pub fn convolution(
    x: &[f32],
    geometry: &Convolution,
    weight: &[f32],
    [outputs, inputs, kernel]: [usize; 3],
    bias: Option<&[f32]>,
) -> Vec<f64> {
    let (rows, columns) = geometry.output(kernel);
    let (height, width) = (geometry.height, geometry.width);
    let mut out = Vec::new();
    for place in 0..geometry.images * rows * columns {
        let (image, y, x0) = (
            place / columns / rows,
            place / columns % rows,
            place % columns,
        );
        for o in 0..outputs {
            let mut sum = bias.map_or(0.0, |bias| f64::from(bias[o]));
            for tap in 0..kernel * kernel {
                let y = (y * geometry.stride + tap / kernel).wrapping_sub(geometry.padding.top);
                let x0 = (x0 * geometry.stride + tap % kernel).wrapping_sub(geometry.padding.left);
                if y >= height || x0 >= width {
                    continue;
                }
                for i in 0..inputs {
                    let w = weight[(o * inputs + i) * kernel * kernel + tap];
                    let value = x[((image * height + y) * width + x0) * inputs + i];
                    sum += f64::from(w) * f64::from(value);
                }
            }
            out.push(sum);
        }
    }
    out
}

/// Maps `[images, height, width, channels]` twice as high and wide, each pixel four times.
pub fn enlarge(x: &[f32], maps: Maps, channels: usize) -> Vec<f32> {
    let (rows, columns) = (2 * maps.height, 2 * maps.width);
    let mut out = Vec::new();
    for place in 0..maps.images * rows * columns {
        let (image, y, x0) = (
            place / columns / rows,
            place / columns % rows,
            place % columns,
        );
        let source = (image * maps.height + y / 2) * maps.width + x0 / 2;
        out.extend_from_slice(&x[source * channels..][..channels]);
    }
    out
}

/// See [`Kernels::attention`](crate::Kernels::attention).
pub fn attention(shape: &Attention, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f64> {
    let channels = shape.heads * shape.head_size;
    let shared = k.len() == shape.keys * channels;
    let mut out = vec![0.0; q.len()];
    for place in 0..shape.images * shape.queries * shape.heads {
        let (token, head) = (place / shape.heads, place % shape.heads);
        let (image, query) = (token / shape.queries, token % shape.queries);
        let first = if shared { 0 } else { image * shape.keys };
        let asked = token * channels + head * shape.head_size;
        let seen = if shape.causal { query + 1 } else { shape.keys };
        let of_key = |key: usize| (first + key) * channels + head * shape.head_size;
        let scores: Vec<f64> = (0..seen)
            .map(|key| {
                let dot: f64 = (0..shape.head_size)
                    .map(|c| f64::from(q[asked + c]) * f64::from(k[of_key(key) + c]))
                    .sum();
                dot / (shape.head_size as f64).sqrt()
            })
            .collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        for c in 0..shape.head_size {
            let value = |(key, weight): (usize, &f64)| weight * f64::from(v[of_key(key) + c]);
            out[asked + c] = weights.iter().enumerate().map(value).sum::<f64>() / sum;
        }
    }
    out
}

/// See [`Kernels::group_norm`](crate::Kernels::group_norm).
pub fn group_norm(
    x: &[f32],
    shape: Shape,
    groups: usize,
    eps: f32,
    weight: &[f32],
    bias: &[f32],
    activated: bool,
) -> Vec<f64> {
    let Shape {
        pixels, channels, ..
    } = shape;
    let size = channels / groups;
    let mut out = vec![0.0; x.len()];
    for place in 0..shape.images * groups {
        let (image, group) = (place / groups, place % groups);
        let indices = || {
            (0..pixels * size)
                .map(move |i| (image * pixels + i / size) * channels + group * size + i % size)
        };
        let (mean, deviation) = mean_and_deviation(indices().map(|i| x[i]), eps);
        for i in indices() {
            let (weight, bias) = (weight[i % channels], bias[i % channels]);
            let normal = (f64::from(x[i]) - mean) / deviation;
            let y = normal * f64::from(weight) + f64::from(bias);
            out[i] = if activated { silu(y) } else { y };
        }
    }
    out
}

/// See [`Kernels::layer_norm`](crate::Kernels::layer_norm).
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f64> {
    let mut out = Vec::new();
    for row in x.chunks(weight.len()) {
        let (mean, deviation) = mean_and_deviation(row.iter().copied(), eps);
        out.extend(row.iter().zip(weight).zip(bias).map(|((x, weight), bias)| {
            (f64::from(*x) - mean) / deviation * f64::from(*weight) + f64::from(*bias)
        }));
    }
    out
}

/// The mean, and the square root of the variance plus `eps`.
fn mean_and_deviation(values: impl Iterator<Item = f32> + Clone, eps: f32) -> (f64, f64) {
    let count = values.clone().count() as f64;
    let mean = values.clone().map(f64::from).sum::<f64>() / count;
    let square = |x: f32| (f64::from(x) - mean) * (f64::from(x) - mean);
    let variance = values.map(square).sum::<f64>() / count;
    (mean, (variance + f64::from(eps)).sqrt())
}

/// See [`Kernels::rms_norm`](crate::Kernels::rms_norm).
pub fn rms_norm(x: &[f32], shape: Shape, scale: &[f32], eps: f32) -> Vec<f64> {
    let Shape {
        pixels, channels, ..
    } = shape;
    let mut out = Vec::new();
    for (r, row) in x.chunks(channels).enumerate() {
        let first = if scale.len() == channels {
            0
        } else {
            r / pixels * channels
        };
        let square: f64 = row.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let root = (square / channels as f64 + f64::from(eps)).sqrt();
        let scale = &scale[first..][..channels];
        out.extend(
            row.iter()
                .zip(scale)
                .map(|(x, s)| f64::from(*x) * f64::from(*s) / root),
        );
    }
    out
}

/// See [`Kernels::gated`](crate::Kernels::gated).
pub fn gated(x: &[f32], channels: usize, gate: Gate) -> Vec<f64> {
    let activation = match gate {
        Gate::Gelu => gelu,
        Gate::Silu => silu,
    };
    let mut out = Vec::new();
    for row in x.chunks(2 * channels) {
        let (values, gates) = row.split_at(channels);
        let pairs = values.iter().zip(gates);
        out.extend(pairs.map(|(value, gate)| f64::from(*value) * activation(f64::from(*gate))));
    }
    out
}

/// See [`Kernels::add`](crate::Kernels::add).
pub fn add(a: &[f32], shape: Shape, b: &[f32]) -> Vec<f64> {
    let Shape {
        pixels, channels, ..
    } = shape;
    let of = |i: usize| match b.len() {
        length if length == a.len() => i,
        length if length == channels => i % channels,
        _ => i / (pixels * channels) * channels + i % channels,
    };
    let sum = |(i, a): (usize, &f32)| f64::from(*a) + f64::from(b[of(i)]);
    a.iter().enumerate().map(sum).collect()
}

/// How far `found` is from `expected`: the 2-norm of the difference by that of `expected`; NaN if
/// either has one, infinite if the lengths differ.
pub fn relative_error(found: &[f32], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let square = |x: f64| x * x;
    let difference = found
        .iter()
        .zip(expected)
        .map(|(f, e)| square(f64::from(*f) - e))
        .sum::<f64>();
    let norm = expected.iter().map(|e| square(*e)).sum::<f64>();
    if difference == 0.0 {
        return 0.0;
    }
    (difference / norm).sqrt()
}

/// One parameter in a step of [`Kernels::adam`](crate::Kernels::adam), as algorithm 1 of the paper
/// has it: what becomes of `parameter` and of its first and second moment.
pub fn adam(
    step: &Adam,
    parameter: f64,
    gradient: f64,
    [first, second]: [f64; 2],
) -> (f64, [f64; 2]) {
    let [b1, b2] = step.betas;
    let first = b1 * first + (1.0 - b1) * gradient;
    let second = b2 * second + (1.0 - b2) * gradient * gradient;
    let mean = first / (1.0 - b1.powi(step.step as i32));
    let square = second / (1.0 - b2.powi(step.step as i32));
    let parameter = parameter - step.rate * mean / (square.sqrt() + step.eps);
    (parameter, [first, second])
}
