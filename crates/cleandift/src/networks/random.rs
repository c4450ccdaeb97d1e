//! Random weights for a graph, reproducible from a seed: for tests, benchmarks, and a first look.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

use crate::graph::Parameter;

/// Values for a parameter, drawn from (seed, name) alone: matrices and kernels normal with
/// variance 1 / inputs, so that activations stay of order one; the weights of norms near one,
/// biases near zero.
pub fn values(parameter: &Parameter, seed: u64) -> Vec<f32> {
    let Parameter { name, shape } = parameter;
    let mut digest = Sha256::new();
    digest.update(seed.to_le_bytes());
    digest.update(name.as_bytes());
    let mut random = ChaCha8Rng::from_seed(digest.finalize().into());
    let (mean, deviation) = match shape.as_slice() {
        [_] if name.ends_with(".bias") => (0.0, 0.1),
        [_] => (1.0, 0.1),
        [_, inputs @ ..] => (
            0.0,
            (inputs.iter().product::<usize>() as f32).sqrt().recip(),
        ),
        [] => (0.0, 1.0),
    };
    (0..parameter.size())
        .map(|_| {
            let normal: f32 = StandardNormal.sample(&mut random);
            mean + deviation * normal
        })
        .collect()
}
