//! The config of `pretrain`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::patches;
use crate::checkpoint::Weights;
use crate::extractor::CodecModel;
use crate::graph::Shape;
use crate::networks::config::{CodecConfig, LinearPatchesConfig, PixelUnshuffleConfig, UnetConfig};
pub use crate::networks::schedule::Prediction;
use crate::networks::schedule::Schedule as Noise;
use crate::train::config::{ConfigError, DataConfig, RunConfig, demand, demand_positive};
use crate::train::optimiser::OptimiserConfig;
use crate::train::rate::Schedule;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PretrainConfig {
    /// What initial values, order, crops, timesteps and noise are drawn from.
    pub seed: u64,
    /// The network.
    pub model: ModelConfig,
    /// What is made small.
    pub objective: ObjectiveConfig,
    /// What to learn from.
    pub data: DataConfig,
    /// How gradients change parameters.
    pub optimiser: OptimiserConfig,
    /// The learning rate over the steps.
    pub schedule: Schedule,
    /// How far it goes, and what it keeps.
    pub run: RunConfig,
}

/// The network: `[model]`. Stable Diffusion's U-Net of four levels, over pixels put into channels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Channels of each level.
    pub channels: [usize; 4],
    /// Attention heads of each level; 0 for a level without attention (the last may be).
    pub heads: [usize; 4],
    /// Attention heads of the middle block.
    pub mid_heads: usize,
    /// Groups of all group norms.
    pub groups: usize,
    /// Width of a class's embedding.
    pub class_width: usize,
    /// The codec: side of the block of pixels that becomes one cell of the latent.
    pub patch: usize,
    /// The highest frequency of a block that is kept: of brightness, down and across together; of
    /// colours three less. None: all pixels as they are.
    pub detail: Option<usize>,
    /// Subtracted from pixels (in [-1, 1]).
    pub shift: f64,
    /// Multiplied afterwards: so that latents have a variance of one.
    pub scale: f64,
    /// With `detail`: multiplied besides, one for each channel. A photograph's lowest frequency is
    /// six times the others and more: with equal shares of noise it would never be hidden, and
    /// nothing that needs a view of the whole would have to be learned. None: one each.
    pub scales: Option<Vec<f64>>,
    /// A list of classes (lines of index, id, name); without, the WordNet ids in the pictures'
    /// names.
    pub classes: Option<PathBuf>,
    /// A model of this kind to take the first parameters from, or another run's state (averaged if it
    /// has an average).
    pub from: Option<PathBuf>,
}

impl Default for ModelConfig {
    /// The shapes of the embedded model.
    fn default() -> Self {
        Self {
            channels: [48, 96, 128, 144],
            heads: [3, 6, 8, 0],
            mid_heads: 9,
            groups: 16,
            class_width: 128,
            patch: 4,
            detail: None,
            shift: 0.0,
            scale: 1.0,
            scales: None,
            classes: None,
            from: None,
        }
    }
}

impl ModelConfig {
    /// The codec, with its weights if it has any.
    pub fn codec(&self) -> CodecModel {
        let Self {
            patch,
            shift,
            scale,
            ..
        } = *self;
        match self.detail {
            Some(detail) => CodecModel {
                config: CodecConfig::LinearPatches(LinearPatchesConfig {
                    factor: patch,
                    latent_channels: patches::channels(patch, detail),
                }),
                weights: patches::weights(patch, detail, shift, &self.channel_scales(detail)),
            },
            None => CodecModel {
                config: CodecConfig::PixelUnshuffle(PixelUnshuffleConfig {
                    factor: patch,
                    shift: vec![shift],
                    scale: vec![scale],
                }),
                weights: Weights::from_memory("a codec without weights", []),
            },
        }
    }

    /// What each kept frequency is multiplied by.
    fn channel_scales(&self, detail: usize) -> Vec<f64> {
        let channels = patches::channels(self.patch, detail);
        let each = self.scales.iter().flatten().copied();
        let each = each.chain(std::iter::repeat(1.0)).take(channels);
        each.map(|scale| scale * self.scale).collect()
    }

    /// The latent of a square picture of `size` pixels a side.
    pub fn latent(&self, size: usize) -> Shape {
        let side = size / self.patch;
        Shape::map(side, side, self.codec().config.latent_channels())
    }

    /// The U-Net, said to be trained at pictures of `size` pixels a side.
    pub fn unet(&self, size: usize) -> UnetConfig {
        let latent = self.latent(size).channels;
        UnetConfig {
            in_channels: latent,
            out_channels: latent,
            channels: self.channels,
            heads: self.heads.map(|heads| (heads > 0).then_some(heads)),
            mid_heads: self.mid_heads,
            cross_attention_dim: self.class_width,
            groups: self.groups,
            epsilon: 1e-5,
            linear_projection: true,
            sample_size: size / self.patch,
        }
    }
}

/// What is made small: `[objective]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectiveConfig {
    /// What the U-Net's output is to be.
    pub prediction: Prediction,
    /// The greatest ratio of signal to noise that counts (min-SNR): a sample's loss has the weight
    /// of this distance between latents, `min(ratio, limit)`. None: all losses weigh the same.
    pub snr_limit: Option<f64>,
    /// The share of samples whose class is not told.
    pub drop_class: f64,
    /// Whether values inside blocks are computed again on the way back: less memory, more time.
    pub recompute: bool,
}

impl Default for ObjectiveConfig {
    fn default() -> Self {
        Self {
            prediction: Prediction::Velocity,
            snr_limit: None,
            drop_class: 0.5,
            recompute: false,
        }
    }
}

impl ObjectiveConfig {
    /// The weight of a sample's loss at a timestep. The distance between predictions times
    /// `1 / ratio` (noise) or `1 / (ratio + 1)` (velocity) is that between latents.
    pub fn weight(&self, noise: &Noise, timestep: usize) -> f64 {
        let alpha = f64::from(noise.alphas_cumprod()[timestep]);
        let ratio = alpha / (1.0 - alpha);
        self.snr_limit.map_or(1.0, |limit| match self.prediction {
            Prediction::Noise => ratio.min(limit) / ratio,
            Prediction::Velocity => ratio.min(limit) / (ratio + 1.0),
        })
    }
}

impl PretrainConfig {
    /// Checks what no type can say.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (model, data, objective) = (&self.model, &self.data, &self.objective);
        let even = |n: usize, by: usize| by > 0 && n > 0 && n.is_multiple_of(by);
        for channels in model.channels {
            let groups = model.groups;
            let words = format!("has {channels}, which {groups} groups don't divide");
            demand(even(channels, groups), "model.channels", words)?;
        }
        for (channels, heads) in model.channels.into_iter().zip(model.heads) {
            let words = format!("has {heads}, which don't divide {channels} channels");
            demand(heads == 0 || even(channels, heads), "model.heads", words)?;
        }
        let words = format!(
            "is {}, which does not divide {}",
            model.mid_heads, model.channels[3]
        );
        demand(
            even(model.channels[3], model.mid_heads),
            "model.mid_heads",
            words,
        )?;
        demand(
            even(model.channels[0], 2),
            "model.channels",
            "must begin with an even number",
        )?;
        let words = format!(
            "is {}, which does not divide {} pixels",
            model.patch, data.size
        );
        demand(even(data.size, model.patch), "model.patch", words)?;
        let scale = model.scale;
        let words = format!("is {scale}, expected a positive number");
        demand(scale.is_finite() && scale > 0.0, "model.scale", words)?;
        let channels = model
            .detail
            .map_or(0, |d| patches::channels(model.patch, d));
        if let Some(scales) = &model.scales {
            let words = format!(
                "has {} values, expected one for each of the {channels} frequencies that `detail` keeps",
                scales.len()
            );
            demand(scales.len() == channels, "model.scales", words)?;
            let positive = |scale: &f64| scale.is_finite() && *scale > 0.0;
            let words = "expected positive numbers";
            demand(scales.iter().all(positive), "model.scales", words)?;
        }
        demand_positive(model.class_width, "model.class_width")?;
        let words = format!("is {}, expected a number", model.shift);
        demand(model.shift.is_finite(), "model.shift", words)?;
        if let Some(detail) = model.detail {
            let most = 2 * (model.patch - 1);
            let words = format!("is {detail}, but a block's highest frequency is {most}");
            demand(detail <= most, "model.detail", words)?;
        }
        let limit = objective.snr_limit.unwrap_or(1.0);
        let words = format!("is {limit}, expected a positive number");
        demand(limit > 0.0, "objective.snr_limit", words)?;
        let share = objective.drop_class;
        let words = format!("is {share}, expected a share from 0 to 1");
        demand((0.0..=1.0).contains(&share), "objective.drop_class", words)?;
        data.check()?;
        self.optimiser.check()
    }
}
