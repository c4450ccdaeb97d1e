//! PyTorch's own files (`.bin`, `.ckpt`, `.pt`, `.pth`): which tensors they hold, and where. Nothing
//! in them is run, and no value is read here.
//!
//! A file is a pickle, which names tensors and the storages they are views of, and the storages'
//! bytes: since PyTorch 1.6 entries of a zip archive, before that one after another behind the
//! pickle. Source: `torch/serialization.py` and `torch/_utils.py` of PyTorch 2.

mod pickle;
mod zip;

use std::collections::{BTreeMap, BTreeSet};

use safetensors::Dtype;

use super::CheckpointError;
use super::header::Entry;
use super::source::Source;
use pickle::{Id, Object, Pickle};

/// The longest pickle that is read, in bytes (Stable Diffusion's have about one million).
const LONGEST_PICKLE: u64 = 32 << 20;

/// How PyTorch's older files begin: `0x1950a86a20f9469cfc6c` as a pickle of protocol 2.
const LEGACY_START: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// Which of PyTorch's forms a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    Zip,
    Legacy,
    /// A pickle that PyTorch did not write.
    Pickle,
}

impl Container {
    /// The form by the first bytes; `None` for other files.
    pub(super) fn of(source: &Source) -> Option<Self> {
        let mut start = vec![0; source.len().min(LEGACY_START.len() as u64) as usize];
        source.read_exact_at(&mut start, 0).ok()?;
        if start.starts_with(b"PK\x03\x04") {
            Some(Self::Zip)
        } else if start == LEGACY_START {
            Some(Self::Legacy)
        } else if matches!(start[..], [0x80, 2..=5, _, ..]) && start.get(4..8) != Some(&[0; 4]) {
            // A safetensors file may begin so, too, but its header's length leaves four bytes zero.
            Some(Self::Pickle)
        } else {
            None
        }
    }
}

/// The tensors of a file.
pub(super) fn read(source: &Source, container: Container) -> Result<Vec<Entry>, CheckpointError> {
    let entries = match container {
        Container::Zip => read_zip(source),
        Container::Legacy => read_legacy(source),
        Container::Pickle => read_foreign(source),
    };
    entries.map_err(|reason| CheckpointError::InvalidPyTorch {
        path: source.path().to_path_buf(),
        reason,
    })
}

fn read_zip(source: &Source) -> Result<Vec<Entry>, String> {
    let entries = zip::directory(source)?;
    // All lies in one folder, whose name depends on the file's first one.
    let folder = |name: &String| Some(name.strip_suffix("data.pkl")?.to_owned());
    let mut folders = entries.keys().filter_map(folder);
    let folder = match (folders.next(), folders.next()) {
        (Some(folder), None) => folder,
        (None, _) => return Err("a zip archive without `data.pkl`".into()),
        (Some(_), Some(_)) => return Err("a zip archive with several `data.pkl`".into()),
    };
    if let Some(&entry) = entries.get(&format!("{folder}byteorder"))
        && read_bytes(source, entry)? != b"little"
    {
        return Err("its numbers are not little endian".into());
    }

    let bytes = read_bytes(source, entries[&format!("{folder}data.pkl")])?;
    let pickle = Pickle::read(&bytes).map_err(|error| error.to_string())?;
    let place = |view: &View<'_>| {
        let entry = entries.get(&format!("{folder}data/{}", view.key));
        entry.copied().ok_or_else(|| view.lacks_storage())
    };
    tensors(&pickle)?
        .into_iter()
        .map(|view| view.entry(place(&view)?))
        .collect()
}

fn read_bytes(source: &Source, entry: zip::Entry) -> Result<Vec<u8>, String> {
    if entry.len > LONGEST_PICKLE {
        return Err(format!("its pickle would have {} bytes", entry.len));
    }
    let mut bytes = vec![0; entry.len as usize];
    source
        .read_exact_at(&mut bytes, entry.offset)
        .map_err(|error| format!("it cannot be read: {error}"))?;
    Ok(bytes)
}

/// The older form: pickles of a magic number, a version, the writing machine, the tensors and the
/// storages' keys; then, for each key, the number of values in 8 bytes and the values.
fn read_legacy(source: &Source) -> Result<Vec<Entry>, String> {
    let len = source.len().min(LONGEST_PICKLE);
    let bytes = read_bytes(source, zip::Entry { offset: 0, len })?;
    let mut at = 0;
    let mut next = || {
        let rest = bytes.get(at..).unwrap_or_default();
        let pickle = Pickle::read(rest).map_err(|error| error.to_string())?;
        at += pickle.len;
        Ok::<_, String>(pickle)
    };
    let [_magic, version, _machine, contents, keys] = [next()?, next()?, next()?, next()?, next()?];
    if version.root() != &Object::Int(1001) {
        return Err("its version is not 1001".into());
    }
    let views = tensors(&contents)?;
    let storages = legacy_storages(source, at as u64, &keys, &contents)?;
    let place = |view: &View<'_>| storages.get(view.key).copied();
    views
        .iter()
        .map(|view| view.entry(place(view).ok_or_else(|| view.lacks_storage())?))
        .collect()
}

fn legacy_storages<'k>(
    source: &Source,
    mut at: u64,
    keys: &Pickle<'k>,
    contents: &Pickle<'_>,
) -> Result<BTreeMap<&'k str, zip::Entry>, String> {
    let Object::List(list) = keys.root() else {
        return Err("it lists no storages".into());
    };
    // Those of an optimiser lie between the weights', and only the pickle knows how long a value is.
    let classes = contents
        .objects()
        .filter_map(|object| storage_of(contents, object));
    let dtypes: BTreeMap<_, _> = classes
        .filter_map(|(class, key)| Some((key, dtype_of(class)?)))
        .collect();
    let mut storages = BTreeMap::new();
    for &id in list {
        let Object::Text(key) = *keys.get(id) else {
            return Err("a storage has no key".into());
        };
        let dtype = dtypes.get(key);
        let dtype = dtype.ok_or_else(|| format!("no tensor tells the type of storage `{key}`"))?;
        let mut count = [0; 8];
        let truncated = || format!("storage `{key}` does not lie within the file: it is truncated");
        source
            .read_exact_at(&mut count, at)
            .map_err(|_| truncated())?;
        let len = u64::from_le_bytes(count).checked_mul(bytes_of(*dtype));
        let offset = at + 8;
        let end = len.and_then(|len| offset.checked_add(len));
        let end = end
            .filter(|&end| end <= source.len())
            .ok_or_else(truncated)?;
        let len = end - offset;
        storages.insert(key, zip::Entry { offset, len });
        at = end;
    }
    Ok(storages)
}

/// A pickle that is no checkpoint: what it would do tells more than what it is not.
fn read_foreign(source: &Source) -> Result<Vec<Entry>, String> {
    let len = source.len().min(LONGEST_PICKLE);
    let bytes = read_bytes(source, zip::Entry { offset: 0, len })?;
    match Pickle::read(&bytes) {
        Err(error) => Err(error.to_string()),
        Ok(_) => Err("a pickle that PyTorch did not write".into()),
    }
}

/// A tensor of a pickle: a view of a storage.
struct View<'p> {
    name: &'p str,
    dtype: Dtype,
    /// The storage's.
    key: &'p str,
    /// Its first value in the storage.
    first: u64,
    shape: Vec<usize>,
    /// Its axes in the order in which they are stored, if not in their own.
    stored: Option<Vec<usize>>,
}

impl View<'_> {
    fn lacks_storage(&self) -> String {
        format!(
            "`{}` lies in storage `{}`, which is not there",
            self.name, self.key
        )
    }

    /// The tensor's place in the file, by its storage's.
    fn entry(&self, storage: zip::Entry) -> Result<Entry, String> {
        let size = bytes_of(self.dtype);
        let count = self
            .shape
            .iter()
            .try_fold(1u64, |count, &length| count.checked_mul(length as u64));
        let end = count
            .and_then(|count| self.first.checked_add(count)?.checked_mul(size))
            .filter(|&end| end <= storage.len);
        if end.is_none() {
            return Err(format!(
                "`{}` {:?} reaches beyond its storage of {} bytes",
                self.name, self.shape, storage.len
            ));
        }
        Ok(Entry {
            name: self.name.into(),
            dtype: self.dtype,
            shape: self.shape.clone(),
            offset: storage.offset + self.first * size,
            stored: self.stored.clone(),
        })
    }
}

fn bytes_of(dtype: Dtype) -> u64 {
    dtype.bitsize() as u64 / 8
}

/// What trainers call the dictionary of weights in the one that they save.
const NESTED: [&str; 3] = ["state_dict", "model", "module"];

/// The tensors of a dictionary, or of the `state_dict` in it; all else there is passed over.
fn tensors<'p>(pickle: &Pickle<'p>) -> Result<Vec<View<'p>>, String> {
    let mut entries = match pickle.root() {
        Object::Dict(entries) => entries,
        _ => return Err("it holds no dictionary of tensors".into()),
    };
    let inner = |key: &str| {
        let mut found = entries
            .iter()
            .filter(|(name, _)| pickle.get(*name) == &Object::Text(key));
        match pickle.get(found.next()?.1) {
            Object::Dict(inner) => Some(inner),
            _ => None,
        }
    };
    if let Some(inner) = NESTED.into_iter().find_map(inner) {
        entries = inner;
    }
    let (mut views, mut names) = (Vec::new(), BTreeSet::new());
    for &(key, value) in entries {
        let &Object::Text(name) = pickle.get(key) else {
            continue;
        };
        let Some(view) = view(pickle, name, value)? else {
            continue;
        };
        if !names.insert(name) {
            return Err(format!("it has two tensors `{name}`"));
        }
        views.push(view);
    }
    match views.is_empty() {
        true => Err("it holds no tensors by name".into()),
        false => Ok(views),
    }
}

/// A value as a tensor, `None` if it is something else.
fn view<'p>(pickle: &Pickle<'p>, name: &'p str, value: Id) -> Result<Option<View<'p>>, String> {
    let (function, arguments) = match call(pickle, value) {
        // A parameter is a tensor with a flag.
        Some(("_rebuild_parameter", &[tensor, ..])) => match call(pickle, tensor) {
            Some(call) => call,
            None => return Ok(None),
        },
        Some(call) => call,
        None => return Ok(None),
    };
    let damaged = || format!("tensor `{name}` is damaged");
    let &[storage, first, shape, strides, ..] = arguments else {
        return Err(damaged());
    };
    if function == "_rebuild_parameter" {
        return Err(damaged());
    }
    let (class, key) = storage_of(pickle, pickle.get(storage)).ok_or_else(damaged)?;
    let dtype = dtype_of(class)
        .ok_or_else(|| format!("tensor `{name}` is a {class}, which is not supported"))?;
    let first = size(pickle, first).ok_or_else(damaged)?;
    let (shape, strides) = (sizes(pickle, shape), sizes(pickle, strides));
    let (shape, strides) = shape.zip(strides).ok_or_else(damaged)?;
    let stored = stored_order(&shape, &strides).ok_or_else(|| {
        format!(
            "tensor `{name}` {shape:?} is not stored without gaps (strides {strides:?}): save it \
             with `.contiguous()`"
        )
    })?;
    let first = first as u64;
    Ok(Some(View {
        name,
        dtype,
        key,
        first,
        shape,
        stored,
    }))
}

fn call<'a, 'p>(pickle: &'a Pickle<'p>, id: Id) -> Option<(&'p str, &'a [Id])> {
    match pickle.get(id) {
        Object::Call { name, arguments } => Some((name, items(pickle, *arguments)?)),
        _ => None,
    }
}

fn items<'a>(pickle: &'a Pickle<'_>, id: Id) -> Option<&'a [Id]> {
    match pickle.get(id) {
        Object::Tuple(items) => Some(items),
        _ => None,
    }
}

/// The class and key of `("storage", class, key, device, length, view)`. Files of PyTorch before 0.4
/// may have a view here, too, which is not read.
fn storage_of<'p>(pickle: &Pickle<'p>, object: &Object<'p>) -> Option<(&'p str, &'p str)> {
    let Object::Persistent(id) = *object else {
        return None;
    };
    let &[kind, class, key, _device, _length, ref view @ ..] = items(pickle, id)? else {
        return None;
    };
    if view.iter().any(|&view| pickle.get(view) != &Object::Other) {
        return None;
    }
    match (pickle.get(kind), pickle.get(class), pickle.get(key)) {
        (
            Object::Text("storage"),
            Object::Global {
                module: "torch",
                name,
            },
            Object::Text(key),
        ) => Some((name, key)),
        _ => None,
    }
}

fn size(pickle: &Pickle<'_>, id: Id) -> Option<usize> {
    match *pickle.get(id) {
        Object::Int(size) => usize::try_from(size).ok(),
        _ => None,
    }
}

/// More axes than any weight has.
const MOST_AXES: usize = 8;

fn sizes(pickle: &Pickle<'_>, id: Id) -> Option<Vec<usize>> {
    let items = items(pickle, id)?;
    let few = (items.len() <= MOST_AXES).then_some(items)?;
    few.iter().map(|&id| size(pickle, id)).collect()
}

/// The axes in the order in which they are stored, `Some(None)` if that is their own; `None` if there
/// are gaps between values, or values that serve twice.
fn stored_order(shape: &[usize], strides: &[usize]) -> Option<Option<Vec<usize>>> {
    if in_order(shape, strides) {
        return Some(None);
    }
    if shape.len() != strides.len() {
        return None;
    }
    let mut axes: Vec<usize> = (0..shape.len()).collect();
    // Axes of one value may have any stride: they come first, where it does not count.
    axes.sort_by_key(|&axis| std::cmp::Reverse((shape[axis] == 1, strides[axis])));
    let of = |sizes: &[usize]| axes.iter().map(|&axis| sizes[axis]).collect::<Vec<_>>();
    in_order(&of(shape), &of(strides)).then_some(Some(axes))
}

/// Whether the last axis varies fastest, without gaps. Strides of axes of one value say nothing.
fn in_order(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1usize;
    let axes = shape.iter().zip(strides).rev();
    let empty = shape.contains(&0);
    shape.len() == strides.len()
        && axes.into_iter().all(|(&length, &stride)| {
            let fits = empty || length == 1 || stride == expected;
            expected = expected.saturating_mul(length);
            fits
        })
}

fn dtype_of(storage: &str) -> Option<Dtype> {
    Some(match storage {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        "ComplexFloatStorage" => Dtype::C64,
        _ => return None,
    })
}
