//! One network of a checkpoint: its config and its weights.

use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

use super::Weights;

/// One network of a checkpoint.
#[derive(Clone, Debug)]
pub struct Part {
    /// What `config.json` says, not interpreted.
    pub config: Value,
    /// Where the config comes from, to be named in errors.
    pub config_origin: ConfigOrigin,
    /// The weights; empty for a part that has none (a VAE of the class `PixelUnshuffle`).
    pub weights: Weights,
}

impl Part {
    /// Whether it is a table of classes, which takes the place of a text encoder and needs no tokenizer.
    pub fn is_class_table(&self) -> bool {
        self.config["_class_name"] == "ClassTable"
    }
}

/// Where a config comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOrigin {
    /// A `config.json`.
    File(PathBuf),
    /// The shapes of the weights are those of this model, whose config is known.
    Shapes(&'static str),
}

impl fmt::Display for ConfigOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Shapes(model) => write!(f, "the built-in config of {model}"),
        }
    }
}

/// The three networks, as folders name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Component {
    Unet,
    Vae,
    TextEncoder,
}

impl Component {
    /// Its folder in a diffusers folder.
    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Unet => "unet",
            Self::Vae => "vae",
            Self::TextEncoder => "text_encoder",
        }
    }

    /// How its weight files begin: transformers and diffusers name them differently.
    pub(super) fn weights_stem(self) -> &'static str {
        match self {
            Self::Unet | Self::Vae => "diffusion_pytorch_model",
            Self::TextEncoder => "model",
        }
    }

    /// How its weight files begin if they are PyTorch's own.
    pub(super) fn pickle_stem(self) -> &'static str {
        match self {
            Self::Unet | Self::Vae => "diffusion_pytorch_model",
            Self::TextEncoder => "pytorch_model",
        }
    }

    /// Its name in a sentence.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Unet => "UNet",
            Self::Vae => "VAE",
            Self::TextEncoder => "text encoder",
        }
    }
}
