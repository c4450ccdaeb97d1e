//! Runs a graph node by node in f64, with the plainest loops there are: the truth that every
//! engine is compared with. No cleverness allowed.

mod gradient;

use super::node::{Distance, Graph, Node, Operation, Padding, Shape, Value};
use super::parameters::{Parameters, ReadError};
use super::tensor::{Named, RunError, Tensor, find_input};

pub use gradient::{Gradients, gradients};

/// Computes all outputs of `graph` in f64.
pub fn run(
    graph: &Graph,
    parameters: &dyn Parameters,
    inputs: &[(&str, &Tensor<f64>)],
) -> Result<Vec<Named<f64>>, RunError> {
    Ok(outputs(graph, &values(graph, parameters, inputs)?))
}

/// The outputs among all values.
fn outputs(graph: &Graph, values: &[Tensor<f64>]) -> Vec<Named<f64>> {
    let outputs = graph.outputs().iter();
    outputs
        .map(|out| (out.name.clone(), values[out.value.index()].clone()))
        .collect()
}

/// The value of every node.
fn values(
    graph: &Graph,
    parameters: &dyn Parameters,
    inputs: &[(&str, &Tensor<f64>)],
) -> Result<Vec<Tensor<f64>>, RunError> {
    let images = batch(inputs);
    let mut values: Vec<Tensor<f64>> = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        let value = match &node.operation {
            Operation::Input(name) => find_input(inputs, name, node.shape, images)?.clone(),
            _ => {
                let weights = read(parameters, node)?;
                let images = if node.shared { 1 } else { images };
                let data = (0..images)
                    .flat_map(|image| compute(node, &maps(&values, node, image), &weights));
                Tensor::new(images, node.shape, data.collect())
            }
        };
        values.push(value);
    }
    Ok(values)
}

/// Images of a batch.
fn batch(inputs: &[(&str, &Tensor<f64>)]) -> usize {
    let images = inputs.iter().map(|(_, tensor)| tensor.images);
    images.max().unwrap_or(1)
}

/// A node's parameters, widened.
fn read(parameters: &dyn Parameters, node: &Node) -> Result<Vec<Vec<f64>>, ReadError> {
    let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect();
    let names = node.parameters.iter().map(|parameter| &parameter.name);
    names.map(|name| Ok(wide(parameters.read(name)?))).collect()
}

/// One image's input.
struct Map<'v> {
    shape: Shape,
    data: &'v [f64],
}

impl Map<'_> {
    fn at(&self, row: usize, column: usize, channel: usize) -> f64 {
        self.data[(row * self.shape.width + column) * self.shape.channels + channel]
    }

    fn cells(&self) -> std::slice::ChunksExact<'_, f64> {
        self.data.chunks_exact(self.shape.channels)
    }
}

/// One image's inputs of a node.
fn maps<'v>(values: &'v [Tensor<f64>], node: &Node, image: usize) -> Vec<Map<'v>> {
    let map = |input: &Value| {
        let tensor = &values[input.index()];
        Map {
            shape: tensor.shape,
            data: tensor.image(image),
        }
    };
    node.inputs.iter().map(map).collect()
}

fn compute(node: &Node, inputs: &[Map], weights: &[Vec<f64>]) -> Vec<f64> {
    let each = |f: fn(f64) -> f64| inputs[0].data.iter().map(|&x| f(x)).collect();
    match &node.operation {
        Operation::Input(_) => unreachable!("inputs are given"),
        Operation::Constant => weights[0].clone(),
        Operation::Convolution {
            kernel,
            stride,
            padding,
        } => convolution(&inputs[0], node.shape, *kernel, *stride, *padding, weights),
        Operation::Upsample => upsample(&inputs[0], node.shape),
        Operation::Linear => linear(&inputs[0], node.shape.channels, weights),
        Operation::Attention { heads, causal } => attention(inputs, *heads, *causal),
        Operation::GroupNorm { groups, epsilon } => {
            group_norm(&inputs[0], *groups, *epsilon, weights)
        }
        Operation::LayerNorm { epsilon } => layer_norm(&inputs[0], *epsilon, weights),
        Operation::RmsNorm { epsilon } => rms_norm(&inputs[0], inputs[1].data, *epsilon),
        Operation::Silu => each(silu),
        Operation::Gelu => each(gelu),
        Operation::QuickGelu => each(|x| x * sigmoid(1.702 * x)),
        Operation::GatedGelu => gated(&inputs[0], gelu),
        Operation::GatedSilu => gated(&inputs[0], silu),
        Operation::Add => cellwise(&inputs[0], inputs[1].data, |a, b| a + b),
        Operation::Multiply => cellwise(&inputs[0], inputs[1].data, |a, b| a * b),
        Operation::Concatenate => inputs[0]
            .cells()
            .zip(inputs[1].cells())
            .flat_map(|(a, b)| [a, b].concat())
            .collect(),
        Operation::Slice { from } => {
            let kept = *from..*from + node.shape.channels;
            inputs[0]
                .cells()
                .flat_map(|cell| cell[kept.clone()].to_vec())
                .collect()
        }
        Operation::Affine { factor, shift } => {
            let pick = |constants: &[f64], i: usize| constants[i % constants.len()];
            let cells = inputs[0].cells().flat_map(|cell| cell.iter().enumerate());
            cells
                .map(|(i, &x)| pick(factor, i) * x + pick(shift, i))
                .collect()
        }
        Operation::Embedding => {
            let row = weights[0].len() / node.parameters[0].shape[0];
            let rows = inputs[0].data.iter().map(|&index| index as usize * row);
            rows.flat_map(|start| weights[0][start..start + row].to_vec())
                .collect()
        }
        Operation::TimeFeatures => time_features(inputs[0].data[0], node.shape.channels),
        Operation::FourierFeatures => fourier_features(inputs[0].data[0], &weights[0]),
        Operation::PixelUnshuffle { factor } => unshuffle(&inputs[0], node.shape, *factor),
        Operation::PixelShuffle { factor } => shuffle(&inputs[0], node.shape, *factor),
        Operation::Distance(distance) => vec![self::distance(*distance, &inputs[0], &inputs[1])],
    }
}

/// Calls `f(row, column, channel)` for every value of a map, in order.
fn fill(shape: Shape, f: impl Fn(usize, usize, usize) -> f64) -> Vec<f64> {
    let mut out = Vec::with_capacity(shape.size());
    for row in 0..shape.height {
        for column in 0..shape.width {
            out.extend((0..shape.channels).map(|channel| f(row, column, channel)));
        }
    }
    out
}

fn convolution(
    x: &Map,
    shape: Shape,
    kernel: usize,
    stride: usize,
    padding: Padding,
    weights: &[Vec<f64>],
) -> Vec<f64> {
    let source = window(x.shape, kernel, stride, padding);
    let channels = x.shape.channels;
    fill(shape, |row, column, output| {
        let mut sum = weights[1][output];
        for ky in 0..kernel {
            for kx in 0..kernel {
                if let Some((y, x_)) = source([row, column], [ky, kx]) {
                    for channel in 0..channels {
                        let place = ((output * channels + channel) * kernel + ky) * kernel + kx;
                        sum += weights[0][place] * x.at(y, x_, channel);
                    }
                }
            }
        }
        sum
    })
}

/// For a place of a convolution's result and one of its kernel, the place of the input that they
/// see, unless it is padding.
fn window(
    input: Shape,
    kernel: usize,
    stride: usize,
    padding: Padding,
) -> impl Fn([usize; 2], [usize; 2]) -> Option<(usize, usize)> {
    let before = match padding {
        Padding::Same => (kernel - 1) / 2,
        Padding::RightBottom => 0,
    };
    let inside = move |place: usize, size: usize| place.checked_sub(before).filter(|&p| p < size);
    move |[row, column], [ky, kx]| {
        let y = inside(row * stride + ky, input.height)?;
        let x = inside(column * stride + kx, input.width)?;
        Some((y, x))
    }
}

fn upsample(x: &Map, shape: Shape) -> Vec<f64> {
    fill(shape, |row, column, channel| {
        let (y, x_) = nearest(x.shape, shape, row, column);
        x.at(y, x_, channel)
    })
}

/// The place of `from` that a place of `to` copies.
fn nearest(from: Shape, to: Shape, row: usize, column: usize) -> (usize, usize) {
    (
        row * from.height / to.height,
        column * from.width / to.width,
    )
}

fn linear(x: &Map, channels: usize, weights: &[Vec<f64>]) -> Vec<f64> {
    let inputs = x.shape.channels;
    let mut out = Vec::with_capacity(x.shape.cells() * channels);
    for cell in x.cells() {
        out.extend((0..channels).map(|output| {
            let row = &weights[0][output * inputs..(output + 1) * inputs];
            let bias = weights.get(1).map_or(0.0, |bias| bias[output]);
            bias + dot(row, cell)
        }));
    }
    out
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn attention(inputs: &[Map], heads: usize, causal: bool) -> Vec<f64> {
    let [query, key, value] = inputs else {
        unreachable!("attention has three inputs")
    };
    let size = query.shape.channels / heads;
    let scale = 1.0 / (size as f64).sqrt();
    let mut out = vec![0.0; query.data.len()];
    let cells = query
        .cells()
        .zip(out.chunks_exact_mut(query.shape.channels));
    for (place, (query, out)) in cells.enumerate() {
        for head in 0..heads {
            let part = head * size..(head + 1) * size;
            let visible = if causal { place + 1 } else { key.shape.cells() };
            let keys = key.cells().take(visible).map(|key| &key[part.clone()]);
            let weights = softmax(keys.map(|key| dot(&query[part.clone()], key) * scale));
            for (weight, value) in weights.iter().zip(value.cells()) {
                for (out, value) in out[part.clone()].iter_mut().zip(&value[part.clone()]) {
                    *out += weight * value;
                }
            }
        }
    }
    out
}

fn softmax(scores: impl Iterator<Item = f64>) -> Vec<f64> {
    let scores: Vec<f64> = scores.collect();
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

fn group_norm(x: &Map, groups: usize, epsilon: f64, weights: &[Vec<f64>]) -> Vec<f64> {
    let size = x.shape.channels / groups;
    let mut out = x.data.to_vec();
    for group in 0..groups {
        let part = group * size..(group + 1) * size;
        let values = || x.cells().flat_map(|cell| &cell[part.clone()]);
        let (mean, deviation) = moments(values, epsilon);
        for cell in out.chunks_exact_mut(x.shape.channels) {
            for channel in part.clone() {
                let normed = (cell[channel] - mean) / deviation;
                cell[channel] = normed * weights[0][channel] + weights[1][channel];
            }
        }
    }
    out
}

fn layer_norm(x: &Map, epsilon: f64, weights: &[Vec<f64>]) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.data.len());
    for cell in x.cells() {
        let (mean, deviation) = moments(|| cell.iter(), epsilon);
        let normed = cell.iter().map(|value| (value - mean) / deviation);
        out.extend(
            normed
                .enumerate()
                .map(|(i, x)| x * weights[0][i] + weights[1][i]),
        );
    }
    out
}

/// Mean and `sqrt(variance + epsilon)`.
fn moments<'v, I: Iterator<Item = &'v f64>>(values: impl Fn() -> I, epsilon: f64) -> (f64, f64) {
    let count = values().count() as f64;
    let mean = values().sum::<f64>() / count;
    let variance = values().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, (variance + epsilon).sqrt())
}

fn rms_norm(x: &Map, scale: &[f64], epsilon: f64) -> Vec<f64> {
    let mut out = Vec::with_capacity(x.data.len());
    for cell in x.cells() {
        let mean_square = dot(cell, cell) / cell.len() as f64;
        let factor = 1.0 / (mean_square + epsilon).sqrt();
        out.extend(cell.iter().zip(scale).map(|(x, scale)| x * scale * factor));
    }
    out
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn silu(x: f64) -> f64 {
    x * sigmoid(x)
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2))
}

fn gated(x: &Map, activation: fn(f64) -> f64) -> Vec<f64> {
    let half = x.shape.channels / 2;
    let cells = x.cells().map(|cell| cell.split_at(half));
    cells
        .flat_map(|(value, gate)| value.iter().zip(gate).map(|(v, g)| v * activation(*g)))
        .collect()
}

/// Applies `f` to the values of `x` and of `other`, which may be one vector for all cells.
fn cellwise(x: &Map, other: &[f64], f: fn(f64, f64) -> f64) -> Vec<f64> {
    x.data
        .iter()
        .enumerate()
        .map(|(i, &value)| f(value, other[i % other.len()]))
        .collect()
}

fn time_features(timestep: f64, channels: usize) -> Vec<f64> {
    let angles = time_frequencies(channels);
    waves(angles.iter().map(|w| timestep * w).collect())
}

fn time_frequencies(channels: usize) -> Vec<f64> {
    let half = channels / 2;
    let frequency = |i: usize| (-(10000f64.ln()) * i as f64 / half as f64).exp();
    (0..half).map(frequency).collect()
}

fn fourier_features(x: f64, frequencies: &[f64]) -> Vec<f64> {
    waves(frequencies.iter().map(|w| TURN * x * w).collect())
}

/// A full turn: 2 pi.
const TURN: f64 = std::f64::consts::TAU;

/// All cosines, then all sines.
fn waves(angles: Vec<f64>) -> Vec<f64> {
    angles
        .iter()
        .map(|angle| angle.cos())
        .chain(angles.iter().map(|angle| angle.sin()))
        .collect()
}

fn unshuffle(x: &Map, shape: Shape, factor: usize) -> Vec<f64> {
    fill(shape, |row, column, channel| {
        let (channel, place) = (channel / (factor * factor), channel % (factor * factor));
        x.at(
            row * factor + place / factor,
            column * factor + place % factor,
            channel,
        )
    })
}

fn shuffle(x: &Map, shape: Shape, factor: usize) -> Vec<f64> {
    fill(shape, |row, column, channel| {
        let place = row % factor * factor + column % factor;
        x.at(
            row / factor,
            column / factor,
            channel * factor * factor + place,
        )
    })
}

fn distance(distance: Distance, x: &Map, target: &Map) -> f64 {
    let mean = |terms: &mut dyn ExactSizeIterator<Item = f64>| {
        let count = terms.len() as f64;
        terms.sum::<f64>() / count
    };
    let differences = x.data.iter().zip(target.data).map(|(x, y)| x - y);
    match distance {
        Distance::Cosine => mean(&mut x.cells().zip(target.cells()).map(|(x, y)| {
            let norm = |v: &[f64]| dot(v, v).sqrt().max(Distance::LEAST_NORM);
            -dot(x, y) / (norm(x) * norm(y))
        })),
        Distance::Squared => mean(&mut differences.map(|d| d * d)),
        Distance::Absolute => mean(&mut differences.map(f64::abs)),
    }
}
