//! Files and members of archives, read where they lie: nothing is unpacked.
//!
//! [`entries`] lists a folder, [`files_below`] finds the files of it and of those in it.
//! A [`Place`] says where the bytes of one file are. [`tar`] finds the members of an archive,
//! [`Sample`]s are the members that belong together (WebDataset). What the bytes mean is for
//! others to know.

mod bytes;
mod folder;
mod sample;
pub mod tar;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use bytes::Bytes;
pub use folder::{Unlisted, entries, files_below};
pub use sample::{Sample, key, samples, wordnet_id};
pub use tar::Member;

/// A file or an archive that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// There is nothing at this path.
    #[error("{}: is missing; expected {expected}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// What should be there.
        expected: &'static str,
    },
    /// Reading failed.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The archive is none, or ends within a member.
    #[error("{}: found {found}, expected {expected}", path.display())]
    Malformed {
        /// The archive.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: &'static str,
    },
}

/// What a member holds at most, in bytes: no picture comes near, and a length that a damaged archive or
/// a server tells must not be believed.
const LARGEST_MEMBER: u64 = 1 << 30;

impl ArchiveError {
    fn read(path: &Path, expected: &'static str, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path, expected },
            _ => Self::Read { path, source },
        }
    }
}

/// Where the bytes of a file are: by themselves, or in an archive.
#[derive(Clone, Debug)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// A member of an archive.
    Member {
        /// The archive.
        archive: Arc<dyn Bytes>,
        /// The member.
        member: Member,
    },
}

impl Place {
    /// What messages call it.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Member { archive, member } => {
                format!("{}: {}", archive.path().display(), member.name)
            }
        }
    }

    /// All its bytes.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn bytes(&self) -> Result<Vec<u8>, ArchiveError> {
        match self {
            Self::File(path) => {
                std::fs::read(path).map_err(|source| ArchiveError::read(path, "a file", source))
            }
            Self::Member { archive, member } => {
                if member.length > LARGEST_MEMBER {
                    return Err(ArchiveError::Malformed {
                        path: archive.path().to_owned(),
                        found: format!("`{}` of {} bytes", member.name, member.length),
                        expected: "members of a gibibyte at most",
                    });
                }
                let mut bytes = vec![0; member.length as usize];
                archive
                    .read_at(member.offset, &mut bytes)
                    .map_err(|source| {
                        ArchiveError::read(archive.path(), "a tar archive", source)
                    })?;
                Ok(bytes)
            }
        }
    }
}

impl From<PathBuf> for Place {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}
