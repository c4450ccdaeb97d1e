//! What is known of outputs whose format has no place for it: a line of JSON each, the last one of an
//! output counts.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Metadata;
use crate::checkpoint::WriteError;

/// The file in the folder of features. Several processes may add to it.
const FILE: &str = "pictures.jsonl";

/// A line.
#[derive(Serialize, Deserialize)]
pub(super) struct Note {
    output: String,
    /// The lengths of its files.
    pub(super) bytes: Vec<u64>,
    pub(super) metadata: Metadata,
}

/// What an output is called in the file.
pub(super) fn name(stem: &Path) -> String {
    stem.to_string_lossy().into_owned()
}

/// The lengths of files, if all are there.
pub(super) fn lengths(files: &[PathBuf]) -> Option<Vec<u64>> {
    let length = |file: &PathBuf| Some(fs::metadata(file).ok()?.len());
    files.iter().map(length).collect()
}

/// Adds a line about an output whose files have been written.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn note(
    folder: &Path,
    stem: &Path,
    files: &[PathBuf],
    metadata: &Metadata,
) -> Result<(), WriteError> {
    let note = Note {
        output: name(stem),
        bytes: lengths(files).unwrap_or_default(),
        metadata: metadata.clone(),
    };
    // A line begins by ending the one before, which a kill may have cut.
    let line = format!(
        "\n{}\n",
        serde_json::to_string(&note).expect("a note is plain data")
    );
    let path = folder.join(FILE);
    let file = OpenOptions::new().create(true).append(true).open(&path);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .map_err(|source| WriteError::Io { path, source })
}

/// All outputs that the file of a folder knows.
pub(super) fn read(folder: &Path) -> HashMap<String, Note> {
    let text = fs::read(folder.join(FILE)).unwrap_or_default();
    let notes = text.split(|&byte| byte == b'\n');
    notes
        .filter_map(|line| serde_json::from_slice::<Note>(line).ok())
        .map(|note| (note.output.clone(), note))
        .collect()
}
