//! How features are kept: one output per picture, whole or not at all, in a folder whose manifest
//! says how they were made.

mod format;
mod manifest;
mod npy;
mod record;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use half::f16;

pub use format::{Format, FormatError};
pub use manifest::{Manifest, ManifestError};

use crate::checkpoint::{Dtype, TensorData, Weights, WriteError};
use crate::checkpoint::{make_folder, write_file, write_safetensors};

/// What is known of an output beside its tensors.
pub type Metadata = BTreeMap<String, String>;

/// A folder of features.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
    format: Format,
    settings: Metadata,
}

/// A tensor to be kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Its name: a tap's, `latents` or `prompt_embeds`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Vec<f32>,
    /// How they are stored.
    pub dtype: Dtype,
}

/// The ending of temporary files.
const TEMPORARY: &str = ".tmp";

impl Store {
    /// A store in `folder`, which need not exist yet.
    pub fn new(folder: PathBuf, format: Format) -> Self {
        let settings = Metadata::new();
        Self {
            folder,
            format,
            settings,
        }
    }

    /// The same, where this is true of all outputs: it goes into each safetensors file. The manifest has
    /// it for the other formats.
    pub fn with_settings(self, settings: Metadata) -> Self {
        Self { settings, ..self }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The files of an output called `stem` (a relative path without an ending) with tensors of
    /// these names.
    pub fn files(&self, stem: &Path, names: &[String]) -> Vec<PathBuf> {
        match self.format {
            Format::Npy => names
                .iter()
                .map(|name| self.file(stem, &format!("{name}.npy")))
                .collect(),
            format => vec![self.file(stem, &format.to_string())],
        }
    }

    /// Not `with_extension`: a stem may hold dots.
    fn file(&self, stem: &Path, ending: &str) -> PathBuf {
        let mut file = OsString::from(self.folder.join(stem));
        file.push(".");
        file.push(ending);
        file.into()
    }

    /// Writes an output; its folders are made. `metadata` goes into safetensors files; of the other
    /// formats it is noted in a file of the folder, `pictures.jsonl`.
    ///
    /// # Errors
    /// If the folder cannot be written or the disk is full. Of several npy files some may have been
    /// written then, each of them whole.
    pub fn write(
        &self,
        stem: &Path,
        tensors: &[Stored],
        metadata: &Metadata,
    ) -> Result<(), WriteError> {
        if let Some(folder) = self.file(stem, "").parent() {
            make_folder(folder)?;
        }
        if self.format != Format::Safetensors {
            self.check_range(stem, tensors)?;
        }
        match self.format {
            Format::Safetensors => {
                let tensors: Vec<TensorData> = tensors
                    .iter()
                    .map(
                        |Stored {
                             name,
                             shape,
                             values,
                             dtype,
                         }| TensorData {
                            name,
                            shape,
                            values,
                            dtype: *dtype,
                        },
                    )
                    .collect();
                let mut all = self.settings.clone();
                all.extend(metadata.clone());
                write_safetensors(&self.file(stem, "safetensors"), &tensors, &all)
            }
            Format::Npy => {
                let array = |tensor: &Stored| {
                    let file = self.file(stem, &format!("{}.npy", tensor.name));
                    write_file(&file, &npy::array(tensor)).map(|()| file)
                };
                let files = tensors.iter().map(array).collect::<Result<Vec<_>, _>>()?;
                record::note(&self.folder, stem, &files, metadata)
            }
            Format::Npz => {
                let file = self.file(stem, "npz");
                write_file(&file, &npy::archive(tensors))?;
                record::note(&self.folder, stem, &[file], metadata)
            }
        }
    }

    /// As [`write_safetensors`] does it: a finite value never becomes infinite in silence.
    fn check_range(&self, stem: &Path, tensors: &[Stored]) -> Result<(), WriteError> {
        for Stored {
            name,
            values,
            dtype,
            ..
        } in tensors
        {
            let too_large = |value: &f32| value.is_finite() && f16::from_f32(*value).is_infinite();
            if *dtype == Dtype::F16
                && let Some(index) = values.iter().position(too_large)
            {
                let (path, tensor) = (self.folder.join(stem), name.clone());
                let (value, dtype) = (values[index], *dtype);
                return Err(WriteError::OutOfRange {
                    path,
                    tensor,
                    index,
                    value,
                    dtype,
                });
            }
        }
        Ok(())
    }

    /// Makes the folder ready for features that replace those with other settings: all of `outputs`
    /// are removed before its manifest changes, so that a run that is broken off leaves nothing
    /// that looks finished and is not. With the same settings nothing is removed.
    ///
    /// # Errors
    /// If there are features that are not among `outputs`, whose manifest would be wrong; if
    /// something cannot be removed or written.
    pub fn replace(
        &self,
        manifest: &Manifest,
        outputs: &[(PathBuf, Vec<String>)],
    ) -> Result<(), ManifestError> {
        if !manifest.suits(&self.folder) {
            let files = outputs
                .iter()
                .flat_map(|(stem, names)| self.files(stem, names));
            let files: HashSet<PathBuf> = files.collect();
            let mut found = Vec::new();
            features_below(&self.folder, &mut found);
            if let Some(path) = found.iter().find(|path| !files.contains(*path)) {
                return Err(ManifestError::Left { path: path.clone() });
            }
            for path in found {
                fs::remove_file(&path).map_err(|source| ManifestError::Remove { path, source })?;
            }
        }
        manifest.write(&self.folder)
    }

    /// What was written beside each of `outputs` that is there whole; what a killed run left unfinished
    /// of them is removed. Each folder is read once.
    pub fn finished(&self, outputs: &[(PathBuf, Vec<String>)]) -> Vec<Option<Metadata>> {
        let wanted: Vec<Vec<PathBuf>> = outputs
            .iter()
            .map(|(stem, names)| self.files(stem, names))
            .collect();
        let mine: HashSet<&Path> = wanted.iter().flatten().map(PathBuf::as_path).collect();
        let folders: HashSet<&Path> = mine.iter().filter_map(|file| file.parent()).collect();
        let mut found = HashSet::new();
        for folder in folders {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if temporary_for(&path).is_some_and(|file| mine.contains(file.as_path())) {
                    // If it cannot be removed it does no harm either.
                    let _ = fs::remove_file(&path);
                }
                found.insert(path);
            }
        }
        let mut noted = record::read(&self.folder);
        let whole = outputs.iter().zip(&wanted).map(|((stem, _), files)| {
            if !files.iter().all(|file| found.contains(file)) {
                return None;
            }
            match self.format {
                Format::Safetensors => {
                    let file = Weights::open(&files[0]).ok()?;
                    Some(file.metadata().clone())
                }
                Format::Npy | Format::Npz => {
                    let note = noted.remove(&record::name(stem))?;
                    (record::lengths(files)? == note.bytes).then_some(note.metadata)
                }
            }
        });
        whole.collect()
    }
}

/// All files of features in a folder and those inside it, sorted.
fn features_below(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let ending = path.extension().and_then(|ending| ending.to_str());
        if path.is_dir() && !path.is_symlink() {
            features_below(&path, found);
        } else if ending.is_some_and(|ending| ending.parse::<Format>().is_ok()) {
            found.push(path);
        }
    }
}

/// The file that a temporary one was to become: `.NAME.XXXXXX.tmp` for `NAME`.
fn temporary_for(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let inner = name.strip_prefix('.')?.strip_suffix(TEMPORARY)?;
    let (file, _) = inner.rsplit_once('.')?;
    Some(path.with_file_name(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str) -> Stored {
        Stored {
            name: name.into(),
            shape: vec![2, 1],
            values: vec![1.5, -2.0],
            dtype: Dtype::F16,
        }
    }

    #[test]
    fn values_too_large_for_f16_are_refused_in_every_format() {
        let folder = tempfile::tempdir().unwrap();
        for format in [Format::Safetensors, Format::Npy, Format::Npz] {
            let store = Store::new(folder.path().to_owned(), format);
            let large = Stored {
                values: vec![1.0, 70000.0],
                ..tensor("us6")
            };
            let error = store
                .write(Path::new("a"), &[large], &BTreeMap::new())
                .unwrap_err();
            assert!(
                matches!(error, WriteError::OutOfRange { index: 1, .. }),
                "{error}"
            );
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn finished_outputs_are_found_and_leftovers_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned(), Format::Npy);
        let names = vec!["us3".to_owned(), "us6".to_owned()];
        let outputs: Vec<_> = ["a.b", "sub/c", "d"]
            .map(|stem| (PathBuf::from(stem), names.clone()))
            .into();
        let whole = || -> Vec<bool> {
            let finished = store.finished(&outputs);
            finished.iter().map(Option::is_some).collect()
        };
        assert_eq!(whole(), [false; 3]);
        let both = [tensor("us3"), tensor("us6")];
        store
            .write(Path::new("a.b"), &both, &BTreeMap::new())
            .unwrap();
        store
            .write(Path::new("sub/c"), &both[..1], &BTreeMap::new())
            .unwrap();
        let (left, other) = (".d.us3.npy.x7Yz12.tmp", ".another.npy.x7Yz12.tmp");
        fs::write(folder.path().join(left), "torn").unwrap();
        fs::write(folder.path().join(other), "someone else's").unwrap();
        assert_eq!(whole(), [true, false, false]);
        assert!(!folder.path().join(left).exists());
        assert!(folder.path().join(other).exists());
        assert!(folder.path().join("a.b.us6.npy").exists());
    }

    #[test]
    fn outputs_that_were_cut_are_not_whole() {
        let metadata = Metadata::from([("picture_bytes".to_owned(), "7".to_owned())]);
        for format in [Format::Safetensors, Format::Npy, Format::Npz] {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::new(folder.path().to_owned(), format);
            let output = (PathBuf::from("a"), vec!["us6".to_owned()]);
            store.write(&output.0, &[tensor("us6")], &metadata).unwrap();
            let outputs = [output];
            let known = &store.finished(&outputs)[0];
            assert_eq!(known.as_ref().unwrap()["picture_bytes"], "7", "{format}");
            let file = &store.files(&outputs[0].0, &outputs[0].1)[0];
            let bytes = fs::read(file).unwrap();
            for length in [0, 8, bytes.len() - 1] {
                fs::write(file, &bytes[..length]).unwrap();
                assert_eq!(store.finished(&outputs), [None], "{format}: {length}");
            }
        }
    }

    /// A kill may leave half a line; the output is made again, and its new line counts.
    #[test]
    fn a_torn_note_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path().to_owned(), Format::Npz);
        let outputs = [(PathBuf::from("a"), vec!["us6".to_owned()])];
        let write = || store.write(&outputs[0].0, &[tensor("us6")], &Metadata::new());
        write().unwrap();
        let path = folder.path().join("pictures.jsonl");
        let line = fs::read(&path).unwrap();
        fs::write(&path, &line[..line.len() / 2]).unwrap();
        assert_eq!(store.finished(&outputs), [None]);
        write().unwrap();
        assert!(store.finished(&outputs)[0].is_some());
    }
}
