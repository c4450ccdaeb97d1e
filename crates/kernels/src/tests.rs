//! Every function of every instruction set that this machine has, against naive loops in double
//! precision, on shapes with every kind of edge; and the promises on bits and NaNs.

use crate::half::{self, Half};
use crate::reference::{self, relative_error};
use crate::self_test::{LayerCase, noise};
use crate::{
    Attention, Convolution, Gate, Kernels, Layer, Maps, PackedMatrix, Padding, Shape, Winograd,
};
use proptest::prelude::*;
use std::io::Write;
use std::sync::Arc;

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

/// Half precision is a way to keep weights, not to compute: where it holds them exactly, no bit of a
/// result changes.
#[test]
fn weights_in_half_precision_give_the_same_bits() {
    let maps = Maps {
        images: 2,
        height: 9,
        width: 7,
    };
    let pixels = 2 * 9 * 7;
    for format in [Half::F16, Half::Bf16] {
        let rounded = |seed, count| -> Vec<f32> {
            let fine = noise(seed, count);
            let coarse = fine
                .iter()
                .map(|value| (value * 64.0).round() / 64.0 * 0.125);
            coarse.collect()
        };
        let (inputs, outputs) = (300, 50);
        let x = noise(1, pixels * inputs);
        let linear = rounded(2, outputs * inputs);
        let kernel = rounded(3, outputs * inputs * 9);
        assert!(format.all(&kernel).is_some());
        for kernels in tables() {
            let full = kernels.pack_linear(&linear, outputs, inputs);
            let half = full.clone().in_half();
            assert_eq!(half.bytes() * 2, full.bytes());
            assert_eq!(
                product(kernels, &x, &half, None),
                product(kernels, &x, &full, None)
            );
            let full = kernels.pack_convolution(&kernel, outputs, inputs, 3);
            let half = full.clone().in_half();
            let geometry = Convolution {
                images: 2,
                height: 9,
                width: 7,
                stride: 1,
                padding: Padding::all(1),
            };
            let direct = |w| convolve(kernels, &x, &geometry, w);
            assert_eq!(direct(&half), direct(&full));
            let layer = plain_layer(&x, maps);
            let small = |w| {
                let mut out = vec![f32::NAN; pixels * outputs];
                kernels.convolution_winograd_small(Winograd::Four, &layer, w, None, &mut out);
                out
            };
            assert_eq!(small(&half), small(&full));
        }
    }
}

/// Every number of both formats comes back, and what lies between two is refused.
#[test]
fn half_precision_is_exact_or_refused() {
    for format in [Half::F16, Half::Bf16] {
        for bits in 0..=u16::MAX {
            let infinite = format == Half::F16 && bits & 0x7c00 == 0x7c00;
            if !infinite {
                assert_eq!(format.exactly(format.widen(bits)), Some(bits));
            }
        }
        for value in [1.0 + 1.0 / 4096.0, f32::MIN_POSITIVE * 1.5, 1e6, 1.0e-3] {
            let exact = format.exactly(value).map(|bits| format.widen(bits));
            assert!(exact.is_none_or(|exact| exact == value), "{value}");
        }
        assert_eq!(format.exactly(1.0 + 1.0 / 4096.0), None);
    }
    // From the definition of IEEE 754: the smallest number, the smallest normal one, the largest.
    for (bits, value) in [
        (1, 2_f32.powi(-24)),
        (0x400, 2_f32.powi(-14)),
        (0x7bff, 65504.0),
    ] {
        assert_eq!(Half::F16.widen(bits), value);
    }
    let kernels = Kernels::best();
    let unpacked = kernels.pack_linear(&noise(1, 64), 8, 8);
    let kept = unpacked.clone().in_half();
    assert_eq!(kept.bytes(), unpacked.bytes(), "24 bits do not fit in 16");
}

/// A weight that each task packs for itself gives the bits of one that was packed before.
#[test]
fn weights_as_stored_change_no_bit() {
    for (rows, inputs, outputs) in [(3, 20, 33), (700, 300, 70)] {
        let (x, weight) = (noise(1, rows * inputs), noise(2, outputs * inputs));
        for kernels in tables() {
            let packed = kernels.pack_linear(&weight, outputs, inputs);
            let stored = kernels.weight_as_stored(Arc::new(weight.clone()), outputs, inputs, 1);
            assert_eq!(
                product(kernels, &x, &stored, None),
                product(kernels, &x, &packed, None)
            );
        }
    }
    let (maps, inputs, outputs) = (
        Maps {
            images: 2,
            height: 9,
            width: 7,
        },
        70,
        45,
    );
    let (x, weight) = (noise(3, 2 * 9 * 7 * inputs), noise(4, outputs * inputs * 9));
    let layer = plain_layer(&x, maps);
    for kernels in tables() {
        for kind in [Winograd::Four, Winograd::Two, Winograd::Upsampled] {
            let convolve = |w: &PackedMatrix| {
                let enlarged = if kind == Winograd::Upsampled { 4 } else { 1 };
                let mut out = vec![f32::NAN; enlarged * 2 * 9 * 7 * outputs];
                kernels.convolution_winograd_small(kind, &layer, w, None, &mut out);
                out
            };
            let packed = kernels.pack_convolution(&weight, outputs, inputs, 3);
            let stored = kernels.weight_as_stored(Arc::new(weight.clone()), outputs, inputs, 3);
            assert_eq!(convolve(&stored), convolve(&packed));
        }
    }
}

/// Images that share a block of tiles do not know of each other.
#[test]
fn small_maps_share_blocks_and_no_bit() {
    let (images, inputs, outputs) = (29, 40, 50);
    for (height, width) in [(1, 1), (4, 4), (8, 9), (12, 16)] {
        let maps = |images| Maps {
            images,
            height,
            width,
        };
        let x = noise(1, images * height * width * inputs);
        let weight = noise(2, outputs * inputs * 9);
        for kernels in tables() {
            let w = kernels.pack_winograd(Winograd::Four, &weight, outputs, inputs);
            let convolve = |x: &[f32], images: usize| {
                let mut out = vec![f32::NAN; images * height * width * outputs];
                let layer = plain_layer(x, maps(images));
                kernels.convolution_winograd(&layer, &w, None, &mut out);
                out
            };
            let alone = x.chunks(height * width * inputs);
            let alone: Vec<f32> = alone.flat_map(|x| convolve(x, 1)).collect();
            assert_eq!(convolve(&x, images), alone, "{} {height}", kernels.name());
        }
    }
}

/// Attention whose factors are rounded to bf16; odd heads and odd numbers of keys have a half-filled
/// pair.
#[test]
fn attention_of_bf16() {
    for (queries, keys, head_size, causal) in [
        (5, 77, 40, false),
        (130, 333, 64, false),
        (77, 77, 33, true),
        (100, 257, 512, false),
    ] {
        let shape = Attention {
            images: 2,
            queries,
            keys,
            heads: 2,
            head_size,
            causal,
        };
        let q = noise(1, 4 * queries * head_size);
        let [k, v] = [2, 3].map(|seed| noise(seed, 4 * keys * head_size));
        let expected = reference::attention(&shape, &q, &k, &v);
        for kernels in tables().into_iter().filter(|kernels| kernels.has_bf16()) {
            let mut found = vec![f32::NAN; q.len()];
            kernels.attention_bf16(&shape, &q, &k, &v, &mut found);
            close(kernels, "attention of bf16", &found, &expected, 1e-2);
        }
    }
}

/// Products of bf16: rounding to 8 bits of each factor is at most 2^-9 relative, and the errors of
/// many factors are independent.
#[test]
fn products_of_bf16() {
    for (rows, inputs, outputs) in [(1, 258, 3), (97, 640, 70), (33, 1280, 33)] {
        let (a, weight) = (noise(1, rows * inputs), noise(2, outputs * inputs));
        let bias = noise(3, outputs);
        let expected = reference::product(&a, &weight, inputs, Some(&bias));
        let rounded = |values: &[f32]| -> Vec<f32> {
            let round = |value: &f32| f32::from_bits(half::pair(*value, 0.0).to_bits() << 16);
            values.iter().map(round).collect()
        };
        let exactly = reference::product(&rounded(&a), &rounded(&weight), inputs, Some(&bias));
        let tables = tables().into_iter().filter(|kernels| kernels.has_bf16());
        for kernels in tables {
            let w = kernels
                .pack_linear(&weight, outputs, inputs)
                .for_bf16(kernels);
            let found = product(kernels, &a, &w, Some(&bias));
            close(kernels, "bf16", &found, &expected, 1e-2);
            close(
                kernels,
                "bf16 of rounded factors",
                &found,
                &exactly,
                ROUNDING,
            );
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

/// Runs one case of everything whose order of summation could depend on the threads, on two
/// images or on the second alone; returns the second image's outputs, as bits.
fn bits(kernels: &Kernels, images: usize) -> Vec<u32> {
    let (height, width, channels, outputs) = (13, 11, 40, 50);
    let pixels = height * width;
    let shape = Shape {
        images,
        pixels,
        channels,
    };
    let x = noise(1, 2 * pixels * channels);
    let x = &x[(2 - images) * pixels * channels..];
    let weight = noise(2, outputs * channels * 9);
    let mut found = Vec::new();
    let mut keep = |out: &[f32]| {
        let image = out.len() / images;
        found.extend(out[out.len() - image..].iter().map(|y| y.to_bits()));
    };

    let w = kernels.pack_linear(&weight[..outputs * channels], outputs, channels);
    keep(&product(kernels, x, &w, None));
    let w = kernels.pack_convolution(&weight, outputs, channels, 3);
    let padding = Padding::all(1);
    for stride in [1, 2] {
        let geometry = Convolution {
            images,
            height,
            width,
            stride,
            padding,
        };
        keep(&convolve(kernels, x, &geometry, &w));
    }
    let attention = Attention {
        images,
        queries: pixels,
        keys: pixels,
        heads: 2,
        head_size: 20,
        causal: false,
    };
    keep(&attend(kernels, &attention, x, x, x));
    let mut out = vec![f32::NAN; x.len()];
    let (scale, shift) = (noise(4, channels), noise(5, channels));
    kernels.group_norm(x, shape, 8, 1e-6, &scale, &shift, true, &mut out);
    keep(&out);
    kernels.layer_norm(x, &scale, &shift, 1e-5, &mut out);
    keep(&out);
    found
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
        assert!(one == on(2, 1), "{} alone", kernels.name());
    }
}

#[test]
fn weights_can_be_packed_in_parts() {
    let (outputs, inputs) = (45, 7);
    let (weight, a) = (noise(1, outputs * inputs * 9), noise(2, 5 * 4 * inputs));
    let padding = Padding::all(1);
    let geometry = Convolution {
        images: 1,
        height: 5,
        width: 4,
        stride: 1,
        padding,
    };
    for kernels in tables() {
        let whole = kernels.pack_convolution(&weight, outputs, inputs, 3);
        let mut parts = kernels.packed_zeros(outputs, inputs, 3);
        for first in (0..outputs).step_by(10) {
            let last = outputs.min(first + 10);
            parts.write_outputs(
                kernels,
                first,
                &weight[first * inputs * 9..last * inputs * 9],
            );
        }
        let found = convolve(kernels, &a, &geometry, &parts);
        assert_eq!(found, convolve(kernels, &a, &geometry, &whole));
    }
}

#[test]
fn a_weight_belongs_to_a_table() {
    let tables = tables();
    for (packs, computes) in tables
        .iter()
        .flat_map(|a| tables.iter().map(move |b| (a, b)))
    {
        let w = packs.pack_linear(&[2.0], 1, 1);
        let result = std::panic::catch_unwind(|| product(computes, &[3.0], &w, None));
        assert_eq!(result.is_ok(), packs.name() == computes.name());
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
