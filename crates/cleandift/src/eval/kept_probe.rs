//! Trained probes in a folder, found again by what they depend on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::digest::digest;
use super::probes::LinearProbe;
use super::{EvalError, Settings, Source};
use crate::checkpoint::make_folder;

/// A trained probe in a folder, under the task's name and the hash of what it depends on, all of
/// which is in the file's metadata.
pub(super) struct KeptProbe {
    path: PathBuf,
    metadata: BTreeMap<String, String>,
}

impl KeptProbe {
    /// The place of the probe of a task on these taps of a source; `about` is what it depends on
    /// beside the features.
    pub(super) fn new(
        folder: &Path,
        task: &str,
        source: &dyn Source,
        taps: &[String],
        about: Settings,
    ) -> Self {
        let mut features = source.settings();
        features.insert("taps".into(), json!(taps));
        let words = |settings| serde_json::Value::Object(settings).to_string();
        let metadata = BTreeMap::from([
            ("task".to_owned(), task.to_owned()),
            ("features".to_owned(), words(features)),
            ("training".to_owned(), words(about)),
        ]);
        let digest = digest(metadata.values().map(String::as_str));
        let name = format!("{task}-{}.safetensors", &digest[..8]);
        Self {
            path: folder.join(name),
            metadata,
        }
    }

    /// The probe, if it has been trained before.
    pub(super) fn open(&self) -> Result<Option<LinearProbe>, EvalError> {
        let there = self.path.exists();
        there.then(|| LinearProbe::open(&self.path)).transpose()
    }

    /// Keeps the probe, and what was chosen on the validation part.
    pub(super) fn save(
        mut self,
        probe: &LinearProbe,
        found: &[(&str, f64)],
    ) -> Result<(), EvalError> {
        if let Some(folder) = self.path.parent() {
            make_folder(folder)?;
        }
        let found = found
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()));
        self.metadata.extend(found);
        probe.save(&self.path, &self.metadata)
    }
}
