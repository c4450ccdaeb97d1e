//! Shards of tar archives (WebDataset): `train-0000.tar`, `val-0000.tar`, `test-0000.tar`, the
//! members of a sample following each other under one key.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::classes::ClassSet;
use super::{Split, entries, read_text};
use crate::archive::{self, Bytes, Sample, tar};
use crate::eval::{EvalError, Image};
use crate::image::is_picture_name;

/// The archives of a part, by name.
fn shards(folder: &Path, part: &str) -> Result<Vec<PathBuf>, EvalError> {
    let of_part = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix(part).is_some_and(|rest| {
            rest.starts_with(['-', '_', '.']) && path.extension().is_some_and(|e| e == "tar")
        })
    };
    let all = entries(folder, "tar archives")?;
    Ok(all.into_iter().filter(of_part).collect())
}

/// The samples of a part, in the archives' order; none if there are no archives of it.
pub(super) fn samples(folder: &Path, part: &str) -> Result<Vec<Sample>, EvalError> {
    let mut samples = Vec::new();
    for shard in shards(folder, part)? {
        let shard: Arc<dyn Bytes> = Arc::new(shard);
        samples.extend(archive::samples(&shard, tar::members(&*shard)?));
    }
    Ok(samples)
}

/// Opens `train-*.tar` and `val-*.tar` or `test-*.tar` of classified pictures. A sample's class
/// is what its `.cls` member says, else the WordNet id in its key; `classes.tsv` or `classes.txt`
/// may list what may occur. `None` if there are no such archives.
pub(super) fn open_classes(folder: &Path) -> Result<Option<ClassSet>, EvalError> {
    let part = |part: &str| -> Result<Vec<(Image, String)>, EvalError> {
        let named = samples(folder, part)?
            .into_iter()
            .map(|sample| classify(folder, sample));
        named.collect()
    };
    let (train, val, test) = (part("train")?, part("val")?, part("test")?);
    if train.is_empty() {
        return Ok(None);
    }
    let (validation, test) = if test.is_empty() {
        (test, val)
    } else {
        (val, test)
    };
    let named = Split {
        train,
        validation,
        test,
    };
    let names = listed(folder)?;
    ClassSet::new("WebDataset archives".to_owned(), folder, named, names).map(Some)
}

fn classify(folder: &Path, sample: Sample) -> Result<(Image, String), EvalError> {
    let malformed = |found: String, expected: &str| EvalError::malformed(folder, found, expected);
    let picture = sample.part(|extension| is_picture_name(Path::new(&format!("x.{extension}"))));
    let picture = picture.ok_or_else(|| {
        malformed(
            format!("sample `{}` without a picture", sample.key),
            "one in each sample",
        )
    })?;
    let class = match sample.part(|extension| extension == "cls") {
        Some(place) => String::from_utf8_lossy(&place.bytes()?).trim().to_owned(),
        None => archive::wordnet_id(&sample.key)
            .map(str::to_owned)
            .ok_or_else(|| {
                malformed(
                    format!("sample `{}` without a class", sample.key),
                    "a member KEY.cls, or a WordNet id (n and eight digits) in the key",
                )
            })?,
    };
    Ok((Image::at(&sample.key, picture.clone()), class))
}

/// The classes that a list names: the second column of `classes.tsv` (under a heading).
fn listed(folder: &Path) -> Result<Option<Vec<String>>, EvalError> {
    let path = folder.join("classes.tsv");
    if !path.exists() {
        return Ok(None);
    }
    let expected = "lines of index, class and names, separated by tabs, under a heading";
    let text = read_text(&path, expected)?;
    let class = |line: &str| {
        let class = line.split('\t').nth(1).map(str::to_owned);
        class.ok_or_else(|| EvalError::malformed(&path, format!("the line {line:?}"), expected))
    };
    text.lines()
        .skip(1)
        .map(class)
        .collect::<Result<_, _>>()
        .map(Some)
}
