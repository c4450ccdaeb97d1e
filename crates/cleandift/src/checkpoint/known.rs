//! The configs of Stable Diffusion 1.5 and 2.1, for files that come without one, and for models
//! that have no files at all.
//!
//! Shapes tell the two apart, but not how many heads an attention has, so that nothing else can be
//! recognised from its shapes. Values are those of the published models' `config.json`; what is not
//! listed has diffusers' default.

use std::path::Path;

use serde_json::Value;

use super::part::{Component, ConfigOrigin};
use super::{CheckpointError, Weights};
use crate::graph::Parameters;

const SD15: &str = "Stable Diffusion 1.5";
const SD21: &str = "Stable Diffusion 2.1";

/// A published model whose configs are known by heart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Stable Diffusion 1.5.
    Sd15,
    /// Stable Diffusion 2.1.
    Sd21,
}

impl Published {
    /// The model's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sd15 => SD15,
            Self::Sd21 => SD21,
        }
    }

    /// The U-Net's `config.json`.
    pub fn unet(self) -> Value {
        json(match self {
            Self::Sd15 => UNET_SD15,
            Self::Sd21 => UNET_SD21,
        })
    }

    /// The auto-encoder's `config.json`.
    pub fn vae(self) -> Value {
        json(VAE)
    }

    /// The text encoder's `config.json`.
    pub fn text_encoder(self) -> Value {
        json(match self {
            Self::Sd15 => TEXT_ENCODER_SD15,
            Self::Sd21 => TEXT_ENCODER_SD21,
        })
    }
}

fn json(config: &str) -> Value {
    serde_json::from_str(config).expect("a built-in config is JSON")
}

/// A model's part by the shapes that only it has.
struct Known {
    component: Component,
    model: &'static str,
    shapes: &'static [(&'static str, &'static [usize])],
    absent: &'static str,
    config: &'static str,
}

const KNOWN: [Known; 5] = [
    Known {
        component: Component::Unet,
        model: SD15,
        shapes: &[
            ("conv_in.weight", &[320, 4, 3, 3]),
            (
                "down_blocks.0.attentions.0.proj_in.weight",
                &[320, 320, 1, 1],
            ),
            (
                "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
                &[320, 768],
            ),
            ("down_blocks.1.resnets.0.conv1.weight", &[640, 320, 3, 3]),
            ("down_blocks.2.resnets.0.conv1.weight", &[1280, 640, 3, 3]),
            (
                "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
                &[1280, 768],
            ),
            ("up_blocks.3.resnets.2.conv1.weight", &[320, 640, 3, 3]),
            ("conv_out.weight", &[4, 320, 3, 3]),
        ],
        absent: "down_blocks.0.attentions.0.transformer_blocks.1.norm1.weight",
        config: UNET_SD15,
    },
    Known {
        component: Component::Unet,
        model: SD21,
        shapes: &[
            ("conv_in.weight", &[320, 4, 3, 3]),
            ("down_blocks.0.attentions.0.proj_in.weight", &[320, 320]),
            (
                "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
                &[320, 1024],
            ),
            ("down_blocks.1.resnets.0.conv1.weight", &[640, 320, 3, 3]),
            ("down_blocks.2.resnets.0.conv1.weight", &[1280, 640, 3, 3]),
            (
                "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
                &[1280, 1024],
            ),
            ("up_blocks.3.resnets.2.conv1.weight", &[320, 640, 3, 3]),
            ("conv_out.weight", &[4, 320, 3, 3]),
        ],
        absent: "down_blocks.0.attentions.0.transformer_blocks.1.norm1.weight",
        config: UNET_SD21,
    },
    // Both models have the same VAE but for its weights.
    Known {
        component: Component::Vae,
        model: "Stable Diffusion's VAE",
        shapes: &[
            ("encoder.conv_in.weight", &[128, 3, 3, 3]),
            (
                "encoder.down_blocks.1.resnets.0.conv1.weight",
                &[256, 128, 3, 3],
            ),
            (
                "encoder.down_blocks.3.resnets.1.conv2.weight",
                &[512, 512, 3, 3],
            ),
            ("encoder.conv_out.weight", &[8, 512, 3, 3]),
            ("quant_conv.weight", &[8, 8, 1, 1]),
        ],
        absent: "encoder.down_blocks.4.resnets.0.conv1.weight",
        config: VAE,
    },
    Known {
        component: Component::TextEncoder,
        model: SD15,
        shapes: &[
            (
                "text_model.embeddings.token_embedding.weight",
                &[49408, 768],
            ),
            (
                "text_model.embeddings.position_embedding.weight",
                &[77, 768],
            ),
            ("text_model.encoder.layers.11.mlp.fc1.weight", &[3072, 768]),
        ],
        absent: "text_model.encoder.layers.12.mlp.fc1.weight",
        config: TEXT_ENCODER_SD15,
    },
    Known {
        component: Component::TextEncoder,
        model: SD21,
        shapes: &[
            (
                "text_model.embeddings.token_embedding.weight",
                &[49408, 1024],
            ),
            (
                "text_model.embeddings.position_embedding.weight",
                &[77, 1024],
            ),
            ("text_model.encoder.layers.22.mlp.fc1.weight", &[4096, 1024]),
        ],
        absent: "text_model.encoder.layers.23.mlp.fc1.weight",
        config: TEXT_ENCODER_SD21,
    },
];

/// The model that a component's weights have the shapes of.
pub(super) fn model_of(component: Component, weights: &Weights) -> Option<&'static str> {
    find(component, weights).map(|known| known.model)
}

fn find(component: Component, weights: &Weights) -> Option<&'static Known> {
    KNOWN.iter().find(|known| {
        known.component == component
            && known
                .shapes
                .iter()
                .all(|(name, shape)| weights.shape(name) == Some(shape))
            && !weights.has(known.absent)
    })
}

/// The config of a component whose weights have shapes that are known. `path` is for the error.
pub(super) fn config_of(
    component: Component,
    weights: &Weights,
    path: &Path,
) -> Result<(Value, ConfigOrigin), CheckpointError> {
    match find(component, weights) {
        Some(known) => Ok((json(known.config), ConfigOrigin::Shapes(known.model))),
        None => Err(CheckpointError::UnknownConfig {
            path: path.to_path_buf(),
            component: component.words(),
            found: first_difference(component, weights),
        }),
    }
}

/// The first telling shape of the nearest known model that the weights do not have.
fn first_difference(component: Component, weights: &Weights) -> String {
    let agreeing = |known: &&Known| {
        known
            .shapes
            .iter()
            .filter(|(name, shape)| weights.shape(name) == Some(shape))
            .count()
    };
    let of_component = KNOWN.iter().filter(|known| known.component == component);
    let nearest = of_component
        .max_by_key(agreeing)
        .expect("each component has a known model");
    let differs = |(name, shape): &&(&str, &[usize])| weights.shape(name) != Some(shape);
    match nearest.shapes.iter().find(differs) {
        Some((name, expected)) => match weights.shape(name) {
            Some(found) => format!("`{name}` is {found:?}, not {expected:?}"),
            None => format!("there is no `{name}`"),
        },
        None => format!("there is a `{}`", nearest.absent),
    }
}

const UNET_SD15: &str = r#"{
  "_class_name": "UNet2DConditionModel",
  "act_fn": "silu",
  "attention_head_dim": 8,
  "block_out_channels": [320, 640, 1280, 1280],
  "center_input_sample": false,
  "cross_attention_dim": 768,
  "down_block_types": [
    "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"
  ],
  "downsample_padding": 1,
  "flip_sin_to_cos": true,
  "freq_shift": 0,
  "in_channels": 4,
  "layers_per_block": 2,
  "mid_block_scale_factor": 1,
  "norm_eps": 1e-5,
  "norm_num_groups": 32,
  "out_channels": 4,
  "sample_size": 64,
  "up_block_types": [
    "UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"
  ]
}"#;

const UNET_SD21: &str = r#"{
  "_class_name": "UNet2DConditionModel",
  "act_fn": "silu",
  "attention_head_dim": [5, 10, 20, 20],
  "block_out_channels": [320, 640, 1280, 1280],
  "center_input_sample": false,
  "cross_attention_dim": 1024,
  "down_block_types": [
    "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"
  ],
  "downsample_padding": 1,
  "dual_cross_attention": false,
  "flip_sin_to_cos": true,
  "freq_shift": 0,
  "in_channels": 4,
  "layers_per_block": 2,
  "mid_block_scale_factor": 1,
  "norm_eps": 1e-5,
  "norm_num_groups": 32,
  "num_class_embeds": null,
  "only_cross_attention": false,
  "out_channels": 4,
  "sample_size": 96,
  "up_block_types": [
    "UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"
  ],
  "upcast_attention": true,
  "use_linear_projection": true
}"#;

const VAE: &str = r#"{
  "_class_name": "AutoencoderKL",
  "act_fn": "silu",
  "block_out_channels": [128, 256, 512, 512],
  "down_block_types": [
    "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"
  ],
  "in_channels": 3,
  "latent_channels": 4,
  "layers_per_block": 2,
  "norm_num_groups": 32,
  "out_channels": 3,
  "scaling_factor": 0.18215,
  "up_block_types": [
    "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"
  ]
}"#;

const TEXT_ENCODER_SD15: &str = r#"{
  "architectures": ["CLIPTextModel"],
  "hidden_act": "quick_gelu",
  "hidden_size": 768,
  "intermediate_size": 3072,
  "layer_norm_eps": 1e-5,
  "max_position_embeddings": 77,
  "model_type": "clip_text_model",
  "num_attention_heads": 12,
  "num_hidden_layers": 12,
  "projection_dim": 768,
  "vocab_size": 49408
}"#;

const TEXT_ENCODER_SD21: &str = r#"{
  "architectures": ["CLIPTextModel"],
  "hidden_act": "gelu",
  "hidden_size": 1024,
  "intermediate_size": 4096,
  "layer_norm_eps": 1e-5,
  "max_position_embeddings": 77,
  "model_type": "clip_text_model",
  "num_attention_heads": 16,
  "num_hidden_layers": 23,
  "projection_dim": 512,
  "vocab_size": 49408
}"#;
