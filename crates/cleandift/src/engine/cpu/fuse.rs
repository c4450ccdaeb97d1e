//! Turns a graph into steps: which nodes run as one kernel call, and by which algorithm.
//!
//! Three patterns pay, and all are recognised here, so that networks stay composed of small nodes:
//! a group norm and SiLU (and a doubling of the map) before a convolution, applied while it reads; a
//! vector and a map added behind it, while it writes; and the sums that a group norm needs, gathered
//! by the convolution that writes what it will norm.

use crate::graph::{Graph, Node, Operation, Padding, Shape};
use cleandift_kernels::Winograd;

/// One kernel call.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The node that is computed.
    pub node: usize,
    /// The node whose value the result is: the last one that is fused.
    pub result: usize,
    /// The form that the kernel wants its parameters in.
    pub form: Form,
    /// The values that are read: the node's inputs, the first before what is fused in front.
    pub inputs: Vec<usize>,
    /// A group norm that is applied to the first input.
    pub norm: Option<Norm>,
    /// A vector that is added to each cell of the result.
    pub vector: Option<usize>,
    /// A value that is added to the result.
    pub residual: Option<usize>,
    /// Whether the moments of the result are wanted.
    pub gathers: bool,
}

impl Step {
    /// All values that are read: inputs, then the vector, then the residual.
    pub(super) fn read(&self) -> impl Iterator<Item = usize> + '_ {
        let added = self.vector.into_iter().chain(self.residual);
        self.inputs.iter().copied().chain(added)
    }
}

/// A group norm in front of a step, or a step itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Norm {
    pub node: usize,
    /// Whether a SiLU follows.
    pub silu: bool,
}

/// The form that a kernel wants its parameters in; with it, the algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// As packed rows, for products: linear maps and direct convolution.
    Matrix { kernel: usize },
    /// The same, for Winograd's algorithms on small maps.
    Small(Winograd),
    /// Transformed, for Winograd's algorithms on large maps, or on any with few weights.
    Large(Winograd),
    /// As stored.
    Plain,
}

/// Cells of a convolution's result from which on its weights are kept transformed, in four times
/// the memory. Below, where a network has its widest layers, they are transformed on the way.
const LARGE_CELLS: usize = 64 * 64;
/// Weights of a tap up to which they are kept transformed for any map: a few megabytes.
const FEW_WEIGHTS: usize = 256 * 256;
/// Inputs from which on Winograd's algorithms pay.
const WINOGRAD_INPUTS: usize = 16;
/// Sides up to which a map is one tile of F(2x2).
const TINY_SIDE: usize = 2;

/// The shipped choice: it depends on the shapes of one image alone, so that the bits are the same
/// for any batch.
pub(super) fn form(node: &Node, doubles: bool) -> Form {
    let Shape { height, width, .. } = node.shape;
    match node.operation {
        Operation::Convolution {
            kernel: 3,
            stride: 1,
            padding: Padding::Same,
        } if node.parameters[0].shape[1] >= WINOGRAD_INPUTS => {
            let weights = node.parameters[0].shape[0] * node.parameters[0].shape[1];
            let kind = match doubles {
                true => Winograd::Upsampled,
                false if height.max(width) <= TINY_SIDE => Winograd::Two,
                false => Winograd::Four,
            };
            match height * width >= LARGE_CELLS || weights <= FEW_WEIGHTS {
                true => Form::Large(kind),
                false => Form::Small(kind),
            }
        }
        Operation::Convolution { kernel, .. } => Form::Matrix { kernel },
        Operation::Linear => Form::Matrix { kernel: 1 },
        _ => Form::Plain,
    }
}

/// All nodes that compute something, in an order in which each finds its inputs.
pub(super) fn steps(graph: &Graph) -> Vec<Step> {
    let mut fusion = Fusion::new(graph);
    let mut steps: Vec<Step> = Vec::new();
    for index in 0..graph.nodes().len() {
        let computes = !matches!(graph.nodes()[index].operation, Operation::Input(_));
        if computes && !fusion.taken[index] && !fusion.is_read_by_a_convolution(index) {
            steps.push(fusion.step(index));
        }
    }
    // A step stands where the last of its nodes stood: all that it reads is computed by then.
    steps.sort_by_key(|step| step.result);
    steps
}

struct Fusion<'g> {
    graph: &'g Graph,
    /// Of each value: the nodes that read it, and one more if it is an output.
    users: Vec<usize>,
    /// Of each value: the last node that reads it.
    user: Vec<Option<usize>>,
    /// Nodes that are fused into another one's step.
    taken: Vec<bool>,
}

impl<'g> Fusion<'g> {
    fn new(graph: &'g Graph) -> Self {
        let nodes = graph.nodes();
        let mut users = vec![0; nodes.len()];
        let mut user = vec![None; nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            for input in &node.inputs {
                users[input.index()] += 1;
                user[input.index()] = Some(index);
            }
        }
        for output in graph.outputs() {
            users[output.value.index()] += 1;
            user[output.value.index()] = None;
        }
        Self {
            graph,
            users,
            user,
            taken: vec![false; nodes.len()],
        }
    }

    fn node(&self, index: usize) -> &'g Node {
        &self.graph.nodes()[index]
    }

    /// The only node that reads a value.
    fn only_user(&self, value: usize) -> Option<usize> {
        self.user[value].filter(|_| self.users[value] == 1)
    }

    /// What a value is computed from, if it is of the wanted kind and nothing else reads it.
    fn alone(&self, value: usize, wanted: impl Fn(&Operation) -> bool) -> Option<usize> {
        let node = self.node(value);
        let alone = self.only_user(value).is_some() && wanted(&node.operation);
        alone.then(|| node.inputs[0].index())
    }

    /// What a convolution by Winograd's algorithms reads before what is fused in front of it: the
    /// value, the norm, and whether the map is doubled.
    fn front(&self, convolution: usize) -> (usize, Option<Norm>, bool) {
        let node = self.node(convolution);
        let mut value = node.inputs[0].index();
        if matches!(form(node, false), Form::Matrix { .. } | Form::Plain) {
            return (value, None, false);
        }
        let small = self.alone(value, |operation| *operation == Operation::Upsample);
        let doubled = small.filter(|small| {
            let (from, to) = (self.node(*small).shape, node.shape);
            [2 * from.height, 2 * from.width] == [to.height, to.width]
        });
        value = doubled.unwrap_or(value);
        let activated = self.alone(value, |operation| *operation == Operation::Silu);
        let normed = activated.unwrap_or(value);
        let is_norm = |operation: &Operation| matches!(operation, Operation::GroupNorm { .. });
        match self.alone(normed, is_norm) {
            Some(source) => {
                let norm = Norm {
                    node: normed,
                    silu: activated.is_some(),
                };
                (source, Some(norm), doubled.is_some())
            }
            None => (value, None, doubled.is_some()),
        }
    }

    /// Whether a node is fused in front of a convolution that comes later.
    fn is_read_by_a_convolution(&self, index: usize) -> bool {
        let mut last = index;
        while let Some(user) = self.only_user(last) {
            match self.node(user).operation {
                Operation::Silu | Operation::Upsample => last = user,
                Operation::Convolution { .. } => {
                    let (source, ..) = self.front(user);
                    let mut value = self.node(user).inputs[0].index();
                    while value != source {
                        if value == index {
                            return true;
                        }
                        value = self.node(value).inputs[0].index();
                    }
                    return false;
                }
                _ => return false,
            }
        }
        false
    }

    fn step(&mut self, index: usize) -> Step {
        let node = self.node(index);
        let mut step = Step {
            node: index,
            result: index,
            form: form(node, false),
            inputs: node.inputs.iter().map(|input| input.index()).collect(),
            norm: None,
            vector: None,
            residual: None,
            gathers: false,
        };
        match node.operation {
            Operation::Convolution { .. } => {
                let (source, norm, doubles) = self.front(index);
                step.inputs[0] = source;
                step.norm = norm;
                step.form = form(node, doubles);
                self.add_behind(&mut step);
            }
            Operation::Linear => self.add_behind(&mut step),
            Operation::GroupNorm { .. } => {
                let silu = self
                    .only_user(index)
                    .filter(|user| self.node(*user).operation == Operation::Silu);
                step.norm = Some(Norm {
                    node: index,
                    silu: silu.is_some(),
                });
                self.take(&mut step, silu);
            }
            _ => {}
        }
        let gathers = matches!(step.form, Form::Small(_) | Form::Large(_));
        step.gathers = gathers && self.is_normed(step.result);
        step
    }

    /// Makes `last` the last node of a step.
    fn take(&mut self, step: &mut Step, last: Option<usize>) {
        if let Some(last) = last {
            self.taken[last] = true;
            step.result = last;
        }
    }

    /// Fuses additions: of a vector, where the kernel is a convolution of Winograd's, and of a map.
    fn add_behind(&mut self, step: &mut Step) {
        while let Some(user) = self.only_user(step.result) {
            let add = self.node(user);
            let of_an_image = add.shared == self.node(step.node).shared;
            if add.operation != Operation::Add || !of_an_image || self.taken[user] {
                return;
            }
            let is_result = |value: &usize| *value == step.result;
            let operands: Vec<usize> = add.inputs.iter().map(|input| input.index()).collect();
            let Some(&other) = operands.iter().find(|value| !is_result(value)) else {
                return;
            };
            let (shape, of_other) = (self.node(step.result).shape, self.node(other).shape);
            let shared = self.node(other).shared && !self.node(step.result).shared;
            let takes_vectors = matches!(step.form, Form::Small(_) | Form::Large(_));
            if of_other == shape && step.residual.is_none() && !shared {
                step.residual = Some(other);
            } else if of_other == Shape::vector(shape.channels)
                && takes_vectors
                && step.vector.is_none()
            {
                step.vector = Some(other);
            } else {
                return;
            }
            self.take(step, Some(user));
        }
    }

    /// Whether a group norm reads a value.
    fn is_normed(&self, value: usize) -> bool {
        self.graph.nodes().iter().any(|node| {
            matches!(node.operation, Operation::GroupNorm { .. }) && node.inputs[0].index() == value
        })
    }
}
