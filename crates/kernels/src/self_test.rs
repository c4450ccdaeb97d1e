//! A check of an instruction set on the machine at hand: each kernel on a few small cases,
//! against [`reference`](mod@crate::reference).

mod gradients;

use crate::reference::{self, relative_error};
use crate::{
    Attention, Convolution, Gate, Kernels, Layer, Maps, Moments, Normalisation, Padding, Shape,
    Winograd,
};

/// Rounding that no kernel may exceed: the longest sum here has some 600 terms.
const LIMIT: f64 = 5e-6;

/// The same for Winograd's F(4x4, 3x3), whose transforms lose two bits.
const WINOGRAD_LIMIT: f64 = 2e-5;

/// The cases of a kernel: the error of each.
type Errors = fn(&Kernels) -> Vec<f64>;

/// What a self-test found of one kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Check {
    /// The kernel: one method of [`Kernels`], or several of a kind.
    pub kernel: &'static str,
    /// The largest relative error (2-norm) against loops in double precision, of all cases.
    pub error: f64,
    /// The largest error that is rounding.
    pub limit: f64,
}

impl Check {
    /// Whether the error is mere rounding; a NaN is not.
    pub fn passed(&self) -> bool {
        self.error <= self.limit
    }
}

impl Kernels {
    /// Runs small cases of every kernel and every gradient, the same at each call, in some
    /// milliseconds.
    pub fn self_test(&self) -> Vec<Check> {
        let kernels: [(&str, f64, Errors); 21] = [
            ("product", LIMIT, product),
            ("convolution", LIMIT, convolution),
            ("winograd", WINOGRAD_LIMIT, winograd),
            ("attention", LIMIT, attention),
            ("group_norm", LIMIT, group_norm),
            ("layer_norm", LIMIT, layer_norm),
            ("rms_norm", LIMIT, rms_norm),
            ("activation", LIMIT, activation),
            ("gated", LIMIT, gated),
            ("add", LIMIT, add),
            ("product_gradient", LIMIT, gradients::product),
            ("convolution_gradient", LIMIT, gradients::convolution),
            ("winograd_gradient", WINOGRAD_LIMIT, gradients::winograd),
            ("attention_gradient", LIMIT, gradients::attention),
            ("group_norm_gradient", LIMIT, gradients::group_norm),
            ("layer_norm_gradient", LIMIT, gradients::layer_norm),
            ("rms_norm_gradient", LIMIT, gradients::rms_norm),
            ("activation_gradient", LIMIT, gradients::activation),
            ("gated_gradient", LIMIT, gradients::gated),
            ("accumulate", LIMIT, gradients::accumulate),
            ("adam", LIMIT, gradients::adam),
        ];
        kernels
            .into_iter()
            .map(|(kernel, limit, errors)| Check {
                kernel,
                error: errors(self).into_iter().fold(0.0, worse),
                limit,
            })
            .collect()
    }
}

/// The larger error; NaN is the worst.
fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// Numbers that look random, in [-1, 1), the same for the same seed (a linear congruential
/// generator with Knuth's constants for MMIX).
pub(crate) fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    next();
    std::iter::repeat_with(next).take(count).collect()
}

fn product(kernels: &Kernels) -> Vec<f64> {
    let case = |&[rows, inputs, outputs]: &[usize; 3]| {
        let (a, weight) = (noise(1, rows * inputs), noise(2, outputs * inputs));
        let bias = noise(3, outputs);
        let mut out = vec![f32::NAN; rows * outputs];
        let packed = kernels.pack_linear(&weight, outputs, inputs);
        kernels.product(&a, &packed, Some(&bias[..]), &mut out);
        relative_error(&out, &reference::product(&a, &weight, inputs, Some(&bias)))
    };
    [[1, 1, 1], [7, 33, 19], [101, 650, 67]]
        .iter()
        .map(case)
        .collect()
}

fn convolution(kernels: &Kernels) -> Vec<f64> {
    let right_bottom = Padding {
        right: 1,
        bottom: 1,
        ..Padding::default()
    };
    let case = |&(inputs, outputs, kernel, stride, padding): &(usize, usize, usize, usize, _)| {
        let geometry = Convolution {
            images: 2,
            height: 9,
            width: 7,
            stride,
            padding,
        };
        let x = noise(1, 2 * 9 * 7 * inputs);
        let sides = [outputs, inputs, kernel];
        let weight = noise(2, outputs * inputs * kernel * kernel);
        let (height, width) = geometry.output(kernel);
        let mut out = vec![f32::NAN; 2 * height * width * outputs];
        let packed = kernels.pack_convolution(&weight, outputs, inputs, kernel);
        kernels.convolution(&x, &geometry, &packed, None, &mut out);
        let expected = reference::convolution(&x, &geometry, &weight, sides, None);
        relative_error(&out, &expected)
    };
    [
        (3, 20, 3, 1, Padding::all(1)),
        (40, 9, 3, 2, right_bottom),
        (17, 33, 1, 1, Padding::default()),
    ]
    .iter()
    .map(case)
    .collect()
}

fn winograd(kernels: &Kernels) -> Vec<f64> {
    let mut errors = Vec::new();
    for kind in [Winograd::Four, Winograd::Two, Winograd::Upsampled] {
        for (height, width, inputs, outputs) in [(1, 1, 3, 5), (9, 7, 40, 20), (12, 8, 17, 33)] {
            let maps = Maps {
                images: 2,
                height,
                width,
            };
            let case = LayerCase::new(kind, maps, inputs, outputs);
            errors.extend(case.errors(kernels));
        }
    }
    errors
}

/// A convolution with all that may stand around it.
pub(crate) struct LayerCase {
    kind: Winograd,
    maps: Maps,
    inputs: usize,
    outputs: usize,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
    norm: [Vec<f32>; 2],
    expected: Vec<f64>,
}

impl LayerCase {
    pub(crate) fn new(kind: Winograd, maps: Maps, inputs: usize, outputs: usize) -> Self {
        let Maps {
            images,
            height,
            width,
        } = maps;
        let pixels = height * width;
        let x = noise(1, images * pixels * inputs);
        let weight = noise(2, outputs * inputs * 9);
        let bias = noise(3, images * outputs);
        let norm = [noise(5, inputs), noise(6, inputs)];
        let shape = Shape {
            images,
            pixels,
            channels: inputs,
        };
        let [scale, shift] = [&norm[0], &norm[1]];
        let normal = reference::group_norm(&x, shape, 1, 1e-5, scale, shift, true);
        let normal: Vec<f32> = normal.iter().map(|x| *x as f32).collect();
        let (normal, side) = match kind {
            Winograd::Upsampled => (reference::enlarge(&normal, maps, inputs), 2),
            _ => (normal, 1),
        };
        let geometry = Convolution {
            images,
            height: height * side,
            width: width * side,
            stride: 1,
            padding: Padding::all(1),
        };
        let sides = [outputs, inputs, 3];
        let mut expected = reference::convolution(&normal, &geometry, &weight, sides, None);
        let residual = noise(4, expected.len());
        for (i, out) in expected.iter_mut().enumerate() {
            let image = i / (outputs * pixels * side * side);
            *out += f64::from(bias[image * outputs + i % outputs]) + f64::from(residual[i]);
        }
        Self {
            kind,
            maps,
            inputs,
            outputs,
            x,
            weight,
            bias,
            residual,
            norm,
            expected,
        }
    }

    /// Of the outputs, by both ways through memory, and of their moments.
    pub(crate) fn errors(&self, kernels: &Kernels) -> Vec<f64> {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let shape = Shape {
            images: self.maps.images,
            pixels: self.maps.height * self.maps.width,
            channels: inputs,
        };
        let moments = kernels.moments(&self.x, shape);
        let [scale, shift] = [&self.norm[0][..], &self.norm[1]];
        let norm = Normalisation::new(&moments, shape.pixels, 1, 1e-5, [scale, shift], true);
        let layer = Layer {
            x: &self.x,
            maps: self.maps,
            norm: Some(&norm),
            bias: Some(&self.bias),
            residual: Some(&self.residual),
        };
        let large = kernels.pack_winograd(self.kind, &self.weight, outputs, inputs);
        let small = kernels.pack_convolution(&self.weight, outputs, inputs, 3);
        let mut errors = Vec::new();
        for is_small in [false, true] {
            let mut out = vec![f32::NAN; self.expected.len()];
            let mut moments = Moments::new(self.maps.images, outputs);
            let wanted = Some(&mut moments);
            match is_small {
                false => kernels.convolution_winograd(&layer, &large, wanted, &mut out),
                true => {
                    kernels.convolution_winograd_small(self.kind, &layer, &small, wanted, &mut out)
                }
            }
            errors.push(relative_error(&out, &self.expected));
            errors.push(moments.error(&out));
        }
        errors
    }
}

fn attention(kernels: &Kernels) -> Vec<f64> {
    let case = |&(queries, keys, head_size, causal): &(usize, usize, usize, bool)| {
        let shape = Attention {
            images: 1,
            queries,
            keys,
            heads: 2,
            head_size,
            causal,
        };
        let q = noise(1, queries * 2 * head_size);
        let k = noise(2, keys * 2 * head_size);
        let v = noise(3, keys * 2 * head_size);
        let mut out = vec![f32::NAN; q.len()];
        kernels.attention(&shape, &q, &k, &v, &mut out);
        relative_error(&out, &reference::attention(&shape, &q, &k, &v))
    };
    [(5, 77, 40, false), (20, 150, 12, false), (77, 77, 64, true)]
        .iter()
        .map(case)
        .collect()
}

const SHAPE: Shape = Shape {
    images: 2,
    pixels: 70,
    channels: 36,
};

fn group_norm(kernels: &Kernels) -> Vec<f64> {
    let x = noise(1, SHAPE.len());
    let (weight, bias) = (noise(2, SHAPE.channels), noise(3, SHAPE.channels));
    let case = |silu: bool| {
        let mut out = vec![f32::NAN; x.len()];
        kernels.group_norm(&x, SHAPE, 4, 1e-6, &weight, &bias, silu, &mut out);
        let expected = reference::group_norm(&x, SHAPE, 4, 1e-6, &weight, &bias, silu);
        relative_error(&out, &expected)
    };
    vec![case(false), case(true)]
}

fn layer_norm(kernels: &Kernels) -> Vec<f64> {
    let x = noise(1, SHAPE.len());
    let (weight, bias) = (noise(2, SHAPE.channels), noise(3, SHAPE.channels));
    let mut out = vec![f32::NAN; x.len()];
    kernels.layer_norm(&x, &weight, &bias, 1e-5, &mut out);
    vec![relative_error(
        &out,
        &reference::layer_norm(&x, &weight, &bias, 1e-5),
    )]
}

fn rms_norm(kernels: &Kernels) -> Vec<f64> {
    let (x, scale) = (noise(1, SHAPE.len()), noise(2, 2 * SHAPE.channels));
    let mut out = vec![f32::NAN; x.len()];
    kernels.rms_norm(&x, SHAPE, &scale, 1e-6, &mut out);
    vec![relative_error(
        &out,
        &reference::rms_norm(&x, SHAPE, &scale, 1e-6),
    )]
}

fn activation(kernels: &Kernels) -> Vec<f64> {
    let x: Vec<f32> = noise(1, 1001).iter().map(|x| 8.0 * x).collect();
    let error = |run: fn(&Kernels, &[f32], &mut [f32]), truth: fn(f64) -> f64| {
        let mut out = vec![f32::NAN; x.len()];
        run(kernels, &x, &mut out);
        let expected: Vec<f64> = x.iter().map(|x| truth(f64::from(*x))).collect();
        relative_error(&out, &expected)
    };
    vec![
        error(Kernels::silu, reference::silu),
        error(Kernels::gelu, reference::gelu),
        error(Kernels::quick_gelu, reference::quick_gelu),
    ]
}

fn gated(kernels: &Kernels) -> Vec<f64> {
    let x: Vec<f32> = noise(1, 2 * 5 * 37).iter().map(|x| 4.0 * x).collect();
    let case = |gate: Gate| {
        let mut out = vec![f32::NAN; 5 * 37];
        kernels.gated(&x, 37, gate, &mut out);
        relative_error(&out, &reference::gated(&x, 37, gate))
    };
    vec![case(Gate::Gelu), case(Gate::Silu)]
}

fn add(kernels: &Kernels) -> Vec<f64> {
    let a = noise(1, SHAPE.len());
    let case = |length: usize| {
        let b = noise(2, length);
        let mut out = vec![f32::NAN; a.len()];
        kernels.add(&a, SHAPE, &b, &mut out);
        relative_error(&out, &reference::add(&a, SHAPE, &b))
    };
    vec![
        case(SHAPE.len()),
        case(2 * SHAPE.channels),
        case(SHAPE.channels),
    ]
}
