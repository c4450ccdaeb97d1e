//! From a model's name to its files: `org/repo[:file][@revision]` or a short name, in the cache that
//! all programs of the field share, fetched from a hub when they are not there.
//!
//! This is the only part of the library that opens a socket, and it does so only in
//! [`Hub::pull`], in [`Hub::locate`] when the cache does not have all that is wanted, and for a
//! [`RemoteFile`].
//!
//! # What can be relied on
//! * A file has its name only when it is whole, on the disk, and (where the hub tells its SHA-256, or
//!   the file is a published one) right. Being killed at any moment leaves nothing torn.
//! * What has come is kept, and the next run goes on from there.
//! * A revision comes to mean a new commit only when all that is wanted of it has come.
//! * The token is shown to the hub itself, and to no server that it sends us to.

mod address;
mod cache;
mod catalogue;
mod client;
mod download;
mod error;
mod name;
mod partial;
mod remote;
mod settings;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use catalogue::{SHORT_NAMES, ShortName};
pub use error::HubError;
pub use name::{Name, Reference};
pub use remote::RemoteFile;
pub use settings::{Settings, Token};

use cache::Repository;
use client::Client;
use download::{download, patiently};

use crate::checkpoint::{Checkpoint, Need, needed_files};

/// Models by name.
pub struct Hub {
    settings: Settings,
    /// Made when something is to be fetched.
    client: OnceLock<Client>,
}

/// The files that a name stands for, ready for [`Checkpoint::open`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The model: a folder or a file.
    pub model: PathBuf,
    /// The folder that completes it, if the name knows one.
    pub base: Option<PathBuf>,
}

/// What is going on.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'e> {
    /// Bytes of a file came; the first event of a file tells where it begins.
    Received {
        /// The file's path in its repository.
        file: &'e str,
        /// Bytes that are there.
        bytes: u64,
        /// Its length, if known.
        total: Option<u64>,
    },
    /// Nothing comes for now; told again and again.
    Waiting {
        /// The file's path in its repository, or the repository.
        file: &'e str,
        /// Why.
        reason: &'e str,
    },
    /// A source of the model has failed, the next one is asked.
    Passed {
        /// The source.
        source: &'e Reference,
        /// Why.
        reason: &'e HubError,
    },
}

/// Told of every event; `false` stops the work, and [`HubError::Stopped`] is the result.
struct Watch<'w>(&'w mut dyn FnMut(Event<'_>) -> bool);

impl Watch<'_> {
    fn tell(&mut self, event: Event<'_>) -> Result<(), HubError> {
        match (self.0)(event) {
            true => Ok(()),
            false => Err(HubError::Stopped),
        }
    }
}

impl Hub {
    /// The hub and the cache of these settings. Nothing is opened yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            client: OnceLock::new(),
        }
    }

    /// How it was set up.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the name stands for in the cache, if all of it is there.
    pub fn cached(&self, name: &Name) -> Option<Located> {
        self.find(name, true)
    }

    /// The files that a name stands for: those in the cache, else fetched. The cache is not
    /// compared with the hub; [`Self::pull`] does that.
    ///
    /// # Errors
    /// As [`Self::pull`]; offline, if the cache has nothing that opens.
    pub fn locate(
        &self,
        name: &Name,
        watch: &mut dyn FnMut(Event<'_>) -> bool,
    ) -> Result<Located, HubError> {
        if let Some(located) = self.cached(name) {
            return Ok(located);
        }
        if self.settings.offline {
            // A model without text encoder, say, may be all that is wanted.
            return self.find(name, false).ok_or_else(|| self.forbidden(name));
        }
        self.pull(name, watch)
    }

    /// Fetches what the hub has of the name now and the cache lacks.
    ///
    /// # Errors
    /// If offline; if no source has it, or it has no model; if the transfer fails again and again;
    /// if what comes is not what was promised; if the disk is full.
    pub fn pull(
        &self,
        name: &Name,
        watch: &mut dyn FnMut(Event<'_>) -> bool,
    ) -> Result<Located, HubError> {
        if self.settings.offline {
            return Err(self.forbidden(name));
        }
        let watch = &mut Watch(watch);
        let model = self.fetch_any(&name.sources, Need::Model, watch)?;
        let base = match &name.base {
            Some(sources) => Some(self.fetch_any(sources, Need::Base, watch)?),
            None => None,
        };
        Ok(Located { model, base })
    }

    /// The repositories of models in the cache, by name, with the bytes of their contents.
    pub fn repositories(&self) -> Vec<(String, u64)> {
        cache::repositories(&self.settings.cache)
    }

    fn forbidden(&self, name: &Name) -> HubError {
        HubError::Offline {
            name: name.to_string(),
            cache: self.settings.cache.clone(),
        }
    }

    /// Looks into the cache for a model that can be opened and, if `whole`, lacks nothing.
    fn find(&self, name: &Name, whole: bool) -> Option<Located> {
        let models = self.present(&name.sources);
        let bases = name.base.as_deref().map(|sources| self.present(sources));
        let pairs = models.iter().flat_map(|model| match &bases {
            Some(bases) => bases.iter().map(|base| (model, Some(base))).collect(),
            None => vec![(model, None)],
        });
        let opens = |&(model, base): &(&PathBuf, Option<&PathBuf>)| {
            // A file by itself is all that was asked for.
            (model.is_file() && base.is_none()) || usable(model, base.map(PathBuf::as_path), whole)
        };
        let (model, base) = pairs.into_iter().find(opens)?;
        Some(Located {
            model: model.clone(),
            base: base.cloned(),
        })
    }

    /// Where the sources lie in the cache, whole or not.
    fn present(&self, sources: &[Reference]) -> Vec<PathBuf> {
        let snapshots = sources.iter().flat_map(|source| {
            let snapshots = self
                .repository(source)
                .snapshots(source.revision.as_deref());
            snapshots
                .into_iter()
                .map(move |snapshot| match &source.file {
                    Some(file) => snapshot.join(file),
                    None => snapshot,
                })
        });
        snapshots.filter(|path| path.exists()).collect()
    }

    fn repository(&self, reference: &Reference) -> Repository {
        Repository::new(&self.settings.cache, &reference.repository)
    }

    /// Fetches from the first source that has it. If none has, the last one's reason is told, the
    /// others' have been told as events.
    fn fetch_any(
        &self,
        sources: &[Reference],
        need: Need,
        watch: &mut Watch<'_>,
    ) -> Result<PathBuf, HubError> {
        let (last, others) = sources.split_last().expect("a name has a source");
        for source in others {
            match self.fetch(source, need, watch) {
                Err(reason) if reason.is_about_the_source() => {
                    let reason = &reason;
                    watch.tell(Event::Passed { source, reason })?;
                }
                result => return result,
            }
        }
        self.fetch(last, need, watch)
    }

    fn fetch(
        &self,
        source: &Reference,
        need: Need,
        watch: &mut Watch<'_>,
    ) -> Result<PathBuf, HubError> {
        let client = self.client.get_or_init(|| Client::new(&self.settings));
        let repository = self.repository(source);
        let (commit, path) = match &source.file {
            Some(file) => {
                let (promise, path) = download(client, &repository, source, file, watch)?;
                (promise.commit, path)
            }
            None => fetch_folder(client, &repository, source, need, watch)?,
        };
        repository.remember(source.revision(), &commit)?;
        Ok(path)
    }
}

/// Fetches the files of a model folder that are needed; gives its commit and where it lies.
fn fetch_folder(
    client: &Client,
    repository: &Repository,
    source: &Reference,
    need: Need,
    watch: &mut Watch<'_>,
) -> Result<(String, PathBuf), HubError> {
    let listing = patiently(&source.repository, watch, || client.list(source))?;
    let files: Vec<&str> = listing.files.iter().map(String::as_str).collect();
    let needed = needed_files(&files, need).map_err(|lacking| HubError::NotAModel {
        repository: source.repository.clone(),
        reason: lacking.to_string(),
        files: models_among(&files),
    })?;
    let pinned = Reference {
        revision: Some(listing.commit.clone()),
        ..source.clone()
    };
    let snapshot = repository.snapshot(&listing.commit);
    // A commit's files never change.
    for file in needed
        .into_iter()
        .filter(|file| !snapshot.join(file).is_file())
    {
        download(client, repository, &pinned, file, watch)?;
    }
    Ok((listing.commit, snapshot))
}

/// Files that may be a whole model.
fn models_among(files: &[&str]) -> Vec<String> {
    let endings = [".safetensors", ".ckpt", ".pth", ".pt"];
    let models = files.iter().filter(|file| {
        let model = endings.iter().any(|ending| file.ends_with(ending));
        model && !file.contains('/')
    });
    models.map(|file| (*file).to_owned()).collect()
}

fn usable(model: &Path, base: Option<&Path>, whole: bool) -> bool {
    Checkpoint::open(model, base).is_ok_and(|checkpoint| checkpoint.is_whole() || !whole)
}
