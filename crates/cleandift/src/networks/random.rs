//! Random weights for a graph, reproducible from a seed: for tests, benchmarks, and a first look.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::graph::Parameter;

/// Values for a parameter, drawn from (seed, name) alone: matrices and kernels normal with
/// variance 1 / inputs, so that activations stay of order one; the weights of norms near one,
/// biases near zero.
pub fn values(parameter: &Parameter, seed: u64) -> Vec<f32> {
    let Parameter { name, shape } = parameter;
    let mut random = ChaCha8Rng::from_seed(key(name, seed));
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

/// Largest magnitude of a bias that [`fill`] draws.
const BIAS: f32 = 0.1;

/// Fills `values` with a parameter's values, drawn from (seed, name) alone: matrices and kernels
/// uniform in ±1 / √inputs, as PyTorch initialises its layers; norms' weights 1, biases in ±0.1. A
/// billion values take about a second, the same for any number of threads.
pub fn fill(parameter: &Parameter, seed: u64, values: &mut [f32]) {
    const PIECE: usize = 1 << 16;
    let bound = match parameter.shape.as_slice() {
        [_] if parameter.name.ends_with(".bias") => BIAS,
        [_] => return values.fill(1.0),
        [_, inputs @ ..] => (inputs.iter().product::<usize>() as f32).sqrt().recip(),
        [] => 1.0,
    };
    let key = key(&parameter.name, seed);
    let start = u64::from_le_bytes(*key.first_chunk().expect("a digest has 32 bytes"));
    let pieces = values.par_chunks_mut(PIECE).enumerate();
    pieces.for_each(|(piece, values)| {
        for (index, value) in values.iter_mut().enumerate() {
            let position = (piece * PIECE + index) as u64;
            let bits = mixed(start.wrapping_add(position.wrapping_mul(GOLDEN_RATIO)));
            // 24 bits are what an f32 holds: from -1 to 1, without 1.
            *value = bound * ((bits >> 40) as f32 / (1 << 23) as f32 - 1.0);
        }
    });
}

/// 2^64 over the golden ratio: the step of SplitMix64.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): the n-th number of a
/// stream without the ones before it.
fn mixed(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// What the values of a parameter start from.
fn key(name: &str, seed: u64) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(seed.to_le_bytes());
    digest.update(name.as_bytes());
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_gives_the_published_numbers() {
        // The first outputs for seed 1234567, as listed with the reference implementation
        // (prng.di.unimi.it/splitmix64.c) on rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64.
        let nth = |n: u64| mixed(1_234_567_u64.wrapping_add(n.wrapping_mul(GOLDEN_RATIO)));
        let first: Vec<u64> = (1..=5).map(nth).collect();
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(first, published);
    }

    #[test]
    fn values_are_uniform_and_depend_on_name_and_seed_alone() {
        let parameter = |name: &str, shape: &[usize]| Parameter {
            name: name.to_owned(),
            shape: shape.to_vec(),
        };
        let drawn = |parameter: &Parameter, seed, threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let mut values = vec![f32::NAN; parameter.size()];
            let fill = || fill(parameter, seed, &mut values);
            pool.build().unwrap().install(fill);
            values
        };
        let weight = parameter("conv.weight", &[1000, 16, 3, 3]);
        let values = drawn(&weight, 0, 1);
        assert_eq!(values, drawn(&weight, 0, 3));
        assert_ne!(values, drawn(&weight, 1, 1));
        assert_ne!(
            values,
            drawn(&parameter("else.weight", &weight.shape), 0, 1)
        );

        // Uniform in ±b: variance b²/3. The standard error of n draws' mean is b / √(3n), of
        // their mean square b² √(4 / 45n): five of each are allowed.
        let bound = 1.0 / 12.0;
        let count = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        let square = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / count;
        assert!(values.iter().all(|value| value.abs() <= bound as f32));
        assert!(mean.abs() < 5.0 * bound / (3.0 * count).sqrt(), "{mean}");
        let error = square - bound * bound / 3.0;
        assert!(
            error.abs() < 5.0 * bound * bound * (4.0 / 45.0 / count).sqrt(),
            "{error}"
        );

        assert!(
            drawn(&parameter("norm.weight", &[64]), 0, 1)
                .iter()
                .all(|&x| x == 1.0)
        );
        let bias = drawn(&parameter("norm.bias", &[64]), 0, 1);
        assert!(bias.iter().all(|x| x.abs() <= BIAS) && bias[0] != bias[1]);
    }
}
