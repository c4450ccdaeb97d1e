//! How the features of a folder were made, and whether they may be joined by others.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::checkpoint::{WriteError, write_file};

/// The settings that all features of a folder share, by name: `DIR/manifest.json`. It says nothing
/// of a single run, so that several may share the folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest(pub Map<String, Value>);

/// A folder that these settings do not suit.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The folder cannot be made.
    #[error("{path}: cannot be made a folder: {source}")]
    Folder {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Features made with other settings are there.
    #[error(
        "{path}: the features here were made with other settings: `{key}` is {found}, now it would \
         be {expected}; choose another folder, or --overwrite"
    )]
    Different {
        /// The manifest.
        path: PathBuf,
        /// The first setting that differs.
        key: String,
        /// What it was.
        found: String,
        /// What it would be.
        expected: String,
    },
    /// The manifest there cannot be read.
    #[error("{path}: is no manifest ({reason}); choose another folder, or --overwrite")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Features made with other settings would be left beside the new ones.
    #[error(
        "{path}: was made with other settings, and is not made anew by this run; choose another \
         folder, or remove it"
    )]
    Left {
        /// One of their files.
        path: PathBuf,
    },
    /// What is to be made anew cannot be removed.
    #[error("{path}: cannot be removed: {source}")]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Manifest {
    /// Makes `folder` ready for features with these settings: writes the manifest, unless the same
    /// one is there.
    ///
    /// # Errors
    /// If features with other settings are there, or nothing can be written.
    pub fn settle(&self, folder: &Path) -> Result<(), ManifestError> {
        let path = path_in(folder);
        match read(&path)? {
            Some(known) => self.compare(&known, path),
            None => self.write(folder),
        }
    }

    /// Whether the manifest of `folder` is this one, or there is none.
    pub(super) fn suits(&self, folder: &Path) -> bool {
        read(&path_in(folder)).is_ok_and(|known| known.is_none_or(|known| known == self.0))
    }

    /// Writes the manifest, whatever is there.
    pub(super) fn write(&self, folder: &Path) -> Result<(), ManifestError> {
        fs::create_dir_all(folder).map_err(|source| ManifestError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        let text = format!("{:#}\n", Value::Object(self.0.clone()));
        Ok(write_file(&path_in(folder), text.as_bytes())?)
    }

    fn compare(&self, known: &Map<String, Value>, path: PathBuf) -> Result<(), ManifestError> {
        let keys = self.0.keys().chain(known.keys());
        let Some(key) = keys
            .into_iter()
            .find(|key| self.0.get(*key) != known.get(*key))
        else {
            return Ok(());
        };
        let word = |settings: &Map<String, Value>| {
            settings
                .get(key)
                .map_or_else(|| "absent".to_owned(), Value::to_string)
        };
        let (found, expected) = (word(known), word(&self.0));
        Err(ManifestError::Different {
            path,
            key: key.clone(),
            found,
            expected,
        })
    }
}

fn path_in(folder: &Path) -> PathBuf {
    folder.join("manifest.json")
}

fn read(path: &Path) -> Result<Option<Map<String, Value>>, ManifestError> {
    let unreadable = |reason: String| ManifestError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|e| unreadable(e.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) if source.kind() == io::ErrorKind::NotADirectory => {
            let path = path.parent().unwrap_or(path).to_owned();
            Err(ManifestError::Folder { path, source })
        }
        Err(error) => Err(unreadable(error.to_string())),
    }
}
