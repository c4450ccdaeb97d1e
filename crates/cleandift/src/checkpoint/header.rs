//! The header of a safetensors file: what lies where. Nothing of the data is read here.
//!
//! The format (github.com/huggingface/safetensors): the header's length as 8 bytes, little endian;
//! the header, JSON; the data, without gaps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use safetensors::tensor::Metadata;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::CheckpointError;
use super::source::Source;

/// The longest header that is read, in bytes: the `safetensors` crate's own bound.
pub(super) const LONGEST_HEADER: u64 = 100_000_000;

/// Bytes of the length before the header.
const LENGTH_BYTES: u64 = 8;

/// One tensor of a file.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: safetensors::Dtype,
    pub(super) shape: Vec<usize>,
    /// Where its first byte lies in the file.
    pub(super) offset: u64,
    /// The axes in the order in which they are stored, the slowest first, if not in their own.
    pub(super) stored: Option<Vec<usize>>,
}

/// Reads and checks the header of a safetensors file: its tensors in the order of their data, and
/// the strings under `__metadata__`.
///
/// Afterwards every tensor is known to lie wholly within the file.
pub(super) fn read(
    source: &Source,
) -> Result<(Vec<Entry>, BTreeMap<String, String>), CheckpointError> {
    let json = read_json(source)?;
    let invalid = |error: serde_json::Error| CheckpointError::InvalidHeader {
        path: source.path().to_path_buf(),
        reason: error.to_string(),
    };
    let UniqueKeys = serde_json::from_slice(&json).map_err(invalid)?;
    let metadata: Metadata = serde_json::from_slice(&json).map_err(invalid)?;

    let data_start = LENGTH_BYTES + json.len() as u64;
    let expected = data_start.saturating_add(metadata.data_len() as u64);
    check_length(source, expected, source.len() == expected)?;

    let entries = metadata.offset_keys().into_iter().filter_map(|name| {
        let info = metadata.info(&name)?;
        Some(Entry {
            dtype: info.dtype,
            shape: info.shape.clone(),
            offset: data_start + info.data_offsets.0 as u64,
            stored: None,
            name,
        })
    });
    let strings = metadata.metadata().clone().unwrap_or_default();
    Ok((entries.collect(), strings.into_iter().collect()))
}

/// A JSON object that has no key twice. The `safetensors` crate lets the last one win, so that two
/// readers may see two models in one file.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(KeysVisitor)
    }
}

struct KeysVisitor;

impl<'de> Visitor<'de> for KeysVisitor {
    type Value = UniqueKeys;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueKeys, A::Error> {
        let mut keys = BTreeSet::new();
        while let Some((key, IgnoredAny)) = map.next_entry::<String, _>()? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format!("`{key}` is there twice")));
            }
            keys.insert(key);
        }
        Ok(UniqueKeys)
    }
}

/// The header's bytes; nothing is allocated before its length is known to make sense.
fn read_json(source: &Source) -> Result<Vec<u8>, CheckpointError> {
    let io = |error| CheckpointError::io(source.path(), error);
    let mut start = vec![0; source.len().min(64) as usize];
    source.read_exact_at(&mut start, 0).map_err(io)?;

    let length = start.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    let begins_well = start
        .get(LENGTH_BYTES as usize)
        .is_none_or(|&byte| byte == b'{');
    let length = match length {
        Some(length) if length <= LONGEST_HEADER && begins_well => length,
        _ => {
            return Err(CheckpointError::NotSafetensors {
                path: source.path().to_path_buf(),
                found: describe(&start),
            });
        }
    };

    let end = LENGTH_BYTES + length;
    check_length(source, end, end <= source.len())?;
    let mut json = vec![0; length as usize];
    source.read_exact_at(&mut json, LENGTH_BYTES).map_err(io)?;
    Ok(json)
}

fn check_length(source: &Source, expected: u64, good: bool) -> Result<(), CheckpointError> {
    if good {
        return Ok(());
    }
    Err(CheckpointError::WrongLength {
        path: source.path().to_path_buf(),
        expected,
        found: source.len(),
    })
}

/// What the first bytes of a file that is no safetensors file look like.
fn describe(start: &[u8]) -> String {
    let text = String::from_utf8_lossy(start);
    let text = text.trim_start().to_ascii_lowercase();
    if start.is_empty() {
        "an empty file".into()
    } else if text.starts_with("version https://git-lfs") {
        "a pointer of git-lfs instead of the file itself (run `git lfs pull`)".into()
    } else if text.starts_with("<!doctype") || text.starts_with("<html") {
        "a web page (an error message saved in place of the download?)".into()
    } else if start.starts_with(b"PK\x03\x04") {
        "a zip archive (PyTorch's own format?)".into()
    } else {
        let bytes: Vec<_> = start
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("the bytes {}", bytes.join(" "))
    }
}
