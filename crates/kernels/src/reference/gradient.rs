//! The gradients of the kernels as naive loops in double precision.
//!
//! Each takes what its namesake of [`Kernels`](crate::Kernels) takes and returns what that writes,
//! in the same order. Formulas are those of calculus, taken apart one value at a time.

#[cfg(test)]
mod tests;

use super::{erf, mean_and_deviation};
use crate::{Attention, Convolution, Gate, Shape};

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The derivative of [`silu`](super::silu).
pub fn silu(x: f64) -> f64 {
    sigmoid(x) * (1.0 + x * sigmoid(-x))
}

/// The derivative of [`gelu`](super::gelu).
pub fn gelu(x: f64) -> f64 {
    let density = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)) / 2.0 + x * density
}

/// The derivative of [`quick_gelu`](super::quick_gelu).
pub fn quick_gelu(x: f64) -> f64 {
    silu(1.702 * x)
}

/// See [`Kernels::product_input_gradient`](crate::Kernels::product_input_gradient).
pub fn product_input(dy: &[f32], weight: &[f32], outputs: usize, inputs: usize) -> Vec<f64> {
    let mut dx = Vec::new();
    for dy in dy.chunks(outputs) {
        for i in 0..inputs {
            let term = |(o, dy): (usize, &f32)| f64::from(*dy) * f64::from(weight[o * inputs + i]);
            dx.push(dy.iter().enumerate().map(term).sum());
        }
    }
    dx
}

/// See [`Kernels::product_weight_gradient`](crate::Kernels::product_weight_gradient).
pub fn product_weight(x: &[f32], dy: &[f32], inputs: usize, outputs: usize) -> Vec<f64> {
    let mut dw = vec![0.0; outputs * inputs];
    for (x, dy) in x.chunks(inputs).zip(dy.chunks(outputs)) {
        for (place, dw) in dw.iter_mut().enumerate() {
            *dw += f64::from(dy[place / inputs]) * f64::from(x[place % inputs]);
        }
    }
    dw
}

/// See [`Kernels::row_sums`](crate::Kernels::row_sums).
pub fn row_sums(dy: &[f32], channels: usize) -> Vec<f64> {
    let column = |c: usize| dy[c..].iter().step_by(channels).copied().map(f64::from);
    (0..channels).map(|c| column(c).sum()).collect()
}

/// Calls `visit(x, dy, weight)` with the places of every product of a convolution.
fn each_product(
    geometry: &Convolution,
    [outputs, inputs, kernel]: [usize; 3],
    mut visit: impl FnMut(usize, usize, usize),
) {
    let (rows, columns) = geometry.output(kernel);
    for place in 0..geometry.images * rows * columns {
        let (image, row, column) = (
            place / columns / rows,
            place / columns % rows,
            place % columns,
        );
        for tap in 0..kernel * kernel {
            let y = (row * geometry.stride + tap / kernel).wrapping_sub(geometry.padding.top);
            let x = (column * geometry.stride + tap % kernel).wrapping_sub(geometry.padding.left);
            if y >= geometry.height || x >= geometry.width {
                continue;
            }
            let pixel = (image * geometry.height + y) * geometry.width + x;
            for o in 0..outputs {
                for i in 0..inputs {
                    let weight = (o * inputs + i) * kernel * kernel + tap;
                    visit(pixel * inputs + i, place * outputs + o, weight);
                }
            }
        }
    }
}

/// See [`Kernels::convolution_input_gradient`](crate::Kernels::convolution_input_gradient).
pub fn convolution_input(
    dy: &[f32],
    geometry: &Convolution,
    weight: &[f32],
    sides: [usize; 3],
) -> Vec<f64> {
    let mut dx = vec![0.0; geometry.images * geometry.height * geometry.width * sides[1]];
    each_product(geometry, sides, |x, y, w| {
        dx[x] += f64::from(dy[y]) * f64::from(weight[w]);
    });
    dx
}

/// See [`Kernels::convolution_weight_gradient`](crate::Kernels::convolution_weight_gradient).
pub fn convolution_weight(
    x: &[f32],
    dy: &[f32],
    geometry: &Convolution,
    sides: [usize; 3],
) -> Vec<f64> {
    let mut dw = vec![0.0; sides[0] * sides[1] * sides[2] * sides[2]];
    each_product(geometry, sides, |i, y, w| {
        dw[w] += f64::from(dy[y]) * f64::from(x[i]);
    });
    dw
}

/// See [`Kernels::gated_gradient`](crate::Kernels::gated_gradient).
pub fn gated(x: &[f32], channels: usize, gate: Gate, dy: &[f32]) -> Vec<f64> {
    let [activation, derivative] = match gate {
        Gate::Gelu => [super::gelu, gelu],
        Gate::Silu => [super::silu, silu],
    };
    let mut dx = Vec::new();
    for (x, dy) in x.chunks(2 * channels).zip(dy.chunks(channels)) {
        let of = |f: &dyn Fn(usize) -> f64| -> Vec<f64> {
            (0..channels).map(|c| f64::from(dy[c]) * f(c)).collect()
        };
        let gate = |c: usize| f64::from(x[channels + c]);
        dx.extend(of(&|c| activation(gate(c))));
        dx.extend(of(&|c| f64::from(x[c]) * derivative(gate(c))));
    }
    dx
}

/// `(g - mean(g) - n mean(g n)) / deviation` for values that were normalised together; RMS norm
/// leaves the first mean out.
fn normalised(normal: &[f64], g: &[f64], deviation: f64, centred: bool) -> Vec<f64> {
    let count = g.len() as f64;
    let mean = if centred {
        g.iter().sum::<f64>() / count
    } else {
        0.0
    };
    let along = g.iter().zip(normal).map(|(g, n)| g * n).sum::<f64>() / count;
    let pairs = g.iter().zip(normal);
    pairs
        .map(|(g, n)| (g - mean - n * along) / deviation)
        .collect()
}

/// `[dx, dweight, dbias]` of [`Kernels::layer_norm_gradient`](crate::Kernels::layer_norm_gradient).
pub fn layer_norm(x: &[f32], weight: &[f32], eps: f32, dy: &[f32]) -> [Vec<f64>; 3] {
    let channels = weight.len();
    let mut dx = Vec::new();
    let mut parameters = [vec![0.0; channels], vec![0.0; channels]];
    for (x, dy) in x.chunks(channels).zip(dy.chunks(channels)) {
        let (mean, deviation) = mean_and_deviation(x.iter().copied(), eps);
        let normal: Vec<f64> = x
            .iter()
            .map(|x| (f64::from(*x) - mean) / deviation)
            .collect();
        let pairs = dy.iter().zip(weight);
        let g: Vec<f64> = pairs
            .map(|(dy, w)| f64::from(*dy) * f64::from(*w))
            .collect();
        dx.extend(normalised(&normal, &g, deviation, true));
        for c in 0..channels {
            parameters[0][c] += f64::from(dy[c]) * normal[c];
            parameters[1][c] += f64::from(dy[c]);
        }
    }
    let [dweight, dbias] = parameters;
    [dx, dweight, dbias]
}

/// `[dx, dscale]` of [`Kernels::rms_norm_gradient`](crate::Kernels::rms_norm_gradient).
pub fn rms_norm(x: &[f32], shape: Shape, scale: &[f32], eps: f32, dy: &[f32]) -> [Vec<f64>; 2] {
    let Shape {
        pixels, channels, ..
    } = shape;
    let mut dx = Vec::new();
    let mut dscale = vec![0.0; scale.len()];
    for (r, (x, dy)) in x.chunks(channels).zip(dy.chunks(channels)).enumerate() {
        let first = match scale.len() == channels {
            true => 0,
            false => r / pixels * channels,
        };
        let square: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let root = (square / channels as f64 + f64::from(eps)).sqrt();
        let normal: Vec<f64> = x.iter().map(|x| f64::from(*x) / root).collect();
        let pairs = dy.iter().zip(&scale[first..]);
        let g: Vec<f64> = pairs
            .map(|(dy, s)| f64::from(*dy) * f64::from(*s))
            .collect();
        dx.extend(normalised(&normal, &g, root, false));
        for c in 0..channels {
            dscale[first + c] += f64::from(dy[c]) * normal[c];
        }
    }
    [dx, dscale]
}

/// `[dx, dweight, dbias]` of [`Kernels::group_norm_gradient`](crate::Kernels::group_norm_gradient).
#[allow(clippy::too_many_arguments)] // the operation's own: none belongs with another
pub fn group_norm(
    x: &[f32],
    shape: Shape,
    groups: usize,
    eps: f32,
    weight: &[f32],
    bias: &[f32],
    activated: bool,
    dy: &[f32],
) -> [Vec<f64>; 3] {
    let Shape {
        pixels, channels, ..
    } = shape;
    let size = channels / groups;
    let mut dx = vec![0.0; x.len()];
    let mut parameters = [vec![0.0; channels], vec![0.0; channels]];
    for place in 0..shape.images * groups {
        let (image, group) = (place / groups, place % groups);
        let indices: Vec<usize> = (0..pixels * size)
            .map(|i| (image * pixels + i / size) * channels + group * size + i % size)
            .collect();
        let (mean, deviation) = mean_and_deviation(indices.iter().map(|i| x[*i]), eps);
        let (mut normal, mut g) = (Vec::new(), Vec::new());
        for i in &indices {
            let (n, c) = ((f64::from(x[*i]) - mean) / deviation, i % channels);
            let y = n * f64::from(weight[c]) + f64::from(bias[c]);
            let dy = f64::from(dy[*i]) * if activated { silu(y) } else { 1.0 };
            parameters[0][c] += dy * n;
            parameters[1][c] += dy;
            normal.push(n);
            g.push(dy * f64::from(weight[c]));
        }
        let gradients = normalised(&normal, &g, deviation, true);
        for (i, gradient) in indices.into_iter().zip(gradients) {
            dx[i] = gradient;
        }
    }
    let [dweight, dbias] = parameters;
    [dx, dweight, dbias]
}

/// `[dq, dk, dv]` of [`Kernels::attention_gradient`](crate::Kernels::attention_gradient).
pub fn attention(
    shape: &Attention,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    dout: &[f32],
) -> [Vec<f64>; 3] {
    let size = shape.head_size;
    let channels = shape.heads * size;
    let shared = k.len() == shape.keys * channels;
    let scale = 1.0 / (size as f64).sqrt();
    let (mut dq, mut dk) = (vec![0.0; q.len()], vec![0.0; k.len()]);
    let mut dv = dk.clone();
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    for place in 0..shape.images * shape.queries * shape.heads {
        let (token, head) = (place / shape.heads, place % shape.heads);
        let (image, query) = (token / shape.queries, token % shape.queries);
        let asked = token * channels + head * size;
        let (q, dout) = (&q[asked..][..size], &dout[asked..][..size]);
        let seen = if shape.causal { query + 1 } else { shape.keys };
        let first = if shared { 0 } else { image * shape.keys };
        let of_key = |key: usize| (first + key) * channels + head * size;
        let scores: Vec<f64> = (0..seen)
            .map(|key| dot(q, &k[of_key(key)..][..size]) * scale)
            .collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|score| (score - largest).exp()).sum();
        let weights: Vec<f64> = scores.iter().map(|s| (s - largest).exp() / sum).collect();
        let of_weights: Vec<f64> = (0..seen)
            .map(|key| dot(dout, &v[of_key(key)..][..size]))
            .collect();
        let pairs = weights.iter().zip(&of_weights);
        let mean: f64 = pairs.map(|(weight, gradient)| weight * gradient).sum();
        for key in 0..seen {
            let of_score = weights[key] * (of_weights[key] - mean) * scale;
            for c in 0..size {
                let place = of_key(key) + c;
                dq[asked + c] += of_score * f64::from(k[place]);
                dk[place] += of_score * f64::from(q[c]);
                dv[place] += weights[key] * f64::from(dout[c]);
            }
        }
    }
    [dq, dk, dv]
}
