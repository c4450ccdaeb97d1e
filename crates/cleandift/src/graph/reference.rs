//! Runs a graph node by node in f64, with the plainest loops there are: the truth that every
//! engine is compared with. No cleverness allowed.

use super::node::{Graph, Node, Operation, Padding, Shape, Value};
use super::parameters::{Parameters, ReadError};
use super::tensor::{Named, RunError, Tensor, find_input};

/// Computes all outputs of `graph` in f64.
pub fn run(
    graph: &Graph,
    parameters: &dyn Parameters,
    inputs: &[(&str, &Tensor<f64>)],
) -> Result<Vec<Named<f64>>, RunError> {
    let images = inputs
        .iter()
        .map(|(_, tensor)| tensor.images)
        .max()
        .unwrap_or(1);
    let mut values: Vec<Tensor<f64>> = Vec::with_capacity(graph.nodes().len());
    for node in graph.nodes() {
        let value = match &node.operation {
            Operation::Input(name) => find_input(inputs, name, node.shape, images)?.clone(),
            _ => {
                let weights = node
                    .parameters
                    .iter()
                    .map(|parameter| read(parameters, &parameter.name))
                    .collect::<Result<Vec<_>, _>>()?;
                let images = if node.shared { 1 } else { images };
                let data = (0..images).flat_map(|image| {
                    let inputs: Vec<Map> = node
                        .inputs
                        .iter()
                        .map(|&input| map(&values, input, image))
                        .collect();
                    compute(node, &inputs, &weights)
                });
                Tensor::new(images, node.shape, data.collect())
            }
        };
        values.push(value);
    }
    let outputs = graph.outputs().iter();
    Ok(outputs
        .map(|out| (out.name.clone(), values[out.value.index()].clone()))
        .collect())
}

fn read(parameters: &dyn Parameters, name: &str) -> Result<Vec<f64>, ReadError> {
    Ok(parameters.read(name)?.into_iter().map(f64::from).collect())
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

fn map(values: &[Tensor<f64>], value: Value, image: usize) -> Map<'_> {
    let tensor = &values[value.index()];
    Map {
        shape: tensor.shape,
        data: tensor.image(image),
    }
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
    let before = if padding == Padding::Same {
        (kernel - 1) / 2
    } else {
        0
    };
    let inside = |place: usize, size: usize| place.checked_sub(before).filter(|&p| p < size);
    let channels = x.shape.channels;
    fill(shape, |row, column, output| {
        let mut sum = weights[1][output];
        for ky in 0..kernel {
            for kx in 0..kernel {
                let source = (
                    inside(row * stride + ky, x.shape.height),
                    inside(column * stride + kx, x.shape.width),
                );
                if let (Some(y), Some(x_)) = source {
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

fn upsample(x: &Map, shape: Shape) -> Vec<f64> {
    fill(shape, |row, column, channel| {
        let y = row * x.shape.height / shape.height;
        let x_ = column * x.shape.width / shape.width;
        x.at(y, x_, channel)
    })
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
            let scores: Vec<f64> = key
                .cells()
                .take(visible)
                .map(|key| dot(&query[part.clone()], &key[part.clone()]) * scale)
                .collect();
            let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - highest).exp()).collect();
            let total: f64 = weights.iter().sum();
            for (weight, value) in weights.iter().zip(value.cells()) {
                for (out, value) in out[part.clone()].iter_mut().zip(&value[part.clone()]) {
                    *out += weight / total * value;
                }
            }
        }
    }
    out
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
    let half = channels / 2;
    let angles = (0..half).map(|i| timestep * (-(10000f64.ln()) * i as f64 / half as f64).exp());
    waves(angles.collect())
}

fn fourier_features(x: f64, frequencies: &[f64]) -> Vec<f64> {
    waves(
        frequencies
            .iter()
            .map(|w| 2.0 * std::f64::consts::PI * x * w)
            .collect(),
    )
}

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
