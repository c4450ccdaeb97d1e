//! In which order a graph is run and reversed: forward, then block by block backward, each block's
//! inner values computed again before. No arithmetic, no memory.

use std::collections::HashSet;
use std::ops::Range;

use crate::graph::{Graph, Operation};

/// Nodes that run as one: a node, or a group norm with the SiLU that alone reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// The node that is computed.
    pub node: usize,
    /// The node whose value comes out.
    pub result: usize,
}

/// What is done with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Run(Unit),
    Reverse(Unit),
}

/// A graph that is differentiated with respect to some of its parameters.
pub(super) struct Differentiation<'g> {
    pub graph: &'g Graph,
    /// Of each node's parameters, whether its gradient is wanted.
    pub trained: Vec<Vec<bool>>,
    /// Whether a node's value depends on a trained parameter.
    pub needed: Vec<bool>,
}

impl<'g> Differentiation<'g> {
    pub fn new(graph: &'g Graph, trains: impl Fn(&str) -> bool) -> Self {
        let nodes = graph.nodes().iter();
        let trained: Vec<Vec<bool>> = nodes
            .map(|node| node.parameters.iter().map(|p| trains(&p.name)).collect())
            .collect();
        let mut needed: Vec<bool> = Vec::with_capacity(trained.len());
        for (node, trained) in graph.nodes().iter().zip(&trained) {
            let input = node.inputs.iter().any(|input| needed[input.index()]);
            needed.push(input || trained.contains(&true));
        }
        Self {
            graph,
            trained,
            needed,
        }
    }

    /// Whether a node's input has its value read when the node is reversed.
    pub fn reads_back(&self, node: usize, place: usize) -> bool {
        match self.graph.nodes()[node].operation {
            Operation::Convolution { .. } | Operation::Linear => self.trained[node][0],
            Operation::Input(_)
            | Operation::Constant
            | Operation::Upsample
            | Operation::Add
            | Operation::Concatenate
            | Operation::Slice { .. }
            | Operation::Affine { .. }
            | Operation::PixelUnshuffle { .. }
            | Operation::PixelShuffle { .. } => false,
            // The slope at one input is what is read of the other.
            Operation::Multiply => {
                let other = self.graph.nodes()[node].inputs[1 - place];
                self.needed[other.index()]
            }
            _ => true,
        }
    }

    /// All turns, in order.
    ///
    /// Forward, a block is run only if a later one reads of it; the others (heads and losses) are
    /// run when their turn to be reversed comes, so never twice. If `again`, a block that was run
    /// forward keeps only what others read, and what its reverse needs beside that is computed
    /// again; otherwise everything is kept.
    pub fn turns(&self, again: bool) -> Vec<Turn> {
        let blocks = self.blocks();
        let kept = self.kept(&blocks);
        let read_later = |block: &[Unit]| block.iter().any(|unit| kept.read[unit.result]);
        let mut turns = Vec::new();
        for block in blocks.iter().filter(|block| read_later(block)) {
            turns.extend(block.iter().map(|&unit| Turn::Run(unit)));
        }
        for block in blocks.iter().rev() {
            if !read_later(block) {
                turns.extend(block.iter().map(|&unit| Turn::Run(unit)));
            } else if again {
                let lost = self.lost(block, &kept);
                turns.extend(lost.into_iter().map(Turn::Run));
            }
            let reversed = block.iter().rev().filter(|unit| self.needed[unit.result]);
            turns.extend(reversed.map(|&unit| Turn::Reverse(unit)));
        }
        turns
    }

    /// The units of each block.
    fn blocks(&self) -> Vec<Vec<Unit>> {
        let nodes = self.graph.nodes();
        let users = self.users();
        let fuses = |silu: usize, block: &Range<usize>| {
            let node = &nodes[silu];
            let [norm] = node.inputs[..] else {
                return false;
            };
            let operation = &nodes[norm.index()].operation;
            node.operation == Operation::Silu
                && matches!(operation, Operation::GroupNorm { .. })
                && block.contains(&norm.index())
                && users[norm.index()] == [silu]
        };
        let units = |block: Range<usize>| {
            let mut units: Vec<Unit> = Vec::new();
            for index in block.clone() {
                match nodes[index].operation {
                    Operation::Input(_) => {}
                    _ if fuses(index, &block) => {
                        let norm = nodes[index].inputs[0].index();
                        let unit = units.iter_mut().rfind(|unit| unit.node == norm);
                        unit.expect("a norm stands before its SiLU").result = index;
                    }
                    _ => units.push(Unit {
                        node: index,
                        result: index,
                    }),
                }
            }
            units
        };
        self.graph.blocks().into_iter().map(units).collect()
    }

    /// The nodes that read each value; an output is read by nobody, in place of which stands the
    /// number of nodes.
    fn users(&self) -> Vec<Vec<usize>> {
        let nodes = self.graph.nodes();
        let mut users = vec![Vec::new(); nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            for input in &node.inputs {
                users[input.index()].push(index);
            }
        }
        for output in self.graph.outputs() {
            users[output.value.index()].push(nodes.len());
        }
        users
    }

    fn kept(&self, blocks: &[Vec<Unit>]) -> Kept {
        let nodes = self.graph.nodes();
        let mut block_of = vec![None; nodes.len()];
        for (block, units) in blocks.iter().enumerate() {
            for unit in units {
                (block_of[unit.node], block_of[unit.result]) = (Some(block), Some(block));
            }
        }
        let mut read = vec![false; nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            for input in &node.inputs {
                let input = input.index();
                read[input] |= block_of[input].is_some() && block_of[input] != block_of[index];
            }
        }
        let mut kept = read.clone();
        for output in self.graph.outputs() {
            kept[output.value.index()] = true;
        }
        for input in self.graph.inputs() {
            kept[input.value.index()] = true;
        }
        Kept { read, kept }
    }

    /// The units of a block whose values are not kept, and that its reverse needs.
    fn lost(&self, block: &[Unit], kept: &Kept) -> Vec<Unit> {
        let mut wanted: HashSet<usize> = HashSet::new();
        for unit in block.iter().filter(|unit| self.needed[unit.result]) {
            let inputs = self.graph.nodes()[unit.node].inputs.iter().enumerate();
            let read = inputs.filter(|(place, _)| self.reads_back(unit.node, *place));
            wanted.extend(read.map(|(_, input)| input.index()));
        }
        let mut lost: Vec<Unit> = Vec::new();
        for unit in block.iter().rev() {
            if wanted.contains(&unit.result) && !kept.kept[unit.result] {
                let inputs = self.graph.nodes()[unit.node].inputs.iter();
                wanted.extend(inputs.map(|input| input.index()));
                lost.push(*unit);
            }
        }
        lost.reverse();
        lost
    }
}

/// Values that outlive their block.
struct Kept {
    /// Whether another block reads the value.
    read: Vec<bool>,
    /// Whether the value is there for good: read by another block, given, or a result.
    kept: Vec<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Builder, Distance, Shape};

    /// Two blocks of a linear map, an activation and a sum, then a loss.
    fn graph() -> Graph {
        let mut b = Builder::new();
        let mut h = b.input("x", Shape::vector(2));
        for block in ["first", "second"] {
            let y = b.linear(h, block, 2);
            let y = b.silu(y);
            h = b.add(y, h);
            b.mark();
        }
        let target = b.input("target", Shape::vector(2));
        let loss = b.distance(h, target, Distance::Squared);
        b.output("loss", loss);
        b.finish()
    }

    /// Turns in words: the node's number after `run` or `reverse`.
    fn turns(trains: impl Fn(&str) -> bool, again: bool) -> String {
        let graph = graph();
        let turns = Differentiation::new(&graph, trains).turns(again);
        let words = turns.iter().map(|turn| match turn {
            Turn::Run(unit) => format!("+{}", unit.result),
            Turn::Reverse(unit) => format!("-{}", unit.result),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn blocks_are_run_again_as_far_as_their_reverse_needs() {
        // x is node 0; 1, 2, 3 and 4, 5, 6 are the blocks; 7 is the target, 8 the loss. Of a block
        // only the linear map's value is lost and read: by the SiLU.
        assert_eq!(
            turns(|_| true, true),
            "+1 +2 +3 +4 +5 +6 +8 -8 +4 -6 -5 -4 +1 -3 -2 -1"
        );
        assert_eq!(
            turns(|_| true, false),
            "+1 +2 +3 +4 +5 +6 +8 -8 -6 -5 -4 -3 -2 -1"
        );
    }

    #[test]
    fn what_is_frozen_is_not_reversed() {
        assert_eq!(
            turns(|name| name.starts_with("second"), true),
            "+1 +2 +3 +4 +5 +6 +8 -8 +4 -6 -5 -4"
        );
    }
}
