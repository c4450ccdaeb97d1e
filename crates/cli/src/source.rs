//! Where a model comes from.

use std::path::Path;

use cleandift::checkpoint::{Checkpoint, CheckpointError, HashCache, Lora};
use cleandift::extractor::{Model, ModelError};

use crate::failure::Failure;
use crate::{cache, embedded, hub};

/// The name of the built-in model with random weights.
const RANDOM: &str = "random";

/// Seed of the built-in random model.
const RANDOM_SEED: u64 = 0;

/// The files behind a path, the name of a model inside the program, or one that may be fetched.
pub fn checkpoint(model: &Path, base: Option<&Path>) -> Result<Checkpoint, Failure> {
    let inside = |path: &Path| {
        let name = path.to_str().filter(|_| !path.exists());
        name.and_then(embedded::open).transpose()
    };
    let base_inside = base.map(inside).transpose()?.flatten();
    match (inside(model)?, base_inside) {
        (Some(model), Some(base)) => Ok(model.with_base(&base)),
        (Some(model), None) => match base {
            Some(base) => Ok(model.with_base(&checkpoint(base, None)?)),
            None => Ok(model),
        },
        (None, Some(base)) => {
            let located = hub::locate(model, None)?;
            Ok(Checkpoint::open_upon(&located.model, &base)?)
        }
        (None, None) => {
            let located = hub::locate(model, base)?;
            Ok(Checkpoint::open(&located.model, located.base.as_deref())?)
        }
    }
}

/// SHA-256 of all weights. Files that have not changed are not read again the next time.
pub fn hash(checkpoint: &Checkpoint) -> Result<String, CheckpointError> {
    let hash = match cache::folder() {
        Some(folder) => checkpoint.sha256_cached(&HashCache::new(folder.join("hashes"))),
        None => checkpoint.sha256(),
    };
    Ok(hash?.combined)
}

/// A model's origin.
pub enum Source {
    /// Files, or a model inside the program.
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
    /// The files behind `--model` and `--base`, fetched if they are names, or a built-in model: `tiny`,
    /// or the one with random weights if that is not inside.
    pub fn open(model: Option<&Path>, base: Option<&Path>) -> Result<Self, Failure> {
        let Some(model) = model else {
            return Ok(match embedded::open(embedded::DEFAULT).transpose()? {
                Some(checkpoint) => Self::Files(Box::new(Files {
                    checkpoint,
                    name: None,
                })),
                None => Self::Random,
            });
        };
        if model == Path::new(RANDOM) && !model.exists() {
            return Ok(Self::Random);
        }
        let checkpoint = checkpoint(model, base)?;
        let name = (checkpoint.path() != model).then(|| model.display().to_string());
        Ok(Self::Files(Box::new(Files { checkpoint, name })))
    }

    /// The same files with a LoRA merged; the built-in model has no layers that one was made for.
    pub fn with_lora(self, lora: Lora) -> Result<Self, CheckpointError> {
        match self {
            Self::Files(files) => Ok(Self::Files(Box::new(Files {
                checkpoint: files.checkpoint.with_lora(lora)?,
                ..*files
            }))),
            Self::Random => Ok(Self::Random),
        }
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

    /// SHA-256 of all weights, or of what stands for them: see [`hash`].
    pub fn hash(&self) -> Result<String, CheckpointError> {
        match self {
            Self::Files(files) => hash(&files.checkpoint),
            Self::Random => Ok(format!("random-{RANDOM_SEED}")),
        }
    }

    /// SHA-256 of its configs, and of whatever else changes features and is no weight.
    pub fn configs_hash(&self) -> String {
        match self {
            Self::Files(files) => files.checkpoint.configs_sha256(),
            Self::Random => format!("random-{RANDOM_SEED}"),
        }
    }

    /// What a person must know before trusting the results.
    pub fn warning(&self) -> Option<&'static str> {
        match self {
            Self::Files(_) => None,
            Self::Random => Some(
                "this is the built-in small model, and its weights are RANDOM. The program works, the \
                 features mean nothing: name a model by --model",
            ),
        }
    }
}

#[cfg(all(test, feature = "tiny"))]
mod tests {
    use super::*;

    /// As `eval claim` asks for its own defaults.
    #[test]
    fn a_model_inside_takes_another_as_its_base() {
        let opened = checkpoint(Path::new("tiny"), Some(Path::new("tiny-base"))).unwrap();
        assert_eq!(opened.base(), Some(Path::new("tiny-base")));
        assert!(Model::open(&opened).unwrap().teacher.is_some());
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny/tiny.safetensors");
        let opened = checkpoint(&file, Some(Path::new("tiny-base"))).unwrap();
        assert!(opened.teacher().is_some());
    }
}
