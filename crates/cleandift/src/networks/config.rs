//! Reads the `config.json` of each part of a model, and refuses what is not supported.

use serde::Deserialize;
use serde_json::{Value, json};

/// A config that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the JSON of such a config.
    #[error("{part} config: {reason}")]
    Invalid {
        /// Which part of the model.
        part: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// A value that no network here implements.
    #[error("{part} config: `{key}` is {found}, supported is {supported}")]
    Unsupported {
        /// Which part of the model.
        part: &'static str,
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What would be.
        supported: String,
    },
}

/// A number for all levels, or one for each.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
enum PerLevel {
    One(usize),
    Each(Vec<usize>),
}

/// Levels of the U-Net: the taps' names rest on this number.
const LEVELS: usize = 4;

/// One part's config as JSON, with checks that name what was found.
struct Checked<'c> {
    part: &'static str,
    json: &'c Value,
}

impl Checked<'_> {
    /// Fails unless the key is absent (or null), or has the only value that is implemented.
    fn only(&self, key: &'static str, supported: Value) -> Result<(), ConfigError> {
        match self.json.get(key) {
            None | Some(Value::Null) => Ok(()),
            Some(found) if same(found, &supported) => Ok(()),
            Some(found) => Err(self.unsupported(key, found.to_string(), supported.to_string())),
        }
    }

    fn unsupported(&self, key: &'static str, found: String, supported: String) -> ConfigError {
        ConfigError::Unsupported {
            part: self.part,
            key,
            found,
            supported,
        }
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self) -> Result<T, ConfigError> {
        T::deserialize(self.json).map_err(|error| self.invalid(error.to_string()))
    }

    fn invalid(&self, reason: String) -> ConfigError {
        ConfigError::Invalid {
            part: self.part,
            reason,
        }
    }

    fn require(&self, holds: bool, reason: impl FnOnce() -> String) -> Result<(), ConfigError> {
        if holds {
            Ok(())
        } else {
            Err(self.invalid(reason()))
        }
    }
}

/// Equal, with `1` and `1.0` the same.
fn same(found: &Value, supported: &Value) -> bool {
    found == supported || (found.is_number() && found.as_f64() == supported.as_f64())
}

/// `UNet2DConditionModel` with Stable Diffusion's blocks: four levels of two layers.
#[derive(Clone, Debug, PartialEq)]
pub struct UnetConfig {
    /// Channels of the latent.
    pub in_channels: usize,
    /// Channels of the output.
    pub out_channels: usize,
    /// Channels of each level.
    pub channels: [usize; LEVELS],
    /// Attention heads of each level, or none where a level has no attention.
    pub heads: [Option<usize>; LEVELS],
    /// Heads of the middle block.
    pub mid_heads: usize,
    /// Width of the text embeddings.
    pub cross_attention_dim: usize,
    /// Groups of all group norms.
    pub groups: usize,
    /// Epsilon of the residual blocks' group norms.
    pub epsilon: f64,
    /// Whether the transformers' projections are linear maps (SD 2) or 1x1 convolutions (SD 1).
    pub linear_projection: bool,
    /// The latent's side that the network was trained at.
    pub sample_size: usize,
}

#[derive(Deserialize)]
struct RawUnet {
    in_channels: usize,
    out_channels: usize,
    block_out_channels: [usize; LEVELS],
    down_block_types: [String; LEVELS],
    up_block_types: [String; LEVELS],
    attention_head_dim: Option<PerLevel>,
    num_attention_heads: Option<PerLevel>,
    cross_attention_dim: usize,
    #[serde(default = "default_groups")]
    norm_num_groups: usize,
    #[serde(default = "default_epsilon")]
    norm_eps: f64,
    #[serde(default)]
    use_linear_projection: bool,
    sample_size: usize,
}

fn default_groups() -> usize {
    32
}

fn default_epsilon() -> f64 {
    1e-5
}

impl UnetConfig {
    /// From the JSON of `unet/config.json`. Absent keys have diffusers' defaults.
    ///
    /// What diffusers calls `attention_head_dim` is the number of heads in these models.
    pub fn from_json(json: &Value) -> Result<Self, ConfigError> {
        let checked = Checked {
            part: "U-Net",
            json,
        };
        checked.only("_class_name", "UNet2DConditionModel".into())?;
        for (key, supported) in [
            ("act_fn", "silu".into()),
            ("layers_per_block", 2.into()),
            ("downsample_padding", 1.into()),
            ("mid_block_scale_factor", 1.into()),
            ("mid_block_type", "UNetMidBlock2DCrossAttn".into()),
            ("transformer_layers_per_block", 1.into()),
            ("flip_sin_to_cos", true.into()),
            ("freq_shift", 0.into()),
            ("center_input_sample", false.into()),
            ("dual_cross_attention", false.into()),
            ("only_cross_attention", false.into()),
            ("resnet_time_scale_shift", "default".into()),
            ("time_embedding_type", "positional".into()),
            ("class_embed_type", Value::Null),
            ("num_class_embeds", Value::Null),
            ("addition_embed_type", Value::Null),
            ("encoder_hid_dim", Value::Null),
            ("time_cond_proj_dim", Value::Null),
            ("conv_in_kernel", 3.into()),
            ("conv_out_kernel", 3.into()),
        ] {
            checked.only(key, supported)?;
        }
        let raw: RawUnet = checked.parse()?;
        let attention = attention_levels(&checked, &raw)?;
        let heads = head_counts(&checked, &raw)?;
        let config = Self {
            in_channels: raw.in_channels,
            out_channels: raw.out_channels,
            channels: raw.block_out_channels,
            heads: std::array::from_fn(|level| attention[level].then_some(heads[level])),
            mid_heads: heads[LEVELS - 1],
            cross_attention_dim: raw.cross_attention_dim,
            groups: raw.norm_num_groups,
            epsilon: raw.norm_eps,
            linear_projection: raw.use_linear_projection,
            sample_size: raw.sample_size,
        };
        for (channels, heads) in config.channels.into_iter().zip(heads) {
            let divides = |by: usize| by > 0 && channels > 0 && channels % by == 0;
            checked.require(divides(config.groups), || {
                format!(
                    "{channels} channels don't divide into {} groups",
                    config.groups
                )
            })?;
            checked.require(divides(heads), || {
                format!("{channels} channels don't divide into {heads} heads")
            })?;
        }
        checked.require(
            config.channels[0].is_multiple_of(2) && config.sample_size > 0,
            || {
                "the first level needs an even number of channels, sample_size a positive one"
                    .into()
            },
        )?;
        Ok(config)
    }

    /// The JSON that [`UnetConfig::from_json`] and diffusers read.
    pub fn to_json(&self) -> Value {
        let block = |heads: &Option<usize>, cross: &str, plain: &str| match heads {
            Some(_) => cross.to_owned(),
            None => plain.to_owned(),
        };
        let heads = self.heads.iter().enumerate();
        let heads = heads.map(|(level, heads)| match heads {
            _ if level + 1 == LEVELS => self.mid_heads,
            heads => heads.unwrap_or(1),
        });
        json!({
            "_class_name": "UNet2DConditionModel",
            "sample_size": self.sample_size,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "block_out_channels": self.channels,
            "layers_per_block": 2,
            "down_block_types": self.heads.iter()
                .map(|heads| block(heads, "CrossAttnDownBlock2D", "DownBlock2D"))
                .collect::<Vec<_>>(),
            "up_block_types": self.heads.iter().rev()
                .map(|heads| block(heads, "CrossAttnUpBlock2D", "UpBlock2D"))
                .collect::<Vec<_>>(),
            "attention_head_dim": heads.collect::<Vec<_>>(),
            "cross_attention_dim": self.cross_attention_dim,
            "norm_num_groups": self.groups,
            "norm_eps": self.epsilon,
            "use_linear_projection": self.linear_projection,
        })
    }
}

/// Which levels have attention; up blocks must mirror the down blocks.
fn attention_levels(checked: &Checked, raw: &RawUnet) -> Result<[bool; LEVELS], ConfigError> {
    let has = |key: &'static str, found: &str, plain: &str, cross: &str| match found {
        _ if found == plain => Ok(false),
        _ if found == cross => Ok(true),
        _ => Err(checked.unsupported(key, found.to_owned(), format!("{plain} or {cross}"))),
    };
    let mut attention = [false; LEVELS];
    let blocks = raw
        .down_block_types
        .iter()
        .zip(raw.up_block_types.iter().rev());
    for (level, (down, up)) in blocks.enumerate() {
        attention[level] = has(
            "down_block_types",
            down,
            "DownBlock2D",
            "CrossAttnDownBlock2D",
        )?;
        let mirrored = has("up_block_types", up, "UpBlock2D", "CrossAttnUpBlock2D")?;
        checked.require(mirrored == attention[level], || {
            format!("level {level} has attention on one side only ({down}, {up})")
        })?;
    }
    Ok(attention)
}

fn head_counts(checked: &Checked, raw: &RawUnet) -> Result<[usize; LEVELS], ConfigError> {
    match raw
        .num_attention_heads
        .as_ref()
        .or(raw.attention_head_dim.as_ref())
    {
        None => Ok([8; LEVELS]),
        Some(PerLevel::One(heads)) => Ok([*heads; LEVELS]),
        Some(PerLevel::Each(heads)) => heads.as_slice().try_into().map_err(|_| {
            checked.invalid(format!(
                "attention_head_dim has {} entries, expected 4",
                heads.len()
            ))
        }),
    }
}

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
            scaling_factor: raw.scaling_factor.unwrap_or(0.18215),
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
        let channels = config.latent_channels();
        for constants in [&config.shift, &config.scale] {
            checked.require(constants.len() == 1 || constants.len() == channels, || {
                format!("`shift` and `scale` need 1 or {channels} values")
            })?;
        }
        checked.require(
            config.factor > 0 && config.scale.iter().all(|&scale| scale != 0.0),
            || "`factor` and `scale` must not be zero".into(),
        )?;
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
        checked.require(config.factor > 0 && config.latent_channels > 0, || {
            "`factor` and `latent_channels` must not be zero".into()
        })?;
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

/// The activation of CLIP's perceptrons.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ClipActivation {
    /// `x * sigmoid(1.702 x)`: CLIP ViT-L/14 (SD 1.5).
    QuickGelu,
    /// `x * Φ(x)`: OpenCLIP ViT-H (SD 2.1).
    Gelu,
}

/// `CLIPTextModel`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct ClipConfig {
    /// Entries of the vocabulary.
    pub vocab_size: usize,
    /// Width.
    pub hidden_size: usize,
    /// Width inside the perceptrons.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads.
    pub num_attention_heads: usize,
    /// Tokens of a prompt.
    pub max_position_embeddings: usize,
    /// Activation of the perceptrons.
    pub hidden_act: ClipActivation,
    /// Epsilon of the norms.
    pub layer_norm_eps: f64,
}

/// Where text embeddings come from.
#[derive(Clone, Debug, PartialEq)]
pub enum TextConfig {
    /// A CLIP text encoder.
    Clip(ClipConfig),
    /// A table of embeddings, one row per class and a last one for none.
    ClassTable {
        /// The classes' names, in the order of the rows; none, if the config does not tell them.
        classes: Vec<String>,
    },
}

impl TextConfig {
    /// From the JSON of `text_encoder/config.json`; `_class_name: "ClassTable"` declares a table,
    /// whose rows `classes` may name.
    pub fn from_json(json: &Value) -> Result<Self, ConfigError> {
        if json.get("_class_name").and_then(Value::as_str) == Some("ClassTable") {
            let classes = json.get("classes").and_then(Value::as_array);
            let names = classes.into_iter().flatten().filter_map(Value::as_str);
            return Ok(Self::ClassTable {
                classes: names.map(str::to_owned).collect(),
            });
        }
        let checked = Checked {
            part: "text encoder",
            json,
        };
        checked.only("model_type", "clip_text_model".into())?;
        let config: ClipConfig = checked.parse()?;
        let (width, heads) = (config.hidden_size, config.num_attention_heads);
        checked.require(heads > 0 && width % heads == 0, || {
            format!("hidden_size {width} does not divide into {heads} heads")
        })?;
        Ok(Self::Clip(config))
    }
}
