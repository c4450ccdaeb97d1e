//! What may not change a bit: how a weight was packed, how many threads there are, what else is in the
//! batch.

use std::sync::Arc;

use super::{attend, convolve, plain_layer, product, tables};
use crate::self_test::noise;
use crate::{Attention, Convolution, Kernels, Maps, PackedMatrix, Padding, Shape, Winograd};

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
