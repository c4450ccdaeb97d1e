//! A graph compiled for one batch size: steps over an arena.

use std::ops::Range;
use std::time::Instant;

use cleandift_kernels::{Moments, Normalisation};

use super::call::Call;
use super::fuse::{Form, Norm, Step, steps};
use super::plan::{Lifetime, plan, split};
use super::prepare::prepared_bytes;
use super::profile::StepTime;
use super::{PreparedWeights, Processor};
use crate::graph::{Graph, Named, Node, Operation, ReadError, RunError, Shape, Tensor, find_input};

/// A graph, ready to run.
#[derive(Debug)]
pub struct Program {
    processor: Processor,
    images: usize,
    graph: Graph,
    /// What is run, in order.
    steps: Vec<Step>,
    /// Where each node's value lies.
    places: Vec<Place>,
    arena: usize,
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
        self.bytes_of_weights(true).sum()
    }

    /// Bytes that they take if each is dropped after its step: those of the largest.
    pub fn largest_weight_bytes(&self) -> usize {
        self.bytes_of_weights(false).max().unwrap_or(0)
    }

    fn bytes_of_weights(&self, are_kept: bool) -> impl Iterator<Item = usize> {
        let mut seen = std::collections::HashSet::new();
        let nodes = self.graph.nodes();
        let computed = self.steps.iter().map(|step| (step.node, step.form));
        let norms = self.steps.iter().filter_map(|step| step.norm);
        computed
            .chain(norms.map(|norm| (norm.node, Form::Plain)))
            .filter(move |(node, _)| {
                let first = nodes[*node].parameters.first();
                first.is_some_and(|first| seen.insert(&first.name))
            })
            .map(move |(node, form)| prepared_bytes(&self.processor, &nodes[node], form, are_kept))
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
        let mut moments: Vec<Option<Moments>> = vec![None; nodes.len()];
        for step in &self.steps {
            let begun = self.processor.profile.as_ref().map(|_| Instant::now());
            let node = &nodes[step.node];
            let Place::Arena(written) = &self.places[step.result] else {
                unreachable!("results lie in the arena")
            };
            let values: Vec<usize> = step.read().collect();
            let ranges: Vec<_> = values.iter().map(|value| self.range(*value)).collect();
            let (out, mut read) = split(arena, written, &ranges);
            for (value, read) in values.iter().zip(&mut read) {
                if let Some(tensor) = given[*value] {
                    *read = &tensor.data;
                }
            }
            let (inputs, added) = read.split_at(step.inputs.len());
            let mut added = added.iter().copied();
            let images = if node.shared { 1 } else { self.images };
            let norm = match step.norm {
                Some(norm) => {
                    let source = step.inputs[0];
                    let known = moments[source].as_ref();
                    let shape = nodes[source].shape;
                    Some(self.normalisation(weights, norm, (inputs[0], shape, images), known)?)
                }
                None => None,
            };
            let channels = node.shape.channels;
            let mut gathered = step.gathers.then(|| Moments::new(images, channels));
            let prepared = match node.parameters.first() {
                Some(_) if !matches!(node.operation, Operation::GroupNorm { .. }) => {
                    Some(weights.get(node, step.form)?)
                }
                _ => None,
            };
            let call = Call {
                kernels: self.processor.kernels(),
                arithmetic: self.processor.precision().arithmetic,
                node,
                form: step.form,
                images,
                shapes: step
                    .inputs
                    .iter()
                    .map(|value| nodes[*value].shape)
                    .collect(),
                inputs: inputs.to_vec(),
                prepared,
                norm,
                vector: step.vector.and_then(|_| added.next()),
                residual: step.residual.and_then(|_| added.next()),
            };
            call.run(gathered.as_mut(), out);
            drop(call);
            if !node.parameters.is_empty() {
                weights.used(node, step.form);
            }
            if let Some(norm) = step.norm {
                weights.used(&nodes[norm.node], Form::Plain);
            }
            moments[step.result] = gathered;
            if let (Some(profile), Some(begun)) = (&self.processor.profile, begun) {
                let (node, time) = (step.node, begun.elapsed());
                profile.add(StepTime { node, time });
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

    /// A group norm of the images of `x`, from the moments that are known of them.
    fn normalisation(
        &self,
        weights: &PreparedWeights,
        norm: Norm,
        (x, shape, images): (&[f32], Shape, usize),
        known: Option<&Moments>,
    ) -> Result<Normalisation, ReadError> {
        let node = &self.graph.nodes()[norm.node];
        let Operation::GroupNorm { groups, epsilon } = node.operation else {
            unreachable!("only group norms are fused")
        };
        let prepared = weights.get(node, Form::Plain)?;
        let stack = cleandift_kernels::Shape {
            images,
            pixels: shape.cells(),
            channels: shape.channels,
        };
        let computed = match known {
            Some(_) => None,
            None => Some(self.processor.kernels().moments(x, stack)),
        };
        let moments = known.or(computed.as_ref()).expect("known or computed");
        let affine = prepared.pair();
        let (pixels, epsilon) = (stack.pixels, epsilon as f32);
        Ok(Normalisation::new(
            moments, pixels, groups, epsilon, affine, norm.silu,
        ))
    }

    /// The place of a value in the arena; empty if it is given by the caller.
    fn range(&self, index: usize) -> Range<usize> {
        match &self.places[index] {
            Place::Arena(range) => range.clone(),
            Place::Input | Place::Nowhere => 0..0,
        }
    }
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
        for value in step.read() {
            last[value] = time;
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
