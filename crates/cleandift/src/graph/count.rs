//! Counts multiply-adds, parameters and bytes, per node and per type of layer.

use super::node::{Graph, Node, Operation};

/// The types of layer that cost something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LayerKind {
    /// 3x3 convolution, stride 1.
    Convolution3x3,
    /// 3x3 convolution, stride 2.
    StridedConvolution,
    /// 3x3 convolution right after a nearest-neighbour up-sampling.
    UpsampledConvolution,
    /// 1x1 convolution, stored as such.
    Convolution1x1,
    /// Linear map of each cell.
    Linear,
    /// Attention of a map over itself: products of queries and keys, weights and values.
    SelfAttention,
    /// Attention over other tokens.
    CrossAttention,
    /// Linear map of what all images share: time embedding, keys and values of the prompt.
    Conditioning,
    /// Everything else: norms, activations, sums; no multiply-adds are counted.
    Other,
}

impl std::fmt::Display for LayerKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Convolution3x3 => "conv 3x3, stride 1",
            Self::StridedConvolution => "conv 3x3, stride 2",
            Self::UpsampledConvolution => "conv 3x3 after nearest 2x",
            Self::Convolution1x1 => "conv 1x1",
            Self::Linear => "linear",
            Self::SelfAttention => "self-attention QK + AV",
            Self::CrossAttention => "cross-attention QK + AV",
            Self::Conditioning => "conditioning (time, prompt k/v)",
            Self::Other => "norms, activations, sums",
        })
    }
}

/// One node's figures, for one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCount {
    /// The node's place in the network.
    pub name: String,
    /// Its type.
    pub kind: LayerKind,
    /// Multiply-adds.
    pub multiply_adds: u64,
    /// Parameters it reads.
    pub parameters: u64,
    /// Values it writes.
    pub values: u64,
}

/// A graph's figures, for one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// In the graph's order.
    pub nodes: Vec<NodeCount>,
}

impl Count {
    /// Multiply-adds of one type of layer.
    pub fn multiply_adds_of(&self, kind: LayerKind) -> u64 {
        self.nodes
            .iter()
            .filter(|node| node.kind == kind)
            .map(|node| node.multiply_adds)
            .sum()
    }

    /// All multiply-adds.
    pub fn multiply_adds(&self) -> u64 {
        self.nodes.iter().map(|node| node.multiply_adds).sum()
    }

    /// All parameters read.
    pub fn parameters(&self) -> u64 {
        self.nodes.iter().map(|node| node.parameters).sum()
    }
}

/// Counts a graph. A convolution is counted directly: cells x outputs x inputs x kernel².
pub fn count(graph: &Graph) -> Count {
    let nodes = graph.nodes.iter().map(|node| {
        let (kind, multiply_adds) = cost(graph, node);
        NodeCount {
            name: node.name.clone(),
            kind,
            multiply_adds: multiply_adds as u64,
            parameters: node
                .parameters
                .iter()
                .map(|parameter| parameter.size() as u64)
                .sum(),
            values: node.shape.size() as u64,
        }
    });
    Count {
        nodes: nodes.collect(),
    }
}

fn cost(graph: &Graph, node: &Node) -> (LayerKind, usize) {
    match node.operation {
        Operation::Convolution { kernel, stride, .. } => {
            let input = graph.node(node.inputs[0]);
            let kind = match (kernel, stride, &input.operation) {
                (1, ..) => LayerKind::Convolution1x1,
                (_, 1, Operation::Upsample) => LayerKind::UpsampledConvolution,
                (_, 1, _) => LayerKind::Convolution3x3,
                _ => LayerKind::StridedConvolution,
            };
            (
                kind,
                node.shape.size() * input.shape.channels * kernel * kernel,
            )
        }
        Operation::Linear => {
            let kind = if node.shared {
                LayerKind::Conditioning
            } else {
                LayerKind::Linear
            };
            (
                kind,
                node.shape.size() * graph.node(node.inputs[0]).shape.channels,
            )
        }
        Operation::Attention { .. } => {
            let [query, key] = [node.inputs[0], node.inputs[1]].map(|value| graph.node(value));
            let kind = if query.inputs == key.inputs {
                LayerKind::SelfAttention
            } else {
                LayerKind::CrossAttention
            };
            (kind, 2 * query.shape.size() * key.shape.cells())
        }
        _ => (LayerKind::Other, 0),
    }
}
