//! What can go wrong with the pictures to learn from.

use std::path::PathBuf;

use super::remote::address;
use crate::archive::ArchiveError;
use crate::hub::HubError;
use crate::image::ImageError;

/// Pictures that cannot be found or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Nothing was named.
    #[error("no source of pictures is named: give folders, tar archives or lists")]
    NoSource,
    /// There is nothing at this path.
    #[error("{}: is missing; expected {expected}", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
        /// What it may be.
        expected: &'static str,
    },
    /// A source without a picture.
    #[error(
        "{}: holds no picture: looked for {expected}, found {found} other files", path.display()
    )]
    Empty {
        /// The source.
        path: PathBuf,
        /// What was looked for.
        expected: &'static str,
        /// How many other files there are.
        found: usize,
    },
    /// A file that does not say what it should.
    #[error("{}: found {found}, expected {expected}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// A file or folder cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// An archive or a member of it cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// An address cannot be read from.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// An address where none is allowed.
    #[error("{0}: is an address; only files are opened here")]
    Address(String),
    /// No picture is left to train on.
    #[error(
        "all of {total} pictures fell to the validation's share: give more pictures, or a smaller \
         `data.validation_share`"
    )]
    NothingLeft {
        /// How many there are.
        total: usize,
    },
    /// There is a share for validation, and nothing in it.
    #[error(
        "none of {total} pictures fell to `data.validation_share`: give more pictures, a larger share, \
         or a part of its own (`data.validation`)"
    )]
    NothingToValidate {
        /// How many there are.
        total: usize,
    },
    /// A picture cannot be decoded.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A caption's file does not hold one.
    #[error("{name}: holds no caption: {reason}")]
    Caption {
        /// The file.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Pictures without captions where they are needed.
    #[error(
        "{missing} of {total} pictures have no caption, `{first}` is the first; write x.txt or \
         x.json (with \"caption\") beside x.jpg, or train without captions"
    )]
    NoCaptions {
        /// How many lack one.
        missing: usize,
        /// How many there are.
        total: usize,
        /// The first that lacks one.
        first: String,
    },
    /// A picture of no known class.
    #[error(
        "`{name}` is of no known class: its name holds neither one of the {known} ids of the \
         class list nor, without a list, a WordNet id"
    )]
    NoClass {
        /// The picture.
        name: String,
        /// How many classes there are.
        known: usize,
    },
    /// Not one picture can be read.
    #[error("none of the {count} pictures can be read; the last one: {last}")]
    AllBroken {
        /// How many there are.
        count: usize,
        /// Why the last one cannot.
        last: String,
    },
}

impl DataError {
    /// Whether a server could not be read from, rather than a file.
    pub(super) fn is_of_a_server(&self) -> bool {
        use ArchiveError::{Missing, Read};
        match self {
            Self::Archive(Read { path, .. } | Missing { path, .. }) => address(path).is_some(),
            _ => false,
        }
    }

    pub(super) fn read(path: &std::path::Path, source: std::io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            std::io::ErrorKind::NotFound => Self::Missing {
                path,
                expected: super::sources::KINDS,
            },
            _ => Self::Read { path, source },
        }
    }
}
