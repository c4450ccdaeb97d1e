//! Every function of every instruction set that this machine has, against naive loops in double
//! precision, on shapes with every kind of edge; and the promises on bits and NaNs.

mod bits;
mod half;

use crate::reference::{self, relative_error};
use crate::self_test::{LayerCase, noise};
use crate::{
    Attention, Convolution, Gate, Kernels, Layer, Maps, PackedMatrix, Padding, Shape, Winograd,
};
use proptest::prelude::*;
use std::io::Write;

/// The largest relative error (2-norm) that is rounding.
pub(crate) const ROUNDING: f64 = 5e-6;
/// The same for F(4x4, 3x3), whose transforms lose two bits.
pub(crate) const WINOGRAD_ROUNDING: f64 = 2e-5;

/// The tables that this machine can run, and one of arrays with the sizes of AVX-512; says aloud,
/// once, which it cannot run.
pub(crate) fn tables() -> Vec<&'static Kernels> {
    static MISSING: std::sync::Once = std::sync::Once::new();
    MISSING.call_once(|| {
        for name in Kernels::known().filter(|name| Kernels::by_name(name).is_none()) {
            let feature = if name == "avx512" { "avx512f" } else { name };
            // Past the test harness, which keeps what passing tests print to itself.
            let _ = writeln!(std::io::stderr(), "skipped: no {feature} here");
        }
    });
    let mut tables = Kernels::all();
    tables.push(&crate::isa::portable::wide::KERNELS);
    tables
}

/// 40 cases of each property, or as many as the variable `PROPTEST_CASES` asks for.
pub(crate) fn cases() -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(40),
    }
}

pub(crate) fn close(kernels: &Kernels, what: &str, found: &[f32], expected: &[f64], limit: f64) {
    let error = relative_error(found, expected);
    assert!(error <= limit, "{} {what}: {error:e}", kernels.name());
}

fn product(kernels: &Kernels, a: &[f32], w: &PackedMatrix, bias: Option<&[f32]>) -> Vec<f32> {
    let mut out = vec![f32::NAN; a.len() / w.inputs() * w.outputs()];
    kernels.product(a, w, bias, &mut out);
    out
}

fn convolve(kernels: &Kernels, x: &[f32], geometry: &Convolution, w: &PackedMatrix) -> Vec<f32> {
    let (height, width) = geometry.output(w.kernel());
    let mut out = vec![f32::NAN; geometry.images * height * width * w.outputs()];
    kernels.convolution(x, geometry, w, None, &mut out);
    out
}

fn attend(kernels: &Kernels, shape: &Attention, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN; q.len()];
    kernels.attention(shape, q, k, v, &mut out);
    out
}

/// A layer with nothing around it.
fn plain_layer(x: &[f32], maps: Maps) -> Layer<'_> {
    Layer {
        x,
        maps,
        norm: None,
        bias: None,
        residual: None,
    }
}

#[test]
fn self_tests_pass() {
    for kernels in tables() {
        for check in kernels.self_test() {
            eprintln!(
                "{:9} {:12} {:.1e}",
                kernels.name(),
                check.kernel,
                check.error
            );
            assert!(check.passed(), "{}: {check:?}", kernels.name());
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn products(rows in 1..200_usize, inputs in 1..700_usize, outputs in 1..90_usize, biased: bool) {
        let (a, weight) = (noise(1, rows * inputs), noise(2, outputs * inputs));
        let bias = noise(3, outputs);
        let bias = biased.then_some(bias.as_slice());
        let expected = reference::product(&a, &weight, inputs, bias);
        for kernels in tables() {
            let w = kernels.pack_linear(&weight, outputs, inputs);
            close(kernels, "product", &product(kernels, &a, &w, bias), &expected, ROUNDING);
        }
    }

    #[test]
    fn convolutions(
        (images, height, width) in (1..3_usize, 1..14_usize, 1..14_usize),
        (inputs, outputs) in (1..70_usize, 1..50_usize),
        (kernel, stride) in (prop_oneof![Just(1_usize), Just(3)], 1..3_usize),
        right_bottom: bool,
    ) {
        let padding = match (kernel, right_bottom) {
            (1, _) => Padding::default(),
            (_, true) => Padding { top: 0, left: 0, bottom: 2, right: 2 },
            (_, false) => Padding::all(1),
        };
        let geometry = Convolution { images, height, width, stride, padding };
        let x = noise(1, images * height * width * inputs);
        let weight = noise(2, outputs * inputs * kernel * kernel);
        let sides = [outputs, inputs, kernel];
        let expected = reference::convolution(&x, &geometry, &weight, sides, None);
        for kernels in tables() {
            let w = kernels.pack_convolution(&weight, outputs, inputs, kernel);
            let found = convolve(kernels, &x, &geometry, &w);
            close(kernels, "convolution", &found, &expected, ROUNDING);
        }
    }

    #[test]
    fn winograd_convolutions(
        (images, height, width) in (1..3_usize, 1..40_usize, 1..30_usize),
        (inputs, outputs) in (1..90_usize, 1..50_usize),
        kind in prop_oneof![Just(Winograd::Four), Just(Winograd::Two), Just(Winograd::Upsampled)],
    ) {
        let maps = Maps { images, height, width };
        let case = LayerCase::new(kind, maps, inputs, outputs);
        let limit = if kind == Winograd::Four { WINOGRAD_ROUNDING } else { ROUNDING };
        for kernels in tables() {
            for error in case.errors(kernels) {
                assert!(error <= limit, "{} {kind:?}: {error:e}", kernels.name());
            }
        }
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
        let stacks = if shared { 1 } else { images };
        // Scores far apart move the running maximum.
        let q: Vec<f32> = noise(1, images * queries * heads * head_size)
            .iter()
            .map(|q| q * spread)
            .collect();
        let k = noise(2, stacks * keys * heads * head_size);
        let v = noise(3, k.len());
        let expected = reference::attention(&shape, &q, &k, &v);
        for kernels in tables() {
            let found = attend(kernels, &shape, &q, &k, &v);
            close(kernels, "attention", &found, &expected, ROUNDING);
        }
    }

    #[test]
    fn norms(
        (images, pixels) in (1..3_usize, 1..300_usize),
        (groups, size) in (1..9_usize, 1..12_usize),
        mean in -30.0..30.0_f32,
        silu: bool,
    ) {
        let channels = groups * size;
        let shape = Shape { images, pixels, channels };
        let x: Vec<f32> = noise(1, shape.len()).iter().map(|x| x + mean).collect();
        let (weight, bias) = (noise(2, channels), noise(3, channels));
        let scale = noise(4, images * channels);
        for kernels in tables() {
            let mut out = vec![f32::NAN; x.len()];
            kernels.group_norm(&x, shape, groups, 1e-6, &weight, &bias, silu, &mut out);
            let expected = reference::group_norm(&x, shape, groups, 1e-6, &weight, &bias, silu);
            close(kernels, "group norm", &out, &expected, 1e-6);
            kernels.layer_norm(&x, &weight, &bias, 1e-5, &mut out);
            let expected = reference::layer_norm(&x, &weight, &bias, 1e-5);
            close(kernels, "layer norm", &out, &expected, 1e-6);
            kernels.rms_norm(&x, shape, &scale, 1e-6, &mut out);
            let expected = reference::rms_norm(&x, shape, &scale, 1e-6);
            close(kernels, "rms norm", &out, &expected, 1e-6);
        }
    }

    #[test]
    fn gates_and_sums(images in 1..4_usize, pixels in 1..50_usize, channels in 1..70_usize) {
        let shape = Shape { images, pixels, channels };
        let a: Vec<f32> = noise(1, 2 * shape.len()).iter().map(|x| 6.0 * x).collect();
        for kernels in tables() {
            let mut out = vec![f32::NAN; shape.len()];
            for gate in [Gate::Gelu, Gate::Silu] {
                kernels.gated(&a, channels, gate, &mut out);
                close(kernels, "gate", &out, &reference::gated(&a, channels, gate), 1e-6);
            }
            for length in [shape.len(), images * channels, channels] {
                let (a, b) = (&a[..shape.len()], noise(2, length));
                kernels.add(a, shape, &b, &mut out);
                close(kernels, "add", &out, &reference::add(a, shape, &b), 1e-7);
            }
        }
    }
}

/// The worst error of `run` over `x` between -110 and 110, as `error` measures it.
fn worst(
    kernels: &Kernels,
    run: fn(&Kernels, &[f32], &mut [f32]),
    error: impl Fn(f64, f64) -> f64,
) -> f64 {
    let x: Vec<f32> = (-440_000..=440_000).map(|i| i as f32 / 4000.0).collect();
    let mut out = vec![f32::NAN; x.len()];
    run(kernels, &x, &mut out);
    let errors = x.iter().zip(&out);
    errors.fold(0.0, |worst, (x, y)| {
        let error = error(f64::from(*x), f64::from(*y));
        if error > worst || error.is_nan() {
            error
        } else {
            worst
        }
    })
}

/// SiLU is `x / (1 + exp(-x))`, so its relative error shows that of the exponential: one unit in
/// the last place is 1.2e-7 at most, and the sum and the quotient round once each.
#[test]
fn activations_are_precise_everywhere() {
    let normal = f64::from(f32::MIN_POSITIVE);
    for kernels in tables() {
        let silu = worst(kernels, Kernels::silu, |x, y| {
            let truth = reference::silu(x);
            // Below the smallest normal number, and where e^-x overflows, there is no relative error.
            if truth.abs() < 100.0 * normal {
                y.abs()
            } else {
                ((y - truth) / truth).abs()
            }
        });
        // GELU is x (1 + erf) / 2, so twice its error is the error function's, but for the
        // rounding of the product, half a unit in the last place.
        let erf = worst(kernels, Kernels::gelu, |x, y| match x {
            0.0 => y.abs(),
            x => {
                let rounding = y.abs() * f64::from(f32::EPSILON) / 2.0;
                2.0 * ((y - reference::gelu(x)).abs() - rounding).max(0.0) / x.abs()
            }
        });
        let quick = worst(kernels, Kernels::quick_gelu, |x, y| {
            (y - reference::quick_gelu(x)).abs() / x.abs().max(1.0)
        });
        eprintln!(
            "{}: silu {silu:.1e}, erf {erf:.1e}, quick {quick:.1e}",
            kernels.name()
        );
        assert!(silu < 4e-7, "{}: {silu:e}", kernels.name());
        assert!(erf <= 2e-7, "{}: {erf:e}", kernels.name());
        assert!(quick < 4e-7, "{}: {quick:e}", kernels.name());
    }
}

#[test]
fn ends_of_the_number_line() {
    for kernels in tables() {
        let x = [
            f32::NAN,
            f32::INFINITY,
            -1e30,
            -200.0,
            1e30,
            0.0,
            -0.0,
            5e-39,
        ];
        for run in [Kernels::silu, Kernels::gelu, Kernels::quick_gelu] {
            let mut out = [1.0; 8];
            run(kernels, &x, &mut out);
            assert!(out[0].is_nan(), "{}", kernels.name());
            assert_eq!(out[1], f32::INFINITY, "{}", kernels.name());
            assert_eq!(out[2..4], [0.0, 0.0], "{}", kernels.name());
            assert_eq!(out[4..7], [1e30, 0.0, 0.0], "{}", kernels.name());
            assert!((out[7] - 2.5e-39).abs() < 3e-45, "{}", kernels.name());
        }
    }
}

#[test]
fn a_nan_comes_out() {
    let shape = Shape {
        images: 1,
        pixels: 70,
        channels: 24,
    };
    let mut x = noise(1, shape.len());
    x[24 * 65 + 5] = f32::NAN;
    let (ones, weight) = ([1.0; 24], noise(2, 24 * 24));
    for kernels in tables() {
        let mut out = vec![0.0; x.len()];
        let nans = |out: &[f32]| out.iter().filter(|y| y.is_nan()).count();
        kernels.group_norm(&x, shape, 4, 1e-6, &ones, &ones, true, &mut out);
        assert_eq!(nans(&out), 70 * 6, "the group");
        kernels.layer_norm(&x, &ones, &ones, 1e-6, &mut out);
        assert_eq!(nans(&out), 24, "the row");
        kernels.rms_norm(&x, shape, &ones, 1e-6, &mut out);
        assert_eq!(nans(&out), 24, "the row");
        let w = kernels.pack_linear(&weight, 24, 24);
        assert_eq!(nans(&product(kernels, &x, &w, None)), 24, "the row");
        let attention = Attention {
            images: 1,
            queries: 70,
            keys: 70,
            heads: 2,
            head_size: 12,
            causal: false,
        };
        let clean = noise(3, x.len());
        let found = attend(kernels, &attention, &x, &clean, &clean);
        assert_eq!(nans(&found), 12, "a query's head");
        let found = attend(kernels, &attention, &clean, &x, &clean);
        assert_eq!(nans(&found), 70 * 12, "all queries of the head");
        let found = attend(kernels, &attention, &clean, &clean, &x);
        assert_eq!(nans(&found), 70, "the channel of all queries");
    }
}

/// A large map far from zero: its sums would lose everything in single precision.
#[test]
fn group_norm_of_a_large_map() {
    let shape = Shape {
        images: 1,
        pixels: 256 * 256,
        channels: 16,
    };
    let x: Vec<f32> = noise(1, shape.len()).iter().map(|x| x + 100.0).collect();
    let (weight, bias) = (noise(2, 16), noise(3, 16));
    for kernels in tables() {
        let mut out = vec![f32::NAN; x.len()];
        kernels.group_norm(&x, shape, 4, 1e-6, &weight, &bias, false, &mut out);
        let expected = reference::group_norm(&x, shape, 4, 1e-6, &weight, &bias, false);
        eprintln!(
            "{}: {:.1e}",
            kernels.name(),
            relative_error(&out, &expected)
        );
        close(kernels, "large map", &out, &expected, 1e-6);
    }
}

#[test]
fn large_heads_and_many_keys() {
    for (queries, keys, heads, head_size) in [(1, 1, 1, 8), (3, 4100, 2, 8), (2, 300, 1, 512)] {
        let shape = Attention {
            images: 1,
            queries,
            keys,
            heads,
            head_size,
            causal: false,
        };
        let q = noise(1, queries * heads * head_size);
        let (k, v) = (
            noise(2, keys * heads * head_size),
            noise(3, keys * heads * head_size),
        );
        let expected = reference::attention(&shape, &q, &k, &v);
        for kernels in tables() {
            let found = attend(kernels, &shape, &q, &k, &v);
            close(kernels, "attention", &found, &expected, ROUNDING);
        }
    }
}

/// Values of a table of the error function (Abramowitz and Stegun, table 7.1).
#[test]
fn the_reference_knows_the_error_function() {
    let table = [
        (0.5, 0.520_499_877_8),
        (1.0, 0.842_700_792_9),
        (2.0, 0.995_322_265_0),
    ];
    for (x, erf) in table {
        assert!((reference::erf(x) - erf).abs() < 1e-10);
        assert!((reference::erf(-x) + erf).abs() < 1e-10);
    }
    // Both formulas at their border.
    assert!((reference::erf(3.0 - 1e-12) - reference::erf(3.0)).abs() < 1e-12);
}
