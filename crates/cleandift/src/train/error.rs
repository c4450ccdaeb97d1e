//! What can go wrong in training.

use crate::engine::cpu::EngineError;

/// Training could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A step could not be run.
    #[error(transparent)]
    Engine(#[from] EngineError),
}
