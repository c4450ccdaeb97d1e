//! The way back in f64: the reverse of every operation, with the plainest loops there are.

use super::{
    Map, TURN, batch, dot, maps, moments, nearest, outputs, read, sigmoid, softmax,
    time_frequencies, values, window,
};
use crate::graph::node::{Distance, Graph, Node, Operation, Padding, Shape};
use crate::graph::parameters::Parameters;
use crate::graph::tensor::{Named, RunError, Tensor, find_input};

/// What a run forth and back gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// The graph's outputs.
    pub outputs: Vec<Named<f64>>,
    /// For every parameter, by name and in the order of first use, its gradient in the layout it
    /// is stored in.
    pub parameters: Vec<(String, Vec<f64>)>,
    /// For every input, by name, its gradient; that of a shared input is the sum over the images.
    pub inputs: Vec<Named<f64>>,
}

/// Runs `graph` in f64 and goes back: the gradients of `Σ seed · output`, where each of `seeds`
/// weighs the output of its name, of which it has the shape (a seed of one image serves for every
/// image). Outputs without a seed do not count.
///
/// # Errors
/// If an input or a seed does not fit, or a parameter cannot be read.
pub fn gradients(
    graph: &Graph,
    parameters: &dyn Parameters,
    inputs: &[(&str, &Tensor<f64>)],
    seeds: &[(&str, &Tensor<f64>)],
) -> Result<Gradients, RunError> {
    let images = batch(inputs);
    let values = values(graph, parameters, inputs)?;
    let zeros = |value: &Tensor<f64>| vec![0.0; value.data.len()];
    let mut of_values: Vec<Vec<f64>> = values.iter().map(zeros).collect();
    for (name, _) in seeds {
        let Some(output) = graph.output(name) else {
            return Err(RunError::MissingInput((*name).to_owned()));
        };
        let value = &values[output.index()];
        let seed = find_input(seeds, name, value.shape, value.images)?;
        for image in 0..value.images {
            add_to(
                part(&mut of_values[output.index()], value, image),
                seed.image(image),
            );
        }
    }

    let mut of_parameters: Vec<(String, Vec<f64>)> = graph
        .parameters()
        .iter()
        .map(|parameter| (parameter.name.clone(), vec![0.0; parameter.size()]))
        .collect();
    for (index, node) in graph.nodes().iter().enumerate().rev() {
        if matches!(node.operation, Operation::Input(_)) {
            continue;
        }
        let weights = read(parameters, node)?;
        for image in 0..if node.shared { 1 } else { images } {
            let dy = part(&mut of_values[index], &values[index], image).to_vec();
            let adjoint = reverse(node, &maps(&values, node, image), &weights, &dy);
            for (input, gradient) in node.inputs.iter().zip(adjoint.inputs) {
                let input = input.index();
                add_to(
                    part(&mut of_values[input], &values[input], image),
                    &gradient,
                );
            }
            for (parameter, gradient) in node.parameters.iter().zip(adjoint.parameters) {
                let mut sums = of_parameters.iter_mut();
                let sum = sums.find(|(name, _)| *name == parameter.name);
                add_to(&mut sum.expect("all parameters are there").1, &gradient);
            }
        }
    }

    let of_inputs = graph.inputs().map(|input| {
        let (index, value) = (input.value.index(), &values[input.value.index()]);
        let gradient = Tensor::new(value.images, value.shape, of_values[index].clone());
        (input.name.to_owned(), gradient)
    });
    Ok(Gradients {
        outputs: outputs(graph, &values),
        inputs: of_inputs.collect(),
        parameters: of_parameters,
    })
}

/// The image's part of a value's gradient; all of it, if the images share the value.
fn part<'g>(gradient: &'g mut [f64], value: &Tensor<f64>, image: usize) -> &'g mut [f64] {
    let size = value.shape.size();
    let image = if value.images == 1 { 0 } else { image };
    &mut gradient[image * size..(image + 1) * size]
}

fn add_to(sum: &mut [f64], terms: &[f64]) {
    for (sum, term) in sum.iter_mut().zip(terms) {
        *sum += term;
    }
}

/// One image's gradients of a node's inputs and parameters.
struct Adjoint {
    inputs: Vec<Vec<f64>>,
    parameters: Vec<Vec<f64>>,
}

impl Adjoint {
    fn new<const I: usize, const P: usize>(
        inputs: [Vec<f64>; I],
        parameters: [Vec<f64>; P],
    ) -> Self {
        Self {
            inputs: inputs.into(),
            parameters: parameters.into(),
        }
    }
}

fn reverse(node: &Node, inputs: &[Map], weights: &[Vec<f64>], dy: &[f64]) -> Adjoint {
    let shape = node.shape;
    let plain = |dx: Vec<f64>| Adjoint::new([dx], []);
    let each = |slope: fn(f64) -> f64| {
        let terms = inputs[0].data.iter().zip(dy);
        plain(terms.map(|(&x, dy)| slope(x) * dy).collect())
    };
    match &node.operation {
        Operation::Input(_) => unreachable!("inputs are given"),
        Operation::Constant => Adjoint::new([], [dy.to_vec()]),
        Operation::Convolution {
            kernel,
            stride,
            padding,
        } => convolution(&inputs[0], shape, *kernel, *stride, *padding, weights, dy),
        Operation::Upsample => plain(upsample(inputs[0].shape, shape, dy)),
        Operation::Linear => linear(&inputs[0], shape.channels, weights, dy),
        Operation::Attention { heads, causal } => attention(inputs, *heads, *causal, dy),
        Operation::GroupNorm { groups, epsilon } => {
            group_norm(&inputs[0], *groups, *epsilon, weights, dy)
        }
        Operation::LayerNorm { epsilon } => layer_norm(&inputs[0], *epsilon, weights, dy),
        Operation::RmsNorm { epsilon } => rms_norm(&inputs[0], inputs[1].data, *epsilon, dy),
        Operation::Silu => each(silu_slope),
        Operation::Gelu => each(gelu_slope),
        Operation::QuickGelu => each(|x| {
            let s = sigmoid(1.702 * x);
            s + 1.702 * x * s * (1.0 - s)
        }),
        Operation::GatedGelu => plain(gated(&inputs[0], super::gelu, gelu_slope, dy)),
        Operation::GatedSilu => plain(gated(&inputs[0], super::silu, silu_slope, dy)),
        Operation::Add => {
            let db = folded(dy.to_vec(), inputs[1].data.len());
            Adjoint::new([dy.to_vec(), db], [])
        }
        Operation::Multiply => {
            let (a, b) = (inputs[0].data, inputs[1].data);
            let da = dy.iter().enumerate().map(|(i, dy)| dy * b[i % b.len()]);
            let db = dy.iter().zip(a).map(|(dy, a)| dy * a).collect();
            Adjoint::new([da.collect(), folded(db, b.len())], [])
        }
        Operation::Concatenate => {
            let left = inputs[0].shape.channels;
            let cells = || dy.chunks_exact(shape.channels);
            let da = cells().flat_map(|cell| cell[..left].to_vec()).collect();
            let db = cells().flat_map(|cell| cell[left..].to_vec()).collect();
            Adjoint::new([da, db], [])
        }
        Operation::Slice { from } => {
            let mut dx = vec![0.0; inputs[0].data.len()];
            let cells = dx.chunks_exact_mut(inputs[0].shape.channels);
            for (dx, dy) in cells.zip(dy.chunks_exact(shape.channels)) {
                dx[*from..from + shape.channels].copy_from_slice(dy);
            }
            plain(dx)
        }
        Operation::Affine { factor, .. } => {
            let channel = |i: usize| i % shape.channels % factor.len();
            let terms = dy.iter().enumerate();
            plain(terms.map(|(i, dy)| factor[channel(i)] * dy).collect())
        }
        Operation::Embedding => {
            let mut table = vec![0.0; weights[0].len()];
            let row = table.len() / node.parameters[0].shape[0];
            for (&index, dy) in inputs[0].data.iter().zip(dy.chunks_exact(row)) {
                add_to(&mut table[index as usize * row..][..row], dy);
            }
            // An index is no quantity: nothing goes on from here.
            Adjoint::new([vec![0.0; inputs[0].data.len()]], [table])
        }
        Operation::TimeFeatures => {
            let frequencies = time_frequencies(shape.channels);
            let angles = waves(inputs[0].data[0], &frequencies, dy);
            plain(vec![dot(&angles, &frequencies)])
        }
        Operation::FourierFeatures => {
            let x = inputs[0].data[0];
            let turns: Vec<f64> = weights[0].iter().map(|w| TURN * w).collect();
            let angles = waves(x, &turns, dy);
            let frequencies = angles.iter().map(|angle| TURN * x * angle).collect();
            Adjoint::new([vec![dot(&angles, &turns)]], [frequencies])
        }
        // Each is a permutation, and the other its inverse.
        Operation::PixelUnshuffle { factor } => {
            let dy = Map { shape, data: dy };
            plain(super::shuffle(&dy, inputs[0].shape, *factor))
        }
        Operation::PixelShuffle { factor } => {
            let dy = Map { shape, data: dy };
            plain(super::unshuffle(&dy, inputs[0].shape, *factor))
        }
        Operation::Distance(distance) => {
            let [x, target] = [&inputs[0], &inputs[1]];
            let scaled = |gradient: Vec<f64>| gradient.iter().map(|g| g * dy[0]).collect();
            Adjoint::new(
                [
                    scaled(self::distance(*distance, x, target)),
                    scaled(self::distance(*distance, target, x)),
                ],
                [],
            )
        }
    }
}

/// Sums over the cells, if the value that the gradient is of has one cell for all.
fn folded(gradient: Vec<f64>, size: usize) -> Vec<f64> {
    let mut sum = vec![0.0; size];
    for cell in gradient.chunks_exact(size) {
        add_to(&mut sum, cell);
    }
    sum
}

fn convolution(
    x: &Map,
    shape: Shape,
    kernel: usize,
    stride: usize,
    padding: Padding,
    weights: &[Vec<f64>],
    dy: &[f64],
) -> Adjoint {
    let source = window(x.shape, kernel, stride, padding);
    let channels = x.shape.channels;
    let mut dx = vec![0.0; x.data.len()];
    let mut dw = vec![0.0; weights[0].len()];
    let mut db = vec![0.0; weights[1].len()];
    for (cell, dy) in dy.chunks_exact(shape.channels).enumerate() {
        add_to(&mut db, dy);
        for (ky, kx) in (0..kernel * kernel).map(|place| (place / kernel, place % kernel)) {
            let Some((y, x_)) = source([cell / shape.width, cell % shape.width], [ky, kx]) else {
                continue;
            };
            let first = (y * x.shape.width + x_) * channels;
            for (output, dy) in dy.iter().enumerate() {
                for channel in 0..channels {
                    let place = ((output * channels + channel) * kernel + ky) * kernel + kx;
                    dx[first + channel] += dy * weights[0][place];
                    dw[place] += dy * x.data[first + channel];
                }
            }
        }
    }
    Adjoint::new([dx], [dw, db])
}

fn upsample(from: Shape, to: Shape, dy: &[f64]) -> Vec<f64> {
    let mut dx = vec![0.0; from.size()];
    for (cell, dy) in dy.chunks_exact(to.channels).enumerate() {
        let (row, column) = nearest(from, to, cell / to.width, cell % to.width);
        let first = (row * from.width + column) * from.channels;
        add_to(&mut dx[first..first + from.channels], dy);
    }
    dx
}

fn linear(x: &Map, channels: usize, weights: &[Vec<f64>], dy: &[f64]) -> Adjoint {
    let inputs = x.shape.channels;
    let mut dx = vec![0.0; x.data.len()];
    let mut parameters: Vec<Vec<f64>> = weights.iter().map(|w| vec![0.0; w.len()]).collect();
    let cells = x.cells().zip(dx.chunks_exact_mut(inputs));
    for ((x, dx), dy) in cells.zip(dy.chunks_exact(channels)) {
        for (output, dy) in dy.iter().enumerate() {
            let row = output * inputs..(output + 1) * inputs;
            for (i, place) in row.enumerate() {
                dx[i] += dy * weights[0][place];
                parameters[0][place] += dy * x[i];
            }
            if let Some(bias) = parameters.get_mut(1) {
                bias[output] += dy;
            }
        }
    }
    Adjoint {
        inputs: vec![dx],
        parameters,
    }
}

fn attention(inputs: &[Map], heads: usize, causal: bool, dy: &[f64]) -> Adjoint {
    let [query, key, value] = inputs else {
        unreachable!("attention has three inputs")
    };
    let channels = query.shape.channels;
    let size = channels / heads;
    let scale = 1.0 / (size as f64).sqrt();
    let mut dq = vec![0.0; query.data.len()];
    let mut dk = vec![0.0; key.data.len()];
    let mut dv = vec![0.0; value.data.len()];
    let add = |sum: &mut [f64], factor: f64, terms: &[f64]| {
        for (sum, term) in sum.iter_mut().zip(terms) {
            *sum += factor * term;
        }
    };
    for place in 0..query.shape.cells() {
        for head in 0..heads {
            let part = |cell: usize| {
                let first = cell * channels + head * size;
                first..first + size
            };
            let visible = if causal { place + 1 } else { key.shape.cells() };
            let (q, dy) = (&query.data[part(place)], &dy[part(place)]);
            let weights = softmax((0..visible).map(|k| dot(q, &key.data[part(k)]) * scale));
            let dweights: Vec<f64> = (0..visible)
                .map(|k| dot(dy, &value.data[part(k)]))
                .collect();
            let mean = dot(&weights, &dweights);
            for k in 0..visible {
                let dscore = weights[k] * (dweights[k] - mean) * scale;
                add(&mut dv[part(k)], weights[k], dy);
                add(&mut dk[part(k)], dscore, q);
                add(&mut dq[part(place)], dscore, &key.data[part(k)]);
            }
        }
    }
    Adjoint::new([dq, dk, dv], [])
}

fn group_norm(x: &Map, groups: usize, epsilon: f64, weights: &[Vec<f64>], dy: &[f64]) -> Adjoint {
    let channels = x.shape.channels;
    let size = channels / groups;
    let mut dx = vec![0.0; x.data.len()];
    let mut dw = vec![0.0; channels];
    let mut db = vec![0.0; channels];
    for group in 0..groups {
        let first = group * size;
        let places: Vec<usize> = (0..x.shape.cells())
            .flat_map(|cell| (0..size).map(move |i| cell * channels + first + i))
            .collect();
        normed(
            &places,
            channels,
            x.data,
            epsilon,
            weights,
            dy,
            &mut dx,
            [&mut dw, &mut db],
        );
    }
    Adjoint::new([dx], [dw, db])
}

fn layer_norm(x: &Map, epsilon: f64, weights: &[Vec<f64>], dy: &[f64]) -> Adjoint {
    let channels = x.shape.channels;
    let mut dx = vec![0.0; x.data.len()];
    let mut dw = vec![0.0; channels];
    let mut db = vec![0.0; channels];
    for cell in 0..x.shape.cells() {
        let places: Vec<usize> = (cell * channels..(cell + 1) * channels).collect();
        normed(
            &places,
            channels,
            x.data,
            epsilon,
            weights,
            dy,
            &mut dx,
            [&mut dw, &mut db],
        );
    }
    Adjoint::new([dx], [dw, db])
}

/// The reverse of `(x - mean) / deviation * weight + bias` over the values at `places`.
#[expect(clippy::too_many_arguments, reason = "what a norm reads and writes")]
fn normed(
    places: &[usize],
    channels: usize,
    x: &[f64],
    epsilon: f64,
    weights: &[Vec<f64>],
    dy: &[f64],
    dx: &mut [f64],
    [dw, db]: [&mut [f64]; 2],
) {
    let (mean, deviation) = moments(|| places.iter().map(|&place| &x[place]), epsilon);
    let count = places.len() as f64;
    let at = |place: usize| {
        let normed = (x[place] - mean) / deviation;
        (normed, dy[place] * weights[0][place % channels])
    };
    let gradient = places.iter().map(|&place| at(place).1).sum::<f64>() / count;
    let product = places.iter().map(|&place| at(place).0 * at(place).1);
    let product = product.sum::<f64>() / count;
    for &place in places {
        let (normed, dnormed) = at(place);
        dx[place] = (dnormed - gradient - normed * product) / deviation;
        dw[place % channels] += dy[place] * normed;
        db[place % channels] += dy[place];
    }
}

fn rms_norm(x: &Map, scale: &[f64], epsilon: f64, dy: &[f64]) -> Adjoint {
    let mut dx = Vec::with_capacity(x.data.len());
    let mut dscale = vec![0.0; scale.len()];
    for (x, dy) in x.cells().zip(dy.chunks_exact(scale.len())) {
        let count = x.len() as f64;
        let factor = 1.0 / (dot(x, x) / count + epsilon).sqrt();
        let scaled: Vec<f64> = dy.iter().zip(scale).map(|(dy, scale)| dy * scale).collect();
        let pull = factor.powi(3) * dot(x, &scaled) / count;
        dx.extend(x.iter().zip(&scaled).map(|(x, s)| factor * s - pull * x));
        let terms: Vec<f64> = dy.iter().zip(x).map(|(dy, x)| dy * x * factor).collect();
        add_to(&mut dscale, &terms);
    }
    Adjoint::new([dx, dscale], [])
}

fn silu_slope(x: f64) -> f64 {
    let s = sigmoid(x);
    s + x * s * (1.0 - s)
}

/// `Φ(x) + x φ(x)`.
fn gelu_slope(x: f64) -> f64 {
    let distribution = 0.5 * (1.0 + libm::erf(x / std::f64::consts::SQRT_2));
    distribution + x * (-0.5 * x * x).exp() / TURN.sqrt()
}

fn gated(x: &Map, activation: fn(f64) -> f64, slope: fn(f64) -> f64, dy: &[f64]) -> Vec<f64> {
    let half = x.shape.channels / 2;
    let cells = x.cells().zip(dy.chunks_exact(half));
    cells
        .flat_map(|(cell, dy)| {
            let (value, gate) = cell.split_at(half);
            let dvalue = gate.iter().zip(dy).map(|(&g, dy)| activation(g) * dy);
            let dgate = value.iter().zip(gate).zip(dy);
            let dgate = dgate.map(|((v, &g), dy)| v * slope(g) * dy);
            dvalue.chain(dgate).collect::<Vec<_>>()
        })
        .collect()
}

/// The gradients of the angles `x w`, given those of all cosines, then all sines.
fn waves(x: f64, frequencies: &[f64], dy: &[f64]) -> Vec<f64> {
    let (cosines, sines) = dy.split_at(frequencies.len());
    let angles = frequencies.iter().zip(cosines.iter().zip(sines));
    angles
        .map(|(w, (cosine, sine))| sine * (x * w).cos() - cosine * (x * w).sin())
        .collect()
}

/// The gradient with respect to `x`; all distances are symmetric.
fn distance(distance: Distance, x: &Map, target: &Map) -> Vec<f64> {
    let values = x.data.len() as f64;
    let differences = x.data.iter().zip(target.data).map(|(x, y)| x - y);
    match distance {
        Distance::Cosine => {
            let cells = x.cells().zip(target.cells());
            let cells = cells.flat_map(|(x, y)| cosine(x, y));
            cells.map(|d| -d / x.shape.cells() as f64).collect()
        }
        Distance::Squared => differences.map(|d| 2.0 * d / values).collect(),
        Distance::Absolute => differences
            .map(|d| if d == 0.0 { 0.0 } else { d.signum() / values })
            .collect(),
    }
}

/// The gradient of the cosine similarity of two vectors with respect to `x`. Where the norm is
/// held at its least, it is a constant.
fn cosine(x: &[f64], y: &[f64]) -> Vec<f64> {
    let norm = |v: &[f64]| dot(v, v).sqrt().max(Distance::LEAST_NORM);
    let product = norm(x) * norm(y);
    let held = norm(x) == Distance::LEAST_NORM;
    let pull = if held {
        0.0
    } else {
        dot(x, y) / (product * dot(x, x))
    };
    x.iter()
        .zip(y)
        .map(|(x, y)| y / product - pull * x)
        .collect()
}
