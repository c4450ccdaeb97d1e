//! Weights in the form that the kernels read: packed once, when first needed, and kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cleandift_kernels::{Kernels, PackedMatrix, WinogradWeights};

use crate::graph::{Node, Operation, Padding, Parameter, Parameters, ReadError};

/// The form that a node's kernel wants its parameters in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Matrix { kernel: usize },
    Winograd,
    Plain,
}

/// Cells from which on a 3x3 convolution is done by Winograd's algorithm. It is two to three times
/// as fast at any size, but its weights take four times the memory: below, where a network has its
/// widest layers, that would be gigabytes.
const WINOGRAD_CELLS: usize = 32 * 32;
/// Channels on both sides from which on its transforms pay.
const WINOGRAD_CHANNELS: usize = 16;

/// The choice depends on the shapes of one image alone: the same bits for any batch.
fn form(node: &Node) -> Form {
    match node.operation {
        Operation::Convolution {
            kernel: 3,
            stride: 1,
            padding: Padding::Same,
        } if node.shape.cells() >= WINOGRAD_CELLS
            && node.parameters[0].shape[..2]
                .iter()
                .all(|&n| n >= WINOGRAD_CHANNELS) =>
        {
            Form::Winograd
        }
        Operation::Convolution { kernel, .. } => Form::Matrix { kernel },
        Operation::Linear => Form::Matrix { kernel: 1 },
        _ => Form::Plain,
    }
}

/// A node's parameters, ready for its kernel.
#[derive(Debug)]
pub(super) enum Prepared {
    /// Of a convolution or a linear map.
    Matrix {
        weight: PackedMatrix,
        bias: Option<Vec<f32>>,
    },
    /// Of a convolution by Winograd's algorithm.
    Winograd {
        weight: WinogradWeights,
        bias: Option<Vec<f32>>,
    },
    /// Anything else, as stored.
    Plain(Vec<Vec<f32>>),
}

/// The prepared weights of one store, shared by all programs that run on it. What has been
/// prepared is a cache: dropping it loses nothing but time.
pub struct PreparedWeights {
    source: Arc<dyn Parameters>,
    kernels: &'static Kernels,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    /// By the first parameter's name, and its form.
    prepared: HashMap<(String, Form), Arc<Prepared>>,
    /// What is being packed, as large as the largest weight so far: fresh memory for each would
    /// cost more time than reading.
    unpacked: Vec<f32>,
}

impl PreparedWeights {
    /// Nothing is read yet.
    pub fn new(source: Arc<dyn Parameters>, kernels: &'static Kernels) -> Self {
        Self {
            source,
            kernels,
            cache: Mutex::default(),
        }
    }

    /// The store behind.
    pub fn source(&self) -> &dyn Parameters {
        &*self.source
    }

    /// The parameters of a node that has some.
    pub(super) fn get(&self, node: &Node) -> Result<Arc<Prepared>, ReadError> {
        let form = form(node);
        let key = (node.parameters[0].name.clone(), form);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = cache.prepared.get(&key) {
            return Ok(Arc::clone(prepared));
        }
        let prepared = Arc::new(self.prepare(node, form, &mut cache.unpacked)?);
        cache.prepared.insert(key, Arc::clone(&prepared));
        Ok(prepared)
    }

    /// Drops what is prepared for a node that has parameters.
    pub(super) fn release(&self, node: &Node) {
        let key = (node.parameters[0].name.clone(), form(node));
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.prepared.remove(&key);
    }

    fn prepare(
        &self,
        node: &Node,
        form: Form,
        unpacked: &mut Vec<f32>,
    ) -> Result<Prepared, ReadError> {
        let parameters = &node.parameters;
        if form == Form::Plain {
            let values = parameters
                .iter()
                .map(|parameter| self.source.read(&parameter.name));
            return Ok(Prepared::Plain(values.collect::<Result<_, _>>()?));
        }
        self.source.read_into(&parameters[0].name, unpacked)?;
        let bias = parameters
            .get(1)
            .map(|parameter| self.source.read(&parameter.name));
        let bias = bias.transpose()?;
        let (outputs, inputs) = (parameters[0].shape[0], parameters[0].shape[1]);
        Ok(match form {
            Form::Matrix { kernel } => Prepared::Matrix {
                weight: self
                    .kernels
                    .pack_convolution(unpacked, outputs, inputs, kernel),
                bias,
            },
            _ => Prepared::Winograd {
                weight: self.kernels.pack_winograd(unpacked, outputs, inputs),
                bias,
            },
        })
    }
}

/// Bytes that the prepared parameters of a node will take.
pub(super) fn prepared_bytes(kernels: &Kernels, node: &Node) -> usize {
    let bytes = |parameters: &[Parameter]| {
        size_of::<f32>() * parameters.iter().map(Parameter::size).sum::<usize>()
    };
    match (form(node), node.parameters.as_slice()) {
        (Form::Matrix { .. }, [weight, bias @ ..]) => {
            let (outputs, inputs) = (weight.shape[0], weight.size() / weight.shape[0]);
            kernels.packed_bytes(outputs, inputs) + bytes(bias)
        }
        (Form::Winograd, [weight, bias @ ..]) => {
            kernels.winograd_bytes(weight.shape[0], weight.shape[1]) + bytes(bias)
        }
        (_, parameters) => bytes(parameters),
    }
}
