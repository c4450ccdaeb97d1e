//! Features that are kept: in memory up to a bound, on disk up to another. The least recently used
//! go first, and are made again if they are needed again.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;

use super::digest::digest;
use super::{EvalError, Image, Seen, Settings, Source};
use crate::checkpoint::{Dtype, TensorData, Weights};
use crate::checkpoint::{make_folder, write_safetensors};
use crate::features::FeatureMap;
use crate::graph::Parameters;
use crate::image::Extent;

/// How features are kept on disk.
#[derive(Clone, Debug, PartialEq)]
pub struct Storage {
    /// The folder; made when the first features come.
    pub folder: PathBuf,
    /// [`Dtype::F32`], or [`Dtype::F16`] for half the room.
    pub dtype: Dtype,
    /// The most bytes that the folder may hold.
    pub limit: u64,
}

/// A source whose features are kept.
///
/// With f16 on disk every value is rounded to f16 before anything sees it, so that a resumed run
/// gives the bits of one that was never stopped.
pub struct Cache<'s> {
    source: &'s mut dyn Source,
    settings: Settings,
    memory: HashMap<String, Arc<Seen>>,
    memory_limit: usize,
    memory_bytes: usize,
    storage: Option<Storage>,
    stored: BTreeMap<String, u64>,
    recency: HashMap<String, u64>,
    clock: u64,
    made: usize,
}

/// The keys under which a file's frame and the order of its taps are kept.
const FRAME: &str = "frame";
const TAPS: &str = "taps";

impl<'s> Cache<'s> {
    /// Keeps what `source` makes: at most `memory_limit` bytes in memory, and in `storage`.
    ///
    /// # Errors
    /// If the folder is there and cannot be read.
    pub fn new(
        source: &'s mut dyn Source,
        memory_limit: usize,
        storage: Option<Storage>,
    ) -> Result<Self, EvalError> {
        let mut settings = source.settings();
        settings.insert("cleandift".into(), env!("CARGO_PKG_VERSION").into());
        if let Some(storage) = &storage {
            settings.insert("feature_storage".into(), storage.dtype.to_string().into());
        }
        let stored = storage.as_ref().map(|storage| files(&storage.folder));
        Ok(Self {
            source,
            settings,
            memory: HashMap::new(),
            memory_limit,
            memory_bytes: 0,
            stored: stored.transpose()?.unwrap_or_default(),
            storage,
            recency: HashMap::new(),
            clock: 0,
            made: 0,
        })
    }

    /// How many pictures' features were made, not found.
    pub fn made(&self) -> usize {
        self.made
    }

    /// Which of these pictures' features are on disk.
    pub fn holds(&self, image: &Image) -> bool {
        self.stored.contains_key(&self.name(image))
    }

    /// A file's name: everything that changes a value is in it.
    fn name(&self, image: &Image) -> String {
        let settings = serde_json::Value::Object(self.settings.clone()).to_string();
        let mirrored = if image.mirrored { "mirrored" } else { "" };
        let appearance = image.appearance();
        let parts = [&settings, &image.id, &appearance, &image.prompt, mirrored];
        let name = digest(parts);
        format!("{name}.safetensors")
    }

    fn touch(&mut self, name: &str) {
        self.clock += 1;
        self.recency.insert(name.to_owned(), self.clock);
    }

    /// The least recently used of some names.
    fn oldest<'n>(&self, names: impl Iterator<Item = &'n String>) -> Option<String> {
        names
            .min_by_key(|name| self.recency.get(*name).copied().unwrap_or(0))
            .cloned()
    }

    fn remember(&mut self, name: String, seen: Arc<Seen>) {
        self.memory_bytes += seen.bytes();
        self.memory.insert(name.clone(), seen);
        while self.memory_bytes > self.memory_limit && self.memory.len() > 1 {
            let others = self.memory.keys().filter(|other| **other != name);
            let oldest = self.oldest(others).expect("more than one");
            let dropped = self.memory.remove(&oldest).expect("a key of the map");
            self.memory_bytes -= dropped.bytes();
        }
    }

    /// Writes features, and removes others while the folder holds more than it may.
    fn store(&mut self, name: &str, seen: &Seen) -> Result<(), EvalError> {
        let Some(storage) = self.storage.clone() else {
            return Ok(());
        };
        make_folder(&storage.folder)?;
        let path = storage.folder.join(name);
        write(&path, seen, storage.dtype)?;
        let length = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        self.stored.insert(name.to_owned(), length);
        while self.stored.values().sum::<u64>() > storage.limit {
            let oldest = self
                .oldest(self.stored.keys())
                .expect("something is stored");
            self.stored.remove(&oldest);
            // What cannot be removed is counted no longer, and does no harm.
            let _ = fs::remove_file(storage.folder.join(&oldest));
        }
        Ok(())
    }
}

impl Source for Cache<'_> {
    fn settings(&self) -> Settings {
        self.settings.clone()
    }

    fn see(&mut self, image: &Image) -> Result<Arc<Seen>, EvalError> {
        let name = self.name(image);
        self.touch(&name);
        if let Some(seen) = self.memory.get(&name) {
            return Ok(Arc::clone(seen));
        }
        let seen = match &self.storage {
            Some(storage) if self.stored.contains_key(&name) => {
                Arc::new(read(&storage.folder.join(&name))?)
            }
            storage => {
                let half = storage
                    .as_ref()
                    .is_some_and(|kept| kept.dtype == Dtype::F16);
                let seen = self.source.see(image)?;
                let seen = if half { Arc::new(rounded(&seen)) } else { seen };
                self.made += 1;
                self.store(&name, &seen)?;
                seen
            }
        };
        self.remember(name, Arc::clone(&seen));
        Ok(seen)
    }
}

/// All values rounded to f16.
fn rounded(seen: &Seen) -> Seen {
    let round = |map: &FeatureMap| {
        let values = map.values().iter();
        let values = values.map(|&value| f16::from_f32(value).to_f32()).collect();
        FeatureMap::new(map.extent(), map.channels(), values)
    };
    Seen {
        frame: seen.frame,
        maps: (seen.maps.iter())
            .map(|(tap, map)| (tap.clone(), round(map)))
            .collect(),
    }
}

/// Writes features as `[row][column][channel]`; the frame goes into the metadata.
fn write(path: &Path, seen: &Seen, dtype: Dtype) -> Result<(), EvalError> {
    let shapes: Vec<[usize; 3]> = (seen.maps.iter())
        .map(|(_, map)| [map.extent().height, map.extent().width, map.channels()])
        .collect();
    let tensors: Vec<TensorData> = (seen.maps.iter().zip(&shapes))
        .map(|((name, map), shape)| TensorData {
            name,
            shape,
            values: map.values(),
            dtype,
        })
        .collect();
    let frame = serde_json::to_string(&seen.frame).expect("a frame is plain data");
    let order: Vec<&str> = seen.maps.iter().map(|(name, _)| name.as_str()).collect();
    let metadata = BTreeMap::from([
        (FRAME.to_owned(), frame),
        (TAPS.to_owned(), order.join(",")),
    ]);
    Ok(write_safetensors(path, &tensors, &metadata)?)
}

fn read(path: &Path) -> Result<Seen, EvalError> {
    let expected = "features that this program has stored; remove the file";
    let weights = Weights::open(path)?;
    let metadata = weights.metadata();
    let frame = metadata
        .get(FRAME)
        .and_then(|text| serde_json::from_str(text).ok());
    let (Some(frame), Some(taps)) = (frame, metadata.get(TAPS)) else {
        return Err(EvalError::malformed(path, "no frame or taps", expected));
    };
    let map = |tap: &str| match weights.shape(tap) {
        Some(&[height, width, channels]) => {
            let values = weights.read(tap)?;
            let map = FeatureMap::new(Extent::new(width, height), channels, values);
            Ok((tap.to_owned(), map))
        }
        _ => Err(EvalError::malformed(
            path,
            format!("no map `{tap}`"),
            expected,
        )),
    };
    Ok(Seen {
        frame,
        maps: taps.split(',').map(map).collect::<Result<_, _>>()?,
    })
}

/// The stored files of a folder, with their lengths.
fn files(folder: &Path) -> Result<BTreeMap<String, u64>, EvalError> {
    let read = |source| EvalError::Read {
        path: folder.to_owned(),
        source,
    };
    if !folder.exists() {
        return Ok(BTreeMap::new());
    }
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".safetensors") && !name.starts_with('.') {
            found.insert(name, entry.metadata().map_err(read)?.len());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Frame;

    /// One value a picture: the length of its name, and a count of how often it was asked.
    struct Counting(usize);

    impl Source for Counting {
        fn settings(&self) -> Settings {
            Settings::new()
        }

        fn see(&mut self, image: &Image) -> Result<Arc<Seen>, EvalError> {
            self.0 += 1;
            let extent = Extent::new(4, 1);
            let value = image.id.len() as f32 + 0.1;
            Ok(Arc::new(Seen {
                frame: Frame::squash(extent, extent),
                maps: vec![("us6".to_owned(), FeatureMap::new(extent, 1, vec![value; 4]))],
            }))
        }
    }

    fn images() -> [Image; 3] {
        ["a", "bb", "ccc"].map(|id| Image::file(id, ""))
    }

    #[test]
    fn memory_keeps_the_most_recently_used() {
        let mut source = Counting(0);
        let mut cache = Cache::new(&mut source, 2 * 16, None).unwrap();
        let [a, b, c] = images();
        for image in [&a, &b, &a, &c, &a, &b] {
            cache.see(image).unwrap();
        }
        // b was made again: c took its place, a had been used in between.
        assert_eq!(cache.made(), 4);
    }

    #[test]
    fn a_second_run_finds_the_same_bits_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage {
            folder: folder.path().join("features"),
            dtype: Dtype::F16,
            limit: 1 << 20,
        };
        let mut first = Counting(0);
        let mut cache = Cache::new(&mut first, 0, Some(storage.clone())).unwrap();
        let made = images().map(|image| cache.see(&image).unwrap());
        let mut second = Counting(0);
        let mut cache = Cache::new(&mut second, 0, Some(storage)).unwrap();
        let found = images().map(|image| cache.see(&image).unwrap());
        assert_eq!(cache.made(), 0);
        assert_eq!(made, found);
        let value = made[0].maps[0].1.values()[0];
        assert_eq!(value, f16::from_f32(1.1).to_f32());
    }

    /// Another data set may give its pictures the same names, and a picture may be cut anew.
    #[test]
    fn other_bytes_under_a_name_are_another_picture() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let storage = Storage {
            folder: path("features"),
            dtype: Dtype::F32,
            limit: 1 << 20,
        };
        let mut source = Counting(0);
        let mut cache = Cache::new(&mut source, 1 << 20, Some(storage)).unwrap();
        for (name, bytes, made) in [
            ("one", "a", 1),
            ("one", "a", 1),
            ("two", "a", 2),
            ("one", "other", 3),
        ] {
            let unchanged = fs::read_to_string(path(name)).is_ok_and(|now| now == bytes);
            if !unchanged {
                fs::write(path(name), bytes).unwrap();
            }
            cache.see(&Image::file("1", path(name))).unwrap();
            assert_eq!(cache.made(), made, "{name} {bytes}");
        }
    }

    #[test]
    fn the_folder_stays_within_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let storage = |limit| Storage {
            folder: folder.path().to_owned(),
            dtype: Dtype::F32,
            limit,
        };
        let mut source = Counting(0);
        let mut cache = Cache::new(&mut source, 0, Some(storage(1 << 20))).unwrap();
        let [a, b, c] = images();
        cache.see(&a).unwrap();
        let one: u64 = files(folder.path()).unwrap().values().sum();
        drop(cache);
        let mut cache = Cache::new(&mut source, 0, Some(storage(2 * one + 20))).unwrap();
        for image in [&a, &b, &c] {
            cache.see(image).unwrap();
        }
        assert_eq!(files(folder.path()).unwrap().len(), 2);
        assert!(!cache.holds(&a) && cache.holds(&b) && cache.holds(&c));
    }
}
