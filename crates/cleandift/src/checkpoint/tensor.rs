//! One tensor of a store: where its values lie, and how they become f32.

use std::fmt;
use std::io;
use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::source::Source;
use crate::graph::{Parameter, ReadError};

/// How the values of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision: 11 significant bits, largest value 65504.
    F16,
    /// The upper half of an f32: 8 significant bits, the range of f32.
    BF16,
}

impl Dtype {
    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    pub(super) fn from_file(dtype: safetensors::Dtype) -> Option<Self> {
        match dtype {
            safetensors::Dtype::F32 => Some(Self::F32),
            safetensors::Dtype::F16 => Some(Self::F16),
            safetensors::Dtype::BF16 => Some(Self::BF16),
            _ => None,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
        })
    }
}

/// A tensor's shape and the place of its values.
#[derive(Clone)]
pub(super) struct Tensor {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    pub(super) values: Values,
}

/// Where values lie.
#[derive(Clone)]
pub(super) enum Values {
    /// Little-endian values in a file, from `offset`; `name` is the file's own for them.
    File {
        source: Arc<Source>,
        name: Arc<str>,
        offset: u64,
    },
    Memory(Arc<Vec<f32>>),
    /// Those of another tensor from index `first` on.
    Part {
        whole: Arc<Tensor>,
        first: usize,
    },
    /// Those of another tensor, whose axes are these axes of this one: PyTorch's `channels_last`,
    /// transposed weights.
    Permuted {
        whole: Arc<Tensor>,
        axes: Vec<usize>,
    },
    /// Those of several tensors, one after another.
    Stacked(Arc<[Tensor]>),
    /// Those of another tensor with a change of low rank.
    Adapted {
        base: Arc<Tensor>,
        change: Arc<LowRank>,
    },
    /// Made anew at each reading.
    Generated {
        name: Arc<str>,
        fill: Fill,
    },
}

/// Gives a tensor its values: the same ones at each call.
pub(super) type Fill = Arc<dyn Fn(&Parameter, &mut [f32]) + Send + Sync>;

impl Tensor {
    /// A tensor of this shape whose values lie in the order that `axes` tells, the slowest first.
    pub(super) fn permuted(
        dtype: Dtype,
        shape: Vec<usize>,
        axes: Vec<usize>,
        values: Values,
    ) -> Self {
        let whole = Self {
            dtype,
            shape: axes.iter().map(|&axis| shape[axis]).collect(),
            values,
        };
        let whole = Arc::new(whole);
        Self {
            dtype,
            shape,
            values: Values::Permuted { whole, axes },
        }
    }

    /// How many values it has.
    pub(super) fn count(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64
    }

    /// Replaces `values` by all of the tensor's, widened to f32.
    pub(super) fn read_into(&self, values: &mut Vec<f32>) -> Result<(), ReadError> {
        let count = self.count() as usize;
        if values.capacity() < count {
            // Fresh zeros take no time before they are touched, and many threads touch them below.
            *values = vec![0.0; count];
        }
        values.resize(count, 0.0);
        let (source, name, offset) = match &self.values {
            Values::Memory(known) => {
                values.copy_from_slice(known);
                return Ok(());
            }
            Values::Part { whole, first } => {
                let mut all = Vec::new();
                whole.read_into(&mut all)?;
                values.copy_from_slice(&all[*first..first + count]);
                return Ok(());
            }
            Values::Permuted { whole, axes } => {
                let mut stored = Vec::new();
                whole.read_into(&mut stored)?;
                permute(&stored, &whole.shape, axes, &self.shape, values);
                return Ok(());
            }
            Values::Adapted { base, change } => {
                base.read_into(values)?;
                return change.add_to(values);
            }
            Values::Stacked(parts) => {
                values.clear();
                let mut part_values = Vec::new();
                for part in parts.iter() {
                    part.read_into(&mut part_values)?;
                    values.extend_from_slice(&part_values);
                }
                return Ok(());
            }
            Values::Generated { name, fill } => {
                let (name, shape) = (name.to_string(), self.shape.clone());
                fill(&Parameter { name, shape }, values);
                return Ok(());
            }
            Values::File {
                source,
                name,
                offset,
            } => (source, name, *offset),
        };
        read_widened(source, offset, self.dtype, values).map_err(|error| ReadError {
            file: source.path().display().to_string(),
            tensor: name.to_string(),
            reason: reason(&error),
        })
    }

    /// Cuts it along its first axis into parts of equal shape; `None` if that axis has no such
    /// parts.
    pub(super) fn split(&self, parts: usize) -> Option<Vec<Tensor>> {
        let mut shape = self.shape.clone();
        let rows = shape.first_mut().filter(|rows| **rows % parts == 0)?;
        *rows /= parts;
        let count = shape.iter().product::<usize>();
        let part = |index| Tensor {
            dtype: self.dtype,
            shape: shape.clone(),
            values: self.values_from(index * count),
        };
        Some((0..parts).map(part).collect())
    }

    fn values_from(&self, first: usize) -> Values {
        match &self.values {
            Values::File {
                source,
                name,
                offset,
            } => Values::File {
                source: Arc::clone(source),
                name: Arc::clone(name),
                offset: offset + (first * self.dtype.bytes()) as u64,
            },
            _ => Values::Part {
                whole: Arc::new(self.clone()),
                first,
            },
        }
    }

    /// One tensor of several, along the first axis; `None` if their other axes or types differ.
    pub(super) fn stacked(parts: Vec<Tensor>) -> Option<Tensor> {
        let first = parts.first()?;
        // Parts that a LoRA has changed are f32, whatever the others are.
        let same = parts.iter().all(|part| part.dtype == first.dtype);
        let dtype = if same { first.dtype } else { Dtype::F32 };
        let mut shape = first.shape.clone();
        let alike = |part: &Tensor| part.shape.get(1..) == shape.get(1..);
        if !parts.iter().all(alike) {
            return None;
        }
        *shape.first_mut()? = parts.iter().map(|part| part.shape[0]).sum();
        Some(Tensor {
            dtype,
            shape,
            values: Values::Stacked(parts.into()),
        })
    }

    /// Zeros in its shape and type.
    pub(super) fn zeros_like(&self) -> Tensor {
        Tensor {
            dtype: self.dtype,
            shape: self.shape.clone(),
            values: Values::Generated {
                name: "zeros".into(),
                fill: Arc::new(|_, values| values.fill(0.0)),
            },
        }
    }

    /// The files that its values come from.
    pub(super) fn sources(&self) -> Vec<&Arc<Source>> {
        match &self.values {
            Values::File { source, .. } => vec![source],
            Values::Part { whole, .. } | Values::Permuted { whole, .. } => whole.sources(),
            Values::Stacked(parts) => parts.iter().flat_map(Tensor::sources).collect(),
            Values::Adapted { base, .. } => base.sources(),
            Values::Memory(_) | Values::Generated { .. } => Vec::new(),
        }
    }

    /// Where it lies, for errors.
    pub(super) fn place(&self) -> String {
        match &self.values {
            Values::File { source, name, .. } => format!("`{name}` in {}", source.path().display()),
            Values::Part { whole, .. }
            | Values::Permuted { whole, .. }
            | Values::Adapted { base: whole, .. } => whole.place(),
            Values::Stacked(parts) => parts.first().map_or("nothing".into(), Tensor::place),
            Values::Memory(_) | Values::Generated { .. } => "a tensor in memory".into(),
        }
    }
}

/// Values in the order of `shape` from those in the order of `stored_shape`, whose axes are `axes`.
fn permute(
    stored: &[f32],
    stored_shape: &[usize],
    axes: &[usize],
    shape: &[usize],
    values: &mut [f32],
) {
    let mut strides = vec![0; shape.len()];
    let mut step = 1;
    for (&axis, &length) in axes.iter().zip(stored_shape).rev() {
        strides[axis] = step;
        step *= length;
    }
    let mut index = vec![0; shape.len()];
    for value in values {
        let place: usize = index.iter().zip(&strides).map(|(i, s)| i * s).sum();
        *value = stored[place];
        for (place, &length) in index.iter_mut().zip(shape).rev() {
            *place += 1;
            if *place < length {
                break;
            }
            *place = 0;
        }
    }
}

/// A change of a layer's weights by a product of two thin matrices.
#[derive(Clone)]
pub(super) struct LowRank {
    /// `[rank, …]`: the layer's own axes but the first.
    pub(super) down: Tensor,
    /// `[rows, rank]`, or as a 1x1 convolution.
    pub(super) up: Tensor,
    pub(super) scale: f32,
}

impl LowRank {
    /// Whether the product has a layer's shape. A linear layer may be a 1x1 convolution in either.
    pub(super) fn fits(&self, shape: &[usize]) -> bool {
        fn bare(shape: &[usize]) -> &[usize] {
            match shape {
                [start @ .., 1, 1] if start.len() == 2 => start,
                shape => shape,
            }
        }
        let (layer, down, up) = (bare(shape), bare(&self.down.shape), bare(&self.up.shape));
        match (layer, down, up) {
            ([rows, row @ ..], [rank, columns @ ..], [up_rows, up_rank]) => {
                rows == up_rows && rank == up_rank && row == columns
            }
            _ => false,
        }
    }

    /// Adds `scale * up * down` to a layer's weights, row by row.
    fn add_to(&self, values: &mut [f32]) -> Result<(), ReadError> {
        let rank = self.down.shape[0];
        let (mut down, mut up) = (Vec::new(), Vec::new());
        self.down.read_into(&mut down)?;
        self.up.read_into(&mut up)?;
        if rank == 0 || down.is_empty() {
            return Ok(());
        }
        let columns = down.len() / rank;
        let rows = values.par_chunks_mut(columns).zip(up.par_chunks(rank));
        rows.for_each(|(row, factors)| {
            for (factor, direction) in factors.iter().zip(down.chunks(columns)) {
                let factor = factor * self.scale;
                for (value, direction) in row.iter_mut().zip(direction) {
                    *value += factor * direction;
                }
            }
        });
        Ok(())
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            "the file has become shorter since it was opened: something is writing to it".into()
        }
        _ => format!("cannot be read: {error}"),
    }
}

/// Values read at a time: small enough for the bytes to stay in the cache until they are widened.
const VALUES_AT_ONCE: usize = 1 << 17;

/// Parts are read and widened side by side: at gigabytes a second neither is free.
fn read_widened(source: &Source, offset: u64, dtype: Dtype, values: &mut [f32]) -> io::Result<()> {
    let parts = values.par_chunks_mut(VALUES_AT_ONCE).enumerate();
    parts.try_for_each_init(Vec::new, |bytes, (index, part)| {
        bytes.resize(part.len() * dtype.bytes(), 0);
        let start = index * VALUES_AT_ONCE * dtype.bytes();
        source.read_exact_at(bytes, offset + start as u64)?;
        widen(bytes, dtype, part);
        Ok(())
    })
}

/// Values from their little-endian bytes.
fn widen(bytes: &[u8], dtype: Dtype, values: &mut [f32]) {
    match dtype {
        Dtype::F32 => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        // The `half` crate has no vector code for bf16, and the definition is as short.
        Dtype::BF16 => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }
        }
        Dtype::F16 => {
            let half = |bytes: &[u8; 2]| f16::from_le_bytes(*bytes);
            let halves: Vec<f16> = bytes.as_chunks().0.iter().map(half).collect();
            halves.convert_to_f32_slice(values);
        }
    }
}
