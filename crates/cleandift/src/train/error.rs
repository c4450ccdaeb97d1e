//! What can go wrong in training.

use std::path::PathBuf;

use super::config::ConfigError;
use super::data::DataError;
use super::state::StateError;
use crate::checkpoint::{CheckpointError, ConvertError, WriteError};
use crate::engine::cpu::EngineError;
use crate::extractor::{ExtractError, ModelError};
use crate::features::UnknownTap;
use crate::graph::ReadError;
use crate::networks::heads::HeadsError;
use crate::networks::training::StepError;

/// Training could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The config.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The pictures.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A result could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The base could not be written as a folder.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// A step could not be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A tap that the U-Net does not have.
    #[error(transparent)]
    Tap(#[from] UnknownTap),
    /// The model to begin with.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Heads that do not fit together.
    #[error(transparent)]
    Heads(#[from] HeadsError),
    /// Heads of another kind than the config says.
    #[error(
        "{}: its heads are conditioned in another way than `heads.norm` says", path.display()
    )]
    HeadsNorm {
        /// The file.
        path: PathBuf,
    },
    /// Heads that do not fit the U-Net.
    #[error(transparent)]
    Step(#[from] StepError),
    /// A weight could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Weights that do not fit together.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A prompt could not be encoded.
    #[error(transparent)]
    Text(#[from] Box<ExtractError>),
    /// A picture has no caption, and needs one.
    #[error(
        "picture {number} of the shuffled order has no caption: put `x.txt` or `x.json` beside \
         `x.jpg`, or train without captions (`text = \"none\"`)"
    )]
    NoCaption {
        /// Its place in the shuffled order.
        number: u64,
    },
    /// Factors of low rank are to be written, and there are none.
    #[error(
        "there are no factors of low rank to be written: they are trained with `student.train = \
         \"lora\"`"
    )]
    NoLora,
    /// A part of `lora.layers` that is in no layer's path.
    #[error(
        "`lora.layers` has `{0}`, which stands in the path of no layer that can be adapted; such as \
         `attn1`, `attn2.to_v` or `ff` do"
    )]
    LoraLayer(String),
    /// Neither U-Net nor heads nor timestep are to be trained.
    #[error(
        "nothing is to be trained: the U-Net and the student's timestep are fixed, and the heads \
         are frozen or absent"
    )]
    NothingToTrain,
    /// Loss or parameters are not numbers any more.
    #[error(
        "step {step}: {what}: the learning rate may be too high, or gradients want clipping; {}",
        kept.as_ref().map_or("no state was saved before".to_owned(),
            |path| format!(
                "the last state is {}: go on from it with --resume --set optimiser.rate=…, or, if it \
                 was ruined already, from an earlier one (take the later ones away)", path.display()
            ))
    )]
    NotFinite {
        /// The step that failed, from 1.
        step: u64,
        /// What is not finite.
        what: String,
        /// The last state that was saved.
        kept: Option<PathBuf>,
    },
}
