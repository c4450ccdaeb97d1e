//! Every kernel that matters, at the shapes of Stable Diffusion at 512 x 512 pixels, on all
//! threads: `cargo bench -p cleandift-kernels -- winograd/avx2` runs those whose names hold that.
//!
//! "Elements" are multiply-adds (a convolution's as if it were computed directly), or the values
//! read and written where nothing is multiplied: 10^9 elements a second of the former are two
//! GFLOP/s. The last group is what the machine allows.

use std::hint::black_box;
use std::time::Duration;

use cleandift_kernels::{
    Attention, Convolution, Gate, Kernels, Layer, Maps, Padding, Shape, Winograd,
};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput};

/// Rows, columns, channels in, channels out of 3x3 convolutions: the encoder's, then the U-Net's.
const CONVOLUTIONS: [[usize; 4]; 10] = [
    [512, 512, 128, 128],
    [256, 256, 256, 256],
    [128, 128, 512, 512],
    [64, 64, 512, 512],
    [64, 64, 320, 320],
    [32, 32, 640, 640],
    [16, 16, 1280, 1280],
    [16, 16, 2560, 1280],
    [8, 8, 1280, 1280],
    [8, 8, 2560, 1280],
];

/// Tokens, channels in, channels out.
const LINEARS: [[usize; 3]; 3] = [[4096, 320, 1280], [1024, 640, 640], [256, 1280, 5120]];

/// Queries, keys, heads, channels of a head: levels 1 to 3, a prompt, the auto-encoder's middle.
const ATTENTIONS: [[usize; 4]; 5] = [
    [4096, 4096, 5, 64],
    [1024, 1024, 10, 64],
    [256, 256, 20, 64],
    [4096, 77, 5, 64],
    [4096, 4096, 1, 512],
];

/// Pixels and channels.
const NORMS: [[usize; 2]; 3] = [[512 * 512, 128], [4096, 320], [64, 1280]];

/// The tables worth measuring: all that are vectorised by hand, else the portable one.
fn tables() -> Vec<&'static Kernels> {
    let all = Kernels::all();
    let count = (all.len() - 1).max(1);
    all.into_iter().take(count).collect()
}

/// Numbers without any structure that matters to time: none is zero, small or large.
fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i % 61) as f32 / 61.0 - 0.45).collect()
}

fn group<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    group
}

/// Measures `run` on each table; `multiply_adds` is what one call does.
fn measure<R: FnMut()>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    shape: &str,
    elements: usize,
    run: impl Fn(&'static Kernels) -> R,
) {
    group.throughput(Throughput::Elements(elements as u64));
    for kernels in tables() {
        let mut prepared = None;
        group.bench_function(format!("{}/{shape}", kernels.name()), |bencher| {
            // Benches that are not asked for shall not pack weights.
            let run = prepared.get_or_insert_with(|| run(kernels));
            bencher.iter(run);
        });
    }
}

fn convolutions(criterion: &mut Criterion) {
    let ways = [Way::Direct, Way::Large, Way::Small];
    for way in ways {
        let mut group = group(criterion, way.name());
        for [height, width, inputs, outputs] in CONVOLUTIONS {
            let shape = format!("{height}x{width}x{inputs}->{outputs}");
            let multiply_adds = height * width * inputs * outputs * 9;
            measure(&mut group, &shape, multiply_adds, |kernels| {
                let maps = Maps {
                    images: 1,
                    height,
                    width,
                };
                convolution(kernels, way, maps, [inputs, outputs])
            });
        }
    }
}

/// The algorithms for a 3x3 convolution.
#[derive(Clone, Copy)]
enum Way {
    Direct,
    Large,
    Small,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Direct => "convolution",
            Self::Large => "winograd",
            Self::Small => "winograd, weights on the way",
        }
    }
}

/// A convolution that is ready to run.
fn convolution(
    kernels: &'static Kernels,
    way: Way,
    maps: Maps,
    [inputs, outputs]: [usize; 2],
) -> impl FnMut() {
    let pixels = maps.height * maps.width;
    let x = values(pixels * inputs);
    let (weight, bias) = (values(outputs * inputs * 9), values(outputs));
    let mut out = vec![0.0; pixels * outputs];
    let transformed = matches!(way, Way::Large)
        .then(|| kernels.pack_winograd(Winograd::Four, &weight, outputs, inputs));
    let packed = transformed
        .is_none()
        .then(|| kernels.pack_convolution(&weight, outputs, inputs, 3));
    let geometry = Convolution {
        images: 1,
        height: maps.height,
        width: maps.width,
        stride: 1,
        padding: Padding::all(1),
    };
    move || {
        let layer = Layer {
            x: &x,
            maps,
            norm: None,
            bias: Some(&bias),
            residual: None,
        };
        match (&transformed, &packed, way) {
            (Some(weight), ..) => kernels.convolution_winograd(&layer, weight, None, &mut out),
            (_, Some(weight), Way::Small) => {
                let kind = Winograd::Four;
                kernels.convolution_winograd_small(kind, &layer, weight, None, &mut out);
            }
            (_, Some(weight), _) => {
                kernels.convolution(&x, &geometry, weight, Some(&bias[..]), &mut out);
            }
            _ => unreachable!("the weight is packed in one way or the other"),
        }
        black_box(&mut out);
    }
}

fn products(criterion: &mut Criterion) {
    let mut group = group(criterion, "product");
    for [rows, inputs, outputs] in LINEARS {
        let shape = format!("{rows}x{inputs}x{outputs}");
        measure(&mut group, &shape, rows * inputs * outputs, |kernels| {
            let (a, bias) = (values(rows * inputs), values(outputs));
            let weight = kernels.pack_linear(&values(outputs * inputs), outputs, inputs);
            let mut out = vec![0.0; rows * outputs];
            move || {
                kernels.product(&a, &weight, Some(&bias[..]), &mut out);
                black_box(&mut out);
            }
        });
    }
}

fn attentions(criterion: &mut Criterion) {
    let mut group = group(criterion, "attention");
    for [queries, keys, heads, head_size] in ATTENTIONS {
        let name = format!("{queries}x{keys}, {heads} of {head_size}");
        let multiply_adds = 2 * queries * keys * heads * head_size;
        measure(&mut group, &name, multiply_adds, |kernels| {
            let shape = Attention {
                images: 1,
                queries,
                keys,
                heads,
                head_size,
                causal: false,
            };
            let [q, k, v] = [queries, keys, keys].map(|tokens| values(tokens * heads * head_size));
            let mut out = vec![0.0; q.len()];
            move || {
                kernels.attention(&shape, &q, &k, &v, &mut out);
                black_box(&mut out);
            }
        });
    }
}

fn norms(criterion: &mut Criterion) {
    let mut group = group(criterion, "norm");
    for [pixels, channels] in NORMS {
        let shape = Shape {
            images: 1,
            pixels,
            channels,
        };
        let of = |kind: &str| format!("{kind} {pixels}x{channels}");
        let (weight, bias) = (values(channels), values(channels));
        measure(&mut group, &of("group, SiLU"), 2 * shape.len(), |kernels| {
            let (x, weight, bias) = (values(shape.len()), weight.clone(), bias.clone());
            let mut out = x.clone();
            move || {
                kernels.group_norm(&x, shape, 32, 1e-6, &weight, &bias, true, &mut out);
                black_box(&mut out);
            }
        });
        measure(&mut group, &of("layer"), 2 * shape.len(), |kernels| {
            let (x, weight, bias) = (values(shape.len()), weight.clone(), bias.clone());
            let mut out = x.clone();
            move || {
                kernels.layer_norm(&x, &weight, &bias, 1e-5, &mut out);
                black_box(&mut out);
            }
        });
    }
    let (rows, channels) = (4096, 1280);
    let moved = 3 * rows * channels;
    measure(&mut group, "GEGLU 4096x1280", moved, |kernels| {
        let x = values(2 * rows * channels);
        let mut out = vec![0.0; rows * channels];
        move || {
            kernels.gated(&x, channels, Gate::Gelu, &mut out);
            black_box(&mut out);
        }
    });
}

/// Peak and bandwidth.
fn limits(criterion: &mut Criterion) {
    const ROUNDS: usize = 1 << 19;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut group = group(criterion, "limit");
    for (name, tasks) in [("one thread", 1), ("all threads", 8 * threads)] {
        for kernels in tables() {
            let done = kernels.multiply_adds(tasks, ROUNDS);
            group.throughput(Throughput::Elements(done));
            group.bench_function(format!("{}/{name}", kernels.name()), |bencher| {
                bencher.iter(|| kernels.multiply_adds(tasks, ROUNDS));
            });
        }
    }
    let x = vec![1.0; 1 << 26];
    group.throughput(Throughput::Bytes(size_of_val(x.as_slice()) as u64));
    group.bench_function("read", |bencher| bencher.iter(|| Kernels::best().read(&x)));
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for group in [convolutions, products, attentions, norms, limits] {
        group(&mut criterion);
    }
    criterion.final_summary();
}
