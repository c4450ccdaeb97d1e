//! What is named on the command line or in a config, and the pictures that it holds: only names
//! and places are looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::DataError;
use super::dataset::{Caption, Entry};
use super::lists::{self, is_list};
use super::remote::{self, Connection};
use crate::archive::{self, ArchiveError, Bytes, Place, Sample, files_below, tar};
use crate::image::is_picture_name;

/// What a source may be.
pub(super) const KINDS: &str = "a folder with pictures or tar archives, a tar archive (or its \
    address), or a list (.csv, .tsv, .parquet); `train-*.tar` names many";

/// The pictures of a source, and what cut its archives short.
#[derive(Default)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    pub(super) damage: Vec<ArchiveError>,
    /// Files that are no pictures.
    others: usize,
}

/// Looks through a source: a folder (its tar archives if it has any at its top, else all pictures
/// below it), a tar archive or a list, or some of these named by a pattern with `*` in the last
/// part, or the address of an archive (of many, with `{0000..0021}` in it).
pub(super) fn look(source: &Path, connection: Option<Connection<'_>>) -> Result<Found, DataError> {
    let mut found = Found::default();
    if let Some(address) = remote::address(source) {
        let connection = connection.ok_or_else(|| DataError::Address(address.to_owned()))?;
        for shard in remote::archives(address, connection)? {
            found.add_archive(&shard)?;
        }
    } else if source.is_dir() {
        match files(source, is_archive)? {
            shards if shards.is_empty() => found.add_pictures(source)?,
            shards => found.add_files(&shards)?,
        }
    } else if let Some((folder, pattern)) = pattern(source) {
        let suits = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            (is_archive(path) || is_list(path)) && matches(pattern, &name)
        };
        found.add_files(&files(folder, suits)?)?;
    } else if !source.exists() {
        return Err(DataError::Missing {
            path: source.to_owned(),
            expected: KINDS,
        });
    } else {
        found.add_files(&[source.to_owned()])?;
    }
    if found.entries.is_empty() {
        return Err(match found.damage.into_iter().next() {
            Some(error) => error.into(),
            None => DataError::Empty {
                path: source.to_owned(),
                expected: "pictures such as x.jpg or x.png, in folders, tar archives or lists",
                found: found.others,
            },
        });
    }
    Ok(found)
}

impl Found {
    /// Archives, as far as they are whole, and lists, in their order.
    fn add_files(&mut self, files: &[PathBuf]) -> Result<(), DataError> {
        for file in files {
            if is_archive(file) {
                let shard: Arc<dyn Bytes> = Arc::new(file.clone());
                self.add_archive(&shard)?;
            } else if is_list(file) {
                self.entries.extend(lists::entries(file)?);
            } else {
                return Err(DataError::Malformed {
                    path: file.clone(),
                    found: "another file".to_owned(),
                    expected: KINDS,
                });
            }
        }
        Ok(())
    }

    /// The whole members of an archive. One that cannot be read at all is an error: a server that is
    /// away for a moment must not make the data another set.
    fn add_archive(&mut self, shard: &Arc<dyn Bytes>) -> Result<(), DataError> {
        let (members, error) = tar::whole_members(&**shard);
        match error {
            Some(error @ ArchiveError::Malformed { .. }) => self.damage.push(error),
            Some(error) => return Err(error.into()),
            None => {}
        }
        let samples = archive::samples(shard, members);
        let (count, before) = (samples.len(), self.entries.len());
        self.entries.extend(samples.into_iter().filter_map(entry));
        self.others += count - (self.entries.len() - before);
        Ok(())
    }

    /// All pictures below a folder, by name; captions have a picture's name with another ending.
    fn add_pictures(&mut self, root: &Path) -> Result<(), DataError> {
        let files = by_name(root)?;
        for (name, path) in &files {
            if !is_picture_name(path) {
                self.others += 1;
                continue;
            }
            let stem = name.rsplit_once('.').map_or(&name[..], |(stem, _)| stem);
            let beside = |ending: &str| {
                let caption = files.get(&format!("{stem}.{ending}"));
                caption.map(|path| Place::File(path.clone()))
            };
            let text = beside("txt").map(Caption::Text);
            self.entries.push(Entry {
                name: stem.to_owned(),
                picture: Place::File(path.clone()),
                caption: text.or_else(|| beside("json").map(Caption::Json)),
            });
        }
        Ok(())
    }
}

/// A sample's picture and what is said of it; `None` if it has no picture.
fn entry(sample: Sample) -> Option<Entry> {
    let is_picture = |extension: &str| is_picture_name(Path::new(&format!("x.{extension}")));
    let picture = sample.part(is_picture)?.clone();
    let text = sample.part(|extension| extension == "txt").cloned();
    let json = sample.part(|extension| extension == "json").cloned();
    let caption = text.map(Caption::Text).or(json.map(Caption::Json));
    Some(Entry {
        name: sample.key,
        picture,
        caption,
    })
}

/// All files below a folder, by their names from there on, with `/` between folders.
fn by_name(root: &Path) -> Result<BTreeMap<String, PathBuf>, DataError> {
    let files = files_below(root, |_| true)
        .map_err(|error| DataError::read(&error.folder, error.source))?;
    let named = files.into_iter().map(|path| {
        let inside = path.strip_prefix(root).unwrap_or(&path);
        let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
        (parts.join("/"), path)
    });
    Ok(named.collect())
}

/// The files of a folder that suit, by name.
fn files(folder: &Path, suits: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, DataError> {
    let mut found = archive::entries(folder).map_err(|source| DataError::read(folder, source))?;
    found.retain(|path| suits(path));
    Ok(found)
}

fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tar")
}

/// Folder and pattern of a path whose last part has a `*`.
fn pattern(path: &Path) -> Option<(&Path, &str)> {
    let pattern = path.file_name()?.to_str()?.contains('*');
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    Some((folder, path.file_name()?.to_str()?)).filter(|_| pattern)
}

/// Whether a name has the parts of a pattern between its `*`, in order, and begins and ends so.
fn matches(pattern: &str, name: &str) -> bool {
    let (first, rest) = pattern.split_once('*').unwrap_or((pattern, ""));
    let Some(mut name) = name.strip_prefix(first) else {
        return false;
    };
    let (between, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in between.split('*') {
        let Some(place) = name.find(part) else {
            return false;
        };
        name = &name[place + part.len()..];
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Member;

    /// An archive behind a server that does not answer.
    #[derive(Debug)]
    struct Away(&'static Path);

    impl Bytes for Away {
        fn path(&self) -> &Path {
            self.0
        }

        fn length(&self) -> std::io::Result<u64> {
            Err(std::io::Error::other("503 Service Unavailable"))
        }

        fn read_at(&self, _: u64, _: &mut [u8]) -> std::io::Result<()> {
            Err(std::io::Error::other("503 Service Unavailable"))
        }
    }

    /// Neither an archive without pictures nor a broken picture: what is there is not known.
    #[test]
    fn a_server_that_is_away_is_an_error() {
        let shard: Arc<dyn Bytes> = Arc::new(Away(Path::new("http://a.org/train-0.tar")));
        let mut found = Found::default();
        let error = found.add_archive(&shard).unwrap_err();
        assert!(error.to_string().contains("503"), "{error}");
        assert!(error.is_of_a_server() && found.damage.is_empty());

        let member = Member {
            name: "x.jpg".to_owned(),
            offset: 512,
            length: 10,
        };
        let picture = |archive| Place::Member {
            archive,
            member: member.clone(),
        };
        let error = DataError::from(picture(shard).bytes().unwrap_err());
        assert!(error.is_of_a_server());
        let local: Arc<dyn Bytes> = Arc::new(Away(Path::new("train-0.tar")));
        assert!(!DataError::from(picture(local).bytes().unwrap_err()).is_of_a_server());
    }

    /// No memory is asked for by what a header or a server says alone.
    #[test]
    fn a_member_of_a_tebibyte_is_refused() {
        let member = Member {
            name: "x.jpg".to_owned(),
            offset: 512,
            length: 1 << 40,
        };
        let archive: Arc<dyn Bytes> = Arc::new(Away(Path::new("train-0.tar")));
        let error = Place::Member { archive, member }.bytes().unwrap_err();
        assert!(error.to_string().contains("a gibibyte"), "{error}");
    }

    #[test]
    fn patterns_as_shells_have_them() {
        assert!(matches("train-*.tar", "train-0003.tar"));
        assert!(matches("*-*3*.tar", "train-0003.tar"));
        assert!(matches("*", "x"));
        assert!(!matches("train-*.tar", "val-0003.tar"));
        assert!(!matches("a*a", "a"));
        assert!(!matches("*3*4*", "train-0043"));
    }
}
