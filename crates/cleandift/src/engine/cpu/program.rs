//! A graph compiled for one batch size: steps over an arena.

use std::ops::Range;
use std::sync::Arc;

use cleandift_kernels::{Attention, Convolution, Gate, Kernels};

use super::plan::{Lifetime, plan, split};
use super::prepare::{Prepared, prepared_bytes};
use super::{PreparedWeights, Processor, moves};
use crate::graph::{
    Graph, Named, Node, Operation, Padding, ReadError, RunError, Shape, Tensor, find_input,
};

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
        let outputs = self
            .processor
            .install(|| self.run_steps(weights, inputs, false))?;
        if outputs
            .iter()
            .all(|(_, tensor)| tensor.data.iter().all(|value| value.is_finite()))
        {
            return Ok(outputs);
        }
        self.processor
            .install(|| self.run_steps(weights, inputs, true))
    }

    fn run_steps(
        &self,
        weights: &PreparedWeights,
        inputs: &[(&str, &Tensor<f32>)],
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
        let mut arena = vec![0.0f32; self.arena];
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
            let (out, mut read) = split(&mut arena, written, &ranges.collect::<Vec<_>>());
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
            call.run(out);
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

/// One kernel call.
struct Call<'c> {
    kernels: &'static Kernels,
    node: &'c Node,
    images: usize,
    shapes: Vec<Shape>,
    inputs: Vec<&'c [f32]>,
    prepared: Option<Arc<Prepared>>,
    silu: bool,
}

impl Call<'_> {
    fn run(&self, out: &mut [f32]) {
        let (kernels, shape) = (self.kernels, self.node.shape);
        let x = || self.inputs[0];
        match &self.node.operation {
            Operation::Input(_) => unreachable!("inputs are given"),
            Operation::Constant => out.copy_from_slice(&self.plain()[0]),
            Operation::Convolution {
                kernel,
                stride,
                padding,
            } => {
                self.convolution(*kernel, *stride, *padding, out);
            }
            Operation::Linear => {
                let (weight, bias) = self.matrix();
                kernels.product(x(), weight, bias, out);
            }
            Operation::Attention { heads, causal } => self.attention(*heads, *causal, out),
            Operation::GroupNorm { groups, epsilon } => {
                let [weight, bias] = self.pair();
                let epsilon = *epsilon as f32;
                kernels.group_norm(
                    x(),
                    self.stack(),
                    *groups,
                    epsilon,
                    weight,
                    bias,
                    self.silu,
                    out,
                );
            }
            Operation::LayerNorm { epsilon } => {
                let [weight, bias] = self.pair();
                kernels.layer_norm(x(), weight, bias, *epsilon as f32, out);
            }
            Operation::RmsNorm { epsilon } => {
                let scale = self.inputs[1];
                kernels.rms_norm(x(), self.stack(), scale, *epsilon as f32, out);
            }
            Operation::Silu => kernels.silu(x(), out),
            Operation::Gelu => kernels.gelu(x(), out),
            Operation::QuickGelu => kernels.quick_gelu(x(), out),
            Operation::GatedGelu => kernels.gated(x(), shape.channels, Gate::Gelu, out),
            Operation::GatedSilu => kernels.gated(x(), shape.channels, Gate::Silu, out),
            Operation::Add => kernels.add(x(), self.stack(), self.inputs[1], out),
            _ => self.each_image(out, |node, inputs, out| self.movement(node, inputs, out)),
        }
    }

    fn movement(&self, node: &Node, inputs: &[&[f32]], out: &mut [f32]) {
        let (from, to) = (self.shapes[0], node.shape);
        let x = inputs[0];
        match &node.operation {
            Operation::Multiply => moves::multiply(x, inputs[1], to.channels, out),
            Operation::Concatenate => {
                moves::concatenate(x, from.channels, inputs[1], self.shapes[1].channels, out);
            }
            Operation::Slice { from: first } => {
                moves::slice(x, from.channels, *first, to.channels, out);
            }
            Operation::Affine { factor, shift } => {
                moves::affine(x, to.channels, factor, shift, out);
            }
            Operation::Upsample => moves::upsample(x, from, to, out),
            Operation::Embedding => {
                let table = &self.plain()[0];
                moves::embedding(x, table, table.len() / node.parameters[0].shape[0], out);
            }
            Operation::TimeFeatures => moves::time_features(x[0], out),
            Operation::FourierFeatures => moves::fourier_features(x[0], &self.plain()[0], out),
            Operation::PixelUnshuffle { factor } => moves::pixel_unshuffle(x, from, *factor, out),
            Operation::PixelShuffle { factor } => moves::pixel_shuffle(x, to, *factor, out),
            other => unreachable!("{other:?} has a kernel"),
        }
    }

    /// Calls `f` with each image's part of the inputs and of the result. An input that all images
    /// share is passed to each.
    fn each_image(&self, out: &mut [f32], f: impl Fn(&Node, &[&[f32]], &mut [f32])) {
        for (image, out) in out.chunks_exact_mut(self.node.shape.size()).enumerate() {
            let part = |(input, shape): (&&'_ [f32], &Shape)| -> Range<usize> {
                let size = shape.size();
                if input.len() == size {
                    0..size
                } else {
                    image * size..(image + 1) * size
                }
            };
            let inputs: Vec<&[f32]> = self
                .inputs
                .iter()
                .zip(&self.shapes)
                .map(|pair| &pair.0[part(pair)])
                .collect();
            f(self.node, &inputs, out);
        }
    }

    fn convolution(&self, kernel: usize, stride: usize, padding: Padding, out: &mut [f32]) {
        let (weight, bias) = self.matrix();
        let from = self.shapes[0];
        let padding = match padding {
            Padding::Same => cleandift_kernels::Padding::all((kernel - 1) / 2),
            Padding::RightBottom => cleandift_kernels::Padding {
                top: 0,
                left: 0,
                bottom: 1,
                right: 1,
            },
        };
        let geometry = Convolution {
            images: self.images,
            height: from.height,
            width: from.width,
            stride,
            padding,
        };
        self.kernels
            .convolution(self.inputs[0], &geometry, weight, bias, out);
    }

    fn attention(&self, heads: usize, causal: bool, out: &mut [f32]) {
        let (queries, keys) = (self.shapes[0], self.shapes[1]);
        let shape = Attention {
            images: 1,
            queries: queries.cells(),
            keys: keys.cells(),
            heads,
            head_size: queries.channels / heads,
            causal,
        };
        self.each_image(out, |_, inputs, out| {
            self.kernels
                .attention(&shape, inputs[0], inputs[1], inputs[2], out);
        });
    }

    /// The result's shape, for kernels that work on a whole batch.
    fn stack(&self) -> cleandift_kernels::Shape {
        let Shape { channels, .. } = self.node.shape;
        cleandift_kernels::Shape {
            images: self.images,
            pixels: self.node.shape.cells(),
            channels,
        }
    }

    fn matrix(&self) -> (&cleandift_kernels::PackedMatrix, Option<&[f32]>) {
        match self.prepared.as_deref() {
            Some(Prepared::Matrix { weight, bias }) => (weight, bias.as_deref()),
            _ => unreachable!("convolutions and linear maps have matrices"),
        }
    }

    fn plain(&self) -> &[Vec<f32>] {
        match self.prepared.as_deref() {
            Some(Prepared::Plain(values)) => values,
            _ => unreachable!("the operation has plain parameters"),
        }
    }

    fn pair(&self) -> [&[f32]; 2] {
        let values = self.plain();
        [&values[0], &values[1]]
    }
}
