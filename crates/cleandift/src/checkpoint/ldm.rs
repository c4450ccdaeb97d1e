//! Names of Stable Diffusion's original code (LDM, github.com/CompVis/latent-diffusion), as single
//! files have them, and diffusers' names for the same tensors: there and back.
//!
//! How many layers a block has is read off the names, so that any network of this family will do.
//! A name that is not known stays as it is: the strict report lists it as unused.

use std::collections::BTreeMap;

use super::{CheckpointError, Weights, names};
use crate::graph::Parameters;

/// How the UNet's names begin.
pub(super) const UNET: &str = "model.diffusion_model.";
const VAE: &str = "first_stage_model.";
/// The text encoder of Stable Diffusion 1, in transformers' names.
const CLIP: &str = "cond_stage_model.transformer.";
/// That of Stable Diffusion 2, in OpenCLIP's.
const OPEN_CLIP: &str = "cond_stage_model.model.";

/// Pairs of modules: the original name, diffusers' name.
type Pairs = &'static [(&'static str, &'static str)];

const UNET_ENDS: Pairs = &[
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("input_blocks.0.0", "conv_in"),
    ("out.0", "conv_norm_out"),
    ("out.2", "conv_out"),
];
const UNET_RESNET: Pairs = &[
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
];
const VAE_ENDS: Pairs = &[
    ("encoder.norm_out", "encoder.conv_norm_out"),
    ("decoder.norm_out", "decoder.conv_norm_out"),
];
const VAE_RESNET: Pairs = &[("nin_shortcut", "conv_shortcut")];
const VAE_ATTENTION: Pairs = &[
    ("norm", "group_norm"),
    ("q", "to_q"),
    ("k", "to_k"),
    ("v", "to_v"),
    ("proj_out", "to_out.0"),
];
const TEXT_LAYER: Pairs = &[
    ("attn.out_proj", "self_attn.out_proj"),
    ("ln_1", "layer_norm1"),
    ("ln_2", "layer_norm2"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
];
const TEXT_ENDS: Pairs = &[
    (
        "token_embedding.weight",
        "embeddings.token_embedding.weight",
    ),
    (
        "positional_embedding",
        "embeddings.position_embedding.weight",
    ),
    ("ln_final.weight", "final_layer_norm.weight"),
    ("ln_final.bias", "final_layer_norm.bias"),
];
const PACKED: [&str; 3] = ["q_proj", "k_proj", "v_proj"];

/// Exchanges the beginning of a name, which must be a whole module, for its partner's.
fn exchange(
    name: &str,
    mut pairs: impl Iterator<Item = (&'static str, &'static str)>,
) -> Option<String> {
    pairs.find_map(|(from, to)| {
        let rest = name.strip_prefix(from)?;
        (rest.is_empty() || rest.starts_with('.')).then(|| format!("{to}{rest}"))
    })
}

fn to_diffusers(name: &str, pairs: Pairs) -> Option<String> {
    exchange(name, pairs.iter().copied())
}

fn to_original(name: &str, pairs: Pairs) -> Option<String> {
    exchange(
        name,
        pairs
            .iter()
            .map(|&(original, diffusers)| (diffusers, original)),
    )
}

/// The number after `prefix`, and what follows it and a dot.
fn numbered<'n>(name: &'n str, prefix: &str) -> Option<(usize, &'n str)> {
    let (number, rest) = name.strip_prefix(prefix)?.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

/// The UNet of a single file.
pub(super) fn unet(file: &Weights) -> Result<Weights, CheckpointError> {
    let unet = file.with_prefix(UNET);
    let layers = layers_of_original(&unet);
    unet.renamed(|name, _| Some(unet_to_diffusers(name, layers).unwrap_or(name.into())))
}

/// Residual blocks on each level: the first downsampler comes right behind them.
fn layers_of_original(unet: &Weights) -> usize {
    let blocks = unet.names().into_iter().filter_map(|name| {
        let (block, rest) = numbered(name, "input_blocks.")?;
        Some((block, rest.starts_with("0.op.")))
    });
    let (mut first_down, mut last) = (None, 1);
    for (block, down) in blocks {
        last = last.max(block);
        if down {
            first_down = Some(first_down.unwrap_or(block).min(block));
        }
    }
    first_down
        .map_or(last, |block| block.saturating_sub(1))
        .max(1)
}

fn unet_to_diffusers(name: &str, layers: usize) -> Option<String> {
    if let Some(name) = to_diffusers(name, UNET_ENDS) {
        return Some(name);
    }
    let per_level = layers.checked_add(1)?;
    if let Some((block, rest)) = numbered(name, "middle_block.") {
        return layer("mid_block", block % 2, block / 2, rest);
    }
    if let Some((block, rest)) = numbered(name, "input_blocks.") {
        let (level, index) = (block.checked_sub(1)? / per_level, (block - 1) % per_level);
        let place = format!("down_blocks.{level}");
        return match rest.strip_prefix("0.op.") {
            Some(leaf) => Some(format!("{place}.downsamplers.0.conv.{leaf}")),
            None => {
                let (kind, rest) = numbered(rest, "")?;
                layer(&place, kind, index, rest)
            }
        };
    }
    let (block, rest) = numbered(name, "output_blocks.")?;
    let place = format!("up_blocks.{}", block / per_level);
    let (kind, rest) = numbered(rest, "")?;
    // The upsampler comes after the attention, where there is one.
    match rest.strip_prefix("conv.") {
        Some(leaf) => Some(format!("{place}.upsamplers.0.conv.{leaf}")),
        None => layer(&place, kind, block % per_level, rest),
    }
}

/// A residual block (kind 0) or an attention (kind 1).
fn layer(place: &str, kind: usize, index: usize, rest: &str) -> Option<String> {
    match kind {
        0 => Some(format!(
            "{place}.resnets.{index}.{}",
            to_diffusers(rest, UNET_RESNET)?
        )),
        1 => Some(format!("{place}.attentions.{index}.{rest}")),
        _ => None,
    }
}

/// A UNet in the original names, with their prefix.
pub(super) fn original_unet(unet: &Weights) -> Result<Weights, CheckpointError> {
    let resnets = unet.names().into_iter();
    let resnets = resnets.filter_map(|name| numbered(name, "down_blocks.0.resnets."));
    let layers = resnets.map(|(index, _)| index + 1).max().unwrap_or(1);
    let attends = |level: usize| {
        let prefix = format!("up_blocks.{level}.attentions.");
        unet.names().iter().any(|name| name.starts_with(&prefix))
    };
    unet.renamed(|name, _| {
        let original = unet_to_original(name, layers, &attends);
        Some(format!("{UNET}{}", original.unwrap_or(name.into())))
    })
}

fn unet_to_original(name: &str, layers: usize, attends: &impl Fn(usize) -> bool) -> Option<String> {
    if let Some(name) = to_original(name, UNET_ENDS) {
        return Some(name);
    }
    if let Some(rest) = name.strip_prefix("mid_block.") {
        let (kind, index, rest) = original_layer(rest)?;
        return Some(format!("middle_block.{}.{rest}", 2 * index + kind));
    }
    if let Some((level, rest)) = numbered(name, "down_blocks.") {
        let first = level * (layers + 1) + 1;
        return match rest.strip_prefix("downsamplers.0.conv.") {
            Some(leaf) => Some(format!("input_blocks.{}.0.op.{leaf}", first + layers)),
            None => {
                let (kind, index, rest) = original_layer(rest)?;
                Some(format!("input_blocks.{}.{kind}.{rest}", first + index))
            }
        };
    }
    let (level, rest) = numbered(name, "up_blocks.")?;
    let first = level * (layers + 1);
    match rest.strip_prefix("upsamplers.0.") {
        Some(rest) => {
            let place = 1 + usize::from(attends(level));
            Some(format!("output_blocks.{}.{place}.{rest}", first + layers))
        }
        None => {
            let (kind, index, rest) = original_layer(rest)?;
            Some(format!("output_blocks.{}.{kind}.{rest}", first + index))
        }
    }
}

/// The kind (as in [`layer`]), the index and the rest of a layer's name.
fn original_layer(name: &str) -> Option<(usize, usize, String)> {
    if let Some((index, rest)) = numbered(name, "resnets.") {
        return Some((0, index, to_original(rest, UNET_RESNET)?));
    }
    let (index, rest) = numbered(name, "attentions.")?;
    Some((1, index, rest.into()))
}

/// The VAE of a single file; its training's losses (`loss.…`) are left out.
pub(super) fn vae(file: &Weights) -> Result<Weights, CheckpointError> {
    let vae = file.with_prefix(VAE);
    let ups = vae.names().into_iter();
    let ups = ups.filter_map(|name| numbered(name, "decoder.up."));
    let highest = ups.map(|(level, _)| level).max().unwrap_or(0);
    let renamed = vae.renamed(|name, _| {
        let known = || vae_to_diffusers(name, highest).unwrap_or(name.into());
        (!name.starts_with("loss.")).then(known)
    })?;
    names::of_vae(&renamed)
}

fn vae_to_diffusers(name: &str, highest: usize) -> Option<String> {
    if let Some(name) = to_diffusers(name, VAE_ENDS) {
        return Some(name);
    }
    let (side, rest) = name.split_once('.')?;
    if let Some(rest) = rest.strip_prefix("mid.attn_1.") {
        let rest = to_diffusers(rest, VAE_ATTENTION)?;
        return Some(format!("{side}.mid_block.attentions.0.{rest}"));
    }
    if let Some((number, rest)) = numbered(rest, "mid.block_") {
        let (index, rest) = (number.checked_sub(1)?, vae_resnet(rest));
        return Some(format!("{side}.mid_block.resnets.{index}.{rest}"));
    }
    // Of the decoder's levels, the one that comes last has number 0.
    let (place, rest, sampler) = match numbered(rest, "down.") {
        Some((level, rest)) => (format!("{side}.down_blocks.{level}"), rest, "down"),
        None => {
            let (level, rest) = numbered(rest, "up.")?;
            (
                format!("{side}.up_blocks.{}", highest.checked_sub(level)?),
                rest,
                "up",
            )
        }
    };
    if let Some(rest) = rest.strip_prefix(&format!("{sampler}sample.")) {
        return Some(format!("{place}.{sampler}samplers.0.{rest}"));
    }
    let (index, rest) = numbered(rest, "block.")?;
    Some(format!("{place}.resnets.{index}.{}", vae_resnet(rest)))
}

fn vae_resnet(rest: &str) -> String {
    to_diffusers(rest, VAE_RESNET).unwrap_or(rest.into())
}

/// A VAE in the original names, with their prefix; the attention's weights become 1x1 convolutions.
pub(super) fn original_vae(vae: &Weights) -> Result<Weights, CheckpointError> {
    let ups = vae.names().into_iter();
    let ups = ups.filter_map(|name| numbered(name, "decoder.up_blocks."));
    let highest = ups.map(|(level, _)| level).max().unwrap_or(0);
    vae.renamed(|name, shape| {
        if name.contains(".attentions.") && shape.len() == 2 {
            shape.extend([1, 1]);
        }
        let original = vae_to_original(name, highest);
        Some(format!("{VAE}{}", original.unwrap_or(name.into())))
    })
}

fn vae_to_original(name: &str, highest: usize) -> Option<String> {
    if let Some(name) = to_original(name, VAE_ENDS) {
        return Some(name);
    }
    let (side, rest) = name.split_once('.')?;
    let resnet = |rest: &str| to_original(rest, VAE_RESNET).unwrap_or(rest.into());
    if let Some(rest) = rest.strip_prefix("mid_block.attentions.0.") {
        let rest = to_original(rest, VAE_ATTENTION)?;
        return Some(format!("{side}.mid.attn_1.{rest}"));
    }
    if let Some((index, rest)) = numbered(rest, "mid_block.resnets.") {
        return Some(format!("{side}.mid.block_{}.{}", index + 1, resnet(rest)));
    }
    let (place, rest, sampler) = match numbered(rest, "down_blocks.") {
        Some((level, rest)) => (format!("{side}.down.{level}"), rest, "down"),
        None => {
            let (level, rest) = numbered(rest, "up_blocks.")?;
            (
                format!("{side}.up.{}", highest.checked_sub(level)?),
                rest,
                "up",
            )
        }
    };
    if let Some(rest) = rest.strip_prefix(&format!("{sampler}samplers.0.")) {
        return Some(format!("{place}.{sampler}sample.{rest}"));
    }
    let (index, rest) = numbered(rest, "resnets.")?;
    Some(format!("{place}.block.{index}.{}", resnet(rest)))
}

/// Layers of OpenCLIP's text encoder that Stable Diffusion 2 reads.
const OPEN_CLIP_LAYERS: usize = 23;

/// The text encoder of a single file. OpenCLIP's last layer is left out: Stable Diffusion 2 reads
/// the one before, and so do its diffusers folders. Some writers leave it out themselves, so that it
/// is `layers` that tells which one is too many; without a config those of Stable Diffusion 2.
pub(super) fn text_encoder(
    file: &Weights,
    layers: Option<usize>,
) -> Result<Weights, CheckpointError> {
    let open_clip = file.with_prefix(OPEN_CLIP);
    if open_clip.is_empty() {
        return names::of_text_encoder(&file.with_prefix(CLIP));
    }
    let first_left_out = layers.unwrap_or(OPEN_CLIP_LAYERS);
    let split = open_clip.split(|name| {
        let (layer, leaf) = packed(name)?;
        let parts = PACKED.map(|part| format!("encoder.layers.{layer}.self_attn.{part}.{leaf}"));
        (layer < first_left_out).then(|| parts.into())
    })?;
    split.renamed(|name, _| {
        let name = match numbered(name, "transformer.resblocks.") {
            Some((layer, _)) if layer >= first_left_out => return None,
            Some((layer, rest)) => {
                to_diffusers(rest, TEXT_LAYER).map(|rest| format!("encoder.layers.{layer}.{rest}"))
            }
            None if matches!(name, "text_projection" | "logit_scale") => return None,
            None => to_diffusers(name, TEXT_ENDS),
        }
        .unwrap_or(name.into());
        Some(format!("text_model.{name}"))
    })
}

/// The layer and the leaf of `transformer.resblocks.N.attn.in_proj_weight`.
fn packed(name: &str) -> Option<(usize, &str)> {
    let (layer, rest) = numbered(name, "transformer.resblocks.")?;
    Some((layer, rest.strip_prefix("attn.in_proj_")?))
}

/// A text encoder in the names of a single file of Stable Diffusion 1.
pub(super) fn original_clip(text: &Weights) -> Result<Weights, CheckpointError> {
    text.renamed(|name, _| Some(format!("{CLIP}{name}")))
}

/// A text encoder in the names of a single file of Stable Diffusion 2. The last layer, which nobody
/// reads and everybody skips, is one of zeros.
pub(super) fn original_open_clip(text: &Weights) -> Result<Weights, CheckpointError> {
    let layers = text.names().into_iter();
    let layers = layers.filter_map(|name| numbered(name, "text_model.encoder.layers."));
    let count = layers.map(|(layer, _)| layer + 1).max().unwrap_or(0);
    let mut groups = BTreeMap::new();
    for layer in 0..count {
        for leaf in ["weight", "bias"] {
            let parts = PACKED
                .map(|part| format!("text_model.encoder.layers.{layer}.self_attn.{part}.{leaf}"));
            groups.insert(
                format!("{OPEN_CLIP}{}", packed_name(layer, leaf)),
                parts.to_vec(),
            );
        }
    }
    let original = text.stacked(&groups)?.renamed(|name, _| {
        let Some(name) = name.strip_prefix("text_model.") else {
            return Some(name.into());
        };
        let original = match numbered(name, "encoder.layers.") {
            Some((layer, rest)) => to_original(rest, TEXT_LAYER)
                .map(|rest| format!("transformer.resblocks.{layer}.{rest}")),
            None => to_original(name, TEXT_ENDS),
        };
        Some(format!("{OPEN_CLIP}{}", original.unwrap_or(name.into())))
    })?;
    let layer = |number: usize| format!("{OPEN_CLIP}transformer.resblocks.{number}.");
    let (from, to) = (layer(0), layer(count));
    original.merged(&original.zeros_like(|name| Some(format!("{to}{}", name.strip_prefix(&from)?))))
}

fn packed_name(layer: usize, leaf: &str) -> String {
    format!("transformer.resblocks.{layer}.attn.in_proj_{leaf}")
}
