//! Whole training steps against PyTorch's: the reference in f64, the engine on every instruction
//! set; and what must not change a bit.

mod common;
#[path = "../examples/replay_step/step.rs"]
mod step;

use std::collections::HashMap;
use std::sync::Arc;

use cleandift::engine::cpu::{Processor, Recompute, TrainingProgram};
use cleandift::graph::{Graph, Named, Parameters, Tensor, reference};
use cleandift_kernels::Kernels;
use common::golden;
use safetensors::SafeTensors;
use step::{Recorded, Settings, narrow, values};

const STEPS: [(&str, &str); 4] = [
    ("sd15", "sd15-adarms-cosine"),
    ("sd21", "sd21-adarms-cosine"),
    ("sd21", "sd21-film-l2"),
    ("sd21", "sd21-none-l1"),
];

fn path(step: &str) -> std::path::PathBuf {
    golden(&format!("train/{step}.safetensors"))
}

fn recorded(family: &str, step: &str) -> Recorded {
    let model = golden(&format!("tiny-{family}"));
    Recorded::open(&model, &path(step), &Settings::default()).unwrap()
}

/// What PyTorch found: losses, and of each gradient its samples and its statistics.
struct Expected {
    losses: HashMap<String, f64>,
    gradients: HashMap<String, [Vec<f64>; 2]>,
}

impl Expected {
    fn open(step: &str) -> Self {
        let bytes = std::fs::read(path(step)).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let names = &metadata.metadata().as_ref().unwrap()["names"];
        let names: Vec<String> = serde_json::from_str(names).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let rows = |name: &str| {
            let (shape, values) = values(&file, name).unwrap();
            values.chunks(shape[1]).map(<[f64]>::to_vec).collect()
        };
        let samples: Vec<Vec<f64>> = rows("grad_samples");
        let statistics: Vec<Vec<f64>> = rows("grad_stats_f64");
        let losses = file.names().into_iter().filter(|n| n.starts_with("loss."));
        let losses = losses.filter(|name| *name != "loss.total");
        Self {
            losses: losses
                .map(|name| (name.to_owned(), values(&file, name).unwrap().1[0]))
                .collect(),
            gradients: names
                .into_iter()
                .zip(samples.into_iter().zip(statistics))
                .map(|(name, (samples, statistics))| (name, [samples, statistics]))
                .collect(),
        }
    }

    /// The largest error of a loss, relative; of a gradient's samples, relative to their root mean
    /// square of the tensor; and of its statistics, relative to the 2-norm of the tensor (the sums
    /// to the sum of magnitudes).
    fn compare(&self, losses: &[(String, f64)], gradients: &[(String, Vec<f64>)]) -> [f64; 3] {
        assert_eq!(losses.len(), self.losses.len());
        let mut worst = [0f64; 3];
        for (name, found) in losses {
            let expected = self.losses[name];
            worst[0] = worst[0].max((found - expected).abs() / expected.abs());
        }
        assert_eq!(gradients.len(), self.gradients.len());
        for (name, found) in gradients {
            let [samples, statistics] = &self.gradients[name];
            let count = found.len();
            let sum: f64 = found.iter().sum();
            let magnitudes: f64 = found.iter().map(|g| g.abs()).sum();
            let norm = found.iter().map(|g| g * g).sum::<f64>().sqrt();
            // Norms under 1e-5 are of rounding noise, where one token attends to itself alone.
            let scale = statistics[2].max(1e-5);
            for (i, expected) in samples.iter().enumerate() {
                let error = (found[i * count / samples.len()] - expected).abs();
                worst[1] = worst[1].max(error / scale * (count as f64).sqrt());
            }
            let of_sums = statistics[1].max(1e-5);
            worst[2] = worst[2].max((norm - statistics[2]).abs() / scale);
            worst[2] = worst[2].max((magnitudes - statistics[1]).abs() / of_sums);
            worst[2] = worst[2].max((sum - statistics[0]).abs() / of_sums);
        }
        worst
    }
}

fn mean(tensor: &[f64]) -> f64 {
    tensor.iter().sum::<f64>() / tensor.len() as f64
}

#[test]
fn steps_of_the_reference_are_those_of_pytorch() {
    for (family, step) in STEPS {
        let recorded = recorded(family, step);
        let graph = recorded.graph().unwrap();
        let inputs = recorded.inputs().unwrap();
        let inputs: Vec<(&str, &Tensor<f64>)> =
            inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
        let images = recorded.images();
        let one = Tensor::new(
            1,
            cleandift::graph::Shape::vector(1),
            vec![1.0 / images as f64],
        );
        let outputs = graph.outputs().iter();
        let seeds: Vec<(&str, &Tensor<f64>)> =
            outputs.map(|output| (output.name.as_str(), &one)).collect();
        let found = reference::gradients(&graph, &recorded.weights, &inputs, &seeds).unwrap();
        let losses: Vec<(String, f64)> = found
            .outputs
            .iter()
            .map(|(name, loss)| (name.clone(), mean(&loss.data)))
            .collect();
        let gradients = found.parameters.into_iter();
        let gradients: Vec<(String, Vec<f64>)> = gradients
            .filter(|(name, _)| Recorded::trains(name))
            .map(|(name, gradient)| (recorded.recorded_name(&name), gradient))
            .collect();
        let worst = Expected::open(step).compare(&losses, &gradients);
        // Samples are stored as f32: half a unit of the largest value is 1e-6 of the mean square.
        assert!(
            worst[0] < 1e-7 && worst[1] < 1e-6 && worst[2] < 1e-12,
            "{step}: {worst:?}"
        );
    }
}

/// Losses, and gradients in the order they came.
type Found = (Vec<Named<f32>>, Vec<(String, Vec<f32>)>);

/// A step on the engine.
fn run(
    recorded: &Recorded,
    graph: &Graph,
    inputs: &[Named<f32>],
    processor: &Processor,
    recompute: Recompute,
) -> Found {
    let images = recorded.images();
    let program = TrainingProgram::compile(processor, graph, images, Recorded::trains, recompute);
    let weights: Arc<dyn Parameters> = Arc::new(recorded.weights.clone());
    let inputs: Vec<(&str, &Tensor<f32>)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let mut gradients = Vec::new();
    let mut sink = |name: &str, gradient: &[f32]| {
        gradients.push((name.to_owned(), gradient.to_vec()));
    };
    let losses = program.run(&weights, &inputs, &mut sink).unwrap();
    (losses, gradients)
}

fn narrowed(inputs: Vec<Named<f64>>) -> Vec<Named<f32>> {
    let inputs = inputs.iter();
    inputs
        .map(|(name, tensor)| (name.clone(), narrow(tensor)))
        .collect()
}

#[test]
fn steps_of_the_engine_are_those_of_pytorch() {
    for (family, step) in STEPS {
        let recorded = recorded(family, step);
        let graph = recorded.graph().unwrap();
        let inputs = narrowed(recorded.inputs().unwrap());
        for kernels in Kernels::all() {
            let processor = Processor::new(kernels, 2).unwrap();
            let (losses, gradients) =
                run(&recorded, &graph, &inputs, &processor, Recompute::Blocks);
            let losses: Vec<(String, f64)> = losses
                .iter()
                .map(|(name, loss)| (name.clone(), mean(&common::wide(&loss.data))))
                .collect();
            let gradients: Vec<(String, Vec<f64>)> = gradients
                .iter()
                .map(|(name, gradient)| (recorded.recorded_name(name), common::wide(gradient)))
                .collect();
            let worst = Expected::open(step).compare(&losses, &gradients);
            // A difference near zero may have another sign in f32, which moves L1's gradient.
            let limit = if step.ends_with("l1") { 1e-2 } else { 1e-3 };
            assert!(
                worst[0] < 1e-4 && worst[1] < limit && worst[2] < limit,
                "{step}, {}: {worst:?}",
                kernels.name()
            );
        }
    }
}

#[test]
fn neither_threads_nor_what_is_kept_changes_a_bit() {
    let (family, step) = STEPS[1];
    let recorded = recorded(family, step);
    let graph = recorded.graph().unwrap();
    let inputs = narrowed(recorded.inputs().unwrap());
    for kernels in Kernels::all() {
        let results = [
            (1, Recompute::Blocks),
            (3, Recompute::Blocks),
            (1, Recompute::Nothing),
        ]
        .map(|(threads, recompute)| {
            let processor = Processor::new(kernels, threads).unwrap();
            run(&recorded, &graph, &inputs, &processor, recompute)
        });
        assert!(results[0] == results[1], "threads, {}", kernels.name());
        assert!(
            results[0] == results[2],
            "recomputation, {}",
            kernels.name()
        );
    }
}
