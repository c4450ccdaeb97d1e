//! The config of what makes embeddings of prompts.

use serde::Deserialize;
use serde_json::Value;

use super::{Checked, ConfigError, MOST, MOST_LAYERS};

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
        checked.sizes(
            MOST,
            [
                ("vocab_size", config.vocab_size),
                ("hidden_size", config.hidden_size),
                ("intermediate_size", config.intermediate_size),
                ("max_position_embeddings", config.max_position_embeddings),
            ],
        )?;
        checked.sizes(
            MOST_LAYERS,
            [("num_hidden_layers", config.num_hidden_layers)],
        )?;
        let (width, heads) = (config.hidden_size, config.num_attention_heads);
        checked.require(heads > 0 && width % heads == 0, || {
            format!("hidden_size {width} does not divide into {heads} heads")
        })?;
        Ok(Self::Clip(config))
    }
}
