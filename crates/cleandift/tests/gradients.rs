//! The reference's way back: every operation against central differences.

use cleandift::checkpoint::Weights;
use cleandift::graph::{
    Builder, Distance, Graph, Named, Operation, Padding, Shape, Tensor, Value, reference,
};
use cleandift::networks::random;

/// Images in a batch.
const IMAGES: usize = 2;
/// What a value is moved by.
const STEP: f64 = 1.0 / 1024.0;
/// What all values are multiples of, so that they are moved exactly, in f32 too.
const GRAIN: f64 = 1.0 / 65536.0;

fn rounded(value: f64) -> f64 {
    (value / GRAIN).round() * GRAIN
}

/// Values between -1.5 and 1.5 without a pattern, the same in every run.
fn wave(images: usize, shape: Shape, seed: f64) -> Tensor<f64> {
    let values = (0..images * shape.size()).map(|i| 1.5 * ((i as f64 + seed) * 12.9898).sin());
    Tensor::new(images, shape, values.map(rounded).collect())
}

/// A graph of one operation, its parameters, inputs and the seed of its output.
struct Case {
    graph: Graph,
    parameters: Vec<(String, Vec<usize>, Vec<f32>)>,
    inputs: Vec<Named<f64>>,
    seed: Tensor<f64>,
}

impl Case {
    fn new(build: impl FnOnce(&mut Builder) -> Value) -> Self {
        let mut b = Builder::new();
        let y = build(&mut b);
        b.output("y", y);
        let graph = b.finish();
        let parameters = graph.parameters().into_iter().map(|parameter| {
            let values = random::values(parameter, 5).into_iter();
            let values = values.map(|value| rounded(f64::from(value)) as f32);
            let (name, shape) = (parameter.name.clone(), parameter.shape.clone());
            (name, shape, values.collect())
        });
        let inputs = graph.inputs().enumerate().map(|(place, input)| {
            let node = graph.node(input.value);
            let images = if node.shared { 1 } else { IMAGES };
            let values = wave(images, node.shape, place as f64 * 0.7);
            (input.name.to_owned(), values)
        });
        let output = graph.node(graph.output("y").unwrap());
        let images = if output.shared { 1 } else { IMAGES };
        Self {
            parameters: parameters.collect(),
            inputs: inputs.collect(),
            seed: wave(images, output.shape, 0.3),
            graph,
        }
    }

    fn weights(&self) -> Weights {
        Weights::from_memory("random", self.parameters.iter().cloned())
    }

    /// The seeds times the output.
    fn value(&self) -> f64 {
        let inputs: Vec<(&str, &Tensor<f64>)> =
            self.inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let outputs = reference::run(&self.graph, &self.weights(), &inputs).unwrap();
        let terms = outputs[0].1.data.iter().zip(&self.seed.data);
        terms.map(|(y, seed)| y * seed).sum()
    }

    /// The slope of [`Case::value`] along one value, which `place` finds: central differences at
    /// one and two steps, whose leading errors cancel.
    fn slope(&mut self, mut place: impl FnMut(&mut Self) -> Moved<'_>) -> f64 {
        let start = place(self).get();
        let mut at = |steps: f64| {
            place(self).set(start + steps * STEP);
            self.value()
        };
        let slope = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * STEP);
        place(self).set(start);
        slope
    }

    fn check(mut self, label: &str) {
        let inputs: Vec<(&str, &Tensor<f64>)> =
            self.inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let found =
            reference::gradients(&self.graph, &self.weights(), &inputs, &[("y", &self.seed)])
                .unwrap();
        let close = |name: &str, found: f64, slope: f64| {
            let error = (found - slope).abs();
            assert!(
                error < 1e-6 * slope.abs().max(1.0),
                "{label}, {name}: {found} instead of {slope}"
            );
        };
        for (place, (name, gradient)) in found.inputs.iter().enumerate() {
            for (i, &gradient) in gradient.data.iter().enumerate() {
                let slope = self.slope(|case| Moved::Input(&mut case.inputs[place].1.data[i]));
                close(name, gradient, slope);
            }
        }
        for (place, (name, gradient)) in found.parameters.iter().enumerate() {
            assert_eq!(*name, self.parameters[place].0);
            for (i, &gradient) in gradient.iter().enumerate() {
                let slope = self.slope(|case| Moved::Parameter(&mut case.parameters[place].2[i]));
                close(name, gradient, slope);
            }
        }
    }
}

/// A value that is moved.
enum Moved<'c> {
    Input(&'c mut f64),
    Parameter(&'c mut f32),
}

impl Moved<'_> {
    fn get(&self) -> f64 {
        match self {
            Self::Input(value) => **value,
            Self::Parameter(value) => f64::from(**value),
        }
    }

    fn set(&mut self, to: f64) {
        match self {
            Self::Input(value) => **value = to,
            Self::Parameter(value) => **value = to as f32,
        }
    }
}

fn check(label: &str, build: impl FnOnce(&mut Builder) -> Value) {
    Case::new(build).check(label);
}

/// An operation on one map.
fn check_map(label: &str, shape: Shape, build: impl FnOnce(&mut Builder, Value) -> Value) {
    check(label, |b| {
        let x = b.input("x", shape);
        build(b, x)
    });
}

#[test]
fn convolutions_and_linear_maps() {
    let map = Shape::map(5, 4, 3);
    check_map("1x1", map, |b, x| b.convolution(x, "c", 2, 1));
    check_map("3x3", map, |b, x| b.convolution(x, "c", 2, 3));
    for padding in [Padding::Same, Padding::RightBottom] {
        check_map("stride 2", map, |b, x| {
            b.strided_convolution(x, "c", 2, 3, 2, padding)
        });
    }
    check_map("linear", map, |b, x| b.linear(x, "l", 4));
    check_map("projection", map, |b, x| b.projection(x, "l", 4));
}

#[test]
fn norms() {
    let map = Shape::map(3, 2, 6);
    check_map("group norm", map, |b, x| b.group_norm(x, "n", 3, 1e-5));
    check_map("layer norm", map, |b, x| b.layer_norm(x, "n", 1e-5));
    check("rms norm, a scale for each image", |b| {
        let x = b.input("x", map);
        let scale = b.input("scale", Shape::vector(6));
        b.rms_norm(x, scale, "n", 1e-6)
    });
    check("rms norm, a scale for all", |b| {
        let x = b.input("x", map);
        let scale = b.constant("n.scale", &[6], Shape::vector(6));
        b.rms_norm(x, scale, "n", 1e-6)
    });
}

#[test]
fn attention_over_itself_over_others_and_causal() {
    for (keys, causal) in [(4, false), (3, false), (5, true)] {
        check("attention", |b| {
            let query = b.input("query", Shape::tokens(4, 6));
            let key = b.input("key", Shape::tokens(keys, 6));
            let value = b.input("value", Shape::tokens(keys, 6));
            b.attention([query, key, value], "a", 2, causal)
        });
    }
    check("keys that are values, and shared", |b| {
        let query = b.input("query", Shape::tokens(4, 6));
        let key = b.shared_input("key", Shape::tokens(3, 6));
        b.attention([query, key, key], "a", 2, false)
    });
}

#[test]
fn activations_and_gates() {
    let map = Shape::map(2, 3, 4);
    for operation in [Operation::Silu, Operation::Gelu, Operation::QuickGelu] {
        check_map("activation", map, |b, x| b.activation(x, operation));
    }
    for operation in [Operation::GatedGelu, Operation::GatedSilu] {
        check_map("gate", map, |b, x| b.gated(x, operation));
    }
}

#[test]
fn sums_and_products() {
    let map = Shape::map(2, 3, 4);
    type Cellwise = fn(&mut Builder, Value, Value) -> Value;
    for operation in [Builder::add as Cellwise, Builder::multiply] {
        for shape in [map, Shape::vector(4)] {
            check("of two", |b| {
                let x = b.input("x", map);
                let y = b.input("y", shape);
                operation(b, x, y)
            });
            check("with a shared one", |b| {
                let x = b.input("x", map);
                let y = b.shared_input("y", shape);
                operation(b, x, y)
            });
        }
        check_map("with itself", map, |b, x| operation(b, x, x));
    }
}

#[test]
fn what_moves_and_scales() {
    let map = Shape::map(4, 2, 4);
    check_map("upsample", map, |b, x| b.upsample(x, 7, 5));
    check("concatenate", |b| {
        let x = b.input("x", map);
        let y = b.input("y", Shape::map(4, 2, 3));
        b.concatenate(x, y)
    });
    check_map("slice", map, |b, x| b.slice(x, 1, 2));
    check_map("affine", map, |b, x| b.affine(x, &[0.7], &[0.2]));
    let factors = [0.7, -1.3, 0.2, 2.0];
    check_map("affine by channel", map, |b, x| {
        b.affine(x, &factors, &factors)
    });
    check_map("unshuffle", map, |b, x| b.pixel_unshuffle(x, 2));
    check_map("shuffle", map, |b, x| b.pixel_shuffle(x, 2));
}

#[test]
fn embeddings_of_numbers_and_indices() {
    let number = Shape::vector(1);
    check_map("time", number, |b, x| b.time_features(x, 10));
    check_map("fourier", number, |b, x| b.fourier_features(x, "f", 5));
    for table in [vec![4, 3], vec![4, 2, 3]] {
        let mut case = Case::new(|b| {
            let indices = b.input("indices", Shape::tokens(3, 1));
            b.embedding(indices, "table", &table)
        });
        // An index is cut off to a whole number, so moving it a little changes nothing.
        case.inputs[0].1.data = vec![2.5, 0.5, 2.5, 3.5, 1.5, 1.5];
        case.check("embedding");
    }
}

#[test]
fn distances() {
    for distance in [Distance::Cosine, Distance::Squared, Distance::Absolute] {
        check("distance", |b| {
            let x = b.input("x", Shape::map(2, 3, 4));
            let target = b.input("target", Shape::map(2, 3, 4));
            b.distance(x, target, distance)
        });
    }
}

/// Worked by hand: a vector shorter than the least norm is divided by that, and the target too.
#[test]
fn the_cosine_of_almost_nothing() {
    let mut b = Builder::new();
    let x = b.input("x", Shape::vector(2));
    let target = b.input("target", Shape::vector(2));
    let distance = b.distance(x, target, Distance::Cosine);
    b.output("y", distance);
    let graph = b.finish();
    let vector = |values: [f64; 2]| Tensor::new(1, Shape::vector(2), values.to_vec());
    let (x, target) = (vector([3e-9, 4e-9]), vector([0.0, 2.0]));
    let seed = Tensor::new(1, Shape::vector(1), vec![1.0]);
    let none = Weights::from_memory("none", []);
    let inputs = [("x", &x), ("target", &target)];
    let found = reference::gradients(&graph, &none, &inputs, &[("y", &seed)]).unwrap();
    let close = |found: f64, expected: f64| (found - expected).abs() <= 1e-12 * expected.abs();
    // 4e-9 * 2 / (1e-8 * 2)
    assert!(close(found.outputs[0].1.data[0], -0.4));
    let dx = &found.inputs[0].1.data;
    assert!(dx[0] == 0.0 && close(dx[1], -1e8), "{dx:?}");
    // Moving the target along itself changes nothing, across it 3e-9 / (1e-8 * 2).
    let dtarget = &found.inputs[1].1.data;
    assert!(
        close(dtarget[0], -0.15) && dtarget[1].abs() < 1e-12,
        "{dtarget:?}"
    );
}

#[test]
fn a_parameter_that_two_operations_use_has_the_sum() {
    check_map("shared parameter", Shape::map(2, 2, 3), |b, x| {
        let y = b.linear(x, "l", 3);
        let y = b.silu(y);
        b.linear(y, "l", 3)
    });
}
