//! GFLOP/s of the heavy gradients beside their forward passes (and billions of values a second of
//! those bound by memory), on one thread: the best of several runs in turn. An argument picks
//! one part: `products`, `convolutions`, `attentions` or `streams`.
//!
//! A convolution counts as many operations as a direct one has, whichever way it goes. The forward
//! pass has its weights prepared; the gradients prepare theirs within the time.

use cleandift_kernels::{
    Attention, Convolution, Gate, Kernels, Layer, Maps, Padding, Shape, Winograd,
};
use std::time::Instant;

fn noise(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    })
    .take(count)
    .collect()
}

/// Prints the best speed of each of some works, run in turn.
fn compare(what: &str, works: &mut [(&str, f64, &mut dyn FnMut())]) {
    let mut best = vec![f64::INFINITY; works.len()];
    for _ in 0..5 {
        for (best, (_, _, work)) in best.iter_mut().zip(works.iter_mut()) {
            let start = Instant::now();
            work();
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    print!("{what:34}");
    let forward = works[0].1 / best[0];
    for (best, (name, operations, _)) in best.iter().zip(works.iter()) {
        let speed = operations / best;
        print!(
            " {name} {:6.1} ({:3.0} %)",
            speed / 1e9,
            100.0 * speed / forward
        );
    }
    println!();
}

fn products(kernels: &Kernels) {
    for (rows, inputs, outputs) in [
        (4096, 320, 320),
        (4096, 320, 2560),
        (1024, 640, 640),
        (256, 1280, 1280),
        (64, 1280, 1280),
        (77, 1024, 1280),
    ] {
        let (x, w) = (noise(1, rows * inputs), noise(2, outputs * inputs));
        let dy = noise(3, rows * outputs);
        let packed = kernels.pack_linear(&w, outputs, inputs);
        let [mut y, mut dx, mut dw] = [rows * outputs, x.len(), w.len()].map(|n| vec![0.0; n]);
        let operations = 2.0 * (rows * inputs * outputs) as f64;
        compare(
            &format!("linear {rows}x{inputs}x{outputs}"),
            &mut [
                ("forward", operations, &mut || {
                    kernels.product(&x, &packed, None, &mut y)
                }),
                ("dx", operations, &mut || {
                    kernels.product_input_gradient(&dy, &w, outputs, inputs, &mut dx)
                }),
                ("dw", operations, &mut || {
                    kernels.product_weight_gradient(&x, &dy, inputs, outputs, &mut dw)
                }),
            ],
        );
    }
}

fn convolutions(kernels: &Kernels) {
    for (images, side, inputs, outputs, stride) in [
        (1, 64, 320, 320, 1),
        (1, 64, 960, 320, 1),
        (1, 32, 640, 640, 1),
        (4, 32, 640, 640, 1),
        (1, 16, 1280, 1280, 1),
        (1, 12, 1280, 1280, 1),
        (1, 8, 1280, 1280, 1),
        (4, 8, 1280, 1280, 1),
        (1, 64, 320, 320, 2),
    ] {
        let geometry = Convolution {
            images,
            height: side,
            width: side,
            stride,
            padding: Padding::all(1),
        };
        let maps = Maps {
            images,
            height: side,
            width: side,
        };
        let pixels = images * side * side;
        let of_y = pixels / stride / stride;
        let x = noise(1, pixels * inputs);
        let (w, dy) = (noise(2, outputs * inputs * 9), noise(3, of_y * outputs));
        let layer = Layer {
            x: &x,
            maps,
            norm: None,
            bias: None,
            residual: None,
        };
        let [mut y, mut dx, mut dw] = [dy.len(), x.len(), w.len()].map(|n| vec![0.0; n]);
        let operations = 18.0 * (of_y * inputs * outputs) as f64;
        let sides = [outputs, inputs, 3];
        let winograd = side >= 32 && stride == 1;
        let packed = kernels.pack_convolution(&w, outputs, inputs, 3);
        let transformed =
            winograd.then(|| kernels.pack_winograd(Winograd::Four, &w, outputs, inputs));
        compare(
            &format!(
                "conv {images}x{side}x{side} {inputs}->{outputs} /{stride} {}",
                if winograd { "W" } else { "" }
            ),
            &mut [
                ("forward", operations, &mut || match &transformed {
                    Some(w) => kernels.convolution_winograd(&layer, w, None, &mut y),
                    None => kernels.convolution(&x, &geometry, &packed, None, &mut y),
                }),
                ("dx", operations, &mut || {
                    kernels.convolution_input_gradient(&dy, &geometry, &w, sides, &mut dx)
                }),
                ("dw", operations, &mut || {
                    kernels.convolution_weight_gradient(&x, &dy, &geometry, sides, &mut dw)
                }),
            ],
        );
    }
}

fn attentions(kernels: &Kernels) {
    for (queries, keys, heads, head_size) in [
        (4096, 4096, 5, 64),
        (4096, 4096, 8, 40),
        (1024, 1024, 10, 64),
        (4096, 77, 5, 64),
        (256, 256, 20, 64),
    ] {
        let shape = Attention {
            images: 1,
            queries,
            keys,
            heads,
            head_size,
            causal: false,
        };
        let channels = heads * head_size;
        let [q, dout] = [1, 2].map(|seed| noise(seed, queries * channels));
        let [k, v] = [3, 4].map(|seed| noise(seed, keys * channels));
        let [mut out, mut dq] = [(); 2].map(|_| vec![0.0; q.len()]);
        let [mut dk, mut dv] = [(); 2].map(|_| vec![0.0; k.len()]);
        let product = 2.0 * (queries * keys * channels) as f64;
        compare(
            &format!("attention {queries}x{keys} {heads}x{head_size}"),
            &mut [
                ("forward", 2.0 * product, &mut || {
                    kernels.attention(&shape, &q, &k, &v, &mut out)
                }),
                ("gradient", 5.0 * product, &mut || {
                    kernels.attention_gradient(&shape, &q, &k, &v, &dout, &mut dq, &mut dk, &mut dv)
                }),
            ],
        );
    }
}

/// What is bound by memory: billions of values a second, of the input.
fn streams(kernels: &Kernels) {
    for (pixels, channels) in [(4096, 320), (1024, 1280)] {
        let shape = Shape {
            images: 1,
            pixels,
            channels,
        };
        let count = shape.len();
        let (x, dy) = (noise(1, count), noise(2, count));
        let (w, b) = (noise(3, channels), noise(4, channels));
        let [mut y, mut dx] = [(); 2].map(|_| vec![0.0; count]);
        let [mut dw, mut db] = [(); 2].map(|_| vec![0.0; channels]);
        let values = count as f64;
        compare(
            &format!("group norm, SiLU {pixels}x{channels}"),
            &mut [
                ("forward", values, &mut || {
                    kernels.group_norm(&x, shape, 32, 1e-5, &w, &b, true, &mut y)
                }),
                ("gradient", values, &mut || {
                    kernels.group_norm_gradient(
                        &x, shape, 32, 1e-5, &w, &b, true, &dy, &mut dx, &mut dw, &mut db,
                    )
                }),
            ],
        );
        compare(
            &format!("layer norm {pixels}x{channels}"),
            &mut [
                ("forward", values, &mut || {
                    kernels.layer_norm(&x, &w, &b, 1e-5, &mut y)
                }),
                ("gradient", values, &mut || {
                    kernels.layer_norm_gradient(&x, &w, 1e-5, &dy, &mut dx, &mut dw, &mut db)
                }),
            ],
        );
        let half = &dy[..count / 2];
        compare(
            &format!("GEGLU {pixels}x{channels}"),
            &mut [
                ("forward", values, &mut || {
                    kernels.gated(&x, channels / 2, Gate::Gelu, &mut y[..count / 2])
                }),
                ("gradient", values, &mut || {
                    kernels.gated_gradient(&x, channels / 2, Gate::Gelu, half, &mut dx)
                }),
            ],
        );
    }
}

fn main() {
    let only = std::env::args().nth(1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1);
    pool.build().expect("a pool of one thread").install(|| {
        for kernels in Kernels::all()
            .into_iter()
            .filter(|k| k.name() != "portable")
        {
            println!("{}", kernels.name());
            let wants = |part: &str| only.as_deref().is_none_or(|only| only == part);
            if wants("products") {
                products(kernels);
            }
            if wants("convolutions") {
                convolutions(kernels);
            }
            if wants("attentions") {
                attentions(kernels);
            }
            if wants("streams") {
                streams(kernels);
            }
        }
    });
}
