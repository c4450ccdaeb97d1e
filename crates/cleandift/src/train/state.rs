//! A run's state on the disk: what it takes to go on as if nothing had happened.
//!
//! A state is a folder `state-00000400` with the parameters, the optimiser's moments and the average
//! as safetensors, and `state.json`: the step, the config and its hash, what the run learns from, and
//! what wrote it. Everything random is drawn by number, so that there is no random state. A folder gets
//! its name when it is complete and on the disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Masters;
use super::optimiser::Moments;
use crate::checkpoint::{CheckpointError, Dtype, TensorData, Weights, WriteError};
use crate::checkpoint::{hexadecimal, write_file, write_safetensors};
use crate::graph::{Parameters, ReadError};

/// A state could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A file of it could not be written; what was there before is still there.
    #[error("the state of step {step} could not be saved, the one before is kept: {source}")]
    Write {
        /// After which step.
        step: u64,
        /// Why.
        source: WriteError,
    },
    /// A folder could not be made, renamed, listed or removed.
    #[error("{}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The tensors cannot be opened.
    #[error(transparent)]
    Open(#[from] CheckpointError),
    /// The tensors cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// `state.json` is missing or no such file.
    #[error("{}: {reason}: it is no state of a run", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The state belongs to a run with another config.
    #[error(
        "{}: it was made with another config: {}; go on with its own, or start a new run in another \
         folder",
        path.display(), differences.join(", ")
    )]
    OtherConfig {
        /// The state.
        path: PathBuf,
        /// Which keys differ, with both values.
        differences: Vec<String>,
    },
    /// The state belongs to a run that learned from other pictures or another base.
    #[error(
        "{}: the run learned from something else: {}; put it back, or start a new run in another folder",
        path.display(), differences.join(", ")
    )]
    OtherSources {
        /// The state.
        path: PathBuf,
        /// What differs, as it was and as it is.
        differences: Vec<String>,
    },
}

/// What a run is at after a step.
#[derive(Clone, Debug)]
pub struct State {
    /// Steps made.
    pub step: u64,
    /// The parameters, frozen ones left out.
    pub masters: Masters,
    /// The optimiser's moments.
    pub moments: BTreeMap<String, Moments>,
    /// The averaged parameters, if an average is kept.
    pub average: Option<Masters>,
}

const PARAMETERS: &str = "parameters.safetensors";
const MOMENTS: &str = "moments.safetensors";
const AVERAGE: &str = "average.safetensors";
const JSON: &str = "state.json";
/// What a state's folder is called, before the number of its step.
const PREFIX: &str = "state-";
/// How the name of a folder ends that is still being written.
const UNFINISHED: &str = ".tmp";
/// What the two moments' tensors are called, before the parameter's name.
const MOMENT_PREFIXES: [&str; 2] = ["first.", "second."];

/// The contents of `state.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    step: u64,
    program: String,
    config_sha256: String,
    config: Value,
    /// States of earlier versions have none: theirs are not compared.
    #[serde(default)]
    sources: Option<Sources>,
}

/// What a run learns from beside its config: what it is, and which it is.
pub type Sources = BTreeMap<String, String>;

/// The parts of a state about to be written.
pub(super) struct Parts<'s> {
    pub step: u64,
    pub masters: &'s Masters,
    pub moments: &'s BTreeMap<String, Moments>,
    pub average: Option<&'s Masters>,
    pub config: &'s Value,
    pub sources: &'s Sources,
}

impl Parts<'_> {
    /// Writes the state into a folder below `out`, and returns its path. One that is there already
    /// is of the same step of the same run, and is replaced.
    pub fn write(&self, out: &Path) -> Result<PathBuf, StateError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Folder { path, source }
        };
        fs::create_dir_all(out).map_err(at(out))?;
        remove_unfinished(out)?;
        let unfinished = tempfile::Builder::new()
            .prefix(&format!(".{PREFIX}{:08}.", self.step))
            .suffix(UNFINISHED)
            .tempdir_in(out)
            .map_err(at(out))?;
        self.write_files(unfinished.path())
            .map_err(|source| StateError::Write {
                step: self.step,
                source,
            })?;
        let path = out.join(format!("{PREFIX}{:08}", self.step));
        // Put aside, not removed: a kill between the two must not cost the state.
        let aside = out.join(format!(".{PREFIX}{:08}.old{UNFINISHED}", self.step));
        if path.is_dir() {
            fs::rename(&path, &aside).map_err(at(&path))?;
        }
        fs::rename(unfinished.path(), &path).map_err(at(&path))?;
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(at(&aside))?;
        }
        // It has another name now: there is nothing left to clean up.
        let _ = unfinished.keep();
        // Some file systems cannot bring a folder's names to the disk.
        let _ = File::open(out).and_then(|folder| folder.sync_all());
        Ok(path)
    }

    fn write_files(&self, folder: &Path) -> Result<(), WriteError> {
        write_masters(&folder.join(PARAMETERS), self.masters)?;
        if let Some(average) = self.average {
            write_masters(&folder.join(AVERAGE), average)?;
        }
        let moments = self.moments.iter().flat_map(|(name, moments)| {
            let pairs = MOMENT_PREFIXES.iter().zip(moments);
            pairs.map(move |(prefix, values)| (format!("{prefix}{name}"), name, values))
        });
        let moments: Vec<_> = moments.collect();
        let tensors = moments.iter().map(|(tensor, name, values)| TensorData {
            name: tensor,
            shape: self.masters.shape(name).unwrap_or_default(),
            values,
            dtype: Dtype::F32,
        });
        let tensors: Vec<_> = tensors.collect();
        write_safetensors(&folder.join(MOMENTS), &tensors, &BTreeMap::new())?;
        let description = Description {
            step: self.step,
            program: concat!("cleandift ", env!("CARGO_PKG_VERSION")).to_owned(),
            config_sha256: hash(self.config),
            config: self.config.clone(),
            sources: Some(self.sources.clone()),
        };
        let json = serde_json::to_vec_pretty(&description).expect("a config is JSON");
        write_file(&folder.join(JSON), &json)
    }
}

fn write_masters(path: &Path, masters: &Masters) -> Result<(), WriteError> {
    let names = masters.names();
    let values: Vec<Arc<Vec<f32>>> = names.iter().map(|name| masters.values(name)).collect();
    let tensors = names.iter().zip(&values).map(|(name, values)| TensorData {
        name,
        shape: masters.shape(name).unwrap_or_default(),
        values,
        dtype: Dtype::F32,
    });
    write_safetensors(path, &tensors.collect::<Vec<_>>(), &BTreeMap::new())
}

fn hash(config: &Value) -> String {
    hexadecimal(&Sha256::digest(config.to_string()))
}

impl State {
    /// Reads a state that a run with the same config and the same sources wrote. `may_differ` says
    /// which of the config's keys (`run.keep`) need not be the same.
    pub fn read(
        path: &Path,
        config: &Value,
        sources: &Sources,
        may_differ: impl Fn(&str) -> bool,
    ) -> Result<Self, StateError> {
        let description = describe(path)?;
        let mut changed = changes(&description.config, config);
        changed.retain(|(key, _)| !may_differ(key));
        if !changed.is_empty() {
            return Err(StateError::OtherConfig {
                path: path.to_owned(),
                differences: in_words(changed),
            });
        }
        let were = description.sources.as_ref().unwrap_or(sources);
        let changed = changes(&json!(were), &json!(sources));
        if !changed.is_empty() {
            return Err(StateError::OtherSources {
                path: path.to_owned(),
                differences: in_words(changed),
            });
        }
        let masters = read_masters(&path.join(PARAMETERS))?;
        let weights = Weights::open(&path.join(MOMENTS))?;
        let mut moments = BTreeMap::new();
        for tensor in weights.names() {
            let Some(name) = tensor.strip_prefix(MOMENT_PREFIXES[0]) else {
                continue;
            };
            let second = weights.read(&format!("{}{name}", MOMENT_PREFIXES[1]))?;
            moments.insert(name.to_owned(), [weights.read(tensor)?, second]);
        }
        let average = path.join(AVERAGE);
        let average = average.exists().then(|| read_masters(&average));
        Ok(Self {
            step: description.step,
            masters,
            moments,
            average: average.transpose()?,
        })
    }

    /// The parameters alone, averaged if there is an average: what another run may start from.
    pub fn read_parameters(path: &Path) -> Result<Masters, StateError> {
        let average = path.join(AVERAGE);
        match average.exists() {
            true => read_masters(&average),
            false => read_masters(&path.join(PARAMETERS)),
        }
    }
}

/// Whether a folder is a run's state.
pub fn is_state(path: &Path) -> bool {
    path.join(JSON).exists()
}

fn describe(path: &Path) -> Result<Description, StateError> {
    let path = path.join(JSON);
    let invalid = |reason: String| StateError::Json {
        path: path.clone(),
        reason,
    };
    let text = fs::read_to_string(&path).map_err(|error| invalid(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))
}

fn read_masters(path: &Path) -> Result<Masters, StateError> {
    let weights = Weights::open(path)?;
    let tensors = weights.names().into_iter().map(|name| {
        let shape = weights.shape(name).unwrap_or_default().to_vec();
        Ok((name.to_owned(), shape, weights.read(name)?))
    });
    let tensors = tensors.collect::<Result<Vec<_>, ReadError>>()?;
    Ok(Masters::new(tensors))
}

/// Keys whose values differ, and how.
fn changes(was: &Value, is: &Value) -> Vec<(String, String)> {
    let mut changes = Vec::new();
    compare("", was, is, &mut changes);
    changes
}

fn in_words(changes: Vec<(String, String)>) -> Vec<String> {
    changes.into_iter().map(|(_, words)| words).collect()
}

/// Collects what differs below a key.
fn compare(key: &str, was: &Value, is: &Value, differences: &mut Vec<(String, String)>) {
    match (was, is) {
        (Value::Object(was), Value::Object(is)) => {
            let keys = was
                .keys()
                .chain(is.keys().filter(|k| !was.contains_key(*k)));
            for inner in keys {
                let path = match key {
                    "" => inner.clone(),
                    _ => format!("{key}.{inner}"),
                };
                let value = |values: &serde_json::Map<String, Value>| {
                    values.get(inner).cloned().unwrap_or(Value::Null)
                };
                compare(&path, &value(was), &value(is), differences);
            }
        }
        _ if was == is => {}
        _ => differences.push((key.to_owned(), format!("`{key}` was {was}, is {is}"))),
    }
}

/// The states below `out`, by step.
pub fn states(out: &Path) -> Result<Vec<(u64, PathBuf)>, StateError> {
    let at = |source| StateError::Folder {
        path: out.to_owned(),
        source,
    };
    let entries = match fs::read_dir(out) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at)?,
    };
    let mut states = Vec::new();
    for entry in entries {
        let path = entry.map_err(at)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let step = name.strip_prefix(PREFIX).and_then(|step| step.parse().ok());
        if let Some(step) = step {
            states.push((step, path));
        }
    }
    states.sort_unstable();
    Ok(states)
}

/// Removes what a killed run left of a state that it was writing: it may be as large as a whole one.
fn remove_unfinished(out: &Path) -> Result<(), StateError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| StateError::Folder { path, source }
    };
    for entry in fs::read_dir(out).map_err(at(out))? {
        let path = entry.map_err(at(out))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&format!(".{PREFIX}")) && name.ends_with(UNFINISHED) {
            fs::remove_dir_all(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

/// Removes all states but the last `keep`.
pub(super) fn keep_last(out: &Path, keep: usize) -> Result<(), StateError> {
    let mut states = states(out)?;
    states.truncate(states.len().saturating_sub(keep));
    for (_, path) in states {
        fs::remove_dir_all(&path).map_err(|source| StateError::Folder { path, source })?;
    }
    Ok(())
}
