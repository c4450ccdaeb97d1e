//! The kinds of operation, and the graph that holds them.

use std::ops::Range;

/// The shape of one image's value: `[row][column][channel]`. A sequence of tokens is a map of one
/// row; a vector is a map of one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Values per cell.
    pub channels: usize,
}

impl Shape {
    /// A map of `height` rows, `width` columns and `channels` values per cell.
    pub const fn map(height: usize, width: usize, channels: usize) -> Self {
        Self {
            height,
            width,
            channels,
        }
    }

    /// A sequence of `tokens` vectors.
    pub const fn tokens(tokens: usize, channels: usize) -> Self {
        Self::map(1, tokens, channels)
    }

    /// One vector.
    pub const fn vector(channels: usize) -> Self {
        Self::map(1, 1, channels)
    }

    /// Cells: pixels or tokens.
    pub const fn cells(self) -> usize {
        self.height * self.width
    }

    /// Values.
    pub const fn size(self) -> usize {
        self.cells() * self.channels
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}, {}, {}]", self.height, self.width, self.channels)
    }
}

/// The result of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(super) usize);

impl Value {
    /// The node's place in [`Graph::nodes`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// How a convolution is padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// `(kernel - 1) / 2` on all sides.
    Same,
    /// One column on the right and one row at the bottom: the down-samplers of SD's auto-encoder.
    RightBottom,
}

/// How far a map is from the one it shall become: what training makes small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distance {
    /// Minus the cosine similarity of each cell, `x·y / (max(|x|, 1e-8) max(|y|, 1e-8))`, mean
    /// over the cells.
    Cosine,
    /// The squared difference, mean over all values.
    Squared,
    /// The absolute difference, mean over all values.
    Absolute,
}

impl Distance {
    /// The least norm that a cell is divided by in [`Distance::Cosine`].
    pub const LEAST_NORM: f64 = 1e-8;
}

/// What a node computes. Channels are the last axis throughout.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// A value given from outside, by name.
    Input(String),
    /// A parameter as a value: parameters `[value]`.
    Constant,
    /// Convolution with a square kernel of 1 or 3. Parameters: weight `[out, in, k, k]`, bias.
    Convolution {
        /// 1 or 3.
        kernel: usize,
        /// 1 or 2.
        stride: usize,
        /// Zeros around the input.
        padding: Padding,
    },
    /// Nearest-neighbour resizing to the node's shape: source index `floor(i * in / out)`.
    Upsample,
    /// A linear map of each cell. Parameters: weight `[out, in]` and, if there is one, bias.
    Linear,
    /// Scaled dot-product attention of inputs (query, key, value), softmax over all keys.
    Attention {
        /// Heads; the head size is channels / heads, the scale its inverse square root.
        heads: usize,
        /// Whether a query sees only keys up to its own place.
        causal: bool,
    },
    /// Normalisation over the cells and the channels of each group. Parameters: weight, bias.
    GroupNorm {
        /// Groups of channels.
        groups: usize,
        /// Added to the variance.
        epsilon: f64,
    },
    /// Normalisation of each cell over its channels. Parameters: weight, bias.
    LayerNorm {
        /// Added to the variance.
        epsilon: f64,
    },
    /// `x * scale / sqrt(mean(x²) + epsilon)` over the channels of each cell; inputs (x, scale),
    /// where the scale is one vector.
    RmsNorm {
        /// Added to the mean square.
        epsilon: f64,
    },
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * Φ(x)`, with the exact error function.
    Gelu,
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
    /// Halves the channels: `value * gelu(gate)`, the first half is the value.
    GatedGelu,
    /// Halves the channels: `value * silu(gate)`, the first half is the value.
    GatedSilu,
    /// The sum of two values; the second may be one vector, added to every cell.
    Add,
    /// The product of two values; the second may be one vector, applied to every cell.
    Multiply,
    /// The inputs' channels, one after the other.
    Concatenate,
    /// Channels `from .. from + channels` of the input.
    Slice {
        /// The first channel kept.
        from: usize,
    },
    /// `factor * x + shift`, with constants.
    Affine {
        /// Multiplied, per channel or one for all.
        factor: Vec<f64>,
        /// Added afterwards, per channel or one for all.
        shift: Vec<f64>,
    },
    /// Rows of a table, chosen by the input's values (whole numbers, `[1, n, 1]`). Parameter:
    /// table `[rows, channels]` or, giving `tokens` cells per row, `[rows, tokens, channels]`.
    Embedding,
    /// The sinusoidal embedding of the input (one number): `[cos(t w), sin(t w)]` with
    /// `w_i = 10000^(-i / half)`.
    TimeFeatures,
    /// `[cos(2 pi x W), sin(2 pi x W)]` of the input (one number). Parameter: W `[half, 1]`.
    FourierFeatures,
    /// Blocks of `factor`² pixels into channels, in (channel, row, column) order.
    PixelUnshuffle {
        /// Side of a block.
        factor: usize,
    },
    /// The inverse of [`Operation::PixelUnshuffle`].
    PixelShuffle {
        /// Side of a block.
        factor: usize,
    },
    /// The distance of two maps of the same shape, one number.
    Distance(Distance),
}

/// A parameter that a node needs: its name in the checkpoint and its shape there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The checkpoint's name, e.g. `conv_in.weight`.
    pub name: String,
    /// Shape in PyTorch's order.
    pub shape: Vec<usize>,
}

impl Parameter {
    /// The number of its values.
    pub fn size(&self) -> usize {
        self.shape.iter().product()
    }
}

/// One operation with its inputs and the shape of its result.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What is computed.
    pub operation: Operation,
    /// Earlier nodes' results.
    pub inputs: Vec<Value>,
    /// What it needs from the checkpoint, in the operation's order.
    pub parameters: Vec<Parameter>,
    /// The result's shape, per image.
    pub shape: Shape,
    /// Where in the network this is, e.g. `up_blocks.1.resnets.0.conv1`; for reports.
    pub name: String,
    /// Whether the result is the same for all images of a batch.
    pub shared: bool,
}

/// An input of a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input<'g> {
    /// Its name.
    pub name: &'g str,
    /// Its value.
    pub value: Value,
}

/// A named result of a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its name: for a U-Net's taps the module path, e.g. `up_blocks.1.upsamplers.0`.
    pub name: String,
    /// The node that computes it.
    pub value: Value,
}

/// A network as a list of operations, each after its inputs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) outputs: Vec<Output>,
    /// The nodes that begin a block, ascending, other than the first.
    pub(super) marks: Vec<usize>,
}

impl Graph {
    /// All operations; inputs of a node stand before it.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The named results.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// The blocks that the network is made of, as ranges of [`Graph::nodes`]: together they are
    /// all nodes, and none is empty. Training may keep what passes between blocks alone, and
    /// compute the rest of a block again when its turn comes.
    pub fn blocks(&self) -> Vec<Range<usize>> {
        let starts = std::iter::once(0).chain(self.marks.iter().copied());
        let ends = self.marks.iter().copied().chain([self.nodes.len()]);
        let blocks = starts.zip(ends).map(|(start, end)| start..end);
        blocks.filter(|block| !block.is_empty()).collect()
    }

    /// The node behind a value.
    pub fn node(&self, value: Value) -> &Node {
        &self.nodes[value.0]
    }

    /// The named result, if there is one.
    pub fn output(&self, name: &str) -> Option<Value> {
        self.outputs
            .iter()
            .find(|output| output.name == name)
            .map(|output| output.value)
    }

    /// All values that are given from outside.
    pub fn inputs(&self) -> impl Iterator<Item = Input<'_>> {
        self.nodes
            .iter()
            .enumerate()
            .filter_map(|(index, node)| match &node.operation {
                Operation::Input(name) => Some(Input {
                    name,
                    value: Value(index),
                }),
                _ => None,
            })
    }

    /// All parameters, in the order of their first use, each once.
    pub fn parameters(&self) -> Vec<&Parameter> {
        let mut seen = std::collections::HashSet::new();
        self.nodes
            .iter()
            .flat_map(|node| &node.parameters)
            .filter(|parameter| seen.insert(parameter.name.as_str()))
            .collect()
    }
}
