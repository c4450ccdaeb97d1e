//! Data sets: one file a loader. Each checks what it finds and names the path when something is
//! missing or malformed.

mod cifar;
pub mod classes;
pub mod coco;
pub mod cub;
pub mod davis;
pub mod depths;
mod draw;
pub mod hpatches;
mod image_folders;
pub mod keypoint_table;
mod mask_folders;
pub mod masks;
pub mod matlab;
mod nyu;
mod nyu_lists;
pub mod pf_pascal;
pub mod pf_willow;
mod rgbd;
pub mod spair;
mod split;
mod voc;
mod webdataset;

pub use draw::Draw;
pub use split::{Annotated, Split};

use std::path::Path;

use super::EvalError;
use crate::archive;

/// Reads a text file of a data set; `what` says what it should hold, for messages.
pub(crate) fn read_text(path: &Path, what: &str) -> Result<String, EvalError> {
    String::from_utf8(read_bytes(path, what)?)
        .map_err(|_| EvalError::malformed(path, "bytes that are not UTF-8", what))
}

/// Reads a file of a data set; `what` says what it should hold, for messages.
pub(crate) fn read_bytes(path: &Path, what: &str) -> Result<Vec<u8>, EvalError> {
    std::fs::read(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => EvalError::missing(path, format!("expected {what}")),
        _ => EvalError::Read {
            path: path.to_owned(),
            source,
        },
    })
}

/// Reads a JSON file of a data set.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(
    path: &Path,
    what: &str,
) -> Result<T, EvalError> {
    serde_json::from_slice(&read_bytes(path, what)?)
        .map_err(|error| EvalError::malformed(path, error.to_string(), what))
}

/// The entries of a folder, sorted by name.
pub(crate) fn entries(folder: &Path, what: &str) -> Result<Vec<std::path::PathBuf>, EvalError> {
    let read = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => EvalError::missing(folder, format!("expected {what}")),
        _ => EvalError::Read {
            path: folder.to_owned(),
            source,
        },
    };
    archive::entries(folder).map_err(read)
}

/// A file that a list names.
pub(crate) fn named_by(
    list: &Path,
    file: std::path::PathBuf,
) -> Result<std::path::PathBuf, EvalError> {
    match file.is_file() {
        true => Ok(file),
        false => {
            let expected = format!("{} names it", list.display());
            Err(EvalError::missing(&file, expected))
        }
    }
}

/// The longer side of the box around some points.
pub(crate) fn box_side(points: &[[f64; 2]]) -> f64 {
    let side = |axis: usize| {
        let values = points.iter().map(|point| point[axis]);
        values.clone().fold(f64::NEG_INFINITY, f64::max) - values.fold(f64::INFINITY, f64::min)
    };
    side(0).max(side(1))
}
