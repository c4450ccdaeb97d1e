//! Which values, gradients and passing results there are, when each is born and read last: the
//! turns of a schedule, with a place in one arena for everything they touch.

use std::collections::HashMap;
use std::ops::Range;

use super::schedule::{Differentiation, Turn, Unit};
use crate::engine::cpu::plan::{Lifetime, plan};
use crate::graph::Operation;

/// A thing that needs a place.
pub(super) type Slot = usize;

/// A value that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Slot(Slot),
    /// The value of this node, which the caller gives.
    Given(usize),
}

/// Where a gradient goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Where it is written.
    pub written: Slot,
    /// What it is added to afterwards, if it is not the first.
    pub sum: Option<Slot>,
}

/// A turn with all that it touches.
#[derive(Debug)]
pub(super) enum Step {
    Run {
        unit: Unit,
        inputs: Vec<Source>,
        out: Slot,
        /// Whether its parameters are not needed in the forward kernels' form any more.
        last: bool,
    },
    Reverse {
        unit: Unit,
        /// Inputs whose values are read.
        inputs: Vec<Option<Source>>,
        /// The result's gradient.
        dy: Slot,
        /// If the result is an output: what its gradient begins with, or has added.
        seed: Option<Seed>,
        /// Gradients of the inputs.
        dinputs: Vec<Option<Target>>,
        /// Gradients of the parameters.
        dparameters: Vec<Option<Target>>,
        /// Parameters (by place) whose gradients are complete now.
        complete: Vec<(usize, Slot)>,
    },
}

/// The gradient of what is made small with respect to an output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seed {
    pub value: f32,
    /// Whether there is a gradient already.
    pub add: bool,
}

/// All steps, and the arena they work in.
#[derive(Debug)]
pub(super) struct Layout {
    pub steps: Vec<Step>,
    /// Where each slot lies.
    pub places: Vec<Range<usize>>,
    /// The slot of each of the graph's outputs.
    pub outputs: Vec<Source>,
    /// Values in the arena.
    pub size: usize,
}

/// Lays out the turns of a differentiated graph for a batch.
pub(super) fn layout(graph: &Differentiation, turns: &[Turn], images: usize) -> Layout {
    let nodes = graph.graph.nodes().len();
    let mut work = Work {
        graph,
        images,
        now: 0,
        lifetimes: Vec::new(),
        values: vec![None; nodes],
        gradients: vec![None; nodes],
        parameters: HashMap::new(),
        runs: HashMap::new(),
        reverses: HashMap::new(),
    };
    for input in graph.graph.inputs() {
        work.values[input.value.index()] = Some(Source::Given(input.value.index()));
    }
    work.count_uses(turns);
    let mut steps = Vec::with_capacity(turns.len());
    for (now, turn) in turns.iter().enumerate() {
        work.now = now;
        steps.push(match *turn {
            Turn::Run(unit) => work.run(unit),
            Turn::Reverse(unit) => work.reverse(unit),
        });
    }
    work.now = turns.len();
    let outputs = graph.graph.outputs().iter();
    let outputs = outputs
        .map(|output| work.read(output.value.index()))
        .collect();
    let plan = plan(&work.lifetimes);
    Layout {
        steps,
        places: plan.places,
        outputs,
        size: plan.size,
    }
}

struct Work<'g> {
    graph: &'g Differentiation<'g>,
    images: usize,
    now: usize,
    lifetimes: Vec<Lifetime>,
    /// The latest computation of each node's value.
    values: Vec<Option<Source>>,
    /// The gradient of each node's value, so far as it has one.
    gradients: Vec<Option<Slot>>,
    parameters: HashMap<&'g str, Slot>,
    /// How often a node's parameters (by the first one's name) are still needed forward.
    runs: HashMap<&'g str, usize>,
    /// How many terms a parameter's gradient still lacks.
    reverses: HashMap<&'g str, usize>,
}

impl<'g> Work<'g> {
    fn count_uses(&mut self, turns: &[Turn]) {
        let nodes = self.graph.graph.nodes();
        for turn in turns {
            match turn {
                Turn::Run(unit) => {
                    if let Some(first) = nodes[unit.node].parameters.first() {
                        *self.runs.entry(&first.name).or_default() += 1;
                    }
                }
                Turn::Reverse(unit) => {
                    let parameters = nodes[unit.node].parameters.iter();
                    let trained = parameters.zip(&self.graph.trained[unit.node]);
                    for (parameter, _) in trained.filter(|(_, trained)| **trained) {
                        *self.reverses.entry(&parameter.name).or_default() += 1;
                    }
                }
            }
        }
    }

    /// A new slot, written now.
    fn slot(&mut self, size: usize) -> Slot {
        self.lifetimes.push(Lifetime {
            size,
            first: self.now,
            last: self.now,
        });
        self.lifetimes.len() - 1
    }

    /// Values of a node's result, for the batch.
    fn size(&self, node: usize) -> usize {
        let node = &self.graph.graph.nodes()[node];
        let images = if node.shared { 1 } else { self.images };
        images * node.shape.size()
    }

    fn touch(&mut self, slot: Slot) -> Slot {
        self.lifetimes[slot].last = self.now;
        slot
    }

    fn read(&mut self, node: usize) -> Source {
        let source = self.values[node].expect("values are computed before they are read");
        if let Source::Slot(slot) = source {
            self.touch(slot);
        }
        source
    }

    fn run(&mut self, unit: Unit) -> Step {
        let node = &self.graph.graph.nodes()[unit.node];
        let out = self.slot(self.size(unit.result));
        let inputs = node.inputs.iter();
        let inputs = inputs.map(|input| self.read(input.index())).collect();
        self.values[unit.result] = Some(Source::Slot(out));
        let last = node.parameters.first().is_some_and(|first| {
            let runs = self.runs.get_mut(first.name.as_str());
            let runs = runs.expect("all runs are counted");
            *runs -= 1;
            *runs == 0
        });
        Step::Run {
            unit,
            inputs,
            out,
            last,
        }
    }

    fn reverse(&mut self, unit: Unit) -> Step {
        let node = &self.graph.graph.nodes()[unit.node];
        let seed = self.seed(unit.result);
        let dy = match self.gradients[unit.result] {
            Some(dy) => self.touch(dy),
            None => self.slot(self.size(unit.result)),
        };
        let inputs = (0..node.inputs.len())
            .map(|place| {
                let read = self.graph.reads_back(unit.node, place);
                read.then(|| self.read(node.inputs[place].index()))
            })
            .collect();
        let dinputs = self.input_targets(unit, dy);
        let (dparameters, complete) = self.parameter_targets(unit);
        Step::Reverse {
            unit,
            inputs,
            dy,
            seed,
            dinputs,
            dparameters,
            complete,
        }
    }

    /// Each output counts once, and is the mean over the images.
    fn seed(&self, node: usize) -> Option<Seed> {
        let outputs = self.graph.graph.outputs().iter();
        let count = outputs
            .filter(|output| output.value.index() == node)
            .count();
        (count > 0).then(|| Seed {
            value: (count as f64 / self.size(node) as f64) as f32,
            add: self.gradients[node].is_some(),
        })
    }

    fn input_targets(&mut self, unit: Unit, dy: Slot) -> Vec<Option<Target>> {
        let node = &self.graph.graph.nodes()[unit.node];
        let mut targets = Vec::with_capacity(node.inputs.len());
        for (place, input) in node.inputs.iter().enumerate() {
            let input = input.index();
            let target = if !self.graph.needed[input] {
                let size = self.size(input);
                writes_all(&node.operation).then(|| Target {
                    written: self.slot(size),
                    sum: None,
                })
            } else if place == 0 && self.passes_on(unit, input) {
                // The gradient of a sum is that of its terms: the place goes over to the first.
                self.gradients[input] = Some(dy);
                None
            } else {
                let known = self.gradients[input];
                let target = self.target(known, self.size(input));
                self.gradients[input] = target.sum.or(Some(target.written));
                Some(target)
            };
            targets.push(target);
        }
        targets
    }

    fn passes_on(&self, unit: Unit, input: usize) -> bool {
        let node = &self.graph.graph.nodes()[unit.node];
        node.operation == Operation::Add
            && self.gradients[input].is_none()
            && node.inputs[0] != node.inputs[1]
            && self.size(input) == self.size(unit.result)
    }

    fn parameter_targets(&mut self, unit: Unit) -> (Vec<Option<Target>>, Vec<(usize, Slot)>) {
        let node = &self.graph.graph.nodes()[unit.node];
        let (mut targets, mut complete) = (Vec::new(), Vec::new());
        for (place, parameter) in node.parameters.iter().enumerate() {
            let (name, size) = (parameter.name.as_str(), parameter.size());
            if !self.graph.trained[unit.node][place] {
                targets.push(writes_all(&node.operation).then(|| Target {
                    written: self.slot(size),
                    sum: None,
                }));
                continue;
            }
            let target = self.target(self.parameters.get(name).copied(), size);
            let slot = target.sum.unwrap_or(target.written);
            self.parameters.insert(name, slot);
            let lacking = self.reverses.get_mut(name).expect("all terms are counted");
            *lacking -= 1;
            if *lacking == 0 {
                complete.push((place, slot));
            }
            targets.push(Some(target));
        }
        (targets, complete)
    }

    /// Where a term of a gradient goes: the first is the gradient, others are added to it.
    fn target(&mut self, known: Option<Slot>, size: usize) -> Target {
        Target {
            written: self.slot(size),
            sum: known.map(|sum| self.touch(sum)),
        }
    }
}

/// Whether the kernel writes all gradients, wanted or not.
fn writes_all(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::GroupNorm { .. }
            | Operation::LayerNorm { .. }
            | Operation::RmsNorm { .. }
            | Operation::Attention { .. }
    )
}
