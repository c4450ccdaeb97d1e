//! Hugging Face's folder for models, shared with diffusers and every other program of the field:
//!
//! ```text
//! models--org--repo/blobs/<etag>                 contents, each once
//! models--org--repo/refs/<revision>              the commit that a branch or tag meant
//! models--org--repo/snapshots/<commit>/<file>    links to contents
//! .locks/models--org--repo/<etag>.lock           held while contents are fetched
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::HubError;
use super::name::is_commit;
use crate::checkpoint::write_file;

/// A repository's part of the cache.
pub(super) struct Repository {
    folder: PathBuf,
    locks: PathBuf,
}

impl Repository {
    /// That of `org/repo`; nothing is made yet.
    pub(super) fn new(cache: &Path, repository: &str) -> Self {
        let name = format!("models--{}", repository.replace('/', "--"));
        Self {
            folder: cache.join(&name),
            locks: cache.join(".locks").join(name),
        }
    }

    /// Where the contents lie, or will lie.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The snapshots that may stand for a revision, the best first: the one that it meant when it
    /// was last fetched and, for the default branch, those that are there besides, the newest first.
    pub(super) fn snapshots(&self, revision: Option<&str>) -> Vec<PathBuf> {
        let meant = match revision {
            Some(commit) if is_commit(commit) => Some(commit.to_owned()),
            revision => self.commit_of(revision.unwrap_or("main")),
        };
        let mut snapshots: Vec<_> = meant
            .map(|commit| self.snapshot(&commit))
            .into_iter()
            .collect();
        if revision.is_none() {
            let others = self.all_snapshots();
            snapshots.extend(
                others
                    .into_iter()
                    .filter(|path| !snapshots.contains(path))
                    .collect::<Vec<_>>(),
            );
        }
        snapshots.retain(|path| path.is_dir());
        snapshots
    }

    fn all_snapshots(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder.join("snapshots"));
        let entries = entries.into_iter().flatten().flatten();
        let dated = entries.map(|entry| {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            (modified.unwrap_or(SystemTime::UNIX_EPOCH), entry.path())
        });
        let mut dated: Vec<_> = dated.collect();
        dated.sort();
        dated.into_iter().rev().map(|(_, path)| path).collect()
    }

    fn commit_of(&self, revision: &str) -> Option<String> {
        let text = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Remembers which commit a revision means, after all that was wanted of it has come: what
    /// was there before stays in use until then.
    pub(super) fn remember(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if is_commit(revision) || self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        make_parent(&path)?;
        write_file(&path, commit.as_bytes())
            .map_err(|error| HubError::io(&path, io::Error::other(error)))
    }

    /// Gives contents their name in a commit.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<PathBuf, HubError> {
        let path = self.snapshot(commit).join(file);
        make_parent(&path)?;
        // The target is told relative to the link, so that the cache can be moved.
        let up = file.split('/').count() + 1;
        let target = Path::new(&"../".repeat(up)).join("blobs").join(etag);
        if fs::read_link(&path).is_ok_and(|present| present == target) {
            return Ok(path);
        }
        let made = link_to(&path, &target, &self.blob(etag));
        made.map_err(|error| HubError::io(&path, error))?;
        Ok(path)
    }

    /// Waits until nobody else fetches these contents; `waiting` is called now and then and ends
    /// it by an error. `None` where locks are not to be had: they only save work.
    pub(super) fn lock(
        &self,
        etag: &str,
        mut waiting: impl FnMut() -> Result<(), HubError>,
    ) -> Result<Option<File>, HubError> {
        let path = self.locks.join(format!("{etag}.lock"));
        make_parent(&path)?;
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(|error| HubError::io(&path, error))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) => waiting()?,
                Err(TryLockError::Error(_)) => return Ok(None),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

pub(super) fn make_parent(path: &Path) -> Result<(), HubError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder).map_err(|error| HubError::io(folder, error))
}

/// Makes a link in one step, whatever was there.
#[cfg(unix)]
fn link_to(path: &Path, target: &Path, _blob: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let link = tempfile::Builder::new()
        .prefix(".link.")
        .make_in(folder, |name| std::os::unix::fs::symlink(target, name))?;
    link.persist(path)?;
    Ok(())
}

/// Elsewhere symbolic links are a privilege: a second name for the contents does as well.
#[cfg(not(unix))]
fn link_to(path: &Path, _target: &Path, blob: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::hard_link(blob, path).or_else(|_| fs::copy(blob, path).map(|_| ()))
}

/// The repositories of models that a cache holds, by name, with the bytes of their contents.
pub(super) fn repositories(cache: &Path) -> Vec<(String, u64)> {
    let entries = fs::read_dir(cache).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (owner, name) = name.strip_prefix("models--")?.split_once("--")?;
            let blobs = fs::read_dir(entry.path().join("blobs"))
                .into_iter()
                .flatten();
            let bytes = blobs
                .flatten()
                .filter_map(|blob| Some(blob.metadata().ok()?.len()));
            Some((format!("{owner}/{name}"), bytes.sum()))
        })
        .collect();
    found.sort();
    found
}
