//! The config of the U-Net.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Checked, ConfigError, MOST, default_groups};

/// Levels of the U-Net: the taps' names rest on this number.
const LEVELS: usize = 4;

/// A number for all levels, or one for each.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
enum PerLevel {
    One(usize),
    Each(Vec<usize>),
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
        checked.sizes(
            MOST,
            [
                ("in_channels", raw.in_channels),
                ("out_channels", raw.out_channels),
                ("cross_attention_dim", raw.cross_attention_dim),
                ("sample_size", raw.sample_size),
            ],
        )?;
        for channels in raw.block_out_channels {
            checked.sizes(MOST, [("block_out_channels", channels)])?;
        }
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
        checked.require(config.channels[0].is_multiple_of(2), || {
            "the first level needs an even number of channels".into()
        })?;
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
