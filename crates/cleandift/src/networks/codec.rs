//! The latent codec: between pixels and the latents that the U-Net sees.

use super::config::CodecConfig;
use super::vae;
use crate::graph::{Builder, Graph, Shape};

/// Name of the image, `[H, W, 3]` in [-1, 1]: input of the encoder, output of the decoder.
pub const IMAGE: &str = "image";
/// Name of the scaled latents, `[h, w, c]`: output of the encoder (the mean), input of the decoder.
pub const LATENTS: &str = "latents";
/// Name of the encoder's second output, if there is a distribution: the unscaled means, then the
/// logarithms of the variances, `[h, w, 2 c]`.
pub const MOMENTS: &str = "moments";

impl CodecConfig {
    /// Pixels per latent cell, along each side.
    pub fn factor(&self) -> usize {
        match self {
            Self::Autoencoder(config) => 1 << (config.channels.len() - 1),
            Self::PixelUnshuffle(config) => config.factor,
            Self::LinearPatches(config) => config.factor,
        }
    }

    /// Channels of the latent.
    pub fn latent_channels(&self) -> usize {
        match self {
            Self::Autoencoder(config) => config.latent_channels,
            Self::PixelUnshuffle(config) => config.latent_channels(),
            Self::LinearPatches(config) => config.latent_channels,
        }
    }

    /// From [`IMAGE`] of `height` x `width` pixels (multiples of [`CodecConfig::factor`]) to
    /// [`LATENTS`] and, for an auto-encoder, [`MOMENTS`].
    pub fn encoder(&self, height: usize, width: usize) -> Graph {
        let mut b = Builder::new();
        let image = b.input(IMAGE, Shape::map(height, width, 3));
        let latents = match self {
            Self::Autoencoder(config) => {
                let moments = vae::encoder(&mut b, config, image);
                b.output(MOMENTS, moments);
                let mean = b.slice(moments, 0, config.latent_channels);
                let scale = config.scaling_factor;
                b.affine(mean, &[scale], &[-config.shift_factor * scale])
            }
            Self::PixelUnshuffle(config) => {
                let blocks = b.pixel_unshuffle(image, config.factor);
                let channels = config.latent_channels();
                let pick = |constants: &[f64], i: usize| constants[i % constants.len()];
                let shift: Vec<f64> = (0..channels)
                    .map(|i| -pick(&config.shift, i) * pick(&config.scale, i))
                    .collect();
                b.affine(blocks, &config.scale, &shift)
            }
            Self::LinearPatches(config) => {
                let blocks = b.pixel_unshuffle(image, config.factor);
                b.linear(blocks, "encoder", config.latent_channels)
            }
        };
        b.output(LATENTS, latents);
        b.finish()
    }

    /// From [`LATENTS`] of `height` x `width` cells back to [`IMAGE`].
    pub fn decoder(&self, height: usize, width: usize) -> Graph {
        let mut b = Builder::new();
        let latents = b.input(LATENTS, Shape::map(height, width, self.latent_channels()));
        let image = match self {
            Self::Autoencoder(config) => {
                let scale = 1.0 / config.scaling_factor;
                let latent = b.affine(latents, &[scale], &[config.shift_factor]);
                vae::decoder(&mut b, config, latent)
            }
            Self::PixelUnshuffle(config) => {
                let scale: Vec<f64> = config.scale.iter().map(|scale| 1.0 / scale).collect();
                let blocks = b.affine(latents, &scale, &config.shift);
                b.pixel_shuffle(blocks, config.factor)
            }
            Self::LinearPatches(config) => {
                let pixels = 3 * config.factor * config.factor;
                let blocks = b.linear(latents, "decoder", pixels);
                b.pixel_shuffle(blocks, config.factor)
            }
        };
        b.output(IMAGE, image);
        b.finish()
    }
}
