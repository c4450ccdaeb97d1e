//! Half precision: where it keeps weights exactly it changes no bit; where it computes, its error is
//! that of its eight bits.

use super::{ROUNDING, close, convolve, plain_layer, product, tables};
use crate::half::{self, Half};
use crate::reference;
use crate::self_test::noise;
use crate::{Attention, Convolution, Kernels, Maps, Padding, Winograd};

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
            let half = full.clone().in_half().0;
            assert_eq!(half.bytes() * 2, full.bytes());
            assert_eq!(
                product(kernels, &x, &half, None),
                product(kernels, &x, &full, None)
            );
            let full = kernels.pack_convolution(&kernel, outputs, inputs, 3);
            let half = full.clone().in_half().0;
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

/// A weight that is packed into the memory of a larger one is what it is in fresh memory, also where its
/// last panel is not full: nothing of the other is read, or keeps it from being halved.
#[test]
fn memory_of_another_weight_leaves_nothing() {
    let (outputs, inputs) = (50, 36);
    let weight: Vec<f32> = (0..outputs * inputs)
        .map(|i| (i % 17) as f32 / 8.0)
        .collect();
    let x = noise(1, 5 * inputs);
    for kernels in tables() {
        // Of 24 bits each.
        let larger = kernels.pack_linear(&noise(2, 130 * 70), 130, 70);
        let memory = larger.into_memory();
        let fresh = kernels.pack_linear(&weight, outputs, inputs);
        let reused = kernels.pack_convolution_in(memory, &weight, outputs, inputs, 1);
        let expected = product(kernels, &x, &fresh, None);
        assert_eq!(product(kernels, &x, &reused, None), expected);
        let (halved, memory) = reused.in_half();
        assert_eq!(halved.bytes() * 2, fresh.bytes());
        assert!(memory.is_some_and(|memory| memory.bytes() > fresh.bytes()));
        assert_eq!(product(kernels, &x, &halved, None), expected);
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
    let kept = unpacked.clone().in_half().0;
    assert_eq!(kept.bytes(), unpacked.bytes(), "24 bits do not fit in 16");
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
                .for_bf16(kernels)
                .0;
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
