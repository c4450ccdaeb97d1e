//! Hashes of files kept from the last time: gigabytes take seconds to hash, and rarely change.
//!
//! A folder holds one small JSON file for each path that was hashed. The cache saves time and
//! decides nothing: whatever is wrong with it, the file is hashed anew and no error is given.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::CheckpointError;
use super::hash::hexadecimal;
use super::source::Source;
use super::write::write_file;

/// A folder with the hashes of files, each good for as long as its file's length, modification
/// time and (on Unix) inode stay the same.
#[derive(Clone, Debug)]
pub struct HashCache {
    folder: PathBuf,
}

/// How long a file must have been left alone before its hash is kept. The coarsest file system
/// (FAT) tells times two seconds apart: a file that is written again sooner may look unchanged.
const SETTLED: Duration = Duration::from_secs(3);

/// What is kept of a file.
#[derive(Serialize, Deserialize)]
struct Entry {
    file: Appearance,
    sha256: String,
}

/// A file as it looks without being read.
#[derive(PartialEq, Serialize, Deserialize)]
struct Appearance {
    /// Without symbolic links.
    path: PathBuf,
    bytes: u64,
    modified: SystemTime,
    inode: Option<u64>,
}

impl HashCache {
    /// A cache in this folder, which is made when there is something to keep.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The hash of a file: the one kept if the file looks as it did then, else that of `hash`,
    /// which is kept.
    pub(super) fn get_or_hash(
        &self,
        source: &Source,
        hash: impl Fn(&Source) -> Result<String, CheckpointError>,
    ) -> Result<String, CheckpointError> {
        let Ok(file) = Appearance::of(source) else {
            return hash(source);
        };
        if let Some(known) = self.find(&file) {
            return Ok(known);
        }
        let settled = file.modified.elapsed().is_ok_and(|age| age > SETTLED);
        let sha256 = hash(source)?;
        if settled && Appearance::of(source).is_ok_and(|now| now == file) {
            self.keep(Entry {
                file,
                sha256: sha256.clone(),
            });
        }
        Ok(sha256)
    }

    fn find(&self, file: &Appearance) -> Option<String> {
        let text = fs::read(self.entry(file)).ok()?;
        let Entry { file: seen, sha256 } = serde_json::from_slice(&text).ok()?;
        let is_hash = sha256.len() == 64 && sha256.bytes().all(|digit| digit.is_ascii_hexdigit());
        (seen == *file && is_hash).then_some(sha256)
    }

    /// Failing to keep a hash costs the next run some seconds, and this one nothing.
    fn keep(&self, entry: Entry) {
        let (path, text) = (self.entry(&entry.file), serde_json::to_vec(&entry));
        if let (Ok(()), Ok(text)) = (fs::create_dir_all(&self.folder), text) {
            let _ = write_file(&path, &text);
        }
    }

    /// Where the hash of a file is kept: one place for each path.
    fn entry(&self, file: &Appearance) -> PathBuf {
        let path = Sha256::new_with_prefix(file.path.as_os_str().as_encoded_bytes());
        self.folder
            .join(format!("{}.json", hexadecimal(&path.finalize())))
    }
}

impl Appearance {
    /// Of the open file, even if its name has been given to another one since.
    fn of(source: &Source) -> io::Result<Self> {
        let metadata = source.metadata()?;
        #[cfg(unix)]
        let inode = Some(std::os::unix::fs::MetadataExt::ino(&metadata));
        #[cfg(not(unix))]
        let inode = None;
        Ok(Self {
            path: source.path().canonicalize()?,
            bytes: source.len(),
            modified: metadata.modified()?,
            inode,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::fs::File;
    use std::path::Path;

    /// A file of weights that was written an hour ago, and a cache beside it.
    struct Setting {
        folder: tempfile::TempDir,
        cache: HashCache,
        hashed: Cell<usize>,
    }

    impl Setting {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let setting = Self {
                cache: HashCache::new(folder.path().join("cache/hashes")),
                folder,
                hashed: Cell::new(0),
            };
            setting.write(b"abc", Duration::from_secs(3600));
            setting
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("weights")
        }

        fn write(&self, bytes: &[u8], age: Duration) {
            fs::write(self.file(), bytes).unwrap();
            let file = File::options().write(true).open(self.file()).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        }

        /// The first hexadecimal digits, and how many times a file was hashed so far.
        fn hash(&self, path: &Path) -> (String, usize) {
            let source = Source::open(path).unwrap();
            let hash = |source: &Source| {
                self.hashed.set(self.hashed.get() + 1);
                super::super::hash::hash_file(source)
            };
            let sha256 = self.cache.get_or_hash(&source, hash).unwrap();
            assert_eq!(sha256.len(), 64);
            (sha256[..8].to_owned(), self.hashed.get())
        }

        /// The only file of the cache.
        fn entry(&self) -> PathBuf {
            let mut entries = fs::read_dir(&self.cache.folder).unwrap();
            let entry = entries.next().unwrap().unwrap().path();
            assert!(entries.next().is_none());
            entry
        }
    }

    // SHA-256 of "abc" (FIPS 180-2, appendix B.1) and of nothing begin like this.
    const OF_ABC: &str = "ba7816bf";
    const OF_NOTHING: &str = "e3b0c442";

    #[test]
    fn a_file_is_hashed_once() {
        let setting = Setting::new();
        assert_eq!(setting.hash(&setting.file()), (OF_ABC.into(), 1));
        assert_eq!(setting.hash(&setting.file()), (OF_ABC.into(), 1));
        setting.entry();
    }

    #[cfg(unix)]
    #[test]
    fn links_lead_to_the_same_entry() {
        let setting = Setting::new();
        let link = setting.folder.path().join("link");
        std::os::unix::fs::symlink(setting.file(), &link).unwrap();
        assert_eq!(setting.hash(&setting.file()).1, 1);
        assert_eq!(setting.hash(&link), (OF_ABC.into(), 1));
    }

    #[test]
    fn a_changed_file_is_hashed_anew() {
        let setting = Setting::new();
        setting.hash(&setting.file());
        setting.write(b"", Duration::from_secs(3600));
        assert_eq!(setting.hash(&setting.file()), (OF_NOTHING.into(), 2));
        // The same length, another time.
        setting.write(b"abc", Duration::from_secs(3600));
        setting.hash(&setting.file());
        setting.write(b"xyz", Duration::from_secs(1800));
        let (hash, times) = setting.hash(&setting.file());
        assert_ne!(hash, OF_ABC);
        assert_eq!(times, 4);
        setting.entry();
    }

    /// The same name, length and time, but another file.
    #[cfg(unix)]
    #[test]
    fn a_replaced_file_is_hashed_anew() {
        let setting = Setting::new();
        setting.hash(&setting.file());
        let modified = fs::metadata(setting.file()).unwrap().modified().unwrap();
        let other = setting.folder.path().join("other");
        fs::write(&other, b"xyz").unwrap();
        let file = File::options().write(true).open(&other).unwrap();
        file.set_modified(modified).unwrap();
        fs::rename(&other, setting.file()).unwrap();
        let (hash, times) = setting.hash(&setting.file());
        assert_ne!(hash, OF_ABC);
        assert_eq!(times, 2);
    }

    #[test]
    fn a_file_that_may_still_be_written_is_not_kept() {
        let setting = Setting::new();
        setting.write(b"abc", Duration::ZERO);
        assert_eq!(setting.hash(&setting.file()).1, 1);
        assert_eq!(setting.hash(&setting.file()).1, 2);
        assert!(!setting.cache.folder.exists());
    }

    #[test]
    fn a_broken_entry_is_made_anew() {
        let setting = Setting::new();
        setting.hash(&setting.file());
        let sound = fs::read_to_string(setting.entry()).unwrap();
        let broken = [
            String::new(),
            sound[..sound.len() / 2].to_owned(),
            sound.replace(OF_ABC, "ba78"),
            sound.replace(OF_ABC, "zzzzzzzz"),
            "{}".to_owned(),
        ];
        for (index, text) in broken.iter().enumerate() {
            fs::write(setting.entry(), text).unwrap();
            assert_eq!(setting.hash(&setting.file()), (OF_ABC.into(), index + 2));
            assert_eq!(fs::read_to_string(setting.entry()).unwrap(), sound);
        }
        fs::write(setting.entry(), [0xff; 100]).unwrap();
        assert_eq!(setting.hash(&setting.file()).0, OF_ABC);
    }

    #[test]
    fn a_cache_that_cannot_be_written_is_no_error() {
        let setting = Setting::new();
        // A file stands where the cache's folder would be.
        fs::write(setting.folder.path().join("cache"), b"").unwrap();
        assert_eq!(setting.hash(&setting.file()), (OF_ABC.into(), 1));
        assert_eq!(setting.hash(&setting.file()), (OF_ABC.into(), 2));
    }
}
