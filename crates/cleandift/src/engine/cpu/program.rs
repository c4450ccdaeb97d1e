//! A graph compiled for one batch size: steps over an arena.

use std::ops::Range;
use std::time::Instant;

use super::call::Call;
use super::plan::{Lifetime, plan, split};
use super::prepare::prepared_bytes;
use super::profile::StepTime;
use super::{PreparedWeights, Processor};
use crate::graph::{Graph, Named, Node, Operation, ReadError, RunError, Tensor, find_input};

/// A graph, ready to run.
#[derive(Debug)]
pub struct Program {
    processor: Processor,
    images: usize,
    graph: Graph,
    /// Nodes that are run, in order; a group norm whose only user is a SiLU runs with it.
    steps: Vec<Step>,
    /// Where each node's value lies.
    places: Vec<Place>,
    arena: usize,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    /// The node that is computed.
    node: usize,
    /// The node whose place takes the result: another one if a SiLU is fused.
    result: usize,
}

#[derive(Clone, Debug)]
enum Place {
    /// In the arena.
    Arena(Range<usize>),
    /// Given by the caller.
    Input,
    /// Fused away.
    Nowhere,
}

/// A run that failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The inputs do not fit, or the weights cannot be read.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A tensor of the checkpoint holds a NaN or an infinity.
    #[error("`{tensor}` holds a value that is not finite ({value}): the checkpoint is damaged")]
    WeightNotFinite {
        /// The tensor.
        tensor: String,
        /// The first such value.
        value: f32,
    },
    /// Finite weights and inputs gave a NaN or an infinity.
    #[error("the values become {value} in `{node}`, although its weights are finite")]
    NotFinite {
        /// The node.
        node: String,
        /// The first such value.
        value: f32,
    },
}

impl EngineError {
    /// Whether another input may do: the weights are sound, and can be read.
    pub fn is_of_the_input(&self) -> bool {
        matches!(self, Self::NotFinite { .. })
    }
}

impl From<ReadError> for EngineError {
    fn from(error: ReadError) -> Self {
        Self::Run(error.into())
    }
}

impl Program {
    /// Compiles `graph` for batches of `images`.
    pub fn compile(processor: &Processor, graph: Graph, images: usize) -> Self {
        let steps = steps(&graph);
        let (places, arena) = place(&graph, &steps, images);
        Self {
            processor: processor.clone(),
            images,
            graph,
            steps,
            places,
            arena,
        }
    }

    /// Images of a batch.
    pub fn images(&self) -> usize {
        self.images
    }

    /// The graph behind.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Bytes of the arena that a run allocates.
    pub fn arena_bytes(&self) -> usize {
        self.arena * size_of::<f32>()
    }

    /// Bytes that the prepared weights take once all are prepared.
    pub fn weight_bytes(&self) -> usize {
        let kernels = self.processor.kernels();
        let mut seen = std::collections::HashSet::new();
        let nodes = self.graph.nodes().iter();
        nodes
            .filter(|node| {
                node.parameters
                    .first()
                    .is_some_and(|first| seen.insert(&first.name))
            })
            .map(|node| prepared_bytes(kernels, node))
            .sum()
    }

    /// Runs the program; a tensor of one image serves for the whole batch.
    ///
    /// # Errors
    /// Inputs that do not fit, weights that cannot be read, results that are not finite: then the
    /// run is repeated step by step to name the tensor or the node at fault.
    pub fn run(
        &self,
        weights: &PreparedWeights,
        inputs: &[(&str, &Tensor<f32>)],
    ) -> Result<Vec<Named<f32>>, EngineError> {
        let run = |arena: &mut [f32], check| {
            self.processor
                .install(|| self.run_steps(weights, inputs, arena, check))
        };
        self.processor.with_arena(self.arena, |arena| {
            let outputs = run(arena, false)?;
            let finite = |tensor: &Tensor<f32>| tensor.data.iter().all(|value| value.is_finite());
            match outputs.iter().all(|(_, tensor)| finite(tensor)) {
                true => Ok(outputs),
                false => run(arena, true),
            }
        })
    }

    fn run_steps(
        &self,
        weights: &PreparedWeights,
        inputs: &[(&str, &Tensor<f32>)],
        arena: &mut [f32],
        check: bool,
    ) -> Result<Vec<Named<f32>>, EngineError> {
        let nodes = self.graph.nodes();
        let given = nodes
            .iter()
            .map(|node| match &node.operation {
                Operation::Input(name) => {
                    let images = if node.shared { 1 } else { self.images };
                    find_input(inputs, name, node.shape, images).map(Some)
                }
                _ => Ok(None),
            })
            .collect::<Result<Vec<_>, _>>()?;
        for step in &self.steps {
            let node = &nodes[step.node];
            let Place::Arena(written) = &self.places[step.result] else {
                unreachable!("results lie in the arena")
            };
            let prepared = match node.parameters.first() {
                Some(_) => Some(weights.get(node)?),
                None => None,
            };
            let ranges = node.inputs.iter().map(|input| self.range(input.index()));
            let (out, mut read) = split(arena, written, &ranges.collect::<Vec<_>>());
            for (input, read) in node.inputs.iter().zip(&mut read) {
                if let Some(tensor) = given[input.index()] {
                    *read = &tensor.data;
                }
            }
            let call = Call {
                kernels: self.processor.kernels(),
                node,
                images: if node.shared { 1 } else { self.images },
                shapes: node
                    .inputs
                    .iter()
                    .map(|input| nodes[input.index()].shape)
                    .collect(),
                inputs: read,
                prepared,
                silu: step.result != step.node,
            };
            match &self.processor.profile {
                None => call.run(out),
                Some(profile) => {
                    let begun = Instant::now();
                    call.run(out);
                    let (node, time) = (step.node, begun.elapsed());
                    profile.add(StepTime { node, time });
                }
            }
            if check {
                check_finite(weights, node, out)?;
            }
        }
        let outputs = self.graph.outputs().iter().map(|output| {
            let index = output.value.index();
            let tensor = match (&self.places[index], given[index]) {
                (_, Some(tensor)) => tensor.clone(),
                (Place::Arena(range), None) => {
                    let images = if nodes[index].shared { 1 } else { self.images };
                    Tensor::new(images, nodes[index].shape, arena[range.clone()].to_vec())
                }
                _ => unreachable!("outputs are computed or given"),
            };
            (output.name.clone(), tensor)
        });
        Ok(outputs.collect())
    }

    /// The place of a value in the arena; empty if it is given by the caller.
    fn range(&self, index: usize) -> Range<usize> {
        match &self.places[index] {
            Place::Arena(range) => range.clone(),
            Place::Input | Place::Nowhere => 0..0,
        }
    }
}

/// All nodes that compute something, group norms fused with the SiLU behind them.
fn steps(graph: &Graph) -> Vec<Step> {
    let nodes = graph.nodes();
    let mut users = vec![0; nodes.len()];
    for node in nodes {
        for input in &node.inputs {
            users[input.index()] += 1;
        }
    }
    for output in graph.outputs() {
        users[output.value.index()] += 1;
    }
    let mut steps: Vec<Step> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        match node.operation {
            Operation::Input(_) => {}
            Operation::Silu if fuses(nodes, &users, node) => {
                let norm = node.inputs[0].index();
                let step = steps.iter_mut().rfind(|step| step.node == norm);
                step.expect("a norm stands before its SiLU").result = index;
            }
            _ => steps.push(Step {
                node: index,
                result: index,
            }),
        }
    }
    steps
}

fn fuses(nodes: &[Node], users: &[usize], silu: &Node) -> bool {
    let input = silu.inputs[0].index();
    users[input] == 1 && matches!(nodes[input].operation, Operation::GroupNorm { .. })
}

fn place(graph: &Graph, steps: &[Step], images: usize) -> (Vec<Place>, usize) {
    let nodes = graph.nodes();
    let mut places = vec![Place::Nowhere; nodes.len()];
    for input in graph.inputs() {
        places[input.value.index()] = Place::Input;
    }
    let mut last: Vec<usize> = vec![0; nodes.len()];
    for (time, step) in steps.iter().enumerate() {
        last[step.result] = time;
        for input in &nodes[step.node].inputs {
            last[input.index()] = time;
        }
    }
    for output in graph.outputs() {
        last[output.value.index()] = steps.len();
    }
    let lifetimes: Vec<Lifetime> = steps
        .iter()
        .enumerate()
        .map(|(time, step)| {
            let node = &nodes[step.result];
            let images = if node.shared { 1 } else { images };
            Lifetime {
                size: images * node.shape.size(),
                first: time,
                last: last[step.result],
            }
        })
        .collect();
    let plan = plan(&lifetimes);
    for (step, place) in steps.iter().zip(plan.places) {
        places[step.result] = Place::Arena(place);
    }
    (places, plan.size)
}

/// Fails if the result, or a weight that it came from, is not finite.
fn check_finite(weights: &PreparedWeights, node: &Node, out: &[f32]) -> Result<(), EngineError> {
    let bad = |values: &[f32]| values.iter().copied().find(|value| !value.is_finite());
    let Some(value) = bad(out) else { return Ok(()) };
    for parameter in &node.parameters {
        if let Some(value) = bad(&weights.source().read(&parameter.name)?) {
            return Err(EngineError::WeightNotFinite {
                tensor: parameter.name.clone(),
                value,
            });
        }
    }
    Err(EngineError::NotFinite {
        node: node.name.clone(),
        value,
    })
}
