//! Features of noisy pictures, the baseline: draws of noise, and means over them (DIFT's ensemble).

use super::noise::{Purpose, draw};
use super::{Condition, ExtractError, Extractor, Mode, Noise, feature_map};
use crate::features::FeatureMap;
use crate::graph::{Shape, Tensor};
use crate::image::Extent;

/// The noise that draw `index` of `seed` adds to latents of this shape ([`Noise::Drawn`]).
pub fn drawn_noise(seed: u64, index: usize, latents: &FeatureMap) -> FeatureMap {
    let Extent { width, height } = latents.extent();
    let shape = Shape::map(height, width, latents.channels());
    feature_map(&draw(Purpose::Noise, seed, index, shape), 0)
}

impl Extractor {
    /// Draws of noise for each picture; one pass if there is no noise.
    pub(super) fn draws(&self) -> usize {
        match &self.request.mode {
            Mode::Noisy { noise, .. } => match noise {
                Noise::Drawn { count, .. } => *count,
                Noise::Given(noise) => noise.images,
            },
            _ => 1,
        }
    }

    /// The mean over all draws of noise, in passes of at most `batch` latents.
    pub(super) fn noisy(
        &self,
        latent: &Tensor<f32>,
        timestep: usize,
        noise: &Noise,
        batch: usize,
        condition: &Condition,
    ) -> Result<Vec<FeatureMap>, ExtractError> {
        let mut means = self.noisy_means(latent, timestep, noise, &[], batch, condition)?;
        Ok(means.swap_remove(0))
    }

    /// For each of `counts` the mean over the first so many draws; over all, if there are none.
    pub(super) fn noisy_means(
        &self,
        latent: &Tensor<f32>,
        timestep: usize,
        noise: &Noise,
        counts: &[usize],
        batch: usize,
        condition: &Condition,
    ) -> Result<Vec<Vec<FeatureMap>>, ExtractError> {
        let all = match noise {
            Noise::Drawn { count, .. } => *count,
            Noise::Given(given) if given.shape == latent.shape => given.images,
            Noise::Given(given) => {
                return Err(ExtractError::NoiseShape {
                    found: given.shape,
                    expected: latent.shape,
                });
            }
        };
        let counts = if counts.is_empty() { &[all] } else { counts };
        let count = counts.iter().copied().max().unwrap_or(all);
        let noisy = |index: usize| {
            let values = match noise {
                Noise::Drawn { seed, .. } => draw(Purpose::Noise, *seed, index, latent.shape).data,
                Noise::Given(given) => given.image(index).to_vec(),
            };
            let mixed = self
                .model
                .schedule
                .add_noise(&latent.data, &values, timestep);
            Tensor::new(1, latent.shape, mixed)
        };
        let mut sums: Vec<FeatureMap> = Vec::new();
        let mut means = vec![Vec::new(); counts.len()];
        let mut done = 0;
        for first in (0..count).step_by(batch.max(1)) {
            let latents: Vec<_> = (first..count.min(first + batch.max(1)))
                .map(noisy)
                .collect();
            for maps in self.run(&latents.iter().collect::<Vec<_>>(), condition)? {
                if sums.is_empty() {
                    sums = maps;
                } else {
                    sums.iter_mut()
                        .zip(&maps)
                        .for_each(|(sum, map)| sum.add(map));
                }
                done += 1;
                for (mean, _) in means.iter_mut().zip(counts).filter(|(_, n)| **n == done) {
                    *mean = sums.clone();
                    mean.iter_mut().for_each(|sum| sum.scale(1.0 / done as f32));
                }
            }
        }
        Ok(means)
    }
}
