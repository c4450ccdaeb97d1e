//! Repeats a training step that another implementation recorded, for comparison:
//!
//! ```text
//! cargo run --release --example replay_step -- --model DIR --step STEP.safetensors \
//!     --out OUT.safetensors [--norm NORM] [--objective OBJECTIVE] [--reference]
//! ```
//!
//! STEP holds inputs, the heads' first values and, in its metadata, the settings; NORM (adarms,
//! film, film-intended, none) and OBJECTIVE (cosine, l2, l1) take the place of its. OUT holds
//! `loss.<tap>` and `loss.total`, and for every trained parameter `grad.<name>` and `after.<name>`,
//! its value after one step of Adam, under the names that STEP uses. `--reference` works in f64
//! with the graph's plainest reader instead of the engine, and writes f64; its `after` is Adam in
//! f64. The teacher is run in f64 in either case. Small models only.

mod step;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cleandift::engine::cpu::{Processor, Recompute, TrainingProgram};
use cleandift::graph::{Named, Parameters, Shape, Tensor, reference};
use cleandift_kernels::Adam;
use safetensors::tensor::{Dtype, TensorView};
use step::{Recorded, Settings, narrow};

/// What a step leaves of a parameter.
struct Trained {
    name: String,
    shape: Vec<usize>,
    gradient: Vec<f64>,
    after: Vec<f64>,
}

/// What a step leaves.
struct Outcome {
    losses: Vec<Named<f64>>,
    trained: Vec<Trained>,
}

struct Arguments {
    model: PathBuf,
    step: PathBuf,
    out: PathBuf,
    settings: Settings,
    reference: bool,
}

impl Arguments {
    fn read() -> Option<Self> {
        let (mut model, mut step, mut out, mut reference) = (None, None, None, false);
        let mut settings = Settings::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--model" => model = Some(arguments.next()?.into()),
                "--step" => step = Some(arguments.next()?.into()),
                "--out" => out = Some(arguments.next()?.into()),
                "--norm" => settings.norm = Some(arguments.next()?),
                "--objective" => settings.objective = Some(arguments.next()?),
                "--reference" => reference = true,
                _ => return None,
            }
        }
        Some(Self {
            model: model?,
            step: step?,
            out: out?,
            settings,
            reference,
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(arguments) = Arguments::read() else {
        let usage = "usage: replay_step --model DIR --step FILE --out FILE [--norm NORM] \
                     [--objective OBJECTIVE] [--reference]";
        return Err(usage.into());
    };
    let recorded = Recorded::open(&arguments.model, &arguments.step, &arguments.settings)?;
    let (outcome, dtype) = match arguments.reference {
        true => (by_reference(&recorded)?, Dtype::F64),
        false => (by_engine(&recorded)?, Dtype::F32),
    };
    write(&arguments.out, outcome, dtype)
}

/// A step of Adam, the first, as PyTorch's defaults have it.
fn adam(recorded: &Recorded) -> Adam {
    Adam {
        rate: recorded.learning_rate,
        betas: [0.9, 0.999],
        eps: 1e-8,
        step: 1,
    }
}

fn by_engine(recorded: &Recorded) -> Result<Outcome, Box<dyn Error>> {
    let graph = recorded.graph()?;
    let inputs = recorded.inputs()?;
    let inputs: Vec<Named<f32>> = inputs.iter().map(|(n, t)| (n.clone(), narrow(t))).collect();
    let inputs: Vec<(&str, &Tensor<f32>)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let processor = Processor::from_env(0)?;
    let program = TrainingProgram::compile(
        &processor,
        &graph,
        recorded.images(),
        Recorded::trains,
        Recompute::Blocks,
    );
    let weights: Arc<dyn Parameters> = Arc::new(recorded.weights.clone());
    let mut gradients = Vec::new();
    let mut sink = |name: &str, gradient: &[f32]| {
        gradients.push((name.to_owned(), gradient.to_vec()));
    };
    let losses = program.run(&weights, &inputs, &mut sink)?;
    let trained = gradients.into_iter().map(|(name, gradient)| {
        let mut values = weights.read(&name)?;
        let mut moments = [vec![0.0; values.len()], vec![0.0; values.len()]];
        let [first, second] = &mut moments;
        let kernels = processor.kernels();
        kernels.adam(&mut values, &gradient, first, second, &adam(recorded));
        Ok(Trained {
            shape: weights.shape(&name).unwrap_or_default().to_vec(),
            name: recorded.recorded_name(&name),
            gradient: wide(&gradient),
            after: wide(&values),
        })
    });
    let trained = trained.collect::<Result<_, Box<dyn Error>>>()?;
    let losses = losses.into_iter().map(|(name, loss)| {
        let data = wide(&loss.data);
        (name, Tensor::new(loss.images, loss.shape, data))
    });
    Ok(Outcome {
        losses: losses.collect(),
        trained,
    })
}

fn by_reference(recorded: &Recorded) -> Result<Outcome, Box<dyn Error>> {
    let graph = recorded.graph()?;
    let inputs = recorded.inputs()?;
    let inputs: Vec<(&str, &Tensor<f64>)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let share = 1.0 / recorded.images() as f64;
    let share = Tensor::new(1, Shape::vector(1), vec![share]);
    let outputs = graph.outputs().iter();
    let seeds: Vec<(&str, &Tensor<f64>)> = outputs.map(|o| (o.name.as_str(), &share)).collect();
    let weights = &recorded.weights;
    let found = reference::gradients(&graph, weights, &inputs, &seeds)?;
    let gradients = found.parameters.into_iter();
    let trained = gradients
        .filter(|(name, _)| Recorded::trains(name))
        .map(|(name, gradient)| {
            let values = wide(&weights.read(&name)?).into_iter().zip(&gradient);
            // Adam's first step: both moments' means are the gradient's own.
            let Adam { rate, eps, .. } = adam(recorded);
            let after = values.map(|(value, g)| value - rate * g / (g.abs() + eps));
            Ok(Trained {
                after: after.collect(),
                shape: weights.shape(&name).unwrap_or_default().to_vec(),
                name: recorded.recorded_name(&name),
                gradient,
            })
        });
    let trained = trained.collect::<Result<_, Box<dyn Error>>>()?;
    Ok(Outcome {
        losses: found.outputs,
        trained,
    })
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

fn write(path: &Path, outcome: Outcome, dtype: Dtype) -> Result<(), Box<dyn Error>> {
    let losses = outcome.losses.into_iter().map(|(name, loss)| {
        let mean = loss.data.iter().sum::<f64>() / loss.data.len() as f64;
        (name, vec![1], vec![mean])
    });
    let mut tensors: Vec<(String, Vec<usize>, Vec<f64>)> = losses.collect();
    let total = tensors.iter().map(|(_, _, loss)| loss[0]).sum();
    tensors.push(("loss.total".to_owned(), vec![1], vec![total]));
    for parameter in outcome.trained {
        let Trained { name, shape, .. } = parameter;
        tensors.push((format!("grad.{name}"), shape.clone(), parameter.gradient));
        tensors.push((format!("after.{name}"), shape, parameter.after));
    }
    let bytes = |values: &[f64]| -> Vec<u8> {
        let values = values.iter();
        match dtype {
            Dtype::F64 => values.flat_map(|v| v.to_le_bytes()).collect(),
            _ => values.flat_map(|v| (*v as f32).to_le_bytes()).collect(),
        }
    };
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, shape, values)| (name, shape, bytes(&values)))
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        Ok((name.as_str(), TensorView::new(dtype, shape.clone(), bytes)?))
    });
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    safetensors::serialize_to_file(views, None, path)?;
    Ok(())
}
