//! Splits off what is the same for all images: time biases, cross-attention keys and values.

use super::node::{Graph, Node, Operation, Output, Value};
use super::prune::keep;

/// A graph in two parts: `condition` is run once per (timestep, prompt), `main` once per image.
#[derive(Clone, Debug, PartialEq)]
pub struct Hoisted {
    /// Everything that depends on shared inputs and parameters alone. Its outputs are named
    /// `hoisted.0`, `hoisted.1`, … and are inputs of `main` under the same names.
    pub condition: Graph,
    /// The rest.
    pub main: Graph,
}

/// Splits `graph` at the border between what is shared by all images and what is not.
pub fn hoist(graph: &Graph) -> Hoisted {
    let nodes = &graph.nodes;
    let mut border: Vec<Value> = Vec::new();
    let uses = nodes
        .iter()
        .filter(|node| !node.shared)
        .flat_map(|node| node.inputs.iter().copied());
    for value in uses.chain(graph.outputs.iter().map(|output| output.value)) {
        if nodes[value.0].shared && !border.contains(&value) {
            border.push(value);
        }
    }
    border.sort();

    let name = |place: usize| format!("hoisted.{place}");
    let outputs = border.iter().enumerate();
    let outputs = outputs
        .map(|(place, &value)| Output {
            name: name(place),
            value,
        })
        .collect();
    let shared: Vec<bool> = nodes.iter().map(|node| node.shared).collect();
    let condition = keep(graph, &shared, outputs);

    let mut main = graph.clone();
    for (place, value) in border.iter().enumerate() {
        let node = &mut main.nodes[value.0];
        *node = Node {
            operation: Operation::Input(name(place)),
            inputs: Vec::new(),
            parameters: Vec::new(),
            ..node.clone()
        };
    }
    let kept: Vec<bool> = nodes
        .iter()
        .enumerate()
        .map(|(index, node)| !node.shared || border.contains(&Value(index)))
        .collect();
    let outputs = main.outputs.clone();
    Hoisted {
        condition,
        main: keep(&main, &kept, outputs),
    }
}
