//! Where the random numbers of training come from.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

/// A stream of random numbers of its own for each (seed, purpose, number), the number being that of
/// a sample, a step, or whatever is drawn for: nothing depends on what was drawn before, on threads
/// or on how samples are put into batches.
#[derive(Clone, Debug)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// The stream of a `number` for a purpose, such as `"noise"`.
    pub fn new(seed: u64, purpose: &str, number: u64) -> Self {
        let mut digest = Sha256::new();
        digest.update(seed.to_le_bytes());
        digest.update(number.to_le_bytes());
        digest.update(purpose.as_bytes());
        Self(ChaCha8Rng::from_seed(digest.finalize().into()))
    }

    /// Any 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1), with 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A whole number below `bound`, each as likely (Lemire, arXiv 1805.10941).
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        let unfair = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.bits()) * u128::from(bound);
            if product as u64 >= unfair {
                return (product >> 64) as u64;
            }
        }
    }

    /// A standard normal number.
    pub fn normal(&mut self) -> f32 {
        StandardNormal.sample(&mut self.0)
    }

    /// `count` standard normal numbers.
    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_depend_on_all_three_and_on_nothing_else() {
        let first = |seed, purpose, number| Random::new(seed, purpose, number).bits();
        assert_eq!(first(1, "noise", 2), first(1, "noise", 2));
        let others = [(2, "noise", 2), (1, "crop", 2), (1, "noise", 3)];
        for (seed, purpose, number) in others {
            assert_ne!(first(seed, purpose, number), first(1, "noise", 2));
        }
    }

    #[test]
    fn numbers_are_spread_evenly() {
        let mut random = Random::new(0, "test", 0);
        let mut counts = [0_u32; 7];
        for _ in 0..7000 {
            counts[random.below(7) as usize] += 1;
        }
        // Binomial: deviation √(7000 · 1/7 · 6/7) ≈ 29; five of them are allowed.
        assert!(counts.iter().all(|&n| n.abs_diff(1000) < 146), "{counts:?}");
        let uniform: Vec<f64> = (0..7000).map(|_| random.uniform()).collect();
        let mean = uniform.iter().sum::<f64>() / 7000.0;
        // Deviation of the mean: √(1/12 / 7000) ≈ 0.00345.
        assert!((mean - 0.5).abs() < 0.0173, "{mean}");
        assert!(uniform.iter().all(|x| (0.0..1.0).contains(x)));
    }
}
