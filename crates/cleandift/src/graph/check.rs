//! The strict report: a graph's parameters against what a checkpoint holds.

use super::node::Graph;
use super::parameters::Parameters;

/// A tensor whose shape in the checkpoint is not the one the network needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The tensor's name.
    pub name: String,
    /// Its shape in the checkpoint.
    pub found: Vec<usize>,
    /// The shape the network needs.
    pub expected: Vec<usize>,
}

/// What fits and what does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    /// Tensors that are there with the right shape.
    pub fitting: usize,
    /// Names the network needs and the checkpoint lacks.
    pub missing: Vec<String>,
    /// Names the checkpoint holds and the network does not use.
    pub unused: Vec<String>,
    /// Tensors of another shape.
    pub misshaped: Vec<Mismatch>,
}

impl Check {
    /// Whether the network can run: nothing missing, nothing mis-shaped.
    pub fn is_usable(&self) -> bool {
        self.missing.is_empty() && self.misshaped.is_empty()
    }
}

/// Compares the parameters of whole (unpruned) graphs with the store that serves them all.
pub fn check(graphs: &[&Graph], weights: &dyn Parameters) -> Check {
    let parameters: Vec<_> = graphs.iter().flat_map(|graph| graph.parameters()).collect();
    let mut report = Check::default();
    for parameter in &parameters {
        match weights.shape(&parameter.name) {
            None => report.missing.push(parameter.name.clone()),
            Some(shape) if shape == parameter.shape => report.fitting += 1,
            Some(shape) => report.misshaped.push(Mismatch {
                name: parameter.name.clone(),
                found: shape.to_vec(),
                expected: parameter.shape.clone(),
            }),
        }
    }
    let known: std::collections::HashSet<&str> = parameters
        .iter()
        .map(|parameter| parameter.name.as_str())
        .collect();
    report.unused = weights
        .names()
        .into_iter()
        .filter(|name| !known.contains(name))
        .map(str::to_owned)
        .collect();
    report
}
