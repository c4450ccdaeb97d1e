//! The configs of what makes latents of pixels.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Checked, ConfigError, MOST, MOST_LAYERS, default_groups};

/// The largest side of a block of pixels.
const MOST_PIXELS: usize = 256;

/// `AutoencoderKL`.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Channels of each level.
    pub channels: Vec<usize>,
    /// Residual blocks of each level of the encoder; the decoder has one more.
    pub layers: usize,
    /// Channels of the latent.
    pub latent_channels: usize,
    /// Groups of all group norms.
    pub groups: usize,
    /// The latent's factor: 0.18215 in Stable Diffusion.
    pub scaling_factor: f64,
    /// Subtracted from the latent before it is scaled.
    pub shift_factor: f64,
    /// Whether a 1x1 convolution follows the encoder.
    pub quant: bool,
    /// Whether a 1x1 convolution precedes the decoder.
    pub post_quant: bool,
}

#[derive(Deserialize)]
struct RawVae {
    block_out_channels: Vec<usize>,
    #[serde(default = "one")]
    layers_per_block: usize,
    latent_channels: usize,
    #[serde(default = "default_groups")]
    norm_num_groups: usize,
    scaling_factor: Option<f64>,
    shift_factor: Option<f64>,
    use_quant_conv: Option<bool>,
    use_post_quant_conv: Option<bool>,
}

fn one() -> usize {
    1
}

impl VaeConfig {
    /// From the JSON of `vae/config.json`.
    pub fn from_json(json: &Value) -> Result<Self, ConfigError> {
        let checked = Checked { part: "VAE", json };
        checked.only("act_fn", "silu".into())?;
        checked.only("in_channels", 3.into())?;
        checked.only("out_channels", 3.into())?;
        checked.only("mid_block_add_attention", true.into())?;
        for (key, supported) in [
            ("down_block_types", "DownEncoderBlock2D"),
            ("up_block_types", "UpDecoderBlock2D"),
        ] {
            for found in json
                .get(key)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                if found != supported {
                    return Err(checked.unsupported(key, found.to_string(), supported.into()));
                }
            }
        }
        let raw: RawVae = checked.parse()?;
        checked.sizes(MOST, [("latent_channels", raw.latent_channels)])?;
        checked.sizes(
            MOST_LAYERS,
            [
                ("layers_per_block", raw.layers_per_block),
                ("block_out_channels", raw.block_out_channels.len()),
            ],
        )?;
        for &channels in &raw.block_out_channels {
            checked.sizes(MOST, [("block_out_channels", channels)])?;
        }
        let scaling_factor = raw.scaling_factor.unwrap_or(0.18215);
        checked.require(scaling_factor.is_finite() && scaling_factor != 0.0, || {
            format!("`scaling_factor` is {scaling_factor}")
        })?;
        let groups = raw.norm_num_groups;
        let fits =
            |channels: &usize| *channels > 0 && groups > 0 && channels.is_multiple_of(groups);
        checked.require(
            !raw.block_out_channels.is_empty() && raw.block_out_channels.iter().all(fits),
            || format!("block_out_channels don't divide into {groups} groups"),
        )?;
        Ok(Self {
            channels: raw.block_out_channels,
            layers: raw.layers_per_block,
            latent_channels: raw.latent_channels,
            groups,
            scaling_factor,
            shift_factor: raw.shift_factor.unwrap_or(0.0),
            quant: raw.use_quant_conv.unwrap_or(true),
            post_quant: raw.use_post_quant_conv.unwrap_or(true),
        })
    }
}

/// Pixels put into channels in blocks, shifted and scaled: a codec without weights.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct PixelUnshuffleConfig {
    /// Side of a block: pixels per latent cell.
    pub factor: usize,
    /// Subtracted, per channel of the latent or one for all.
    pub shift: Vec<f64>,
    /// Multiplied afterwards, per channel of the latent or one for all.
    pub scale: Vec<f64>,
}

impl PixelUnshuffleConfig {
    /// Channels of the latent.
    pub fn latent_channels(&self) -> usize {
        3 * self.factor * self.factor
    }

    fn from_json(json: &Value) -> Result<Self, ConfigError> {
        let checked = Checked {
            part: "codec",
            json,
        };
        let config: Self = checked.parse()?;
        checked.sizes(MOST_PIXELS, [("factor", config.factor)])?;
        let channels = config.latent_channels();
        for constants in [&config.shift, &config.scale] {
            checked.require(constants.len() == 1 || constants.len() == channels, || {
                format!("`shift` and `scale` need 1 or {channels} values")
            })?;
        }
        checked.require(config.scale.iter().all(|&scale| scale != 0.0), || {
            "`scale` must not be zero".into()
        })?;
        Ok(config)
    }
}

/// Blocks of pixels seen as points in a space of fewer dimensions: a linear codec, whose two maps are
/// its weights: `encoder.weight` `[latent_channels, 3 factor²]`, `decoder.weight` the other way,
/// pixels in (channel, row, column) order, and a bias each.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct LinearPatchesConfig {
    /// Side of a block: pixels per latent cell.
    pub factor: usize,
    /// Channels of the latent.
    pub latent_channels: usize,
}

impl LinearPatchesConfig {
    fn from_json(json: &Value) -> Result<Self, ConfigError> {
        let checked = Checked {
            part: "codec",
            json,
        };
        let config: Self = checked.parse()?;
        checked.sizes(MOST_PIXELS, [("factor", config.factor)])?;
        checked.sizes(MOST, [("latent_channels", config.latent_channels)])?;
        Ok(config)
    }
}

/// How pixels become latents.
#[derive(Clone, Debug, PartialEq)]
pub enum CodecConfig {
    /// Stable Diffusion's auto-encoder.
    Autoencoder(VaeConfig),
    /// Pixels as they are, in blocks.
    PixelUnshuffle(PixelUnshuffleConfig),
    /// Blocks of pixels, mapped to fewer channels.
    LinearPatches(LinearPatchesConfig),
}

impl CodecConfig {
    /// From the JSON of `vae/config.json`; `_class_name` tells which it is.
    pub fn from_json(json: &Value) -> Result<Self, ConfigError> {
        match json.get("_class_name").and_then(Value::as_str) {
            Some("PixelUnshuffle") => {
                PixelUnshuffleConfig::from_json(json).map(Self::PixelUnshuffle)
            }
            Some("LinearPatches") => LinearPatchesConfig::from_json(json).map(Self::LinearPatches),
            Some("AutoencoderKL") | None => VaeConfig::from_json(json).map(Self::Autoencoder),
            Some(other) => Err(ConfigError::Unsupported {
                part: "VAE",
                key: "_class_name",
                found: other.to_owned(),
                supported: "AutoencoderKL, PixelUnshuffle or LinearPatches".to_owned(),
            }),
        }
    }
}

impl PixelUnshuffleConfig {
    /// The JSON that [`CodecConfig::from_json`] reads.
    pub fn to_json(&self) -> Value {
        json!({
            "_class_name": "PixelUnshuffle",
            "factor": self.factor,
            "shift": self.shift,
            "scale": self.scale,
        })
    }
}

impl LinearPatchesConfig {
    /// The JSON that [`CodecConfig::from_json`] reads.
    pub fn to_json(&self) -> Value {
        json!({
            "_class_name": "LinearPatches",
            "factor": self.factor,
            "latent_channels": self.latent_channels,
        })
    }
}
