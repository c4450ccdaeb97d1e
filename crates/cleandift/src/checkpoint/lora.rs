//! LoRA files: changes of low rank to a model's linear layers and convolutions, added to its weights
//! as they are read: `W + scale * (alpha / rank) * up * down`.
//!
//! Three spellings are read: peft's and diffusers' (`unet.….lora_A.weight`), diffusers' older ones
//! (`….to_q.lora.down.weight`, `….processor.to_q_lora.down.weight`) and kohya's
//! (`lora_unet_…_to_q.lora_down.weight`), in which dots have become underscores.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::tensor::{LowRank, Tensor};
use super::{CheckpointError, Weights};
use crate::graph::Parameters;

/// A LoRA file, understood: what it changes, and by how much.
#[derive(Clone, Debug)]
pub struct Lora {
    weights: Weights,
    scale: f32,
    changes: Vec<Change>,
}

/// The change of one layer.
#[derive(Clone, Debug)]
struct Change {
    network: Network,
    layer: String,
    down: String,
    up: String,
    alpha: Alpha,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Network {
    Unet,
    TextEncoder,
}

/// What the rank is divided into; without one the two cancel.
#[derive(Clone, Debug)]
enum Alpha {
    None,
    Stored(String),
    Given(f64),
    /// Divided by the root of the rank (peft's `use_rslora`).
    RootOf(f64),
}

/// How a layer of either network begins, and which one it belongs to; the longest come first.
const PREFIXES: [(&str, Network); 9] = [
    ("base_model.model.text_model.", Network::TextEncoder),
    ("base_model.model.encoder.layers.", Network::TextEncoder),
    ("base_model.model.", Network::Unet),
    ("text_encoder.", Network::TextEncoder),
    ("unet.", Network::Unet),
    ("lora_unet_", Network::Unet),
    ("lora_te_", Network::TextEncoder),
    ("lora_te1_", Network::TextEncoder),
    ("", Network::Unet),
];

/// The two factors' names behind the layer's.
const FACTORS: [(&str, &str); 6] = [
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora_down.weight", ".lora_up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    (
        ".lora_linear_layer.down.weight",
        ".lora_linear_layer.up.weight",
    ),
    ("_lora.down.weight", "_lora.up.weight"),
];

impl Lora {
    /// Opens a LoRA file. `scale` is how strongly it will be merged: 1 as it was trained, 0 not at
    /// all. `adapter_config.json` beside the file, and the strings in it, tell peft's alpha.
    ///
    /// # Errors
    /// If it cannot be read, or holds anything but pairs of factors.
    pub fn open(path: &Path, scale: f32) -> Result<Self, CheckpointError> {
        let weights = Weights::open(path)?;
        let config = config(path, &weights)?;
        let changes = changes(&weights, config.as_ref()).map_err(|reason| invalid(path, reason))?;
        Ok(Self {
            weights,
            scale,
            changes,
        })
    }

    /// How strongly it is merged.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// What all changes are multiplied with, in words.
    pub(super) fn strengths(&self) -> String {
        let changes = self.changes.iter();
        let alphas: Vec<String> = changes
            .map(|change| format!("{} {:?}", change.layer, change.alpha))
            .collect();
        format!("{} of {}", self.scale, alphas.join(", "))
    }

    pub(super) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// A network's weights with the changes.
    ///
    /// # Errors
    /// If a change is of a layer that the network does not have, or of another shape.
    pub(super) fn merged(
        &self,
        path: &Path,
        network: Network,
        weights: &Weights,
    ) -> Result<Weights, CheckpointError> {
        let spelled = flat_names(weights);
        let mut changed = BTreeMap::new();
        let ours = self
            .changes
            .iter()
            .filter(|change| change.network == network);
        for change in ours {
            let name = [&change.layer, &format!("text_model.{}", change.layer)]
                .into_iter()
                .find_map(|layer| spelled.get(&flat(layer)))
                .ok_or_else(|| {
                    let layer = &change.layer;
                    invalid(
                        path,
                        format!("it changes `{layer}`, which the model does not have"),
                    )
                })?;
            let low_rank = self.low_rank(path, change)?;
            let fits = |shape: &[usize]| low_rank.fits(shape);
            if !weights.shape(name).is_some_and(fits) {
                let (down, up) = (&low_rank.down.shape, &low_rank.up.shape);
                let shape = weights.shape(name).unwrap_or_default();
                let reason =
                    format!("its factors {up:?} and {down:?} do not fit `{name}` {shape:?}");
                return Err(invalid(path, reason));
            }
            if changed
                .insert((*name).to_owned(), Arc::new(low_rank))
                .is_some()
            {
                return Err(invalid(path, format!("it changes `{name}` twice")));
            }
        }
        Ok(weights.adapted(&changed))
    }

    fn low_rank(&self, path: &Path, change: &Change) -> Result<LowRank, CheckpointError> {
        let tensor = |name: &str| -> Result<Tensor, CheckpointError> {
            let tensor = self.weights.tensor(name).cloned();
            tensor.ok_or_else(|| invalid(path, format!("`{name}` is not of a type that is read")))
        };
        let (down, up) = (tensor(&change.down)?, tensor(&change.up)?);
        let rank = down.shape.first().copied().unwrap_or(0).max(1) as f64;
        let alpha = match &change.alpha {
            Alpha::None => rank,
            Alpha::Given(alpha) => *alpha,
            Alpha::RootOf(alpha) => alpha * rank.sqrt(),
            Alpha::Stored(name) => match self.weights.read_one(name)? {
                Some(alpha) => f64::from(alpha),
                None => return Err(invalid(path, format!("`{name}` is not one number"))),
            },
        };
        let scale = (f64::from(self.scale) * alpha / rank) as f32;
        match scale.is_finite() {
            true => Ok(LowRank { down, up, scale }),
            false => Err(invalid(
                path,
                format!("the scale of `{}` is not a number", change.layer),
            )),
        }
    }
}

/// peft's settings: of its own folder, or as diffusers puts them into the file.
fn config(path: &Path, weights: &Weights) -> Result<Option<Value>, CheckpointError> {
    let invalid = |error: serde_json::Error| invalid(path, format!("its settings: {error}"));
    if let Some(text) = weights.metadata().get("lora_adapter_metadata") {
        return serde_json::from_str(text).map(Some).map_err(invalid);
    }
    // Another LoRA may lie beside it: the settings are those of peft's own file.
    let is_pefts = |name: &&str| name.starts_with("base_model.model.");
    let named = path.file_stem().is_some_and(|stem| stem == "adapter_model");
    if !named && !weights.names().iter().any(is_pefts) {
        return Ok(None);
    }
    match std::fs::read(path.with_file_name("adapter_config.json")) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(invalid),
        Err(_) => Ok(None),
    }
}

/// Every pair of factors; a tensor that belongs to none is an error, lest half a change is made.
fn changes(weights: &Weights, config: Option<&Value>) -> Result<Vec<Change>, String> {
    if let Some((name, dtype)) = weights.skipped().next() {
        return Err(format!(
            "`{name}` is stored as {dtype}, expected F32, F16 or BF16"
        ));
    }
    let mut changes = Vec::new();
    let mut used = 0;
    for name in weights.names() {
        let pair = FACTORS
            .iter()
            .find_map(|(down, up)| Some((name.strip_suffix(down)?, up)));
        let Some((stem, up)) = pair else { continue };
        let up = format!("{stem}{up}");
        if !weights.has(&up) {
            return Err(format!("`{name}` has no partner `{up}`"));
        }
        let (network, layer) = layer_of(stem);
        let stored = format!("{stem}.alpha");
        let alpha = match weights.has(&stored) {
            true => Alpha::Stored(stored),
            false => given_alpha(config, network, &layer)?,
        };
        used += 2 + usize::from(matches!(alpha, Alpha::Stored(_)));
        changes.push(Change {
            network,
            layer,
            down: name.to_owned(),
            up,
            alpha,
        });
    }
    if used == weights.len() && used > 0 {
        return Ok(changes);
    }
    let known = |name: &&str| {
        let endings = FACTORS.iter().flat_map(|(down, up)| [*down, *up]);
        !endings
            .chain([".alpha"])
            .any(|ending| name.ends_with(ending))
    };
    Err(match weights.names().into_iter().find(known) {
        Some(name) => format!(
            "`{name}` is no factor of a change of low rank (DoRA, LoHa and LoKr are not supported)"
        ),
        None => "it holds no pairs of factors, or one factor without the other".into(),
    })
}

fn layer_of(stem: &str) -> (Network, String) {
    let found = PREFIXES
        .iter()
        .find_map(|&(prefix, network)| Some((network, prefix, stem.strip_prefix(prefix)?)));
    let (network, prefix, layer) = found.unwrap_or((Network::Unet, "", stem));
    if network == Network::TextEncoder {
        // What peft calls the encoder's layers is part of the layer's name.
        let layer = match prefix.strip_prefix("base_model.model.") {
            Some(start) => format!("{start}{layer}"),
            None => layer.to_owned(),
        };
        return (network, text_layer(layer));
    }
    // diffusers once kept the factors in attention processors.
    let layer = layer.replace(".processor.", ".");
    let layer = match layer.strip_suffix("to_out") {
        Some(start) => format!("{start}to_out.0"),
        None => layer,
    };
    (network, layer)
}

/// A text encoder's layer, which diffusers once called as it calls the U-Net's.
fn text_layer(layer: String) -> String {
    let attention = [
        ("self_attn.to_q", "self_attn.q_proj"),
        ("self_attn.to_k", "self_attn.k_proj"),
        ("self_attn.to_v", "self_attn.v_proj"),
        ("self_attn.to_out", "self_attn.out_proj"),
    ];
    let known = attention
        .iter()
        .find_map(|(old, new)| Some(format!("{}{new}", layer.strip_suffix(old)?)));
    known.unwrap_or(layer)
}

/// peft's alpha for a layer. diffusers writes the settings of each network under its name.
fn given_alpha(config: Option<&Value>, network: Network, layer: &str) -> Result<Alpha, String> {
    let prefix = match network {
        Network::Unet => "unet.",
        Network::TextEncoder => "text_encoder.",
    };
    let setting = |key: &str| {
        let config = config?;
        config
            .get(key)
            .or_else(|| config.get(format!("{prefix}{key}")))
    };
    let pattern = setting("alpha_pattern").and_then(Value::as_object);
    let own = own_alpha(pattern.into_iter().flatten(), layer)?;
    let alpha = own.or_else(|| setting("lora_alpha").and_then(Value::as_f64));
    Ok(match (setting("use_rslora"), alpha) {
        (Some(Value::Bool(true)), alpha) => Alpha::RootOf(alpha.unwrap_or(1.0)),
        (_, Some(alpha)) => Alpha::Given(alpha),
        (_, None) => Alpha::None,
    })
}

/// The alpha that peft's `alpha_pattern` has for a layer: under its name or the end of it, from a
/// dot on; the longest counts.
fn own_alpha<'c>(
    pattern: impl Iterator<Item = (&'c String, &'c Value)>,
    layer: &str,
) -> Result<Option<f64>, String> {
    let mut found: Option<(usize, f64)> = None;
    for (key, alpha) in pattern {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._".contains(c);
        let Some(alpha) = alpha.as_f64().filter(|_| key.chars().all(plain)) else {
            return Err(format!(
                "its settings: `alpha_pattern` has {key:?}: {alpha}, expected a layer's name, or the \
                 end of one, and a number"
            ));
        };
        let start = layer.strip_suffix(key.as_str());
        let fits = start.is_some_and(|start| start.is_empty() || start.ends_with('.'));
        if fits && found.is_none_or(|(length, _)| key.len() > length) {
            found = Some((key.len(), alpha));
        }
    }
    Ok(found.map(|(_, alpha)| alpha))
}

/// The layers of a network by their names without dots, which is all that kohya's files tell.
fn flat_names(weights: &Weights) -> BTreeMap<String, &str> {
    let names = weights.names().into_iter();
    names
        .filter_map(|name| Some((flat(name.strip_suffix(".weight")?), name)))
        .collect()
}

fn flat(layer: &str) -> String {
    layer.replace('.', "_")
}

fn invalid(path: &Path, reason: String) -> CheckpointError {
    CheckpointError::InvalidLora {
        path: path.to_path_buf(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::{Network, layer_of};

    /// Names that diffusers, peft and kohya's scripts have written for one layer of each network.
    #[test]
    fn layers_of_both_networks() {
        let text = "text_model.encoder.layers.0.self_attn.q_proj";
        for stem in [
            "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
            "text_encoder.text_model.encoder.layers.0.self_attn.to_q",
            "base_model.model.text_model.encoder.layers.0.self_attn.q_proj",
        ] {
            assert_eq!(
                layer_of(stem),
                (Network::TextEncoder, text.to_owned()),
                "{stem}"
            );
        }
        let bare = "encoder.layers.0.self_attn.out_proj";
        let stem = "text_encoder.encoder.layers.0.self_attn.to_out";
        assert_eq!(layer_of(stem), (Network::TextEncoder, bare.to_owned()));
        let unet = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0";
        for stem in [
            format!("unet.{unet}"),
            format!("base_model.model.{unet}"),
            "mid_block.attentions.0.transformer_blocks.0.attn1.processor.to_out".to_owned(),
        ] {
            assert_eq!(layer_of(&stem), (Network::Unet, unet.to_owned()), "{stem}");
        }
    }
}
