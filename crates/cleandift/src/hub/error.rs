//! What can go wrong between a name and its files, in words for the person who gave the name.

use std::io;
use std::path::{Path, PathBuf};

/// A model could not be found or fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Not a name.
    #[error("`{name}`: {reason}")]
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A setting cannot be used.
    #[error("{variable}: {reason}")]
    Setting {
        /// The environment variable.
        variable: &'static str,
        /// What is wrong with its value.
        reason: String,
    },

    /// Not in the cache, and nothing may be fetched.
    #[error(
        "{name} is not (wholly) in the cache {}, and HF_HUB_OFFLINE forbids to fetch it: unset it, \
         or give a path",
        cache.display()
    )]
    Offline {
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        cache: PathBuf,
    },

    /// No such repository, or one that is hidden from this user: hubs don't tell which.
    #[error(
        "{repository}: no such repository on {hub}, or a private one: check the name{}",
        if *token { ", and whether your token may read it" } else { "; for a private one set HF_TOKEN" }
    )]
    NoRepository {
        /// `org/repo`.
        repository: String,
        /// The hub.
        hub: String,
        /// Whether a token was sent.
        token: bool,
    },

    /// The repository exists, the revision does not.
    #[error("{repository}: there is no revision `{revision}`: give a branch, a tag or a commit")]
    NoRevision {
        /// `org/repo`.
        repository: String,
        /// What was asked for.
        revision: String,
    },

    /// The revision exists, the file does not.
    #[error("{repository}: there is no file `{file}` at `{revision}`")]
    NoFile {
        /// `org/repo`.
        repository: String,
        /// What was asked for.
        file: String,
        /// Where.
        revision: String,
    },

    /// The repository wants its terms accepted, or a token.
    #[error(
        "{repository}: access refused ({status}): accept its terms at {hub}/{repository}, and set \
         HF_TOKEN to a token that may read it"
    )]
    Refused {
        /// `org/repo`.
        repository: String,
        /// The hub.
        hub: String,
        /// The HTTP status.
        status: u16,
    },

    /// The token is none.
    #[error("{hub} does not know the token in use: renew HF_TOKEN, or unset it for public models")]
    BadToken {
        /// The hub.
        hub: String,
    },

    /// Too many requests.
    #[error(
        "{hub} has had too many requests from here{}: wait, or set HF_TOKEN, which allows more",
        seconds.map_or(String::new(), |seconds| format!(" and asks to come back in {seconds} s"))
    )]
    TooMany {
        /// The hub.
        hub: String,
        /// How long it asks to wait, if it does.
        seconds: Option<u64>,
    },

    /// An answer that a hub does not give.
    #[error("{url}: {reason}: is HF_ENDPOINT right, and does no proxy stand between?")]
    NotAHub {
        /// What was asked.
        url: String,
        /// What is odd about the answer.
        reason: String,
    },

    /// The server failed.
    #[error("{url}: the server answered {status}: try again later")]
    Server {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
    },

    /// No answer.
    #[error("{url}: {reason}")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why there was none.
        reason: String,
    },

    /// The transfer kept breaking off.
    #[error(
        "{file}: broke off at byte {received}{}, {tries} times in a row without a byte more: {reason}; \
         run it again to go on from there",
        total.map_or(String::new(), |total| format!(" of {total}"))
    )]
    BrokenOff {
        /// The file's name.
        file: String,
        /// Bytes that are there.
        received: u64,
        /// Its length, if known.
        total: Option<u64>,
        /// How often it was tried.
        tries: usize,
        /// Why the last try ended.
        reason: String,
    },

    /// What arrived is not what was promised.
    #[error(
        "{file}: SHA-256 is {found}, expected {expected}: deleted; the file was changed on its way or \
         is another one"
    )]
    WrongHash {
        /// The file's name.
        file: String,
        /// By the hub or the built-in table.
        expected: String,
        /// Of the bytes that came.
        found: String,
    },

    /// The hub offers other contents under the name of a published file.
    #[error(
        "{file}: the hub offers a file of SHA-256 {offered}, but the published one has {expected}: \
         not fetched"
    )]
    NotThePublished {
        /// The file's name.
        file: String,
        /// What the hub offers.
        offered: String,
        /// What the built-in table says.
        expected: String,
    },

    /// More or fewer bytes than promised.
    #[error("{file}: came with {found} bytes, expected {expected}: deleted; try again")]
    WrongLength {
        /// The file's name.
        file: String,
        /// By the hub.
        expected: u64,
        /// What came.
        found: u64,
    },

    /// A repository without a model folder in it.
    #[error("{repository}: {reason}{}", files_to_name(repository, files))]
    NotAModel {
        /// `org/repo`.
        repository: String,
        /// What is missing.
        reason: String,
        /// Files that may be models by themselves.
        files: Vec<String>,
    },

    /// The disk, or the user's share of it, is full.
    #[error(
        "{}: the disk is full, and {missing} bytes are missing: free some space, or set HF_HOME to a \
         folder elsewhere; what has come is kept, and the next run goes on from there",
        path.display()
    )]
    DiskFull {
        /// The file that was written.
        path: PathBuf,
        /// How many bytes are still to come.
        missing: u64,
    },

    /// The operating system refused.
    #[error("{}: cannot be written or read: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// The caller's `watch` said so. What has come is kept.
    #[error("stopped")]
    Stopped,
}

impl HubError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }

    /// Whether another source of the same model may do better.
    pub(super) fn is_about_the_source(&self) -> bool {
        matches!(
            self,
            Self::NoRepository { .. }
                | Self::NoRevision { .. }
                | Self::NoFile { .. }
                | Self::Refused { .. }
                | Self::NotAModel { .. }
        )
    }
}

fn files_to_name(repository: &str, files: &[String]) -> String {
    match files {
        [] => String::new(),
        files => format!(
            ": name one of its files, {repository}:FILE: {}",
            files.join(", ")
        ),
    }
}
