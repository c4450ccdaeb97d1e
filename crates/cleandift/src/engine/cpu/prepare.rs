//! Weights in the form that the kernels read: packed once, when first needed, and kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cleandift_kernels::{Kernels, PackedMatrix};

use crate::graph::{Node, Operation, Parameters, ReadError};

/// A node's parameters, ready for its kernel.
#[derive(Debug)]
pub(super) enum Prepared {
    /// Of a convolution or a linear map.
    Matrix {
        weight: PackedMatrix,
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
    /// By the first parameter's name.
    prepared: HashMap<String, Arc<Prepared>>,
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
        let key = &node.parameters[0].name;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = cache.prepared.get(key) {
            return Ok(Arc::clone(prepared));
        }
        let prepared = Arc::new(self.prepare(node, &mut cache.unpacked)?);
        cache.prepared.insert(key.clone(), Arc::clone(&prepared));
        Ok(prepared)
    }

    fn prepare(&self, node: &Node, unpacked: &mut Vec<f32>) -> Result<Prepared, ReadError> {
        let parameters = &node.parameters;
        let kernel = match node.operation {
            Operation::Convolution { kernel, .. } => kernel,
            Operation::Linear => 1,
            _ => {
                let values = parameters
                    .iter()
                    .map(|parameter| self.source.read(&parameter.name));
                return Ok(Prepared::Plain(values.collect::<Result<_, _>>()?));
            }
        };
        self.source.read_into(&parameters[0].name, unpacked)?;
        let (outputs, inputs) = (parameters[0].shape[0], parameters[0].shape[1]);
        let weight = self
            .kernels
            .pack_convolution(unpacked, outputs, inputs, kernel);
        let bias = parameters
            .get(1)
            .map(|parameter| self.source.read(&parameter.name));
        Ok(Prepared::Matrix {
            weight,
            bias: bias.transpose()?,
        })
    }
}

/// Bytes that the prepared parameters of a node will take.
pub(super) fn prepared_bytes(kernels: &Kernels, node: &Node) -> usize {
    let values: usize = match (&node.operation, node.parameters.as_slice()) {
        (Operation::Convolution { .. } | Operation::Linear, [weight, rest @ ..]) => {
            let outputs = weight.shape[0];
            let inputs = weight.size() / outputs;
            let bias: usize = rest.iter().map(|parameter| parameter.size()).sum();
            return kernels.packed_bytes(outputs, inputs) + bias * size_of::<f32>();
        }
        (_, parameters) => parameters.iter().map(|parameter| parameter.size()).sum(),
    };
    values * size_of::<f32>()
}
