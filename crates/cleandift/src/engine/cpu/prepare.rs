//! Weights in the form that the kernels read: packed when first needed, and kept, or dropped after the
//! step that needs them.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cleandift_kernels::{Kernels, PackedMatrix, PackedMemory, Winograd, WinogradWeights};

use super::fuse::Form;
use super::{Arithmetic, Precision, Processor};
use crate::graph::{Node, Parameter, Parameters, ReadError};

/// A node's parameters, ready for its kernel.
#[derive(Debug)]
pub(super) enum Prepared {
    /// Of a convolution or a linear map.
    Matrix {
        weight: PackedMatrix,
        bias: Option<Vec<f32>>,
    },
    /// Of a convolution by Winograd's algorithms on a large map.
    Transformed {
        weight: WinogradWeights,
        bias: Option<Vec<f32>>,
    },
    /// Anything else, as stored.
    Plain(Vec<Vec<f32>>),
}

impl Prepared {
    /// Weight and bias of an operation that has them as stored.
    pub(super) fn pair(&self) -> [&[f32]; 2] {
        match self {
            Self::Plain(values) => [&values[0], &values[1]],
            _ => unreachable!("the operation has plain parameters"),
        }
    }
}

/// How parameters lie in memory: several forms can share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Layout {
    Matrix,
    /// Rounded, for products of bf16.
    Bf16,
    Transformed(Winograd),
    /// As it is in the store, which the kernel packs on the way.
    Stored,
    Plain,
}

/// How long what is prepared is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// As long as the store.
    Always,
    /// For one step: the next one's takes its place in memory.
    Once,
    /// Until it is released: the store's values change.
    Changing,
}

impl Layout {
    fn of(form: Form, precision: Precision, of_use: Use) -> Self {
        match form {
            Form::Matrix { kernel: 1 } | Form::Small(_) if of_use == Use::Changing => Self::Stored,
            Form::Matrix { .. } if precision.arithmetic == Arithmetic::Bf16 => Self::Bf16,
            Form::Matrix { .. } | Form::Small(_) => Self::Matrix,
            Form::Large(kind) => Self::Transformed(kind),
            Form::Plain => Self::Plain,
        }
    }
}

/// The prepared weights of one store, shared by all programs that run on it. What has been
/// prepared is a cache: dropping it loses nothing but time.
pub struct PreparedWeights {
    source: Arc<dyn Parameters>,
    kernels: &'static Kernels,
    precision: Precision,
    of_use: Use,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    /// By the first parameter's name, and how it is laid out.
    prepared: HashMap<(String, Layout), Arc<Prepared>>,
    workplace: Workplace,
}

/// The memory that weights are prepared in: fresh memory for each would cost more time than reading.
#[derive(Default)]
struct Workplace {
    /// What is being packed, as large as the largest weight so far.
    unpacked: Vec<f32>,
    /// What weights were packed in that have been released, the largest first.
    spare: Vec<PackedMemory>,
}

impl Workplace {
    /// The smallest spare memory of a size in `bytes`. If there is none, room is made for a new one:
    /// the smallest is given back, once there are `most`.
    fn take(&mut self, bytes: RangeInclusive<usize>, most: usize) -> Option<PackedMemory> {
        let mut sizes = self.spare.iter().map(PackedMemory::bytes);
        let found = sizes.rposition(|size| bytes.contains(&size));
        if found.is_none() {
            self.spare.truncate(most - 1);
        }
        Some(self.spare.remove(found?))
    }

    /// Keeps memory for other weights: the `most` largest.
    fn keep(&mut self, memory: PackedMemory, most: usize) {
        self.spare.push(memory);
        self.spare
            .sort_by_key(|memory| std::cmp::Reverse(memory.bytes()));
        self.spare.truncate(most);
    }

    /// Takes back what another has worked with.
    fn merge(&mut self, other: Self, most: usize) {
        if other.unpacked.len() > self.unpacked.len() {
            self.unpacked = other.unpacked;
        }
        for memory in other.spare {
            self.keep(memory, most);
        }
    }
}

impl PreparedWeights {
    /// For a processor's kernels and precision; nothing is read yet.
    pub fn new(source: Arc<dyn Parameters>, processor: &Processor) -> Self {
        Self {
            source,
            kernels: processor.kernels(),
            precision: processor.precision(),
            of_use: Use::Always,
            cache: Mutex::default(),
        }
    }

    /// For programs that run once or twice: what a step needs is dropped after it, and the next one's
    /// takes its place in memory. To pack weights again takes no longer than to get fresh memory for
    /// all of them from the system. Nothing is read yet.
    pub fn for_one_run(source: Arc<dyn Parameters>, processor: &Processor) -> Self {
        Self::new(source, processor).each_for_one_step()
    }

    /// The same, for weights that were to be kept.
    #[must_use]
    pub fn each_for_one_step(self) -> Self {
        Self {
            of_use: Use::Once,
            ..self
        }
    }

    /// For a store that changes as it is used: little is prepared, and the kernels pack the rest on
    /// the way. Values that are lent are kept until they are [released](Self::release).
    pub(super) fn of_changing(source: Arc<dyn Parameters>, processor: &Processor) -> Self {
        Self {
            of_use: Use::Changing,
            ..Self::new(source, processor)
        }
    }

    /// The store behind.
    pub fn source(&self) -> &dyn Parameters {
        &*self.source
    }

    /// The parameters of a node that has some.
    pub(super) fn get(&self, node: &Node, form: Form) -> Result<Arc<Prepared>, ReadError> {
        let layout = self.layout(form);
        let key = (node.parameters[0].name.clone(), layout);
        let mut workplace = {
            let mut cache = self.cache();
            if let Some(prepared) = cache.prepared.get(&key) {
                return Ok(Arc::clone(prepared));
            }
            std::mem::take(&mut cache.workplace)
        };
        // Not under the lock: a thread of the pool that waits for others to pack may take up another
        // run meanwhile, which would wait for the lock that is its own.
        let prepared = Arc::new(self.prepare(node, layout, &mut workplace)?);
        let mut cache = self.cache();
        cache.workplace.merge(workplace, self.most_spare());
        Ok(Arc::clone(cache.prepared.entry(key).or_insert(prepared)))
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was prepared for a node has been used, and nobody holds it any more.
    pub(super) fn used(&self, node: &Node, form: Form) {
        if self.of_use == Use::Once {
            self.release(node, form);
        }
    }

    /// Drops what is prepared for a node that has parameters.
    pub(super) fn release(&self, node: &Node, form: Form) {
        let key = (node.parameters[0].name.clone(), self.layout(form));
        let mut cache = self.cache();
        let released = cache.prepared.remove(&key).and_then(Arc::into_inner);
        let memory = match released {
            Some(Prepared::Matrix { weight, .. }) => weight.into_memory(),
            Some(Prepared::Transformed { weight, .. }) => Some(weight.into_memory()),
            _ => None,
        };
        if let Some(memory) = memory {
            cache.workplace.keep(memory, self.most_spare());
        }
    }

    /// Whether what is prepared stays.
    pub fn are_kept(&self) -> bool {
        self.of_use == Use::Always
    }

    /// Of how many weights the memory is kept for others.
    fn most_spare(&self) -> usize {
        match self.of_use {
            Use::Once | Use::Always => 1,
            Use::Changing => 4,
        }
    }

    fn layout(&self, form: Form) -> Layout {
        Layout::of(form, self.precision, self.of_use)
    }

    fn prepare(
        &self,
        node: &Node,
        layout: Layout,
        workplace: &mut Workplace,
    ) -> Result<Prepared, ReadError> {
        let parameters = &node.parameters;
        if layout == Layout::Plain {
            let values = parameters
                .iter()
                .map(|parameter| self.source.read(&parameter.name));
            return Ok(Prepared::Plain(values.collect::<Result<_, _>>()?));
        }
        let bias = parameters
            .get(1)
            .map(|parameter| self.source.read(&parameter.name));
        let bias = bias.transpose()?;
        let (outputs, inputs) = (parameters[0].shape[0], parameters[0].shape[1]);
        let kernels = self.kernels;
        let kernel = parameters[0].shape.get(2).copied().unwrap_or(1);
        let lent = self.source.lend(&parameters[0].name);
        if layout == Layout::Stored {
            let read = || self.source.read(&parameters[0].name).map(Arc::new);
            let weight = lent.map_or_else(read, Ok)?;
            let weight = kernels.weight_as_stored(weight, outputs, inputs, kernel);
            return Ok(Prepared::Matrix { weight, bias });
        }
        if lent.is_none() {
            self.source
                .read_into(&parameters[0].name, &mut workplace.unpacked)?;
        }
        let bytes = match layout {
            Layout::Transformed(kind) => kernels.winograd_bytes(kind, outputs, inputs),
            _ => kernels.packed_bytes(outputs, inputs * kernel * kernel),
        };
        // A weight that is kept does not hold on to much more memory than it needs: what is spare then
        // are the places of those that were halved, for others that will be.
        let memory = match (self.of_use, layout) {
            (Use::Always, Layout::Transformed(_)) => None,
            (Use::Always, _) => workplace.take(bytes..=2 * bytes, self.most_spare()),
            _ => workplace.take(bytes..=usize::MAX, self.most_spare()),
        };
        let weight = lent.as_deref().unwrap_or(&workplace.unpacked);
        Ok(match layout {
            Layout::Transformed(kind) => Prepared::Transformed {
                weight: kernels.pack_winograd_in(memory, kind, weight, outputs, inputs),
                bias,
            },
            _ => {
                let packed = kernels.pack_convolution_in(memory, weight, outputs, inputs, kernel);
                let (weight, left) = self.narrowed(layout, packed);
                if let Some(left) = left {
                    workplace.keep(left, self.most_spare());
                }
                Prepared::Matrix { weight, bias }
            }
        })
    }

    /// The weight as it is kept, and the memory it was packed in, if it takes another.
    fn narrowed(
        &self,
        layout: Layout,
        weight: PackedMatrix,
    ) -> (PackedMatrix, Option<PackedMemory>) {
        match layout {
            Layout::Bf16 => weight.for_bf16(self.kernels),
            _ if self.precision.half_weights && self.are_kept() => weight.in_half(),
            _ => (weight, None),
        }
    }
}

/// Bytes that the prepared parameters of a node will take, for always or for a step; with half-precision
/// weights, as if that held all of them exactly.
pub(super) fn prepared_bytes(
    processor: &Processor,
    node: &Node,
    form: Form,
    are_kept: bool,
) -> usize {
    let (kernels, precision) = (processor.kernels(), processor.precision());
    let bytes = |parameters: &[Parameter]| {
        size_of::<f32>() * parameters.iter().map(Parameter::size).sum::<usize>()
    };
    let layout = Layout::of(form, precision, Use::Always);
    match (layout, node.parameters.as_slice()) {
        (Layout::Matrix | Layout::Bf16, [weight, bias @ ..]) => {
            let (outputs, inputs) = (weight.shape[0], weight.size() / weight.shape[0]);
            let packed = kernels.packed_bytes(outputs, inputs);
            let packed = match (layout, are_kept) {
                (Layout::Bf16, true) => packed / 2,
                // Beside the memory that it was packed in.
                (Layout::Bf16, false) => packed + packed / 2,
                (_, true) if precision.half_weights => packed / 2,
                _ => packed,
            };
            packed + bytes(bias)
        }
        (Layout::Transformed(kind), [weight, bias @ ..]) => {
            kernels.winograd_bytes(kind, weight.shape[0], weight.shape[1]) + bytes(bias)
        }
        (_, parameters) => bytes(parameters),
    }
}
