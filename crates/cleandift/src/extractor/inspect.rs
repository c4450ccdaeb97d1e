//! The strict report: what a checkpoint holds, part by part, against what each part's config
//! needs; whether the whole can be used or not.

use super::model::{ModelError, unet_graph};
use crate::checkpoint::{Checkpoint, ConfigOrigin, Part, Weights};
use crate::features::Tap;
use crate::graph::{Check, Parameters, check};
use crate::networks::clip;
use crate::networks::config::{CodecConfig, TextConfig, UnetConfig};
use crate::networks::diffusion::CLASS_TABLE;
use crate::networks::heads::HeadsConfig;

/// The name of the one part that can be done without.
pub(super) const TEXT_ENCODER: &str = "text encoder";

/// One part of a checkpoint.
#[derive(Debug)]
pub struct PartReport {
    /// Which part.
    pub part: &'static str,
    /// Where its config comes from; heads have none.
    pub config: Option<ConfigOrigin>,
    /// Its tensors.
    pub weights: Weights,
    /// What fits and what does not, or why that cannot be told.
    pub check: Result<Check, ModelError>,
}

impl PartReport {
    /// Whether the part can be used.
    pub fn is_usable(&self) -> bool {
        self.check.as_ref().is_ok_and(Check::is_usable)
    }
}

/// Reports on every part that is there, each for itself. No weight is read.
pub fn inspect(checkpoint: &Checkpoint) -> Vec<PartReport> {
    type CheckOf = fn(&Part) -> Result<Check, ModelError>;
    let parts: [(&'static str, Option<&Part>, CheckOf); 4] = [
        ("U-Net", Some(checkpoint.unet()), unet),
        ("teacher", checkpoint.teacher(), unet),
        ("VAE", checkpoint.vae().ok(), vae),
        (TEXT_ENCODER, checkpoint.text_encoder().ok(), text_encoder),
    ];
    let mut reports: Vec<PartReport> = parts
        .into_iter()
        .filter_map(|(name, part, check)| {
            let part = part?;
            Some(PartReport {
                part: name,
                config: Some(part.config_origin.clone()),
                weights: part.weights.clone(),
                check: check(part),
            })
        })
        .collect();
    reports.extend(checkpoint.heads().map(|weights| PartReport {
        part: "heads",
        config: None,
        weights: weights.clone(),
        check: heads(weights, checkpoint.unet()),
    }));
    reports
}

fn unet(part: &Part) -> Result<Check, ModelError> {
    let config = UnetConfig::from_json(&part.config)?;
    Ok(check(&[&unet_graph(&config)], &part.weights))
}

fn vae(part: &Part) -> Result<Check, ModelError> {
    let config = CodecConfig::from_json(&part.config)?;
    let side = config.factor();
    let (encoder, decoder) = (config.encoder(side, side), config.decoder(1, 1));
    Ok(check(&[&encoder, &decoder], &part.weights))
}

fn text_encoder(part: &Part) -> Result<Check, ModelError> {
    match TextConfig::from_json(&part.config)? {
        TextConfig::Clip(config) => Ok(check(&[&clip::graph(&config)], &part.weights)),
        TextConfig::ClassTable { .. } => Ok(class_table(&part.weights)),
    }
}

/// A class table has one tensor, whose shape is its own affair as long as it has three axes.
fn class_table(weights: &Weights) -> Check {
    let fits = matches!(weights.shape(CLASS_TABLE), Some([_, _, _]));
    let others = weights.names().into_iter();
    Check {
        fitting: usize::from(fits),
        missing: (!fits)
            .then(|| CLASS_TABLE.to_owned())
            .into_iter()
            .collect(),
        unused: others
            .filter(|name| *name != CLASS_TABLE)
            .map(str::to_owned)
            .collect(),
        misshaped: Vec::new(),
    }
}

fn heads(weights: &Weights, unet: &Part) -> Result<Check, ModelError> {
    let config = HeadsConfig::from_weights(weights)?;
    let network = unet_graph(&UnetConfig::from_json(&unet.config)?);
    let misfit = |reason: String| ModelError::Parts(format!("projection heads: {reason}"));
    let mut shapes = Vec::new();
    for name in config.taps() {
        let tap = Tap::find(name, &network).map_err(|error| misfit(error.to_string()))?;
        let value = network.output(tap.module()).expect("a tap is an output");
        shapes.push((name, network.node(value).shape));
    }
    let graph = config.graph(&shapes).ok_or_else(|| {
        misfit("a head has another number of channels than the U-Net at its tap".to_owned())
    })?;
    Ok(check(&[&graph], weights))
}
