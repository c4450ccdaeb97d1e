//! Pictures to learn from, by number, wherever they lie.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::{Classes, Connection, DataError, sources};
use crate::archive::{ArchiveError, Place};
use crate::checkpoint::hexadecimal;
use crate::image::Picture;

/// A picture to learn from.
#[derive(Clone, Debug)]
pub struct Example {
    /// The picture.
    pub picture: Picture,
    /// What it shows, in words, if that is known.
    pub caption: Option<String>,
}

/// Where an example is.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The same wherever the data lie: the path in the archive or folder, without extension.
    pub(super) name: String,
    pub(super) picture: Place,
    pub(super) caption: Option<Caption>,
}

/// Where a caption is.
#[derive(Clone, Debug)]
pub(super) enum Caption {
    /// In a file that holds nothing else.
    Text(Place),
    /// In a JSON file, as `caption`.
    Json(Place),
    /// Here.
    Given(String),
}

/// Pictures to learn from. It holds names and places; a picture is read when it is asked for, by
/// any number of threads.
#[derive(Debug, Default)]
pub struct Dataset {
    entries: Vec<Entry>,
    damage: Vec<ArchiveError>,
}

impl Dataset {
    /// Looks through folders, tar archives (WebDataset), lists (CSV, TSV, Parquet) and patterns of
    /// their names (`train-*.tar`). Of a folder with archives these are read, else all pictures
    /// below it. Captions stand beside the pictures (`x.txt`, or `caption` in `x.json`, for
    /// `x.jpg`) or in the list (columns `path` and `caption`).
    ///
    /// An archive that is cut short gives what is whole of it: see [`Dataset::damage`].
    ///
    /// # Errors
    /// If nothing is named, or a source is missing, unreadable or without any picture.
    pub fn open(sources: &[PathBuf]) -> Result<Self, DataError> {
        Self::look(sources, None)
    }

    /// The same, and tar archives behind a web server that knows ranges: sources that begin with
    /// `http://` or `https://`, of many archives with a range of numbers (`train-{0000..0021}.tar`).
    ///
    /// # Errors
    /// As [`Dataset::open`], or if an address cannot be read.
    pub fn open_with(sources: &[PathBuf], connection: Connection<'_>) -> Result<Self, DataError> {
        Self::look(sources, Some(connection))
    }

    fn look(sources: &[PathBuf], connection: Option<Connection<'_>>) -> Result<Self, DataError> {
        if sources.is_empty() {
            return Err(DataError::NoSource);
        }
        let mut all = Self::default();
        for source in sources {
            let found = sources::look(source, connection)?;
            all.entries.extend(found.entries);
            all.damage.extend(found.damage);
        }
        Ok(all)
    }

    /// How many pictures there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What is wrong with archives that were cut short; their whole members are used.
    pub fn damage(&self) -> &[ArchiveError] {
        &self.damage
    }

    /// The name of an example: its path in the archive or folder, without extension.
    ///
    /// # Panics
    /// As [`Dataset::load`].
    pub fn name(&self, index: usize) -> &str {
        &self.entries[index].name
    }

    /// Which pictures these are, in words: their number, and a hash of their names in order. It does
    /// not look into them.
    pub fn identity(&self) -> String {
        let mut names = Sha256::new();
        for entry in &self.entries {
            names.update(format!("{}\n", entry.name));
        }
        let digits = &hexadecimal(&names.finalize())[..16];
        format!("{} by the names {digits}", self.len())
    }

    /// Reads an example.
    ///
    /// # Errors
    /// If its picture or its caption cannot be read.
    ///
    /// # Panics
    /// If `index` is not below [`Dataset::len`].
    pub fn load(&self, index: usize) -> Result<Example, DataError> {
        let entry = &self.entries[index];
        let picture = Picture::decode(&entry.picture.bytes()?, &entry.picture.name())?;
        let caption = entry.caption.as_ref().map(Caption::read).transpose()?;
        Ok(Example { picture, caption })
    }

    /// Parts it into pictures to learn from and `share` of them (0 to 1) to validate with, by seed
    /// and name: a picture stays on its side whatever is added to the data.
    pub fn split(self, share: f64, seed: u64) -> (Self, Self) {
        let validates = |entry: &Entry| {
            let mut digest = Sha256::new();
            digest.update(seed.to_le_bytes());
            digest.update(&entry.name);
            let digest: [u8; 32] = digest.finalize().into();
            let drawn = u64::from_le_bytes(*digest.first_chunk().expect("a digest has 32 bytes"));
            (drawn >> 11) as f64 / (1_u64 << 53) as f64
        };
        let parts = self.entries.into_iter();
        let (validation, entries) = parts.partition(|entry| validates(entry) < share);
        let training = Self {
            entries,
            damage: self.damage,
        };
        let validation = Self {
            entries: validation,
            damage: Vec::new(),
        };
        (training, validation)
    }

    /// Makes the class that each picture's name tells its caption; a picture of another class has
    /// none.
    ///
    /// # Errors
    /// If no picture is of one of the classes.
    pub fn classified(mut self, classes: &Classes) -> Result<Self, DataError> {
        let mut unknown = None;
        for entry in &mut self.entries {
            let name = classes.of(&entry.name);
            entry.caption = (name.as_ref().ok()).map(|name| Caption::Given((*name).to_owned()));
            unknown = unknown.or(name.err());
        }
        match unknown {
            Some(error) if self.uncaptioned() == self.len() => Err(error),
            _ => Ok(self),
        }
    }

    /// How many pictures have no caption.
    pub fn uncaptioned(&self) -> usize {
        let without = self.entries.iter().filter(|entry| entry.caption.is_none());
        without.count()
    }

    /// Checks that each picture has a caption.
    ///
    /// # Errors
    /// If one has none.
    pub fn require_captions(&self) -> Result<(), DataError> {
        match self.entries.iter().find(|entry| entry.caption.is_none()) {
            None => Ok(()),
            Some(first) => Err(DataError::NoCaptions {
                missing: self.uncaptioned(),
                total: self.len(),
                first: first.picture.name(),
            }),
        }
    }
}

impl Caption {
    fn read(&self) -> Result<String, DataError> {
        let wrong = |place: &Place, reason: String| DataError::Caption {
            name: place.name(),
            reason,
        };
        match self {
            Self::Given(text) => Ok(text.clone()),
            Self::Text(place) => match String::from_utf8(place.bytes()?) {
                Ok(text) => Ok(text.trim().to_owned()),
                Err(_) => Err(wrong(place, "it is not UTF-8".to_owned())),
            },
            Self::Json(place) => {
                let json: serde_json::Value = serde_json::from_slice(&place.bytes()?)
                    .map_err(|error| wrong(place, error.to_string()))?;
                let caption = json["caption"].as_str().map(str::trim).map(str::to_owned);
                caption.ok_or_else(|| wrong(place, "there is no text \"caption\" in it".to_owned()))
            }
        }
    }
}
