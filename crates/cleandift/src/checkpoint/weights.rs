//! `Weights`: a named store of tensors that lie in files or in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::CheckpointError;
use super::header;
use super::pytorch;
use super::source::Source;
use super::tensor::{Dtype, Fill, LowRank, Tensor, Values};
use crate::graph::{Parameter, Parameters, ReadError};

/// A named, versioned store of tensors. Cloning shares it.
///
/// Opening reads names and shapes only; values are read when they are asked for, and not kept.
/// Names come in alphabetical order. Tensors of other types than F32, F16 and BF16 (integer
/// buffers, for the most part) are not weights: they appear in [`skipped`](Self::skipped) only.
///
/// # Why files are read and not mapped
/// Every weight is widened to f32 or packed anew for the processor anyway, so a map would save
/// nothing; its pages would count in the resident set beside the copies until they are released;
/// it needs `unsafe`; and a file that shrinks while it is mapped kills the process, where a read
/// gives an error. The system's page cache is shared between processes either way.
#[derive(Clone)]
pub struct Weights {
    contents: Arc<Contents>,
}

struct Contents {
    label: String,
    version: u64,
    tensors: BTreeMap<String, Tensor>,
    skipped: BTreeMap<String, safetensors::Dtype>,
    metadata: BTreeMap<String, String>,
}

impl Weights {
    /// Opens a safetensors file or one of PyTorch's (`.bin`, `.ckpt`, `.pt`, `.pth`), whatever it is
    /// called. Of the latter nothing is run: what is no tensor is passed over. All is checked against
    /// the file's length, so that every tensor is known to be there; values are not looked at.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        Self::read_names(Source::open(path)?)
    }

    /// The same for the contents of a file that are in memory; `label` stands for its path in
    /// errors.
    pub fn from_bytes(label: &str, bytes: Vec<u8>) -> Result<Self, CheckpointError> {
        Self::read_names(Source::from_memory(label, bytes))
    }

    fn read_names(source: Source) -> Result<Self, CheckpointError> {
        let source = Arc::new(source);
        let (entries, metadata) = match pytorch::Container::of(&source) {
            Some(container) => (pytorch::read(&source, container)?, BTreeMap::new()),
            None => header::read(&source)?,
        };
        let (mut tensors, mut skipped) = (BTreeMap::new(), BTreeMap::new());
        for entry in entries {
            let Some(dtype) = Dtype::from_file(entry.dtype) else {
                skipped.insert(entry.name, entry.dtype);
                continue;
            };
            let name = entry.name.as_str().into();
            let values = Values::File {
                source: source.clone(),
                name,
                offset: entry.offset,
            };
            let tensor = match entry.stored {
                None => Tensor {
                    dtype,
                    shape: entry.shape,
                    values,
                },
                Some(axes) => Tensor::permuted(dtype, entry.shape, axes, values),
            };
            tensors.insert(entry.name, tensor);
        }
        Ok(Self::new(
            source.path().display().to_string(),
            tensors,
            skipped,
            metadata,
        ))
    }

    /// A store of values that are in memory already, such as a randomly initialised model. `label`
    /// stands for the file in errors.
    ///
    /// # Panics
    /// If a tensor's values are not as many as its shape says, or a name comes twice.
    pub fn from_memory(
        label: &str,
        tensors: impl IntoIterator<Item = (String, Vec<usize>, Vec<f32>)>,
    ) -> Self {
        let mut map = BTreeMap::new();
        for (name, shape, values) in tensors {
            assert_eq!(
                values.len(),
                shape.iter().product::<usize>(),
                "{name}: {shape:?}"
            );
            let tensor = Tensor {
                dtype: Dtype::F32,
                shape,
                values: Values::Memory(values.into()),
            };
            assert!(
                map.insert(name, tensor).is_none(),
                "two tensors of the same name"
            );
        }
        Self::new(label.into(), map, BTreeMap::new(), BTreeMap::new())
    }

    /// A store of values that are made whenever they are read, and take no memory: `fill` gives a
    /// tensor its values, the same ones at each call.
    ///
    /// # Panics
    /// If a name comes twice.
    pub fn generated<'p>(
        label: &str,
        parameters: impl IntoIterator<Item = &'p Parameter>,
        fill: impl Fn(&Parameter, &mut [f32]) + Send + Sync + 'static,
    ) -> Self {
        let fill: Fill = Arc::new(fill);
        let mut map = BTreeMap::new();
        for Parameter { name, shape } in parameters {
            let values = Values::Generated {
                name: name.as_str().into(),
                fill: Arc::clone(&fill),
            };
            let tensor = Tensor {
                dtype: Dtype::F32,
                shape: shape.clone(),
                values,
            };
            assert!(
                map.insert(name.clone(), tensor).is_none(),
                "two tensors of the name {name}"
            );
        }
        Self::new(label.into(), map, BTreeMap::new(), BTreeMap::new())
    }

    fn new(
        label: String,
        tensors: BTreeMap<String, Tensor>,
        skipped: BTreeMap<String, safetensors::Dtype>,
        metadata: BTreeMap<String, String>,
    ) -> Self {
        static VERSIONS: AtomicU64 = AtomicU64::new(1);
        let version = VERSIONS.fetch_add(1, Ordering::Relaxed);
        Self {
            contents: Arc::new(Contents {
                label,
                version,
                tensors,
                skipped,
                metadata,
            }),
        }
    }

    /// A number that no other contents of this process have: what was prepared from a store may
    /// be used again as long as its version is the same. Clones share it.
    pub fn version(&self) -> u64 {
        self.contents.version
    }

    /// How a tensor is stored, or `None` if it is not here.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        Some(self.contents.tensors.get(name)?.dtype)
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.contents.tensors.contains_key(name)
    }

    /// Whether the files have a tensor of this name, be it of a type that is not read.
    pub(super) fn stores(&self, name: &str) -> bool {
        self.has(name) || self.contents.skipped.contains_key(name)
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.contents.tensors.len()
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.contents.tensors.is_empty()
    }

    /// How many values all tensors have together.
    pub fn parameter_count(&self) -> u64 {
        self.contents.tensors.values().map(Tensor::count).sum()
    }

    /// How many bytes all tensors take as they are stored.
    pub fn bytes(&self) -> u64 {
        self.contents
            .tensors
            .values()
            .map(|tensor| tensor.count() * tensor.dtype.bytes() as u64)
            .sum()
    }

    /// The tensors that are in the files but of a type that is not read: name and type.
    pub fn skipped(&self) -> impl Iterator<Item = (&str, String)> {
        self.contents
            .skipped
            .iter()
            .map(|(name, dtype)| (name.as_str(), dtype.to_string()))
    }

    /// The strings that the file carries beside its tensors (of several files: the first one's).
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.contents.metadata
    }

    /// Where the first value of a tensor lies that is not a number or infinite, as an index into
    /// its values.
    pub fn first_non_finite(&self, name: &str) -> Result<Option<usize>, ReadError> {
        Ok(self.read(name)?.iter().position(|value| !value.is_finite()))
    }

    /// The tensors whose names begin with `prefix`, without it.
    pub fn with_prefix(&self, prefix: &str) -> Self {
        let contents = &*self.contents;
        fn strip<T: Clone>(map: &BTreeMap<String, T>, prefix: &str) -> BTreeMap<String, T> {
            let stripped = |(name, value): (&String, &T)| {
                Some((name.strip_prefix(prefix)?.to_string(), value.clone()))
            };
            map.iter().filter_map(stripped).collect()
        }
        Self::new(
            contents.label.clone(),
            strip(&contents.tensors, prefix),
            strip(&contents.skipped, prefix),
            contents.metadata.clone(),
        )
    }

    /// The same tensors under other names: `rename` gets a name and a shape, changes the shape in
    /// place if it wants to, and returns the new name, or `None` to leave the tensor out.
    ///
    /// # Errors
    /// If two tensors get the same name.
    ///
    /// # Panics
    /// If a new shape has another number of values.
    pub(super) fn renamed(
        &self,
        rename: impl Fn(&str, &mut Vec<usize>) -> Option<String>,
    ) -> Result<Self, CheckpointError> {
        let contents = &*self.contents;
        let mut tensors = BTreeMap::new();
        for (name, tensor) in &contents.tensors {
            let mut tensor = tensor.clone();
            let count = tensor.count();
            let Some(name) = rename(name, &mut tensor.shape) else {
                continue;
            };
            assert_eq!(tensor.count(), count, "{name}: not a reshape");
            insert_new(&mut tensors, name, tensor)?;
        }
        Ok(self.with_tensors(tensors))
    }

    /// The same tensors, some of them cut along their first axis into equal parts: `names` gives the
    /// parts' names.
    ///
    /// # Errors
    /// If a tensor cannot be cut so, or a name is taken.
    pub(super) fn split(
        &self,
        names: impl Fn(&str) -> Option<Vec<String>>,
    ) -> Result<Self, CheckpointError> {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in &self.contents.tensors {
            let Some(names) = names(name) else {
                insert_new(&mut tensors, name.clone(), tensor.clone())?;
                continue;
            };
            let parts = tensor.split(names.len()).ok_or_else(|| {
                let (shape, parts) = (&tensor.shape, names.len());
                self.unknown_layout(format!("`{name}` {shape:?} does not hold {parts} parts"))
            })?;
            for (name, part) in names.into_iter().zip(parts) {
                insert_new(&mut tensors, name, part)?;
            }
        }
        Ok(self.with_tensors(tensors))
    }

    /// The value of a tensor of one element; `None` if it has more, which are not read.
    ///
    /// # Errors
    /// As [`Parameters::read`].
    pub fn read_one(&self, name: &str) -> Result<Option<f32>, CheckpointError> {
        match self.shape(name) {
            Some(shape) if shape.iter().all(|&axis| axis == 1) => {
                Ok(self.read(name)?.first().copied())
            }
            _ => Ok(None),
        }
    }

    /// The same tensors, but each group in one, along the first axis, under the group's name.
    ///
    /// # Errors
    /// If a group's member is not there or they do not fit together, or a name is taken.
    pub(super) fn stacked(
        &self,
        groups: &BTreeMap<String, Vec<String>>,
    ) -> Result<Self, CheckpointError> {
        let mut tensors = self.contents.tensors.clone();
        for (name, members) in groups {
            let members: Option<_> = members
                .iter()
                .map(|member| tensors.remove(member))
                .collect();
            let whole = members.and_then(Tensor::stacked);
            let whole = whole.ok_or_else(|| {
                self.unknown_layout(format!("the parts of `{name}` do not fit together"))
            })?;
            insert_new(&mut tensors, name.clone(), whole)?;
        }
        Ok(self.with_tensors(tensors))
    }

    /// Zeros in the shapes of those tensors that `rename` gives a name.
    pub(super) fn zeros_like(&self, rename: impl Fn(&str) -> Option<String>) -> Self {
        let tensors = self.contents.tensors.iter();
        let zeros = tensors.filter_map(|(name, tensor)| Some((rename(name)?, tensor.zeros_like())));
        self.with_tensors(zeros.collect())
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.contents.tensors.get(name)
    }

    /// The same tensors with changes added to some of them, which makes those F32.
    pub(super) fn adapted(&self, changes: &BTreeMap<String, Arc<LowRank>>) -> Self {
        let mut tensors = self.contents.tensors.clone();
        for (name, change) in changes {
            if let Some(tensor) = tensors.get_mut(name) {
                let (base, change) = (Arc::new(tensor.clone()), Arc::clone(change));
                tensor.dtype = Dtype::F32;
                tensor.values = Values::Adapted { base, change };
            }
        }
        self.with_tensors(tensors)
    }

    /// Other tensors from the same files.
    fn with_tensors(&self, tensors: BTreeMap<String, Tensor>) -> Self {
        let contents = &*self.contents;
        let (skipped, metadata) = (contents.skipped.clone(), contents.metadata.clone());
        Self::new(contents.label.clone(), tensors, skipped, metadata)
    }

    fn unknown_layout(&self, found: String) -> CheckpointError {
        CheckpointError::UnknownLayout {
            path: self.contents.label.clone().into(),
            found,
        }
    }

    /// The tensors of both stores, for example of two shards.
    ///
    /// # Errors
    /// If a name is in both.
    pub fn merged(&self, other: &Self) -> Result<Self, CheckpointError> {
        let mut tensors = self.contents.tensors.clone();
        for (name, tensor) in &other.contents.tensors {
            insert_new(&mut tensors, name.clone(), tensor.clone())?;
        }
        let mut skipped = self.contents.skipped.clone();
        skipped.extend(other.contents.skipped.clone());
        let metadata = self.contents.metadata.clone();
        Ok(Self::new(
            self.contents.label.clone(),
            tensors,
            skipped,
            metadata,
        ))
    }

    /// The files that the tensors lie in, each once, in the order of their paths.
    pub(super) fn sources(&self) -> Vec<Arc<Source>> {
        let mut sources = BTreeMap::new();
        for tensor in self.contents.tensors.values() {
            for source in tensor.sources() {
                sources.entry(source.path()).or_insert(source);
            }
        }
        sources.into_values().cloned().collect()
    }

    /// The files that the tensors lie in, each once, in the order of their paths.
    pub fn files(&self) -> Vec<PathBuf> {
        self.sources()
            .iter()
            .map(|source| source.path().to_path_buf())
            .collect()
    }

    fn missing(&self, name: &str) -> ReadError {
        let reason = match self.contents.skipped.get(name) {
            Some(dtype) => format!("is stored as {dtype}, expected F32, F16 or BF16"),
            None => "there is no such tensor".into(),
        };
        ReadError {
            file: self.contents.label.clone(),
            tensor: name.into(),
            reason,
        }
    }
}

impl Parameters for Weights {
    fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.contents.tensors.get(name)?.shape)
    }

    fn names(&self) -> Vec<&str> {
        self.contents.tensors.keys().map(String::as_str).collect()
    }

    fn read_into(&self, name: &str, values: &mut Vec<f32>) -> Result<(), ReadError> {
        let tensor = self.contents.tensors.get(name);
        tensor.ok_or_else(|| self.missing(name))?.read_into(values)
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Weights({}, {} tensors)",
            self.contents.label,
            self.len()
        )
    }
}

fn insert_new(
    tensors: &mut BTreeMap<String, Tensor>,
    name: String,
    tensor: Tensor,
) -> Result<(), CheckpointError> {
    if let Some(first) = tensors.get(&name) {
        let (first, second) = (first.place(), tensor.place());
        return Err(CheckpointError::Duplicate {
            tensor: name,
            first,
            second,
        });
    }
    tensors.insert(name, tensor);
    Ok(())
}
