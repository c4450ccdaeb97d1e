//! Every gradient of every instruction set that this machine has, against naive loops in double
//! precision, on shapes with every kind of edge; and the promises on bits and NaNs.

use crate::backward::conv::by_winograd;
use crate::reference::{self, gradient, relative_error};
use crate::self_test::noise;
use crate::tests::{ROUNDING, WINOGRAD_ROUNDING, cases, close, tables};
use crate::{Adam, Attention, Convolution, Gate, Kernels, Padding, Shape};
use proptest::prelude::*;

type Function = fn(f64) -> f64;
type Gradient = fn(&Kernels, &[f32], &[f32], &mut [f32]);

fn convolution_gradients(
    kernels: &Kernels,
    geometry: &Convolution,
    sides: [usize; 3],
    [x, dy, weight]: [&[f32]; 3],
) -> [Vec<f32>; 2] {
    let mut dx = vec![f32::NAN; x.len()];
    let mut dw = vec![f32::NAN; weight.len()];
    kernels.convolution_input_gradient(dy, geometry, weight, sides, &mut dx);
    kernels.convolution_weight_gradient(x, dy, geometry, sides, &mut dw);
    [dx, dw]
}

/// Compares both gradients of a convolution on all tables.
fn check_convolution(geometry: &Convolution, sides: [usize; 3]) {
    let limit = match by_winograd(geometry, sides) {
        true => WINOGRAD_ROUNDING,
        false => ROUNDING,
    };
    let [outputs, inputs, kernel] = sides;
    let (rows, columns) = geometry.output(kernel);
    let pixels = geometry.images * geometry.height * geometry.width;
    let x = noise(1, pixels * inputs);
    let weight = noise(2, outputs * inputs * kernel * kernel);
    let dy = noise(3, geometry.images * rows * columns * outputs);
    let expected_dx = gradient::convolution_input(&dy, geometry, &weight, sides);
    let expected_dw = gradient::convolution_weight(&x, &dy, geometry, sides);
    for kernels in tables() {
        let operands = [&x[..], &dy, &weight];
        let [dx, dw] = convolution_gradients(kernels, geometry, sides, operands);
        close(kernels, "convolution's dx", &dx, &expected_dx, limit);
        close(kernels, "convolution's dw", &dw, &expected_dw, limit);
        eprintln!(
            "{:9} {:.1e} {:.1e} of {limit:e}",
            kernels.name(),
            relative_error(&dx, &expected_dx),
            relative_error(&dw, &expected_dw),
        );
    }
}

fn attention_gradients(
    kernels: &Kernels,
    shape: &Attention,
    [q, k, v, dout]: [&[f32]; 4],
) -> [Vec<f32>; 3] {
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| vec![f32::NAN; x.len()]);
    kernels.attention_gradient(shape, q, k, v, dout, &mut dq, &mut dk, &mut dv);
    [dq, dk, dv]
}

/// As [`close`], but relative to `dy` where that is larger than the gradient: one whose terms cancel
/// is no better known than they are.
fn close_all(kernels: &Kernels, what: &str, found: &[&[f32]], expected: &[Vec<f64>], dy: &[f32]) {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
    let of_dy = norm(&mut dy.iter().copied().map(f64::from));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{what} {i}");
        let pairs = found.iter().zip(expected);
        let error = norm(&mut pairs.map(|(f, e)| f64::from(*f) - e));
        let error = error / of_dy.max(norm(&mut expected.iter().copied()));
        assert!(
            error <= ROUNDING,
            "{} {what} {i}: {error:e}",
            kernels.name()
        );
    }
}

/// Compares the gradients of an attention on all tables.
fn check_attention(shape: &Attention, stacks: usize, spread: f32) {
    let channels = shape.heads * shape.head_size;
    // Scores far apart make weights of very different size.
    let q: Vec<f32> = noise(1, shape.images * shape.queries * channels)
        .iter()
        .map(|q| q * spread)
        .collect();
    let k = noise(2, stacks * shape.keys * channels);
    let (v, dout) = (noise(3, k.len()), noise(4, q.len()));
    let expected = gradient::attention(shape, &q, &k, &v, &dout);
    for kernels in tables() {
        let found = attention_gradients(kernels, shape, [&q, &k, &v, &dout]);
        close_all(
            kernels,
            "attention",
            &found.each_ref().map(|x| &x[..]),
            &expected,
            &dout,
        );
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn products(rows in 1..700_usize, inputs in 1..350_usize, outputs in 1..200_usize) {
        let (x, weight) = (noise(1, rows * inputs), noise(2, outputs * inputs));
        let dy = noise(3, rows * outputs);
        let expected_dx = gradient::product_input(&dy, &weight, outputs, inputs);
        let expected_dw = gradient::product_weight(&x, &dy, inputs, outputs);
        let expected_db = gradient::row_sums(&dy, outputs);
        for kernels in tables() {
            let mut dx = vec![f32::NAN; x.len()];
            kernels.product_input_gradient(&dy, &weight, outputs, inputs, &mut dx);
            close(kernels, "product's dx", &dx, &expected_dx, ROUNDING);
            let mut dw = vec![f32::NAN; weight.len()];
            kernels.product_weight_gradient(&x, &dy, inputs, outputs, &mut dw);
            close(kernels, "product's dw", &dw, &expected_dw, ROUNDING);
            let mut db = vec![f32::NAN; outputs];
            kernels.row_sums(&dy, outputs, &mut db);
            close_all(kernels, "row sums", &[&db], std::slice::from_ref(&expected_db), &dy);
        }
    }

    #[test]
    fn convolutions(
        (images, height, width) in (1..3_usize, 1..11_usize, 1..11_usize),
        (inputs, outputs) in (1..180_usize, 1..140_usize),
        (kernel, stride) in (prop_oneof![Just(1_usize), Just(3)], 1..3_usize),
        (top, left) in (0..3_usize, 0..3_usize),
    ) {
        let padding = match kernel {
            1 => Padding::default(),
            _ => Padding { top, left, bottom: 2 - top, right: 2 - left },
        };
        let geometry = Convolution { images, height, width, stride, padding };
        check_convolution(&geometry, [outputs, inputs, kernel]);
    }

    #[test]
    fn attentions(
        (images, queries, more_keys) in (1..3_usize, 1..220_usize, 0..200_usize),
        (heads, head_size) in (1..4_usize, 1..70_usize),
        (shared, causal) in any::<(bool, bool)>(),
        spread in 1.0..8.0_f32,
    ) {
        let keys = queries + more_keys;
        let shape = Attention { images, queries, keys, heads, head_size, causal };
        check_attention(&shape, if shared { 1 } else { images }, spread);
    }

    #[test]
    fn norms(
        (images, pixels) in (1..3_usize, 1..300_usize),
        (groups, size) in (1..9_usize, 1..12_usize),
        mean in -3.0..3.0_f32,
        (silu, shared) in any::<(bool, bool)>(),
    ) {
        let channels = groups * size;
        let shape = Shape { images, pixels, channels };
        let x: Vec<f32> = noise(1, shape.len()).iter().map(|x| x + mean).collect();
        let (weight, bias) = (noise(2, channels), noise(3, channels));
        let dy = noise(4, shape.len());
        let scale = noise(5, if shared { channels } else { images * channels });
        // A larger epsilon than in any network, or groups of one or two values that nearly agree
        // would have gradients that rounding of the values alone makes uncertain.
        let eps = 0.1;
        let layer = gradient::layer_norm(&x, &weight, eps, &dy);
        let rms = gradient::rms_norm(&x, shape, &scale, eps, &dy);
        let group = gradient::group_norm(&x, shape, groups, eps, &weight, &bias, silu, &dy);
        for kernels in tables() {
            let mut dx = vec![f32::NAN; x.len()];
            let [mut dw, mut db] = [(); 2].map(|_| vec![f32::NAN; channels]);
            kernels.layer_norm_gradient(&x, &weight, eps, &dy, &mut dx, &mut dw, &mut db);
            close_all(kernels, "layer norm", &[&dx, &dw, &db], &layer, &dy);
            let mut dscale = vec![f32::NAN; scale.len()];
            kernels.rms_norm_gradient(&x, shape, &scale, eps, &dy, &mut dx, &mut dscale);
            close_all(kernels, "rms norm", &[&dx, &dscale], &rms, &dy);
            kernels.group_norm_gradient(
                &x, shape, groups, eps, &weight, &bias, silu, &dy, &mut dx, &mut dw, &mut db,
            );
            close_all(kernels, "group norm", &[&dx, &dw, &db], &group, &dy);
        }
    }

    #[test]
    fn gates(rows in 1..50_usize, channels in 1..70_usize) {
        let x: Vec<f32> = noise(1, 2 * rows * channels).iter().map(|x| 6.0 * x).collect();
        let dy = noise(2, rows * channels);
        for kernels in tables() {
            for gate in [Gate::Gelu, Gate::Silu] {
                let mut dx = vec![f32::NAN; x.len()];
                kernels.gated_gradient(&x, channels, gate, &dy, &mut dx);
                let expected = gradient::gated(&x, channels, gate, &dy);
                close(kernels, "gate", &dx, &expected, 1e-6);
            }
            let mut sum = dy.clone();
            kernels.accumulate(&x[..dy.len()], &mut sum);
            let pairs = x.iter().zip(&dy);
            let expected: Vec<f64> = pairs.map(|(x, dy)| f64::from(*x) + f64::from(*dy)).collect();
            close(kernels, "sum", &sum, &expected, 1e-7);
        }
    }
}

/// Maps at the sizes from which gradients go by Winograd's transforms: whole tiles and not, more
/// tiles and more channels than a task has, one image and two.
#[test]
fn winograd_convolutions() {
    for (images, height, width, outputs, inputs) in [
        (1, 8, 8, 32, 40),
        (3, 9, 10, 200, 33),
        (1, 32, 32, 32, 40),
        (2, 35, 31, 90, 170),
        (1, 1, 1030, 100, 37),
        (1, 45, 46, 64, 32),
    ] {
        let geometry = Convolution {
            images,
            height,
            width,
            stride: 1,
            padding: Padding::all(1),
        };
        assert!(by_winograd(&geometry, [outputs, inputs, 3]));
        check_convolution(&geometry, [outputs, inputs, 3]);
    }
}

/// Queries in several parts, and one key.
#[test]
fn long_and_short_attentions() {
    for (queries, keys, heads, head_size) in [(2300, 150, 1, 8), (1, 1, 1, 8), (5, 1, 2, 3)] {
        let shape = Attention {
            images: 2,
            queries,
            keys,
            heads,
            head_size,
            causal: false,
        };
        check_attention(&shape, 1, 1.0);
        check_attention(&shape, 2, 1.0);
    }
}

#[test]
fn activations_are_precise_everywhere() {
    let x: Vec<f32> = (-30_000..=30_000).map(|i| i as f32 / 1000.0).collect();
    let ones = vec![1.0; x.len()];
    let all: [(&str, Gradient, Function); 3] = [
        ("silu", Kernels::silu_gradient, gradient::silu),
        ("gelu", Kernels::gelu_gradient, gradient::gelu),
        (
            "quick gelu",
            Kernels::quick_gelu_gradient,
            gradient::quick_gelu,
        ),
    ];
    for kernels in tables() {
        for (what, run, truth) in all {
            let mut dx = vec![f32::NAN; x.len()];
            run(kernels, &x, &ones, &mut dx);
            let errors = x.iter().zip(&dx);
            let worst = errors.fold(0.0_f64, |worst, (x, dx)| {
                worst.max((f64::from(*dx) - truth(f64::from(*x))).abs())
            });
            eprintln!("{} {what}: {worst:.1e}", kernels.name());
            assert!(worst < 4e-7, "{} {what}: {worst:e}", kernels.name());
            assert!(dx.iter().all(|dx| dx.is_finite()));
        }
    }
}

#[test]
fn ends_of_the_number_line() {
    let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, 0.0];
    for kernels in tables() {
        let all: [Gradient; 3] = [
            Kernels::silu_gradient,
            Kernels::gelu_gradient,
            Kernels::quick_gelu_gradient,
        ];
        for run in all {
            let mut dx = [7.0; 6];
            run(kernels, &x, &[1.0; 6], &mut dx);
            assert!(dx[0].is_nan(), "{}", kernels.name());
            for (found, expected) in dx[1..].iter().zip([1.0, 0.0, 1.0, 0.0, 0.5]) {
                assert!(
                    (found - expected).abs() < 1e-35,
                    "{}: {dx:?}",
                    kernels.name()
                );
            }
        }
    }
}

#[test]
fn a_nan_comes_out() {
    let nans = |values: &[f32]| values.iter().filter(|x| x.is_nan()).count();
    let (rows, channels) = (70, 24);
    let clean = noise(1, rows * channels);
    let mut dirty = clean.clone();
    dirty[24 * 65 + 5] = f32::NAN;
    let weight = noise(2, channels * channels);
    let shape = Attention {
        images: 1,
        queries: rows,
        keys: rows,
        heads: 2,
        head_size: 12,
        causal: false,
    };
    for kernels in tables() {
        let mut dx = vec![0.0; clean.len()];
        kernels.product_input_gradient(&dirty, &weight, channels, channels, &mut dx);
        assert_eq!(nans(&dx), channels, "the row");
        let mut dw = vec![0.0; weight.len()];
        kernels.product_weight_gradient(&dirty, &clean, channels, channels, &mut dw);
        assert_eq!(nans(&dw), channels, "the input's column");
        kernels.row_sums(&dirty, channels, &mut dw[..channels]);
        assert_eq!(nans(&dw[..channels]), 1, "the channel");
        let [dq, dk, dv] = attention_gradients(kernels, &shape, [&clean, &clean, &clean, &dirty]);
        assert_eq!(nans(&dq), 12, "the query's head");
        assert_eq!(nans(&dk), rows * 12, "the head's keys");
        assert_eq!(nans(&dv), rows, "the channel of the values");
    }
}

/// Ten steps of Adam as its definition has them, in double precision.
#[test]
fn adam_follows_its_definition() {
    let count = 37;
    let start = noise(1, count);
    for kernels in tables() {
        let mut parameters = start.clone();
        let [mut first, mut second] = [(); 2].map(|_| vec![0.0_f32; count]);
        let mut expected: Vec<f64> = start.iter().copied().map(f64::from).collect();
        let mut moments = vec![[0.0_f64; 2]; count];
        for step in 1..=10 {
            let adam = Adam {
                rate: 0.01,
                betas: [0.9, 0.999],
                eps: 1e-8,
                step,
            };
            let gradients = noise(u64::from(step) + 1, count);
            kernels.adam(&mut parameters, &gradients, &mut first, &mut second, &adam);
            for ((p, moments), g) in expected.iter_mut().zip(&mut moments).zip(&gradients) {
                (*p, *moments) = reference::adam(&adam, *p, f64::from(*g), *moments);
            }
        }
        let moved: Vec<f32> = parameters.iter().zip(&start).map(|(p, s)| p - s).collect();
        let expected: Vec<f64> = expected
            .iter()
            .zip(&start)
            .map(|(p, s)| p - f64::from(*s))
            .collect();
        // Parameters of size 1 are rounded by 6e-8 in each step of at most 0.01.
        close(kernels, "ten steps", &moved, &expected, 1e-5);
    }
}

/// Runs one case of everything whose order of summation could depend on the threads; returns all
/// gradients as bits, those of inputs of the last image only.
fn bits(kernels: &Kernels, images: usize) -> [Vec<u32>; 2] {
    let (mut inputs_bits, mut parameters_bits) = (Vec::new(), Vec::new());
    let mut keep = |dx: &[f32], parameters: &[&[f32]]| {
        let of_bits = |x: &f32| x.to_bits();
        let image = dx.len() / images;
        inputs_bits.extend(dx[dx.len() - image..].iter().map(of_bits));
        parameters_bits.extend(parameters.iter().flat_map(|x| x.iter().map(of_bits)));
    };
    let (inputs, outputs) = (40, 110);
    let stack = |seed: u64, one: usize| noise(seed, 2 * one)[(2 - images) * one..].to_vec();
    for (side, stride, kernel) in [(13, 1, 3), (13, 2, 3), (33, 1, 3), (33, 1, 1)] {
        let padding = if kernel == 3 {
            Padding::all(1)
        } else {
            Padding::default()
        };
        let geometry = Convolution {
            images,
            height: side,
            width: side,
            stride,
            padding,
        };
        let (rows, columns) = geometry.output(kernel);
        let x = stack(1, side * side * inputs);
        let dy = stack(2, rows * columns * outputs);
        let weight = noise(3, outputs * inputs * kernel * kernel);
        let sides = [outputs, inputs, kernel];
        let [dx, dw] = convolution_gradients(kernels, &geometry, sides, [&x, &dy, &weight]);
        keep(&dx, &[&dw]);
    }
    let shape = Shape {
        images,
        pixels: 1200,
        channels: inputs,
    };
    let x = stack(4, shape.pixels * inputs);
    let dy = stack(5, shape.pixels * inputs);
    let attention = Attention {
        images,
        queries: 1200,
        keys: 1200,
        heads: 2,
        head_size: 20,
        causal: false,
    };
    let [dq, dk, dv] = attention_gradients(kernels, &attention, [&x, &x, &x, &dy]);
    [dq, dk, dv].iter().for_each(|dx| keep(dx, &[]));
    let weight = noise(6, inputs);
    let mut dx = vec![f32::NAN; x.len()];
    let [mut dw, mut db] = [(); 2].map(|_| vec![f32::NAN; inputs]);
    kernels.group_norm_gradient(
        &x, shape, 8, 1e-5, &weight, &weight, true, &dy, &mut dx, &mut dw, &mut db,
    );
    keep(&dx, &[&dw, &db]);
    kernels.layer_norm_gradient(&x, &weight, 1e-5, &dy, &mut dx, &mut dw, &mut db);
    keep(&dx, &[&dw, &db]);
    kernels.rms_norm_gradient(&x, shape, &weight, 1e-5, &dy, &mut dx, &mut dw);
    keep(&dx, &[&dw]);
    kernels.row_sums(&dy, inputs, &mut db);
    keep(&dx, &[&db]);
    [inputs_bits, parameters_bits]
}

#[test]
fn the_same_bits_for_any_threads_and_batch() {
    for kernels in tables() {
        let on = |threads: usize, images: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            pool.build().unwrap().install(|| bits(kernels, images))
        };
        let one = on(1, 2);
        assert!(one == on(2, 2), "{} on 2 threads", kernels.name());
        assert!(one == on(7, 2), "{} on 7 threads", kernels.name());
        // Those of parameters are sums over the batch.
        assert!(one[0] == on(2, 1)[0], "{} alone", kernels.name());
    }
}
