//! Writing safetensors files: wholly or not at all, and the same bytes for the same tensors.
//!
//! The `safetensors` crate writes `__metadata__` in the random order of a hash map, so the header
//! is made here; tensors are ordered as the crate orders them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};
use serde_json::{Map, Value, json};

use super::Dtype;
use super::header::LONGEST_HEADER;
use crate::graph::{Parameters, ReadError};

/// One tensor to be written.
#[derive(Clone, Copy, Debug)]
pub struct TensorData<'a> {
    /// Its name; `__metadata__` is not one.
    pub name: &'a str,
    /// Its shape; empty for a single value.
    pub shape: &'a [usize],
    /// As many values as the shape says.
    pub values: &'a [f32],
    /// How they are stored: f16 and bf16 round to the nearest value, ties to even.
    pub dtype: Dtype,
}

/// One tensor to be written that is read from its store when its turn comes: of many, one at a time
/// is in memory.
pub struct StoredTensor<'a> {
    /// Its name; `__metadata__` is not one.
    pub name: String,
    /// The store.
    pub store: &'a dyn Parameters,
    /// Its name there.
    pub stored_as: &'a str,
    /// How it is written.
    pub dtype: Dtype,
}

/// A file could not be written. Nothing is left under its name unless it was there before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The number of values does not fit the shape.
    #[error("{}: `{tensor}` of shape {shape:?} was given {values} values", path.display())]
    WrongCount {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// How many values it was given.
        values: usize,
    },

    /// Two tensors of one name, or one that is called `__metadata__`.
    #[error("{}: the name `{tensor}` is taken", path.display())]
    NameTaken {
        /// The file.
        path: PathBuf,
        /// The name.
        tensor: String,
    },

    /// A finite value is too large for the storage type.
    #[error(
        "{}: `{tensor}`: value {value} at index {index} does not fit into {dtype}: store it as F32",
        path.display()
    )]
    OutOfRange {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The index into its values.
        index: usize,
        /// The value.
        value: f32,
        /// The type it was to be stored as.
        dtype: Dtype,
    },

    /// A tensor could not be read from its store.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file that was being written.
        path: PathBuf,
        /// What could not be read.
        source: ReadError,
    },

    /// So many tensors, or such long metadata, that no reader would take the file.
    #[error("{}: the header would have {bytes} bytes, more than {LONGEST_HEADER}", path.display())]
    HeaderTooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },

    /// The disk, or the user's share of it, is full.
    #[error(
        "{}: the disk is full: the file needs {needed} bytes: free some space or write elsewhere",
        path.display()
    )]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// How many bytes the whole file has.
        needed: u64,
    },

    /// The operating system refused.
    #[error("{}: cannot be written: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Writes tensors and strings to a safetensors file.
///
/// The file appears under its name only when it is complete and on the disk: it is written under
/// another name (`.NAME.….tmp`) in the same folder, then renamed, which replaces a file that was
/// there. The order in which the tensors are given does not matter.
pub fn write_safetensors(
    path: &Path,
    tensors: &[TensorData<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<(), WriteError> {
    for tensor in tensors {
        check(path, tensor)?;
    }
    let described = tensors.iter().map(|tensor| Described {
        name: tensor.name,
        shape: tensor.shape,
        dtype: tensor.dtype,
    });
    write_described(
        path,
        &described.collect::<Vec<_>>(),
        metadata,
        |file, index| Ok(write_values(file, &tensors[index])?),
    )
}

/// Writes tensors of some stores to a safetensors file, as [`write_safetensors`] does, each read
/// when its turn comes.
pub fn write_stored(
    path: &Path,
    tensors: &[StoredTensor<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<(), WriteError> {
    let read = |source| WriteError::Read {
        path: path.to_path_buf(),
        source,
    };
    let described = tensors.iter().map(|tensor| {
        let shape = tensor.store.shape(tensor.stored_as);
        let missing = || ReadError {
            file: "the weights to be written".to_owned(),
            tensor: tensor.stored_as.to_owned(),
            reason: "there is no such tensor".to_owned(),
        };
        Ok(Described {
            name: &tensor.name,
            shape: shape.ok_or_else(|| read(missing()))?,
            dtype: tensor.dtype,
        })
    });
    let described = described.collect::<Result<Vec<_>, WriteError>>()?;
    let mut values = Vec::new();
    write_described(path, &described, metadata, |file, index| {
        let stored = &tensors[index];
        stored
            .store
            .read_into(stored.stored_as, &mut values)
            .map_err(read)?;
        let Described { name, shape, dtype } = described[index];
        let tensor = TensorData {
            name,
            shape,
            values: &values,
            dtype,
        };
        check(path, &tensor)?;
        Ok(write_values(file, &tensor)?)
    })
}

/// What the header says of a tensor, but for its place.
#[derive(Clone, Copy)]
struct Described<'a> {
    name: &'a str,
    shape: &'a [usize],
    dtype: Dtype,
}

impl Described<'_> {
    fn bytes(&self) -> u64 {
        (self.shape.iter().product::<usize>() * self.dtype.bytes()) as u64
    }
}

/// Why a file is not finished.
enum Stopped {
    System(io::Error),
    Tensor(WriteError),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl From<WriteError> for Stopped {
    fn from(error: WriteError) -> Self {
        Self::Tensor(error)
    }
}

/// Writes the header, then each tensor's values by `write`, which gets its index.
fn write_described(
    path: &Path,
    tensors: &[Described<'_>],
    metadata: &BTreeMap<String, String>,
    mut write: impl FnMut(&mut std::fs::File, usize) -> Result<(), Stopped>,
) -> Result<(), WriteError> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&index| {
        let Described { name, dtype, .. } = tensors[index];
        (std::cmp::Reverse(dtype.alignment_rank()), name)
    });
    let sorted: Vec<Described> = order.iter().map(|&index| tensors[index]).collect();
    let header = header(path, &sorted, metadata)?;
    let data: u64 = tensors.iter().map(Described::bytes).sum();
    let needed = header.len() as u64 + data;
    write_atomically(path, |file| {
        file.write_all(&header)?;
        order.iter().try_for_each(|&index| write(file, index))
    })
    .map_err(|stopped| match stopped {
        Stopped::System(error) => failure(path, needed, error),
        Stopped::Tensor(error) => error,
    })
}

impl Dtype {
    /// The order of the `safetensors` crate, which puts the highest first.
    fn alignment_rank(self) -> u8 {
        match self {
            Self::F16 => 0,
            Self::BF16 => 1,
            Self::F32 => 2,
        }
    }
}

fn check(path: &Path, tensor: &TensorData<'_>) -> Result<(), WriteError> {
    let count = tensor
        .shape
        .iter()
        .try_fold(1usize, |count, &length| count.checked_mul(length));
    if count != Some(tensor.values.len()) {
        return Err(WriteError::WrongCount {
            path: path.to_path_buf(),
            tensor: tensor.name.into(),
            shape: tensor.shape.to_vec(),
            values: tensor.values.len(),
        });
    }
    let becomes_infinite = |value: f32| match tensor.dtype {
        Dtype::F32 => false,
        Dtype::F16 => value.is_finite() && f16::from_f32(value).is_infinite(),
        Dtype::BF16 => value.is_finite() && bf16::from_f32(value).is_infinite(),
    };
    match tensor
        .values
        .iter()
        .position(|&value| becomes_infinite(value))
    {
        None => Ok(()),
        Some(index) => Err(WriteError::OutOfRange {
            path: path.to_path_buf(),
            tensor: tensor.name.into(),
            index,
            value: tensor.values[index],
            dtype: tensor.dtype,
        }),
    }
}

/// The length and the JSON, padded with blanks so that the data is aligned to 8 bytes.
fn header(
    path: &Path,
    tensors: &[Described<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, WriteError> {
    const METADATA: &str = "__metadata__";
    let mut json = Map::new();
    if !metadata.is_empty() {
        json.insert(METADATA.into(), json!(metadata));
    }
    let mut start = 0;
    for tensor in tensors {
        let end = start + tensor.bytes();
        let entry = json!({
            "dtype": tensor.dtype.to_string(),
            "shape": tensor.shape,
            "data_offsets": [start, end],
        });
        if tensor.name == METADATA || json.insert(tensor.name.into(), entry).is_some() {
            let (path, tensor) = (path.to_path_buf(), tensor.name.into());
            return Err(WriteError::NameTaken { path, tensor });
        }
        start = end;
    }
    let mut text = Value::Object(json).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    if text.len() as u64 > LONGEST_HEADER {
        return Err(WriteError::HeaderTooLong {
            path: path.to_path_buf(),
            bytes: text.len(),
        });
    }
    let length = (text.len() as u64).to_le_bytes();
    Ok([&length, text.as_slice()].concat())
}

/// Values converted at a time.
const VALUES_AT_ONCE: usize = 1 << 17;

fn write_values(out: &mut impl Write, tensor: &TensorData<'_>) -> io::Result<()> {
    let mut halves = vec![0u16; tensor.values.len().min(VALUES_AT_ONCE)];
    let mut bytes = Vec::with_capacity(halves.len() * tensor.dtype.bytes());
    for values in tensor.values.chunks(VALUES_AT_ONCE) {
        let halves = &mut halves[..values.len()];
        bytes.clear();
        match tensor.dtype {
            Dtype::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Dtype::F16 => halves
                .reinterpret_cast_mut::<f16>()
                .convert_from_f32_slice(values),
            Dtype::BF16 => halves
                .reinterpret_cast_mut::<bf16>()
                .convert_from_f32_slice(values),
        }
        if tensor.dtype != Dtype::F32 {
            bytes.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Makes a folder, and those it lies in.
///
/// # Errors
/// If it cannot be made.
pub fn make_folder(folder: &Path) -> Result<(), WriteError> {
    std::fs::create_dir_all(folder).map_err(|source| WriteError::Io {
        path: folder.into(),
        source,
    })
}

/// Writes JSON for people, as [`write_file`], into a folder that is made if it is not there.
pub(crate) fn write_json(path: &Path, value: &Value) -> Result<(), WriteError> {
    make_folder(folder_of(path))?;
    write_file(path, format!("{value:#}\n").as_bytes())
}

/// Writes a file of any kind whole or not at all: under a temporary name in the same folder, then
/// renamed.
///
/// # Errors
/// If the folder cannot be written or the disk is full; the path then holds what it held before.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    write_atomically(path, |file| Ok(file.write_all(bytes)?)).map_err(|stopped| match stopped {
        Stopped::System(error) => failure(path, bytes.len() as u64, error),
        Stopped::Tensor(error) => error,
    })
}

/// Runs `write` on a new file in the same folder, brings it to the disk and gives it its name.
fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut std::fs::File) -> Result<(), Stopped>,
) -> Result<(), Stopped> {
    let folder = folder_of(path);
    let prefix = temporary_prefix(path)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    // Temporary files are private by default; this one becomes an ordinary file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let made = builder.tempfile_in(folder);
    let mut file = made.map_err(|error| of_folder(folder, error))?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(folder);
    Ok(())
}

/// Makes a folder of files whole or not at all: `write` fills one under a temporary name beside it,
/// which is then renamed. Its files are expected to be on the disk by then.
pub(super) fn write_folder<E: From<WriteError>>(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let io = |source| WriteError::Io {
        path: path.to_path_buf(),
        source,
    };
    let prefix = temporary_prefix(path).map_err(io)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    let made = builder.tempdir_in(folder_of(path));
    let temporary = made.map_err(|error| io(of_folder(folder_of(path), error)))?;
    write(temporary.path())?;
    std::fs::rename(temporary.path(), path).map_err(io)?;
    // It has another name now: there is nothing left to remove.
    let _ = temporary.keep();
    sync_folder(folder_of(path));
    Ok(())
}

/// Why nothing can be made in a folder, without the temporary name that only confuses.
fn of_folder(folder: &Path, error: io::Error) -> io::Error {
    let folder = folder.display();
    let words = match error.kind() {
        io::ErrorKind::NotFound => format!("there is no folder {folder}"),
        io::ErrorKind::PermissionDenied => format!("the folder {folder} may not be written to"),
        io::ErrorKind::ReadOnlyFilesystem => format!("the folder {folder} is read-only"),
        _ => return error,
    };
    io::Error::new(error.kind(), words)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

/// How the temporary name of a file begins.
fn temporary_prefix(path: &Path) -> io::Result<std::ffi::OsString> {
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
    prefix.push(".");
    Ok(prefix)
}

/// Brings the new name to the disk. Some file systems cannot do that for a folder; the file itself
/// is safe by then, so that this is no failure.
fn sync_folder(folder: &Path) {
    #[cfg(unix)]
    let _ = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    #[cfg(not(unix))]
    let _ = folder;
}

fn failure(path: &Path, needed: u64, source: io::Error) -> WriteError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            WriteError::DiskFull { path, needed }
        }
        _ => WriteError::Io { path, source },
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// Linux's `/dev/full` answers every write as a full disk does.
    #[test]
    fn a_full_disk_is_called_one() {
        let tensor = TensorData {
            name: "us6",
            shape: &[2],
            values: &[1.0, 2.0],
            dtype: Dtype::F16,
        };
        let mut full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let error = write_values(&mut full, &tensor).unwrap_err();
        let error = failure(Path::new("features/cat.safetensors"), 68, error);
        assert_eq!(
            error.to_string(),
            "features/cat.safetensors: the disk is full: the file needs 68 bytes: free some space or \
             write elsewhere"
        );
    }
}
