//! The gradients' part of the self-test: each entry of `backward` on a few small cases, against
//! [`reference::gradient`](gradient).

use super::{SHAPE, noise};
use crate::reference::{self, gradient, relative_error};
use crate::{Adam, Attention, Convolution, Gate, Kernels, Padding};

/// The errors of several results, each with what is expected.
fn errors<const N: usize>(found: [&[f32]; N], expected: &[Vec<f64>; N]) -> Vec<f64> {
    let pairs = found.iter().zip(expected);
    pairs
        .map(|(found, expected)| relative_error(found, expected))
        .collect()
}

/// Room for a result; what is not written stays NaN, and fails.
fn room(count: usize) -> Vec<f32> {
    vec![f32::NAN; count]
}

pub(super) fn product(kernels: &Kernels) -> Vec<f64> {
    let case = |&[rows, inputs, outputs]: &[usize; 3]| {
        let (x, weight) = (noise(1, rows * inputs), noise(2, outputs * inputs));
        let dy = noise(3, rows * outputs);
        let (mut dx, mut dw, mut db) = (room(x.len()), room(weight.len()), room(outputs));
        kernels.product_input_gradient(&dy, &weight, outputs, inputs, &mut dx);
        kernels.product_weight_gradient(&x, &dy, inputs, outputs, &mut dw);
        kernels.row_sums(&dy, outputs, &mut db);
        let expected = [
            gradient::product_input(&dy, &weight, outputs, inputs),
            gradient::product_weight(&x, &dy, inputs, outputs),
            gradient::row_sums(&dy, outputs),
        ];
        errors([&dx, &dw, &db], &expected)
    };
    [[1, 1, 1], [7, 33, 19], [101, 67, 150]]
        .iter()
        .flat_map(case)
        .collect()
}

/// Both gradients of a convolution of two maps.
fn of_convolution(
    kernels: &Kernels,
    [height, width]: [usize; 2],
    sides: [usize; 3],
    stride: usize,
    padding: Padding,
) -> Vec<f64> {
    let [outputs, inputs, kernel] = sides;
    let geometry = Convolution {
        images: 2,
        height,
        width,
        stride,
        padding,
    };
    let (rows, columns) = geometry.output(kernel);
    let x = noise(1, 2 * height * width * inputs);
    let weight = noise(2, outputs * inputs * kernel * kernel);
    let dy = noise(3, 2 * rows * columns * outputs);
    let (mut dx, mut dw) = (room(x.len()), room(weight.len()));
    kernels.convolution_input_gradient(&dy, &geometry, &weight, sides, &mut dx);
    kernels.convolution_weight_gradient(&x, &dy, &geometry, sides, &mut dw);
    let expected = [
        gradient::convolution_input(&dy, &geometry, &weight, sides),
        gradient::convolution_weight(&x, &dy, &geometry, sides),
    ];
    errors([&dx, &dw], &expected)
}

pub(super) fn convolution(kernels: &Kernels) -> Vec<f64> {
    let right_bottom = Padding {
        right: 1,
        bottom: 1,
        ..Padding::default()
    };
    [
        ([20, 3, 3], 1, Padding::all(1)),
        ([9, 40, 3], 2, right_bottom),
        ([33, 17, 1], 1, Padding::default()),
    ]
    .into_iter()
    .flat_map(|(sides, stride, padding)| of_convolution(kernels, [9, 7], sides, stride, padding))
    .collect()
}

/// Maps and channels from which gradients go by Winograd's transforms.
pub(super) fn winograd(kernels: &Kernels) -> Vec<f64> {
    [([8, 8], [32, 40, 3]), ([9, 10], [37, 33, 3])]
        .into_iter()
        .flat_map(|(map, sides)| of_convolution(kernels, map, sides, 1, Padding::all(1)))
        .collect()
}

pub(super) fn attention(kernels: &Kernels) -> Vec<f64> {
    let case = |&(queries, keys, head_size, causal): &(usize, usize, usize, bool)| {
        let shape = Attention {
            images: 1,
            queries,
            keys,
            heads: 2,
            head_size,
            causal,
        };
        let channels = 2 * head_size;
        let (q, k) = (noise(1, queries * channels), noise(2, keys * channels));
        let (v, dout) = (noise(3, k.len()), noise(4, q.len()));
        let (mut dq, mut dk, mut dv) = (room(q.len()), room(k.len()), room(k.len()));
        kernels.attention_gradient(&shape, &q, &k, &v, &dout, &mut dq, &mut dk, &mut dv);
        let expected = gradient::attention(&shape, &q, &k, &v, &dout);
        errors([&dq, &dk, &dv], &expected)
    };
    [(5, 77, 40, false), (20, 150, 12, false), (77, 77, 16, true)]
        .iter()
        .flat_map(case)
        .collect()
}

pub(super) fn group_norm(kernels: &Kernels) -> Vec<f64> {
    let (x, dy) = (noise(1, SHAPE.len()), noise(4, SHAPE.len()));
    let (weight, bias) = (noise(2, SHAPE.channels), noise(3, SHAPE.channels));
    let case = |silu: bool| {
        let (mut dx, mut dw, mut db) = (room(x.len()), room(weight.len()), room(bias.len()));
        kernels.group_norm_gradient(
            &x, SHAPE, 4, 1e-6, &weight, &bias, silu, &dy, &mut dx, &mut dw, &mut db,
        );
        let expected = gradient::group_norm(&x, SHAPE, 4, 1e-6, &weight, &bias, silu, &dy);
        errors([&dx, &dw, &db], &expected)
    };
    [false, true].into_iter().flat_map(case).collect()
}

pub(super) fn layer_norm(kernels: &Kernels) -> Vec<f64> {
    let (x, dy) = (noise(1, SHAPE.len()), noise(4, SHAPE.len()));
    let weight = noise(2, SHAPE.channels);
    let (mut dx, mut dw, mut db) = (room(x.len()), room(weight.len()), room(weight.len()));
    kernels.layer_norm_gradient(&x, &weight, 1e-5, &dy, &mut dx, &mut dw, &mut db);
    let expected = gradient::layer_norm(&x, &weight, 1e-5, &dy);
    errors([&dx, &dw, &db], &expected)
}

/// One scale for all images, and one for each.
pub(super) fn rms_norm(kernels: &Kernels) -> Vec<f64> {
    let (x, dy) = (noise(1, SHAPE.len()), noise(4, SHAPE.len()));
    let case = |count: usize| {
        let scale = noise(2, count);
        let (mut dx, mut dscale) = (room(x.len()), room(count));
        kernels.rms_norm_gradient(&x, SHAPE, &scale, 1e-6, &dy, &mut dx, &mut dscale);
        let expected = gradient::rms_norm(&x, SHAPE, &scale, 1e-6, &dy);
        errors([&dx, &dscale], &expected)
    };
    [SHAPE.channels, 2 * SHAPE.channels]
        .into_iter()
        .flat_map(case)
        .collect()
}

type Gradient = fn(&Kernels, &[f32], &[f32], &mut [f32]);

pub(super) fn activation(kernels: &Kernels) -> Vec<f64> {
    let x: Vec<f32> = noise(1, 1001).iter().map(|x| 8.0 * x).collect();
    let dy = noise(2, x.len());
    let error = |run: Gradient, derivative: fn(f64) -> f64| {
        let mut dx = room(x.len());
        run(kernels, &x, &dy, &mut dx);
        let pairs = x.iter().zip(&dy);
        let expected = pairs.map(|(x, dy)| f64::from(*dy) * derivative(f64::from(*x)));
        relative_error(&dx, &expected.collect::<Vec<_>>())
    };
    vec![
        error(Kernels::silu_gradient, gradient::silu),
        error(Kernels::gelu_gradient, gradient::gelu),
        error(Kernels::quick_gelu_gradient, gradient::quick_gelu),
    ]
}

pub(super) fn gated(kernels: &Kernels) -> Vec<f64> {
    let x: Vec<f32> = noise(1, 2 * 5 * 37).iter().map(|x| 4.0 * x).collect();
    let dy = noise(2, 5 * 37);
    let case = |gate: Gate| {
        let mut dx = room(x.len());
        kernels.gated_gradient(&x, 37, gate, &dy, &mut dx);
        relative_error(&dx, &gradient::gated(&x, 37, gate, &dy))
    };
    vec![case(Gate::Gelu), case(Gate::Silu)]
}

pub(super) fn accumulate(kernels: &Kernels) -> Vec<f64> {
    let (dx, before) = (noise(1, 1001), noise(2, 1001));
    let mut sum = before.clone();
    kernels.accumulate(&dx, &mut sum);
    let pairs = dx.iter().zip(&before);
    let expected = pairs.map(|(dx, before)| f64::from(*dx) + f64::from(*before));
    vec![relative_error(&sum, &expected.collect::<Vec<_>>())]
}

/// The third step, in which neither moment is new.
pub(super) fn adam(kernels: &Kernels) -> Vec<f64> {
    let count = 1001;
    let adam = Adam {
        rate: 0.01,
        betas: [0.9, 0.999],
        eps: 1e-8,
        step: 3,
    };
    let (start, gradients) = (noise(1, count), noise(2, count));
    let squares: Vec<f32> = noise(4, count).iter().map(|x| x * x + 0.01).collect();
    let means = noise(3, count);
    let (mut parameters, mut first, mut second) = (start.clone(), means.clone(), squares.clone());
    kernels.adam(&mut parameters, &gradients, &mut first, &mut second, &adam);
    let mut expected = [(); 3].map(|()| Vec::new());
    for i in 0..count {
        let moments = [means[i], squares[i]].map(f64::from);
        let (p, moments) = reference::adam(&adam, start[i].into(), gradients[i].into(), moments);
        let [first, second] = moments;
        for (values, value) in expected.iter_mut().zip([p, first, second]) {
            values.push(value);
        }
    }
    errors([&parameters, &first, &second], &expected)
}
