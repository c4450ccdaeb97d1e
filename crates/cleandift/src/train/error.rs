//! What can go wrong in training.

use std::path::PathBuf;

use super::config::ConfigError;
use super::data::DataError;
use super::state::StateError;
use crate::checkpoint::WriteError;
use crate::engine::cpu::EngineError;

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
    /// A step could not be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Loss or parameters are not numbers any more.
    #[error(
        "step {step}: {what}: the learning rate may be too high, or gradients want clipping; {}",
        kept.as_ref().map_or("no state was saved before".to_owned(),
            |path| format!("the last good state is {}", path.display()))
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
