//! Weights in the form that the kernels read: packed once, when first needed, and kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cleandift_kernels::{Kernels, PackedMatrix, Winograd, WinogradWeights};

use super::fuse::Form;
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
    Transformed(Winograd),
    Plain,
}

impl From<Form> for Layout {
    fn from(form: Form) -> Self {
        match form {
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
    kept: bool,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    /// By the first parameter's name, and how it is laid out.
    prepared: HashMap<(String, Layout), Arc<Prepared>>,
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
            kept: true,
            cache: Mutex::default(),
        }
    }

    /// For programs that run once: what a step needs is dropped after it, and the next one's takes
    /// its place in memory. Nothing is read yet.
    pub fn for_one_run(source: Arc<dyn Parameters>, kernels: &'static Kernels) -> Self {
        Self {
            kept: false,
            ..Self::new(source, kernels)
        }
    }

    /// The store behind.
    pub fn source(&self) -> &dyn Parameters {
        &*self.source
    }

    /// The parameters of a node that has some.
    pub(super) fn get(&self, node: &Node, form: Form) -> Result<Arc<Prepared>, ReadError> {
        let layout = form.into();
        let key = (node.parameters[0].name.clone(), layout);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = cache.prepared.get(&key) {
            return Ok(Arc::clone(prepared));
        }
        let prepared = Arc::new(self.prepare(node, layout, &mut cache.unpacked)?);
        if self.kept {
            cache.prepared.insert(key, Arc::clone(&prepared));
        }
        Ok(prepared)
    }

    fn prepare(
        &self,
        node: &Node,
        layout: Layout,
        unpacked: &mut Vec<f32>,
    ) -> Result<Prepared, ReadError> {
        let parameters = &node.parameters;
        if layout == Layout::Plain {
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
        let kernels = self.kernels;
        Ok(match layout {
            Layout::Transformed(kind) => Prepared::Transformed {
                weight: kernels.pack_winograd(kind, unpacked, outputs, inputs),
                bias,
            },
            _ => {
                let kernel = parameters[0].shape.get(2).copied().unwrap_or(1);
                Prepared::Matrix {
                    weight: kernels.pack_convolution(unpacked, outputs, inputs, kernel),
                    bias,
                }
            }
        })
    }
}

/// Bytes that the prepared parameters of a node will take.
pub(super) fn prepared_bytes(kernels: &Kernels, node: &Node, form: Form) -> usize {
    let bytes = |parameters: &[Parameter]| {
        size_of::<f32>() * parameters.iter().map(Parameter::size).sum::<usize>()
    };
    match (form.into(), node.parameters.as_slice()) {
        (Layout::Matrix, [weight, bias @ ..]) => {
            let (outputs, inputs) = (weight.shape[0], weight.size() / weight.shape[0]);
            kernels.packed_bytes(outputs, inputs) + bytes(bias)
        }
        (Layout::Transformed(kind), [weight, bias @ ..]) => {
            kernels.winograd_bytes(kind, weight.shape[0], weight.shape[1]) + bytes(bias)
        }
        (_, parameters) => bytes(parameters),
    }
}
