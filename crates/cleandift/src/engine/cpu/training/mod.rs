//! Training: a graph run forth and back on the processor's kernels.
//!
//! * `schedule` says in which order nodes are run, run again and reversed;
//! * `memory` finds what lives how long, and so a place in one arena for everything: values,
//!   gradients of values, gradients of parameters;
//! * `reverse` runs one node's way back on its kernels, `moves` those that only move values;
//! * `carve` cuts the arena for a step.
//!
//! Gradients of a value that several nodes read are added in the order in which the nodes are
//! reversed, which depends on the graph alone.

mod carve;
mod memory;
mod moves;
mod reverse;
mod schedule;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cleandift_kernels::Normalisation;

use carve::carve;
use memory::{Layout, Seed, Source, Step, Target, layout};
use reverse::{Reverse, Slice, Stored};
use schedule::{Differentiation, Unit};

use super::call::Call;
use super::fuse::form;
use super::prepare::Prepared;
use super::{Arithmetic, EngineError, PreparedWeights, Processor};
use crate::graph::{
    Graph, Named, Node, Operation, Parameters, RunError, Shape, Tensor, find_input, prune,
};

/// What is kept between the way forth and the way back. The gradients' bits are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recompute {
    /// Between [blocks](Graph::blocks) only what one hands to another; the rest is computed again,
    /// as far as it is needed.
    Blocks,
    /// Everything is kept: less time, much more memory.
    Nothing,
}

/// On which way a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is computed, perhaps again.
    Forward,
    /// Its gradients are.
    Backward,
}

/// A graph of losses, compiled to be run and differentiated.
///
/// What is differentiated is the sum of all outputs, each the mean over the images of the batch.
#[derive(Debug)]
pub struct TrainingProgram {
    processor: Processor,
    images: usize,
    graph: Graph,
    layout: Layout,
}

impl TrainingProgram {
    /// Compiles `graph` for batches of `images`, to be differentiated with respect to the
    /// parameters whose names `trains` accepts. What only frozen parameters and inputs depend on
    /// is not differentiated, and costs nothing.
    ///
    /// # Panics
    /// If an output is not one number per image.
    pub fn compile(
        processor: &Processor,
        graph: &Graph,
        images: usize,
        trains: impl Fn(&str) -> bool,
        recompute: Recompute,
    ) -> Self {
        let outputs: Vec<&str> = graph.outputs().iter().map(|o| o.name.as_str()).collect();
        let graph = prune(graph, &outputs).expect("a graph has its own outputs");
        for output in graph.outputs() {
            let shape = graph.node(output.value).shape;
            assert_eq!(shape, Shape::vector(1), "`{}` is no loss", output.name);
        }
        let differentiation = Differentiation::new(&graph, trains);
        let turns = differentiation.turns(recompute == Recompute::Blocks);
        let layout = layout(&differentiation, &turns, images);
        Self {
            processor: processor.clone(),
            images,
            layout,
            graph,
        }
    }

    /// Bytes of the arena that a run needs: values and gradients, those of parameters too.
    pub fn arena_bytes(&self) -> usize {
        self.layout.size * size_of::<f32>()
    }

    /// Runs forth and back and returns the outputs, `[image]` each.
    ///
    /// `sink` gets each trained parameter's name and gradient, in the layout that it is stored in,
    /// as soon as the gradient is complete, in an order that depends on the graph alone. The
    /// parameter is not read again in this run: the sink may change it in the store at once, and
    /// the gradient is gone afterwards. The store is read as it goes; nothing that was read or lent
    /// is kept beyond its last use.
    ///
    /// # Errors
    /// Inputs that do not fit, parameters that cannot be read, losses that are not finite.
    pub fn run(
        &self,
        parameters: &Arc<dyn Parameters>,
        inputs: &[(&str, &Tensor<f32>)],
        sink: &mut (dyn FnMut(&str, &[f32]) + Send),
    ) -> Result<Vec<Named<f32>>, EngineError> {
        self.run_observed(parameters, inputs, sink, &mut |_, _, _| ())
    }

    /// As [`TrainingProgram::run`]; `observer` gets each node, its phase and the time it took.
    pub fn run_observed(
        &self,
        parameters: &Arc<dyn Parameters>,
        inputs: &[(&str, &Tensor<f32>)],
        sink: &mut (dyn FnMut(&str, &[f32]) + Send),
        observer: &mut (dyn FnMut(&Node, Phase, Duration) + Send),
    ) -> Result<Vec<Named<f32>>, EngineError> {
        let nodes = self.graph.nodes().iter();
        let given = nodes
            .map(|node| match &node.operation {
                Operation::Input(name) => self.given(inputs, name, node),
                _ => Ok(&[][..]),
            })
            .collect::<Result<Vec<_>, RunError>>()?;
        let prepared = PreparedWeights::of_changing(Arc::clone(parameters), &self.processor);
        let run = Run {
            program: self,
            given,
            prepared: &prepared,
        };
        self.processor.with_arena(self.layout.size, |arena| {
            self.processor.install(|| run.steps(arena, sink, observer))
        })
    }

    /// An input's values: there must be as many images as the batch has.
    fn given<'t>(
        &self,
        inputs: &'t [(&str, &'t Tensor<f32>)],
        name: &str,
        node: &Node,
    ) -> Result<&'t [f32], RunError> {
        let expected = self.images_of(node);
        let tensor = find_input(inputs, name, node.shape, expected)?;
        if tensor.images != expected {
            return Err(RunError::InputImages {
                name: name.to_owned(),
                found: tensor.images,
                expected,
            });
        }
        Ok(&tensor.data)
    }

    fn images_of(&self, node: &Node) -> usize {
        if node.shared { 1 } else { self.images }
    }
}

/// A run under way.
struct Run<'r> {
    program: &'r TrainingProgram,
    /// The inputs' values, by node.
    given: Vec<&'r [f32]>,
    prepared: &'r PreparedWeights,
}

impl Run<'_> {
    fn steps(
        &self,
        arena: &mut [f32],
        sink: &mut (dyn FnMut(&str, &[f32]) + Send),
        observer: &mut (dyn FnMut(&Node, Phase, Duration) + Send),
    ) -> Result<Vec<Named<f32>>, EngineError> {
        let layout = &self.program.layout;
        let mut stored = Stored::new(self.prepared.source());
        for step in &layout.steps {
            let start = Instant::now();
            let (unit, phase) = match step {
                Step::Run { unit, .. } => {
                    self.forward(step, arena)?;
                    (unit, Phase::Forward)
                }
                Step::Reverse { unit, .. } => {
                    self.backward(step, arena, &mut stored)?;
                    (unit, Phase::Backward)
                }
            };
            let node = &self.program.graph.nodes()[unit.node];
            observer(node, phase, start.elapsed());
            if let Step::Reverse { complete, .. } = step {
                for &(place, slot) in complete {
                    let gradient = &arena[layout.places[slot].clone()];
                    sink(&node.parameters[place].name, gradient);
                }
            }
        }
        self.outputs(arena)
    }

    fn forward(&self, step: &Step, arena: &mut [f32]) -> Result<(), EngineError> {
        let Step::Run {
            unit,
            inputs,
            out,
            last,
        } = step
        else {
            unreachable!("the step is forward")
        };
        let node = &self.program.graph.nodes()[unit.node];
        let form = form(node, false);
        let prepared = match node.parameters.first() {
            Some(_) => Some(self.prepared.get(node, form)?),
            None => None,
        };
        let read: Vec<Range<usize>> = inputs.iter().map(|&source| self.place(source)).collect();
        let (mut out, mut read) = carve(arena, &[self.slot(*out)], &read);
        for (read, &source) in read.iter_mut().zip(inputs) {
            if let Source::Given(node) = source {
                *read = self.given[node];
            }
        }
        let call = Call {
            kernels: self.program.processor.kernels(),
            arithmetic: Arithmetic::F32,
            node,
            images: self.program.images_of(node),
            shapes: self.shapes(node),
            norm: self.normalisation(unit, read.first().copied(), prepared.as_deref()),
            inputs: read,
            prepared,
            form,
            vector: None,
            residual: None,
        };
        call.run(None, out[0]);
        if *last {
            self.prepared.release(node, form);
        }
        Ok(())
    }

    /// A group norm of `x`, if the unit is one.
    fn normalisation(
        &self,
        unit: &Unit,
        x: Option<&[f32]>,
        prepared: Option<&Prepared>,
    ) -> Option<Normalisation> {
        let node = &self.program.graph.nodes()[unit.node];
        let Operation::GroupNorm { groups, epsilon } = node.operation else {
            return None;
        };
        let stack = cleandift_kernels::Shape {
            images: self.program.images_of(node),
            pixels: node.shape.cells(),
            channels: node.shape.channels,
        };
        let moments = self.program.processor.kernels().moments(x?, stack);
        let (epsilon, silu) = (epsilon as f32, unit.result != unit.node);
        let affine = prepared?.pair();
        let norm = Normalisation::new(&moments, stack.pixels, groups, epsilon, affine, silu);
        Some(norm)
    }

    fn backward(
        &self,
        step: &Step,
        arena: &mut [f32],
        stored: &mut Stored,
    ) -> Result<(), EngineError> {
        let Step::Reverse {
            unit,
            inputs,
            dy,
            seed,
            dinputs,
            dparameters,
            ..
        } = step
        else {
            unreachable!("the step is backward")
        };
        if let Some(seed) = seed {
            plant(seed, &mut arena[self.slot(*dy)]);
        }
        let targets = || dinputs.iter().chain(dparameters);
        let place = |target: &Option<Target>| target.map_or(0..0, |t| self.slot(t.written));
        let written: Vec<Range<usize>> = targets().map(place).collect();
        let read = inputs
            .iter()
            .map(|source| source.map_or(0..0, |s| self.place(s)));
        let read: Vec<Range<usize>> = read.chain([self.slot(*dy)]).collect();
        let (written, mut read) = carve(arena, &written, &read);
        let dy = read.pop().expect("the result's gradient is read last");
        for (read, source) in read.iter_mut().zip(inputs) {
            if let Some(Source::Given(node)) = source {
                *read = self.given[*node];
            }
        }
        let slices = targets()
            .zip(written)
            .map(|(t, slice)| t.is_some().then_some(slice));
        let mut slices: Vec<Slice> = slices.collect();
        let (of_inputs, of_parameters) = slices.split_at_mut(dinputs.len());
        self.reverse(unit, read, dy)
            .run(stored, of_inputs, of_parameters)?;
        for target in targets().flatten() {
            if let Some(sum) = target.sum {
                let (mut sum, term) = carve(arena, &[self.slot(sum)], &[self.slot(target.written)]);
                self.program.processor.kernels().accumulate(term[0], sum[0]);
            }
        }
        Ok(())
    }

    fn reverse<'c>(&'c self, unit: &Unit, inputs: Vec<&'c [f32]>, dy: &'c [f32]) -> Reverse<'c> {
        let node = &self.program.graph.nodes()[unit.node];
        Reverse {
            kernels: self.program.processor.kernels(),
            node,
            silu: unit.result != unit.node,
            images: self.program.images_of(node),
            shapes: self.shapes(node),
            inputs,
            dy,
        }
    }

    fn outputs(&self, arena: &[f32]) -> Result<Vec<Named<f32>>, EngineError> {
        let graph = &self.program.graph;
        let outputs = graph.outputs().iter().zip(&self.program.layout.outputs);
        outputs
            .map(|(output, &source)| {
                let node = graph.node(output.value);
                let values = match source {
                    Source::Given(node) => self.given[node],
                    Source::Slot(slot) => &arena[self.slot(slot)],
                };
                if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
                    let node = output.name.clone();
                    return Err(EngineError::NotFinite { node, value });
                }
                let images = self.program.images_of(node);
                let tensor = Tensor::new(images, node.shape, values.to_vec());
                Ok((output.name.clone(), tensor))
            })
            .collect()
    }

    /// The inputs' shapes, per image.
    fn shapes(&self, node: &Node) -> Vec<Shape> {
        let nodes = self.program.graph.nodes();
        let inputs = node.inputs.iter();
        inputs.map(|input| nodes[input.index()].shape).collect()
    }

    fn slot(&self, slot: memory::Slot) -> Range<usize> {
        self.program.layout.places[slot].clone()
    }

    /// The place of a value in the arena; empty if the caller gives it.
    fn place(&self, source: Source) -> Range<usize> {
        match source {
            Source::Slot(slot) => self.slot(slot),
            Source::Given(_) => 0..0,
        }
    }
}

/// Begins a gradient, or adds to it, with that of an output.
fn plant(seed: &Seed, gradient: &mut [f32]) {
    for gradient in gradient {
        *gradient = if seed.add {
            *gradient + seed.value
        } else {
            seed.value
        };
    }
}
