//! Builds a graph, one operation a call; shapes are derived, so a network reads like its figure.

use super::node::{Distance, Graph, Node, Operation, Output, Padding, Parameter, Shape, Value};

/// Builds a [`Graph`].
///
/// The calls take the module path under which the checkpoint keeps the operation's parameters.
/// They panic when shapes do not fit: that is a fault of the network's function, never of a file.
#[derive(Debug, Default)]
pub struct Builder {
    graph: Graph,
}

impl Builder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// The graph as built so far.
    pub fn finish(self) -> Graph {
        self.graph
    }

    /// The shape of a value.
    pub fn shape(&self, value: Value) -> Shape {
        self.graph.nodes[value.0].shape
    }

    /// The value that has been named as a result of the graph, if there is one.
    pub fn find_output(&self, name: &str) -> Option<Value> {
        self.graph.output(name)
    }

    /// Names a value as a result of the graph.
    pub fn output(&mut self, name: impl Into<String>, value: Value) {
        self.graph.outputs.push(Output {
            name: name.into(),
            value,
        });
    }

    /// Ends a block, if it is not empty: see [`Graph::blocks`].
    pub fn mark(&mut self) {
        let end = self.graph.nodes.len();
        if end > self.graph.marks.last().copied().unwrap_or(0) {
            self.graph.marks.push(end);
        }
    }

    /// A value given per image.
    pub fn input(&mut self, name: &str, shape: Shape) -> Value {
        self.given(name, shape, false)
    }

    /// A value that is the same for all images of a batch.
    pub fn shared_input(&mut self, name: &str, shape: Shape) -> Value {
        self.given(name, shape, true)
    }

    fn given(&mut self, name: &str, shape: Shape, shared: bool) -> Value {
        self.graph.nodes.push(Node {
            operation: Operation::Input(name.to_owned()),
            inputs: Vec::new(),
            parameters: Vec::new(),
            shape,
            name: name.to_owned(),
            shared,
        });
        Value(self.graph.nodes.len() - 1)
    }

    fn push(
        &mut self,
        operation: Operation,
        inputs: &[Value],
        parameters: Vec<Parameter>,
        shape: Shape,
        name: &str,
    ) -> Value {
        let shared = inputs.iter().all(|input| self.graph.nodes[input.0].shared);
        self.graph.nodes.push(Node {
            operation,
            inputs: inputs.to_vec(),
            parameters,
            shape,
            name: name.to_owned(),
            shared,
        });
        Value(self.graph.nodes.len() - 1)
    }

    /// An operation without parameters, named after its (first) input.
    fn plain(&mut self, operation: Operation, inputs: &[Value], shape: Shape) -> Value {
        let name = self.graph.nodes[inputs[0].0].name.clone();
        self.push(operation, inputs, Vec::new(), shape, &name)
    }

    /// A parameter used as a value, stored with the shape `stored`.
    pub fn constant(&mut self, name: &str, stored: &[usize], shape: Shape) -> Value {
        assert_eq!(stored.iter().product::<usize>(), shape.size(), "{name}");
        self.push(
            Operation::Constant,
            &[],
            vec![parameter(name, stored)],
            shape,
            name,
        )
    }

    /// A convolution, stride 1, that keeps the extent; `kernel` is 1 or 3.
    pub fn convolution(&mut self, x: Value, name: &str, channels: usize, kernel: usize) -> Value {
        self.strided_convolution(x, name, channels, kernel, 1, Padding::Same)
    }

    /// A convolution with a stride and a rule of padding.
    pub fn strided_convolution(
        &mut self,
        x: Value,
        name: &str,
        channels: usize,
        kernel: usize,
        stride: usize,
        padding: Padding,
    ) -> Value {
        assert!(kernel == 1 || kernel == 3, "{name}: kernel {kernel}");
        let input = self.shape(x);
        let around = match padding {
            Padding::Same => kernel - 1,
            Padding::RightBottom => 1,
        };
        let side = |n: usize| (n + around - kernel) / stride + 1;
        let shape = Shape::map(side(input.height), side(input.width), channels);
        let parameters = vec![
            parameter(
                &format!("{name}.weight"),
                &[channels, input.channels, kernel, kernel],
            ),
            parameter(&format!("{name}.bias"), &[channels]),
        ];
        let operation = Operation::Convolution {
            kernel,
            stride,
            padding,
        };
        self.push(operation, &[x], parameters, shape, name)
    }

    /// Nearest-neighbour resizing to `height` rows and `width` columns.
    pub fn upsample(&mut self, x: Value, height: usize, width: usize) -> Value {
        let shape = Shape::map(height, width, self.shape(x).channels);
        self.plain(Operation::Upsample, &[x], shape)
    }

    /// A linear map of each cell, with a bias.
    pub fn linear(&mut self, x: Value, name: &str, channels: usize) -> Value {
        self.linear_map(x, name, channels, true)
    }

    /// A linear map of each cell, without a bias.
    pub fn projection(&mut self, x: Value, name: &str, channels: usize) -> Value {
        self.linear_map(x, name, channels, false)
    }

    fn linear_map(&mut self, x: Value, name: &str, channels: usize, bias: bool) -> Value {
        let input = self.shape(x);
        let mut parameters = vec![parameter(
            &format!("{name}.weight"),
            &[channels, input.channels],
        )];
        if bias {
            parameters.push(parameter(&format!("{name}.bias"), &[channels]));
        }
        self.push(
            Operation::Linear,
            &[x],
            parameters,
            Shape { channels, ..input },
            name,
        )
    }

    /// Attention of `query` over `key` and `value`.
    pub fn attention(
        &mut self,
        [query, key, value]: [Value; 3],
        name: &str,
        heads: usize,
        causal: bool,
    ) -> Value {
        let shape = self.shape(query);
        assert_eq!(self.shape(key), self.shape(value), "{name}");
        assert_eq!(shape.channels, self.shape(key).channels, "{name}");
        assert_eq!(shape.channels % heads, 0, "{name}: {heads} heads");
        let operation = Operation::Attention { heads, causal };
        self.push(operation, &[query, key, value], Vec::new(), shape, name)
    }

    /// Normalisation over groups of channels.
    pub fn group_norm(&mut self, x: Value, name: &str, groups: usize, epsilon: f64) -> Value {
        assert_eq!(
            self.shape(x).channels % groups,
            0,
            "{name}: {groups} groups"
        );
        self.norm(x, name, Operation::GroupNorm { groups, epsilon })
    }

    /// Normalisation of each cell.
    pub fn layer_norm(&mut self, x: Value, name: &str, epsilon: f64) -> Value {
        self.norm(x, name, Operation::LayerNorm { epsilon })
    }

    fn norm(&mut self, x: Value, name: &str, operation: Operation) -> Value {
        let shape = self.shape(x);
        let parameters = vec![
            parameter(&format!("{name}.weight"), &[shape.channels]),
            parameter(&format!("{name}.bias"), &[shape.channels]),
        ];
        self.push(operation, &[x], parameters, shape, name)
    }

    /// Root-mean-square normalisation of each cell, times the vector `scale`.
    pub fn rms_norm(&mut self, x: Value, scale: Value, name: &str, epsilon: f64) -> Value {
        let shape = self.shape(x);
        assert_eq!(self.shape(scale), Shape::vector(shape.channels), "{name}");
        self.push(
            Operation::RmsNorm { epsilon },
            &[x, scale],
            Vec::new(),
            shape,
            name,
        )
    }

    /// An activation: [`Operation::Silu`], [`Operation::Gelu`] or [`Operation::QuickGelu`].
    pub fn activation(&mut self, x: Value, operation: Operation) -> Value {
        let shape = self.shape(x);
        self.plain(operation, &[x], shape)
    }

    /// `x * sigmoid(x)`.
    pub fn silu(&mut self, x: Value) -> Value {
        self.activation(x, Operation::Silu)
    }

    /// A gated product: [`Operation::GatedGelu`] or [`Operation::GatedSilu`].
    pub fn gated(&mut self, x: Value, operation: Operation) -> Value {
        let shape = self.shape(x);
        assert_eq!(shape.channels % 2, 0);
        self.plain(
            operation,
            &[x],
            Shape {
                channels: shape.channels / 2,
                ..shape
            },
        )
    }

    /// The sum of two values, of which the second may be a vector.
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        self.cellwise(Operation::Add, a, b)
    }

    /// The product of two values, of which the second may be a vector.
    pub fn multiply(&mut self, a: Value, b: Value) -> Value {
        self.cellwise(Operation::Multiply, a, b)
    }

    fn cellwise(&mut self, operation: Operation, a: Value, b: Value) -> Value {
        let shape = self.shape(a);
        let vector = Shape::vector(shape.channels);
        assert!(self.shape(b) == shape || self.shape(b) == vector);
        self.plain(operation, &[a, b], shape)
    }

    /// Channels of `a`, then channels of `b`.
    pub fn concatenate(&mut self, a: Value, b: Value) -> Value {
        let (left, right) = (self.shape(a), self.shape(b));
        assert_eq!((left.height, left.width), (right.height, right.width));
        let shape = Shape {
            channels: left.channels + right.channels,
            ..left
        };
        self.plain(Operation::Concatenate, &[a, b], shape)
    }

    /// Channels `from .. from + channels`.
    pub fn slice(&mut self, x: Value, from: usize, channels: usize) -> Value {
        let shape = self.shape(x);
        assert!(from + channels <= shape.channels);
        self.plain(Operation::Slice { from }, &[x], Shape { channels, ..shape })
    }

    /// `factor * x + shift`, per channel or one for all.
    pub fn affine(&mut self, x: Value, factor: &[f64], shift: &[f64]) -> Value {
        let shape = self.shape(x);
        for constants in [factor, shift] {
            assert!(constants.len() == 1 || constants.len() == shape.channels);
        }
        let operation = Operation::Affine {
            factor: factor.to_vec(),
            shift: shift.to_vec(),
        };
        self.plain(operation, &[x], shape)
    }

    /// Rows of the table `name`, stored with the shape `stored` (`[rows, channels]` or
    /// `[rows, tokens, channels]`), chosen by the values of `indices` (`[1, n, 1]`).
    pub fn embedding(&mut self, indices: Value, name: &str, stored: &[usize]) -> Value {
        let shape = self.shape(indices);
        assert_eq!((shape.height, shape.channels), (1, 1), "{name}");
        let (tokens, channels) = match *stored {
            [_, channels] => (1, channels),
            [_, tokens, channels] => (tokens, channels),
            _ => panic!("{name}: a table has two or three axes"),
        };
        let shape = Shape::tokens(shape.width * tokens, channels);
        self.push(
            Operation::Embedding,
            &[indices],
            vec![parameter(name, stored)],
            shape,
            name,
        )
    }

    /// The sinusoidal embedding of a timestep (one number) in `channels` values.
    pub fn time_features(&mut self, timestep: Value, channels: usize) -> Value {
        assert_eq!(self.shape(timestep), Shape::vector(1));
        self.plain(
            Operation::TimeFeatures,
            &[timestep],
            Shape::vector(channels),
        )
    }

    /// Fourier features of one number, with the frequencies `name` (stored `[half, 1]`).
    pub fn fourier_features(&mut self, x: Value, name: &str, half: usize) -> Value {
        assert_eq!(self.shape(x), Shape::vector(1));
        let parameters = vec![parameter(name, &[half, 1])];
        self.push(
            Operation::FourierFeatures,
            &[x],
            parameters,
            Shape::vector(2 * half),
            name,
        )
    }

    /// Blocks of `factor`² pixels into channels.
    pub fn pixel_unshuffle(&mut self, x: Value, factor: usize) -> Value {
        let s = self.shape(x);
        assert_eq!((s.height % factor, s.width % factor), (0, 0));
        let shape = Shape::map(
            s.height / factor,
            s.width / factor,
            s.channels * factor * factor,
        );
        self.plain(Operation::PixelUnshuffle { factor }, &[x], shape)
    }

    /// Channels back into blocks of `factor`² pixels.
    pub fn pixel_shuffle(&mut self, x: Value, factor: usize) -> Value {
        let s = self.shape(x);
        assert_eq!(s.channels % (factor * factor), 0);
        let shape = Shape::map(
            s.height * factor,
            s.width * factor,
            s.channels / (factor * factor),
        );
        self.plain(Operation::PixelShuffle { factor }, &[x], shape)
    }

    /// How far `x` is from `target`, one number.
    pub fn distance(&mut self, x: Value, target: Value, distance: Distance) -> Value {
        assert_eq!(self.shape(x), self.shape(target));
        let operation = Operation::Distance(distance);
        self.plain(operation, &[x, target], Shape::vector(1))
    }
}

fn parameter(name: &str, shape: &[usize]) -> Parameter {
    Parameter {
        name: name.to_owned(),
        shape: shape.to_vec(),
    }
}
