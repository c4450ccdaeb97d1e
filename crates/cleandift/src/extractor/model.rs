//! A model whose configs are understood and whose tensors are known to fit.

use std::sync::Arc;

use super::inspect::{PartReport, TEXT_ENCODER, inspect};
use crate::checkpoint::{Checkpoint, CheckpointError, Part, Weights};
use crate::graph::{Check, Graph};
use crate::networks::config::{CodecConfig, ConfigError, TextConfig, UnetConfig};
use crate::networks::heads::{FILM_INTENDED, HEADS_NORM, HeadsConfig, HeadsError};
use crate::networks::schedule::{Schedule, ScheduleError};
use crate::networks::tokenizer::{Tokenizer, TokenizerError, padding_token};
use crate::networks::unet;

/// A model that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The files cannot be opened.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A config that is not supported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Heads that do not fit together.
    #[error(transparent)]
    Heads(#[from] HeadsError),
    /// Another noise schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The tokenizer's files.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A file that is needed could not be read.
    #[error("{file}: {reason}")]
    File {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// Tensors are missing or have other shapes.
    #[error("the weights do not fit the {part}: {}", describe(check))]
    Misfit {
        /// Which part.
        part: &'static str,
        /// The strict report.
        check: Check,
    },
    /// Parts that cannot work together.
    #[error("{0}")]
    Parts(String),
}

/// The first things that do not fit, in words.
fn describe(check: &Check) -> String {
    let mut words = Vec::new();
    if let Some(name) = check.missing.first() {
        words.push(format!("{} missing (first: `{name}`)", check.missing.len()));
    }
    if let Some(wrong) = check.misshaped.first() {
        words.push(format!(
            "{} of another shape (first: `{}` is {:?}, the config expects {:?})",
            check.misshaped.len(),
            wrong.name,
            wrong.found,
            wrong.expected
        ));
    }
    words.push("see `cleandift models inspect`".to_owned());
    words.join(", ")
}

/// A U-Net with its weights.
#[derive(Clone, Debug)]
pub struct UnetModel {
    /// Its config.
    pub config: UnetConfig,
    /// Its weights.
    pub weights: Weights,
}

/// A codec with its weights.
#[derive(Clone, Debug)]
pub struct CodecModel {
    /// Its config.
    pub config: CodecConfig,
    /// Its weights; empty for pixel-unshuffle.
    pub weights: Weights,
}

/// What turns a prompt into embeddings.
#[derive(Clone)]
pub enum TextModel {
    /// CLIP.
    Clip {
        /// Its config.
        config: crate::networks::config::ClipConfig,
        /// Its weights.
        weights: Weights,
        /// Its tokenizer.
        tokenizer: Arc<Tokenizer>,
    },
    /// One row per class.
    ClassTable(ClassTable),
}

/// A table of embeddings instead of a text encoder.
#[derive(Clone, Debug)]
pub struct ClassTable {
    /// One tensor, [`CLASS_TABLE`](crate::networks::diffusion::CLASS_TABLE), with a row per class and a last one for none.
    pub weights: Weights,
    /// The classes' names, by row; may be empty.
    pub classes: Vec<String>,
}

/// Projection heads with their weights.
#[derive(Clone, Debug)]
pub struct HeadsModel {
    /// Their shapes.
    pub config: HeadsConfig,
    /// Their weights.
    pub weights: Weights,
}

impl HeadsModel {
    /// Heads by their tensors, and by what their file says of the norm.
    ///
    /// # Errors
    /// If they do not fit together.
    pub fn open(weights: Weights) -> Result<Self, HeadsError> {
        let config = HeadsConfig::from_weights(&weights)?;
        let norm = weights.metadata().get(HEADS_NORM);
        let config = match norm.is_some_and(|norm| norm == FILM_INTENDED) {
            true => config.film_intended(),
            false => config,
        };
        Ok(Self { config, weights })
    }
}

/// A model, opened and checked.
#[derive(Clone)]
pub struct Model {
    /// The U-Net to use: the student, or the only one.
    pub unet: UnetModel,
    /// The U-Net that the student was made from, if both are at hand.
    pub teacher: Option<UnetModel>,
    /// The latent codec.
    pub codec: CodecModel,
    /// The text encoder, or why there is none: prompt embeddings can still be given.
    pub text: Result<TextModel, Arc<ModelError>>,
    /// The heads of a full file.
    pub heads: Option<HeadsModel>,
    /// The student's timestep, if the file says it.
    pub timestep: Option<f64>,
    /// The noise schedule.
    pub schedule: Schedule,
}

impl Model {
    /// Reads the configs of a checkpoint and checks all tensors' names and shapes. No weight is
    /// read.
    pub fn open(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let model = Self::read(checkpoint)?;
        for PartReport { part, check, .. } in inspect(checkpoint) {
            match check {
                Ok(check) if check.is_usable() => {}
                Ok(check) => return Err(ModelError::Misfit { part, check }),
                // The reason is in the model; prompt embeddings can still be given.
                Err(_) if part == TEXT_ENCODER => {}
                Err(error) => return Err(error),
            }
        }
        let (latent, seen) = (
            model.codec.config.latent_channels(),
            model.unet.config.in_channels,
        );
        if latent != seen {
            return Err(ModelError::Parts(format!(
                "the VAE's latents have {latent} channels, the U-Net takes {seen}: these parts do \
                 not belong together"
            )));
        }
        Ok(model)
    }

    /// The tap that serves most tasks: `us6` of Stable Diffusion (CleanDIFT, section 4). Small models,
    /// which know classes instead of texts, have what they know deeper inside, at `us3`.
    pub fn default_tap(&self) -> &'static str {
        if self.is_small() { "us3" } else { "us6" }
    }

    /// The taps that points are matched by: `us6` of Stable Diffusion, as published; of small models
    /// four that are joined, for one alone has either the place of things or their looks.
    pub fn matching_taps(&self) -> &'static str {
        match self.is_small() {
            true => "us2+us3+us9+us10",
            false => self.default_tap(),
        }
    }

    /// Whether it is a small model that knows classes instead of texts, such as `pretrain` makes:
    /// what published protocols say of Stable Diffusion's canvas and taps does not suit it.
    pub fn is_small(&self) -> bool {
        matches!(self.text, Ok(TextModel::ClassTable(_)))
    }

    fn read(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let unet = |part: &Part| -> Result<UnetModel, ModelError> {
            let config = UnetConfig::from_json(&part.config)?;
            Ok(UnetModel {
                config,
                weights: part.weights.clone(),
            })
        };
        let vae = checkpoint.vae()?;
        let codec = CodecConfig::from_json(&vae.config)?;
        let heads = checkpoint.heads().cloned().map(HeadsModel::open);
        Ok(Self {
            unet: unet(checkpoint.unet())?,
            teacher: checkpoint.teacher().map(unet).transpose()?,
            codec: CodecModel {
                config: codec,
                weights: vae.weights.clone(),
            },
            text: open_text(checkpoint).map_err(Arc::new),
            heads: heads.transpose()?,
            timestep: checkpoint.timestep(),
            schedule: match checkpoint.scheduler() {
                Some(json) => Schedule::from_json(json)?,
                None => Schedule::default(),
            },
        })
    }
}

/// The whole U-Net, for its parameters and outputs: at any size.
pub(super) fn unet_graph(config: &UnetConfig) -> Graph {
    unet::graph(config, 8, 8, 1)
}

fn open_text(checkpoint: &Checkpoint) -> Result<TextModel, ModelError> {
    let part = checkpoint.text_encoder()?;
    let weights = part.weights.clone();
    match TextConfig::from_json(&part.config)? {
        TextConfig::ClassTable { classes } => {
            Ok(TextModel::ClassTable(ClassTable { weights, classes }))
        }
        TextConfig::Clip(config) => {
            let tokenizer = Arc::new(open_tokenizer(checkpoint.tokenizer()?)?);
            Ok(TextModel::Clip {
                config,
                weights,
                tokenizer,
            })
        }
    }
}

fn open_tokenizer(folder: &std::path::Path) -> Result<Tokenizer, ModelError> {
    let text = |name: &str| -> Result<Option<String>, ModelError> {
        let file = folder.join(name);
        match std::fs::read_to_string(&file) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ModelError::File {
                file: file.display().to_string(),
                reason: error.to_string(),
            }),
        }
    };
    let json = |name: &str| -> Result<Option<serde_json::Value>, ModelError> {
        let parse = |text: String| serde_json::from_str(&text);
        text(name)?
            .map(parse)
            .transpose()
            .map_err(|error| ModelError::File {
                file: folder.join(name).display().to_string(),
                reason: error.to_string(),
            })
    };
    let padding = padding_token(
        json("special_tokens_map.json")?.as_ref(),
        json("tokenizer_config.json")?.as_ref(),
    );
    if let (Some(vocabulary), Some(merges)) = (text("vocab.json")?, text("merges.txt")?) {
        return Ok(Tokenizer::from_vocabulary(
            &vocabulary,
            &merges,
            padding.as_deref(),
        )?);
    }
    match text("tokenizer.json")? {
        Some(text) => Ok(Tokenizer::from_json(&text, padding.as_deref())?),
        None => Err(ModelError::File {
            file: folder.display().to_string(),
            reason: "found neither vocab.json with merges.txt nor tokenizer.json".to_owned(),
        }),
    }
}
