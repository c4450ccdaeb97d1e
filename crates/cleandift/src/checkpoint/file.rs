//! Models in one file: the two that CleanDIFT publishes (github.com/CompVis/cleandift), the fine-tuned
//! UNet alone (`_unet`) and the whole training state (`_full`), and Stable Diffusion's original one.

use std::path::Path;

use super::folder::{canonical, is_weightless};
use super::part::{Component, ConfigOrigin, Part};
use super::{Checkpoint, CheckpointError, Configs, Kind, Timestep, Weights, bundle, known, ldm};
use crate::graph::Parameters;
use prefix::{STUDENT, TEACHER, VAE};

/// How the names of the parts of a `_full` file begin.
pub mod prefix {
    /// Of the fine-tuned UNet.
    pub const STUDENT: &str = "unet_feature_extractor_cleandift.";
    /// Of the UNet that it was made from.
    pub const TEACHER: &str = "unet_feature_extractor_base.";
    /// Of the auto-encoder.
    pub const VAE: &str = "ae.ae.";
}

const TIMESTEP: &str = "timestep";
const HEADS: [&str; 4] = [
    "adapters.",
    "mapping.",
    "time_emb.weight",
    "time_in_proj.weight",
];

/// A name that every UNet has in diffusers' spelling.
const UNET_NAME: &str = "conv_in.weight";

/// Opens a file by the names in it; configs come from the base if it has them.
pub(super) fn open(path: &Path, base: Option<&dyn Configs>) -> Result<Checkpoint, CheckpointError> {
    let weights = Weights::open(path)?;
    let any = |prefix: &str| weights.names().iter().any(|name| name.starts_with(prefix));
    if bundle::is_bundle(&weights) {
        bundle::open(path, &weights)
    } else if any(STUDENT) || any(TEACHER) {
        open_full(path, &weights, base)
    } else if any(ldm::UNET) {
        open_single(path, &weights, base)
    } else if weights.has(UNET_NAME) {
        let unet = part(path, Component::Unet, &weights, base)?;
        Ok(Checkpoint::with_unet(path, Kind::UnetFile, unet))
    } else {
        let found = match weights.names().as_slice() {
            [] => "it has no tensors".into(),
            names => format!("its {} tensors begin with `{}`", names.len(), names[0]),
        };
        Err(CheckpointError::UnknownLayout {
            path: path.to_path_buf(),
            found,
        })
    }
}

fn open_full(
    path: &Path,
    weights: &Weights,
    base: Option<&dyn Configs>,
) -> Result<Checkpoint, CheckpointError> {
    // A codec without weights is the base's config alone; weights that are there are never passed over.
    let config = base.map(|base| base.config(Component::Vae)).transpose()?;
    let weightless = config
        .flatten()
        .is_some_and(|(config, _)| is_weightless(&config));
    let stored = weights.names().iter().any(|name| name.starts_with(VAE));
    let vae = (stored || !weightless).then_some(VAE);
    let parts = [STUDENT, TEACHER, TIMESTEP].into_iter().chain(vae);
    let missing: Vec<_> = parts
        .chain(HEADS)
        .filter(|prefix| !weights.names().iter().any(|name| name.starts_with(prefix)))
        .collect();
    if !missing.is_empty() {
        return Err(CheckpointError::IncompleteFull {
            path: path.to_path_buf(),
            missing,
        });
    }

    let unet = part(path, Component::Unet, &weights.with_prefix(STUDENT), base)?;
    let teacher = Part {
        weights: weights.with_prefix(TEACHER),
        ..unet.clone()
    };
    let vae = vae.map(|prefix| part(path, Component::Vae, &weights.with_prefix(prefix), base));
    let heads = weights.heads();
    Ok(Checkpoint {
        teacher: Some(teacher),
        vae: vae.transpose()?,
        heads: Some(heads),
        timestep: Some(read_timestep(path, weights)?),
        ..Checkpoint::with_unet(path, Kind::FullFile, unet)
    })
}

impl Weights {
    /// The heads of a `_full` file, or of a file that holds nothing else. All that is left without
    /// the other parts belongs to them: if something there is unknown, their check says so.
    pub fn heads(&self) -> Self {
        let heads = self.renamed(|name, _| {
            let of_others =
                name == TIMESTEP || [STUDENT, TEACHER, VAE].iter().any(|p| name.starts_with(p));
            (!of_others).then(|| name.into())
        });
        heads.expect("names stay as they are")
    }
}

/// A single file may lack the VAE or the text encoder; what else is in it (averages, a schedule,
/// the trainer's state) is no weight of these networks.
fn open_single(
    path: &Path,
    weights: &Weights,
    base: Option<&dyn Configs>,
) -> Result<Checkpoint, CheckpointError> {
    let optional = |component, weights: Weights| match weights.is_empty() {
        true => Ok(None),
        false => part(path, component, &weights, base).map(Some),
    };
    let unet = part(path, Component::Unet, &ldm::unet(weights)?, base)?;
    let text = base.map(|base| base.config(Component::TextEncoder));
    let text = text.transpose()?.flatten();
    let layers = text.and_then(|(config, _)| config["num_hidden_layers"].as_u64());
    let layers = layers.map(|layers| layers as usize);
    Ok(Checkpoint {
        vae: optional(Component::Vae, ldm::vae(weights)?)?,
        text_encoder: optional(Component::TextEncoder, ldm::text_encoder(weights, layers)?)?,
        ..Checkpoint::with_unet(path, Kind::SingleFile, unet)
    })
}

/// Weights of the file with the base's config, else with a built-in one.
fn part(
    path: &Path,
    component: Component,
    weights: &Weights,
    base: Option<&dyn Configs>,
) -> Result<Part, CheckpointError> {
    let weights = canonical(component, weights)?;
    let from_base = base
        .map(|base| base.config(component))
        .transpose()?
        .flatten();
    let (config, config_origin) = match from_base {
        Some((config, file)) => {
            if component == Component::Unet {
                check_same_model(path, &weights, &config, &file)?;
            }
            (config, ConfigOrigin::File(file))
        }
        None => known::config_of(component, &weights, path)?,
    };
    Ok(Part {
        config,
        config_origin,
        weights,
    })
}

/// Whether the base's UNet has the widths of this one, before a strict check drowns the cause in a
/// hundred tensors of the wrong shape.
fn check_same_model(
    path: &Path,
    weights: &Weights,
    config: &serde_json::Value,
    config_path: &Path,
) -> Result<(), CheckpointError> {
    let text = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight";
    let checks = [
        (
            UNET_NAME,
            0,
            "block_out_channels",
            &config["block_out_channels"][0],
        ),
        (
            text,
            1,
            "cross_attention_dim",
            &config["cross_attention_dim"],
        ),
    ];
    for (tensor, axis, key, width) in checks {
        let (Some(found), Some(width)) = (weights.shape(tensor), width.as_u64()) else {
            continue;
        };
        if found.get(axis).is_none_or(|&length| length as u64 != width) {
            return Err(CheckpointError::BaseMismatch {
                path: path.to_path_buf(),
                tensor: tensor.into(),
                found: found.to_vec(),
                expected: format!("{width} along axis {axis} (`{key}`)"),
                config: config_path.to_path_buf(),
            });
        }
    }
    Ok(())
}

fn read_timestep(path: &Path, weights: &Weights) -> Result<Timestep, CheckpointError> {
    match weights.read_one(TIMESTEP)? {
        Some(value) if value.is_finite() => Ok(Timestep {
            value: value.into(),
            weights: weights.renamed(|name, _| (name == TIMESTEP).then(|| name.into()))?,
        }),
        found => Err(CheckpointError::UnknownLayout {
            path: path.to_path_buf(),
            found: format!(
                "`{TIMESTEP}` is {}, expected one number",
                match found {
                    Some(value) => value.to_string(),
                    None => format!("{:?}", weights.shape(TIMESTEP).unwrap_or_default()),
                }
            ),
        }),
    }
}
