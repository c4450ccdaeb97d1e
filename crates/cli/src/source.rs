//! Where a model comes from.

use std::path::Path;

use cleandift::checkpoint::{Checkpoint, CheckpointError, HashCache};
use cleandift::extractor::{Model, ModelError};

use crate::failure::Failure;
use crate::{cache, hub};

/// Seed of the built-in random model.
const RANDOM_SEED: u64 = 0;

/// A model's origin.
pub enum Source {
    /// Files.
    Files(Box<Files>),
    /// The built-in small model with random weights.
    Random,
}

/// A model's files.
pub struct Files {
    checkpoint: Checkpoint,
    /// The name that they were asked for by, unless it was a path.
    name: Option<String>,
}

impl Source {
    /// The files behind `--model` and `--base`, fetched if they are names, or the built-in model.
    pub fn open(model: Option<&Path>, base: Option<&Path>) -> Result<Self, Failure> {
        let Some(model) = model else {
            return Ok(Self::Random);
        };
        let located = hub::locate(model, base)?;
        let checkpoint = Checkpoint::open(&located.model, located.base.as_deref())?;
        let name = (located.model != model).then(|| model.display().to_string());
        Ok(Self::Files(Box::new(Files { checkpoint, name })))
    }

    /// The model itself, checked.
    pub fn model(&self) -> Result<Model, ModelError> {
        match self {
            Self::Files(files) => Model::open(&files.checkpoint),
            Self::Random => Ok(Model::random(RANDOM_SEED)),
        }
    }

    /// How to call it.
    pub fn name(&self) -> String {
        match self {
            Self::Files(files) => match &files.name {
                Some(name) => name.clone(),
                None => files.checkpoint.path().display().to_string(),
            },
            Self::Random => format!("built-in small model, random weights (seed {RANDOM_SEED})"),
        }
    }

    /// The same without its folder.
    pub fn short_name(&self) -> String {
        match self {
            Self::Files(files) if files.name.is_some() => self.name(),
            Self::Files(files) => {
                let path = files.checkpoint.path();
                let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
                real.file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned()
            }
            Self::Random => self.name(),
        }
    }

    /// SHA-256 of all weights, or of what stands for them. Files that have not changed are not
    /// read again the next time.
    pub fn hash(&self) -> Result<String, CheckpointError> {
        let Self::Files(files) = self else {
            return Ok(format!("random-{RANDOM_SEED}"));
        };
        let checkpoint = &files.checkpoint;
        let hash = match cache::folder() {
            Some(folder) => checkpoint.sha256_cached(&HashCache::new(folder.join("hashes"))),
            None => checkpoint.sha256(),
        };
        Ok(hash?.combined)
    }

    /// What a person must know before trusting the results.
    pub fn warning(&self) -> Option<&'static str> {
        match self {
            Self::Files(_) => None,
            Self::Random => Some(
                "no --model given: this is the built-in small model, and its weights are RANDOM. \
                 The program works, the features mean nothing",
            ),
        }
    }
}
