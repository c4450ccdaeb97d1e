//! Random draws that depend on their seed alone: never on batch, thread or order.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

use crate::graph::{Shape, Tensor};

/// What a draw is for; draws for different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Noise added to the latent.
    Noise,
    /// The auto-encoder's sample.
    Latent,
}

/// Standard normal values for draw `index` of `seed`, for a map of this shape.
pub(super) fn draw(purpose: Purpose, seed: u64, index: usize, shape: Shape) -> Tensor<f32> {
    let mut digest = Sha256::new();
    digest.update(match purpose {
        Purpose::Noise => b"noise.".as_slice(),
        Purpose::Latent => b"latent",
    });
    for number in [
        seed,
        index as u64,
        shape.height as u64,
        shape.width as u64,
        shape.channels as u64,
    ] {
        digest.update(number.to_le_bytes());
    }
    let mut random = ChaCha8Rng::from_seed(digest.finalize().into());
    let values = (0..shape.size())
        .map(|_| StandardNormal.sample(&mut random))
        .collect();
    Tensor::new(1, shape, values)
}
