//! Keeps of a graph what the wanted results need: stopping early is removing dead code.

use super::node::{Graph, Output, Value};

/// A wanted result that the graph does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the network has no output `{0}`")]
pub struct UnknownOutput(pub String);

/// The part of `graph` that computes the outputs `wanted`, in the order they are asked for.
/// Inputs that no wanted result depends on go as well.
pub fn prune<S: AsRef<str>>(graph: &Graph, wanted: &[S]) -> Result<Graph, UnknownOutput> {
    let outputs = wanted
        .iter()
        .map(|name| {
            let name = name.as_ref();
            let value = graph
                .output(name)
                .ok_or_else(|| UnknownOutput(name.to_owned()))?;
            Ok(Output {
                name: name.to_owned(),
                value,
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut needed = vec![false; graph.nodes.len()];
    for output in &outputs {
        needed[output.value.0] = true;
    }
    for index in (0..graph.nodes.len()).rev() {
        if needed[index] {
            for input in &graph.nodes[index].inputs {
                needed[input.0] = true;
            }
        }
    }
    Ok(keep(graph, &needed, outputs))
}

/// The graph of the nodes marked in `kept`, renumbered.
pub(super) fn keep(graph: &Graph, kept: &[bool], outputs: Vec<Output>) -> Graph {
    let mut renumbered = vec![Value(usize::MAX); graph.nodes.len()];
    let mut nodes = Vec::new();
    for (index, node) in graph
        .nodes
        .iter()
        .enumerate()
        .filter(|(index, _)| kept[*index])
    {
        let mut node = node.clone();
        for input in &mut node.inputs {
            *input = renumbered[input.0];
        }
        renumbered[index] = Value(nodes.len());
        nodes.push(node);
    }
    let outputs = outputs
        .into_iter()
        .map(|output| Output {
            value: renumbered[output.value.0],
            ..output
        })
        .collect();
    let mut marks: Vec<usize> = graph.marks.iter().map(|&mark| before(kept, mark)).collect();
    marks.dedup();
    marks.retain(|&mark| mark > 0 && mark < nodes.len());
    Graph {
        nodes,
        outputs,
        marks,
    }
}

/// How many nodes before `end` are kept.
fn before(kept: &[bool], end: usize) -> usize {
    kept[..end].iter().filter(|&&kept| kept).count()
}
