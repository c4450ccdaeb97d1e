//! Contents on their way into the cache: kept for the next run while they are not whole, checked, and
//! given their name only when they are right and on the disk.
//!
//! They lie beside their place, as `<etag>.<something>.incomplete`. Every run has a name of its own
//! and takes over what earlier ones have left by giving it that name. So none gives away or shortens
//! what another one writes, even where locks don't work; they only keep two from the same work.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::HubError;
use crate::checkpoint::hexadecimal;

/// The contents that are to lie at `blob`.
pub(super) struct Partial {
    blob: PathBuf,
    path: PathBuf,
    file: File,
    /// Of all bytes that are there.
    hash: Sha256,
    received: u64,
    total: Option<u64>,
    sha256: Option<String>,
    /// Whether bytes of an earlier run are among them.
    resumed: bool,
}

impl Partial {
    /// Nothing yet of contents with this length and hash, where they are known.
    pub(super) fn new(
        blob: &Path,
        total: Option<u64>,
        sha256: Option<String>,
    ) -> Result<Self, HubError> {
        let (file, path) = new_file(blob)?;
        Ok(Self {
            blob: blob.to_path_buf(),
            path,
            file,
            hash: Sha256::new(),
            received: 0,
            total,
            sha256,
            resumed: false,
        })
    }

    /// Goes on with what earlier runs have left, if it can be checked in the end. To be called
    /// by one process at a time.
    pub(super) fn take_over(&mut self) -> Result<(), HubError> {
        let mut left = leftovers(&self.blob, &self.path);
        left.sort();
        let longest = left.pop();
        // Less of the same, which nobody will need.
        for (_, path) in left {
            let _ = fs::remove_file(path);
        }
        let Some((_, path)) = longest else {
            return Ok(());
        };
        let failed = |error| HubError::io(&self.path, error);
        fs::rename(path, &self.path).map_err(failed)?;
        let file = File::options().read(true).write(true).open(&self.path);
        self.file = file.map_err(failed)?;
        self.resumed = true;
        match self.sha256.is_some() && self.take_stock()? {
            true => Ok(()),
            false => self.restart(),
        }
    }

    /// Reads what is there; `false` if it cannot be the beginning of what is wanted.
    fn take_stock(&mut self) -> Result<bool, HubError> {
        let mut buffer = vec![0; 1 << 18];
        loop {
            let bytes = self.file.read(&mut buffer);
            match bytes.map_err(|error| HubError::io(&self.path, error))? {
                0 => return Ok(self.total.is_some()),
                bytes => self.count(&buffer[..bytes]),
            }
            if self.is_too_long() {
                return Ok(false);
            }
        }
    }

    /// Begins again.
    pub(super) fn restart(&mut self) -> Result<(), HubError> {
        self.discard();
        let (blob, total, sha256) = (self.blob.clone(), self.total, self.sha256.take());
        *self = Self::new(&blob, total, sha256)?;
        Ok(())
    }

    /// Adds bytes at the end.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        let written = self.file.write_all(bytes);
        if let Err(error) = written {
            // Part of them may have been written: the next bytes belong here.
            let _ = self.file.seek(io::SeekFrom::Start(self.received));
            return Err(self.unwritable(error));
        }
        self.count(bytes);
        Ok(())
    }

    fn count(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.received += bytes.len() as u64;
    }

    fn unwritable(&self, error: io::Error) -> HubError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => HubError::DiskFull {
                path: self.path.clone(),
                missing: self.total.unwrap_or(self.received) - self.received,
            },
            _ => HubError::io(&self.path, error),
        }
    }

    /// Bytes that are there.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Bytes that there should be, if known.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    /// What the server says of the length, for hubs that have not told it.
    pub(super) fn expect_length(&mut self, total: Option<u64>) {
        self.total = self.total.or(total);
    }

    pub(super) fn is_complete(&self) -> bool {
        self.total == Some(self.received)
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.total.is_some_and(|total| self.received > total)
    }

    pub(super) fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Whether these are the bytes that were promised; `file` is what to call them.
    pub(super) fn verify(&self, file: &str) -> Result<(), HubError> {
        if let Some(expected) = self.total.filter(|&total| total != self.received) {
            return Err(HubError::WrongLength {
                file: file.to_owned(),
                expected,
                found: self.received,
            });
        }
        let found = hexadecimal(&self.hash.clone().finalize());
        match &self.sha256 {
            Some(expected) if *expected != found => Err(HubError::WrongHash {
                file: file.to_owned(),
                expected: expected.clone(),
                found,
            }),
            _ => Ok(()),
        }
    }

    /// To the disk, and then under its name.
    pub(super) fn finish(self) -> Result<(), HubError> {
        let failed = |error| HubError::io(&self.path, error);
        self.file.sync_all().map_err(failed)?;
        fs::rename(&self.path, &self.blob).map_err(failed)
    }

    pub(super) fn discard(&self) {
        let _ = fs::remove_file(&self.path);
    }

    /// Leaves nothing that no run could go on from.
    pub(super) fn forget_if_empty(&self) {
        if self.received == 0 {
            self.discard();
        }
    }
}

const ENDING: &str = ".incomplete";

/// A file with a name of its own beside where the contents will lie.
fn new_file(blob: &Path) -> Result<(File, PathBuf), HubError> {
    let folder = blob.parent().unwrap_or(Path::new(""));
    let mut builder = tempfile::Builder::new();
    let prefix = format!("{}.", etag(blob));
    builder.prefix(&prefix).suffix(ENDING);
    // Temporary files are private by default; this one becomes an ordinary file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let file = builder
        .tempfile_in(folder)
        .and_then(|file| Ok(file.keep()?));
    file.map_err(|error| HubError::io(blob, error))
}

/// What earlier runs, of this program or another one, have left of these contents, with lengths.
fn leftovers(blob: &Path, own: &Path) -> Vec<(u64, PathBuf)> {
    let folder = blob.parent().unwrap_or(Path::new(""));
    let start = format!("{}.", etag(blob));
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let left = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let path = entry.path();
        let of_these = name.starts_with(&start) && name.ends_with(ENDING) && path != own;
        of_these.then_some((entry.metadata().ok()?.len(), path))
    });
    left.collect()
}

fn etag(blob: &Path) -> std::borrow::Cow<'_, str> {
    blob.file_name().unwrap_or_default().to_string_lossy()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Linux's `/dev/full` answers every write as a full disk does.
    #[test]
    fn a_full_disk_is_called_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut partial = Partial::new(&folder.path().join("etag"), Some(50), None).unwrap();
        partial.append(&[0; 20]).unwrap();
        partial.file = File::options().write(true).open("/dev/full").unwrap();
        let error = partial.append(&[0; 10]).unwrap_err().to_string();
        assert!(
            error.contains("the disk is full, and 30 bytes are missing"),
            "{error}"
        );
        assert_eq!(partial.received(), 20);
    }
}
