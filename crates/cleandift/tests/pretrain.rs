//! Training from nothing: the objective against f64 and PyTorch, runs that are stopped and go on,
//! and what becomes of them.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cleandift::checkpoint::{Checkpoint, Dtype};
use cleandift::engine::cpu::{Processor, Recompute, TrainingProgram};
use cleandift::extractor::{Codec, Latents, Model};
use cleandift::graph::{Parameters, Shape, Tensor, reference};
use cleandift::image::{Extent, Pixels};
use cleandift::networks::diffusion::{CLASS, CLASS_TABLE, Denoising, LOSS, TARGET, WEIGHT};
use cleandift::networks::random;
use cleandift::networks::schedule::Schedule;
use cleandift::networks::unet::{LATENT, TIMESTEP};
use cleandift::train::data::{Batch, Classes, DataError, Sample};
use cleandift::train::pretrain::{
    Diffusion, ObjectiveConfig, Prediction, PretrainConfig, initial, write_model,
};
use cleandift::train::state::{self, Sources, State};
use cleandift::train::{Ending, Event, Masters, Objective, Plan, Run, TrainError, config};
use cleandift_kernels::Kernels;
use common::{golden, model, relative_error, tensors, values, wide};

const SIDE: usize = 32;

/// A small network's config, with changes in TOML.
fn settings(changes: &[&str]) -> PretrainConfig {
    let changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
    let text = format!(
        "seed = 5\n\
         [model]\nchannels = [16, 16, 16, 16]\nheads = [2, 2, 2, 0]\nmid_heads = 2\ngroups = 4\n\
         class_width = 8\nscale = 2.0\n\
         [data]\nsize = {SIDE}\nbatch = 2\n\
         [optimiser]\nrate = 1e-3\naverage = 0.9\n\
         [schedule]\nwarmup = 2\n\
         [run]\nsteps = 6\nsave_every = 2\nvalidate_every = 3\n"
    );
    let config: PretrainConfig = config::read("test.toml", &text, &changes).unwrap();
    config.check().unwrap();
    config
}

fn listed(text: &str) -> Classes {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("classes.tsv");
    fs::write(&list, text).unwrap();
    Classes::open(&list).unwrap()
}

fn classes() -> Arc<Classes> {
    Arc::new(listed("index\tid\tname\n0\ta\tcat\n1\tb\tdog\n"))
}

#[test]
fn a_list_of_classes_may_have_no_heading() {
    assert_eq!(listed("0\ta\tcat\n1\tb\tdog\n"), *classes());
}

fn processor() -> Processor {
    Processor::new(Kernels::best(), 2).unwrap()
}

fn diffusion(config: &PretrainConfig) -> Diffusion {
    Diffusion::new(config, classes(), &processor())
}

/// The latent of a picture.
fn latent(config: &PretrainConfig) -> Shape {
    config.model.latent(SIDE)
}

/// Parameters with the network's shapes: as a run begins, or everywhere away from zero.
fn masters(config: &PretrainConfig, objective: &Diffusion, begin: bool) -> Masters {
    let graph = objective.graph(latent(config));
    Masters::new(graph.parameters().into_iter().map(|parameter| {
        let values = match begin {
            true => initial(parameter, config.seed),
            false => random::values(parameter, config.seed),
        };
        (parameter.name.clone(), parameter.shape.clone(), values)
    }))
}

/// One of eight drawn pictures.
fn sample(number: u64) -> Sample {
    let which = (number % 8) as f32;
    let value = |i: usize| ((i as f32 * (0.011 + 0.003 * which)) + which).sin();
    let values = (0..SIDE * SIDE * 3).map(value).collect();
    Sample {
        number,
        pixels: Pixels::new(Extent::new(SIDE, SIDE), values),
        caption: Some(
            if number.is_multiple_of(2) {
                "cat"
            } else {
                "dog"
            }
            .to_owned(),
        ),
    }
}

fn batch(first: u64, count: u64) -> Batch {
    Batch {
        first,
        samples: (first..first + count).map(sample).collect(),
        skipped: Vec::new(),
    }
}

/// Batches from a sample on.
fn batches(first: u64, size: u64) -> impl Iterator<Item = Result<Batch, DataError>> {
    (0..).map(move |index| Ok(batch(first + index * size, size)))
}

#[test]
fn a_step_is_what_pytorch_makes_of_it() {
    let file = tensors(&golden("diffusion.safetensors"));
    let unet = model("tiny-sd21").unet;
    let denoising = Denoising {
        unet: &unet.config,
        rows: 3,
        tokens: 1,
        height: 8,
        width: 8,
    };
    let names = unet.weights.names().into_iter();
    let parameters = names.map(|name| {
        let shape = unet.weights.shape(name).unwrap().to_vec();
        (name.to_owned(), shape, unet.weights.read(name).unwrap())
    });
    let table = (
        CLASS_TABLE.to_owned(),
        vec![3, 1, 32],
        file.read("table").unwrap(),
    );
    let masters = Masters::new(parameters.chain([table]));
    let shape = Shape::map(8, 8, 4);
    let map = |name: &str| Tensor::from_channels_first(2, shape, &file.read(name).unwrap());
    let number = |values: Vec<f32>| Tensor::new(2, Shape::vector(1), values);
    let (latent, noise) = (map("latent"), map("noise"));
    let timesteps = file.read("timestep").unwrap();
    let schedule = Schedule::default();
    let objective = ObjectiveConfig {
        snr_limit: Some(5.0),
        ..ObjectiveConfig::default()
    };
    let (mut noisy, mut target, mut weight) = (Vec::new(), Vec::new(), Vec::new());
    for (image, &timestep) in timesteps.iter().enumerate() {
        let (x, e) = (latent.image(image), noise.image(image));
        let timestep = timestep as usize;
        let (of_image, of_noise) = schedule.factors(timestep);
        noisy.extend(schedule.add_noise(x, e, timestep));
        target.extend(x.iter().zip(e).map(|(x, e)| of_image * e - of_noise * x));
        weight.push(objective.weight(&schedule, timestep) as f32);
    }
    let inputs = [
        (LATENT, &Tensor::new(2, shape, noisy)),
        (TARGET, &Tensor::new(2, shape, target)),
        (TIMESTEP, &number(timesteps)),
        (CLASS, &number(file.read("row").unwrap())),
        (WEIGHT, &number(weight)),
    ];
    let graph = denoising.graph();
    let program = TrainingProgram::compile(&processor(), &graph, 2, |_| true, Recompute::Nothing);
    let parameters: Arc<dyn Parameters> = Arc::new(masters);
    let mut gradients = BTreeMap::new();
    let mut sink = |name: &str, gradient: &[f32]| {
        gradients.insert(name.to_owned(), wide(gradient));
    };
    let losses = program.run(&parameters, &inputs, &mut sink).unwrap();
    let error = relative_error(&wide(&losses[0].1.data), &values(&file, "loss"));
    assert!(error < 1e-4, "loss: {error}");
    let mut compared = 0;
    for name in file.names() {
        if let Some(parameter) = name.strip_prefix("grad.") {
            let error = relative_error(&gradients[parameter], &values(&file, name));
            assert!(error < 1e-3, "{parameter}: {error}");
            compared += 1;
        }
    }
    assert_eq!(compared, 7);
}

#[test]
fn gradients_are_those_of_the_reference() {
    for prediction in ["velocity", "noise"] {
        let config = settings(&[&format!("objective.prediction={prediction:?}")]);
        let mut objective = diffusion(&config);
        let masters = Arc::new(masters(&config, &objective, false));
        let batch = batch(3, 3);
        let mut gradients = BTreeMap::new();
        let mut sink = |name: &str, gradient: &[f32]| {
            gradients.insert(name.to_owned(), wide(gradient));
        };
        let losses = objective.run(&masters, &batch, &mut sink).unwrap();

        let inputs = objective.inputs(&batch, config.seed).unwrap();
        let inputs: Vec<(String, Tensor<f64>)> = (inputs.into_iter())
            .map(|(name, t)| (name, Tensor::new(t.images, t.shape, wide(&t.data))))
            .collect();
        let inputs: Vec<(&str, &Tensor<f64>)> =
            inputs.iter().map(|(name, t)| (name.as_str(), t)).collect();
        let share = Tensor::new(1, Shape::vector(1), vec![1.0 / 3.0]);
        let graph = objective.graph(latent(&config));
        let truth = reference::gradients(&graph, &*masters, &inputs, &[(LOSS, &share)]).unwrap();
        let expected = truth.outputs[0].1.data.iter().sum::<f64>() / 3.0;
        let error = (losses.total - expected).abs() / expected;
        assert!(error < 1e-4, "{prediction}: {} {expected}", losses.total);
        assert_eq!(gradients.len(), truth.parameters.len());
        for (name, gradient) in &truth.parameters {
            let norm = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
            let found = gradients[name].iter().zip(gradient);
            let difference = found.map(|(f, g)| (f - g).powi(2)).sum::<f64>().sqrt();
            // With one token, attention to it has no gradient but in its value.
            let error = difference / norm.max(1e-5);
            assert!(error < 1e-3, "{prediction} {name}: {error}");
        }
    }
}

/// The weighted distance between predictions is a distance between latents: of noises it is
/// (1 - a) / a as large, of velocities 1 - a.
#[test]
fn weights_are_those_of_distances_between_latents() {
    let schedule = Schedule::default();
    let weight = |prediction, snr_limit, timestep| {
        let config = ObjectiveConfig {
            prediction,
            snr_limit,
            ..ObjectiveConfig::default()
        };
        config.weight(&schedule, timestep)
    };
    for timestep in [0, 40, 300, 999] {
        let alpha = f64::from(schedule.alphas_cumprod()[timestep]);
        let between_latents = (alpha / (1.0 - alpha)).min(5.0);
        let noise = weight(Prediction::Noise, Some(5.0), timestep);
        let velocity = weight(Prediction::Velocity, Some(5.0), timestep);
        assert!((noise * alpha / (1.0 - alpha) / between_latents - 1.0).abs() < 1e-9);
        assert!((velocity / (1.0 - alpha) / between_latents - 1.0).abs() < 1e-9);
        assert_eq!(weight(Prediction::Velocity, None, timestep), 1.0);
    }
}

#[test]
fn a_sample_is_the_same_in_any_batch() {
    let config = settings(&[]);
    let mut objective = diffusion(&config);
    let masters = Arc::new(masters(&config, &objective, false));
    let mut loss = |first, count| {
        let losses = objective.run(&masters, &batch(first, count), &mut |_, _| ());
        losses.unwrap().total
    };
    let together = loss(4, 2);
    let apart = (loss(4, 1) + loss(5, 1)) / 2.0;
    assert!((together / apart - 1.0).abs() < 1e-12, "{together} {apart}");
}

#[test]
fn validation_is_the_same_for_any_seed() {
    let [first, second] = ["seed=5", "seed=6"].map(|seed| {
        let config = settings(&[seed]);
        let mut objective = diffusion(&config);
        let masters = Arc::new(masters(&settings(&[]), &objective, false));
        let validation = objective.validate(&masters, &batch(0, 2)).unwrap();
        let training = objective.run(&masters, &batch(0, 2), &mut |_, _| ());
        (validation.total, training.unwrap().total)
    });
    assert_eq!(first.0, second.0);
    assert_ne!(first.1, second.1);
}

#[test]
fn eight_pictures_are_learned_by_heart() {
    // A network that is wider than its latent: it has to carry the noise, too.
    let config = settings(&[
        "run.steps=400",
        "data.batch=8",
        "optimiser.rate=4e-3",
        "model.channels=[32, 32, 32, 32]",
        "model.detail=3",
    ]);
    let mut objective = diffusion(&config);
    let out = tempfile::tempdir().unwrap();
    let mut run = Run::new(
        plan(&config, out.path()),
        masters(&config, &objective, true),
        Kernels::best(),
    );
    let mut losses = Vec::new();
    let mut observer = |event: &Event| {
        if let Event::Step { losses: step, .. } = event {
            losses.push(step.total);
        }
    };
    let stop = AtomicBool::new(false);
    let ending = run.go(
        &mut objective,
        &mut batches(0, 8),
        &[],
        &stop,
        &mut observer,
    );
    assert_eq!(ending.unwrap(), Ending::Finished);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..25]), mean(&losses[375..]));
    assert!(last < 0.35 * first, "{first} {last}");
}

fn plan(config: &PretrainConfig, out: &Path) -> Plan {
    Plan {
        optimiser: config.optimiser,
        schedule: config.schedule,
        run: config.run.clone(),
        config: config::to_json(config),
        sources: Sources::new(),
        out: out.to_owned(),
    }
}

/// Starts or resumes a run, stops it after a step if there is one to stop after, and returns the
/// events in words.
fn go(config: &PretrainConfig, out: &Path, stop_after: Option<u64>) -> Vec<String> {
    let mut objective = diffusion(config);
    let mut run = match Run::resume(plan(config, out), Kernels::best()).unwrap() {
        Some(run) => run,
        None => {
            let masters = masters(config, &objective, true);
            Run::new(plan(config, out), masters, Kernels::best())
        }
    };
    let size = config.data.batch as u64;
    let first = run.step() * size * config.optimiser.accumulate as u64;
    let stop = AtomicBool::new(false);
    let mut told = Vec::new();
    let mut observer = |event: &Event| match event {
        Event::Step {
            step,
            losses,
            rate,
            norm,
            ..
        } => {
            told.push(format!("{step}: {losses:?} {rate} {norm:?}"));
            stop.store(Some(*step) == stop_after, Ordering::Relaxed);
        }
        Event::Validation {
            step,
            losses,
            averaged,
        } => {
            told.push(format!("{step}: {losses:?} {averaged:?}"));
        }
        _ => {}
    };
    let validation = [batch(0, 3)];
    let mut batches = batches(first, size);
    let ending = run.go(
        &mut objective,
        &mut batches,
        &validation,
        &stop,
        &mut observer,
    );
    let expected = match stop_after {
        Some(_) => Ending::Stopped,
        None => Ending::Finished,
    };
    assert_eq!(ending.unwrap(), expected);
    told
}

/// All files of the last state.
fn last_state(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (_, folder) = state::states(out).unwrap().pop().unwrap();
    let entries = fs::read_dir(folder).unwrap();
    let files = entries.map(|entry| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().into(), fs::read(path).unwrap())
    });
    files.collect()
}

#[test]
fn a_run_that_was_stopped_goes_on_bit_for_bit() {
    let gathered = ["optimiser.clip=0.5", "optimiser.accumulate=2"];
    for changes in [&[][..], &gathered] {
        let config = settings(changes);
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let expected = go(&config, whole.path(), None);
        let mut told = go(&config, parts.path(), Some(3));
        told.extend(go(&config, parts.path(), Some(4)));
        told.extend(go(&config, parts.path(), None));
        assert_eq!(told, expected);
        assert_eq!(last_state(parts.path()), last_state(whole.path()));
        let kept = state::states(whole.path()).unwrap();
        let kept: Vec<u64> = kept.into_iter().map(|(step, _)| step).collect();
        assert_eq!(kept, [4, 6]);
        let files: Vec<_> = fs::read_dir(whole.path()).unwrap().collect();
        assert_eq!(files.len(), 2, "nothing unfinished is left");
    }
}

/// What was made of all steps is measured, whenever the last measurement was, and again if a finished
/// run is only to write its results: the model card tells it.
#[test]
fn the_end_is_validated() {
    let out = tempfile::tempdir().unwrap();
    let config = settings(&["run.steps=4"]);
    let told = go(&config, out.path(), None);
    let after = |step: &str| told.iter().filter(|line| line.starts_with(step)).count();
    assert_eq!([after("2: "), after("3: "), after("4: ")], [1, 2, 2]);
    assert_eq!(go(&config, out.path(), None), told[told.len() - 1..]);
}

#[test]
fn a_run_is_resumed_with_its_own_config_only() {
    let out = tempfile::tempdir().unwrap();
    go(&settings(&["run.steps=2"]), out.path(), None);
    let resume = |changes: &[&str]| {
        let config = settings(changes);
        Run::resume(plan(&config, out.path()), Kernels::best())
    };
    let error = resume(&["optimiser.clip=2.0", "run.steps=9"]).unwrap_err();
    let words = error.to_string();
    assert!(
        words.contains("`optimiser.clip` was null, is 2.0"),
        "{words}"
    );
    assert!(!words.contains("run.steps"), "{words}");
    let longer = resume(&["run.steps=9", "schedule.decay=3", "optimiser.rate=2e-3"])
        .unwrap()
        .unwrap();
    assert_eq!(longer.step(), 2);

    let json = out.path().join("state-00000002/state.json");
    fs::write(&json, "{}").unwrap();
    let words = resume(&[]).unwrap_err().to_string();
    assert!(words.contains("state.json"), "{words}");
}

#[test]
fn numbers_that_are_none_end_a_run_and_leave_the_last_state() {
    let config = settings(&[
        "optimiser.rate=1e30",
        "schedule.warmup=3",
        "run.save_every=1",
    ]);
    let out = tempfile::tempdir().unwrap();
    let mut objective = diffusion(&config);
    let masters = masters(&config, &objective, true);
    let mut run = Run::new(plan(&config, out.path()), masters, Kernels::best());
    let stop = AtomicBool::new(false);
    let error = run.go(&mut objective, &mut batches(0, 2), &[], &stop, &mut |_| ());
    let error = error.unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { .. }), "{error}");
    // The first step has a rate of zero; what follows is ruined.
    let words = error.to_string();
    assert!(words.contains("state-"), "{words}");
    let (step, path) = state::states(out.path()).unwrap().pop().unwrap();
    assert!(
        step >= 1 && words.contains(path.to_str().unwrap()),
        "{words}"
    );
    let kept = State::read_parameters(&path).unwrap();
    for name in kept.names() {
        assert!(
            kept.values(name).iter().all(|value| value.is_finite()),
            "{name}"
        );
    }
}

#[test]
fn a_state_that_cannot_be_written_leaves_the_one_before() {
    let config = settings(&["run.steps=2"]);
    let out = tempfile::tempdir().unwrap();
    go(&config, out.path(), None);
    let before = last_state(out.path());
    // A file where the next state's folder is to be.
    fs::write(out.path().join("state-00000004"), "in the way").unwrap();
    let config = settings(&["run.steps=4"]);
    let mut objective = diffusion(&config);
    let state = out.path().join("state-00000002");
    let read = State::read(
        &state,
        &config::to_json(&config),
        &Sources::new(),
        config::may_differ,
    )
    .unwrap();
    assert_eq!(read.step, 2);
    let mut run = Run::new(
        plan(&config, out.path()),
        masters(&config, &objective, true),
        Kernels::best(),
    );
    let stop = AtomicBool::new(false);
    let mut observer = |event: &Event| {
        let saved = matches!(event, Event::Saved { step: 4, .. });
        assert!(!saved);
    };
    let ending = run.go(
        &mut objective,
        &mut batches(0, 2),
        &[],
        &stop,
        &mut observer,
    );
    let words = ending.unwrap_err().to_string();
    assert!(words.contains("state-00000004"), "{words}");
    fs::remove_file(out.path().join("state-00000004")).unwrap();
    assert_eq!(last_state(out.path()).keys().count(), before.keys().count());
}

#[test]
fn what_was_learned_is_a_model() {
    for (changes, channels) in [(&[][..], 48), (&["model.detail=3"], 12)] {
        is_a_model(&settings(changes), channels);
    }
    let scales = "model.scales=[0.4, 1, 1, 2, 2, 2, 2, 2, 2, 2, 0.8, 1.4]";
    is_a_model(&settings(&["model.detail=3", scales]), 12);
}

/// Scales are one for each frequency that is kept, and are what latents are multiplied by: a grey
/// picture's are the mean brightness's alone.
#[test]
fn each_frequency_has_a_scale() {
    let refused = |detail: Option<usize>, scales: &[f64]| {
        let mut config = settings(&[]);
        config.model.detail = detail;
        config.model.scales = Some(scales.to_vec());
        config.check().unwrap_err().to_string()
    };
    let words = refused(Some(3), &[1.0, 2.0]);
    assert!(
        words.contains("2 values") && words.contains("12 freq"),
        "{words}"
    );
    refused(None, &[1.0]);
    refused(Some(0), &[-1.0]);

    let config = settings(&[
        "model.detail=1",
        "model.scale=0.5",
        "model.scales=[0.4, 7, 9]",
    ]);
    let codec = config.model.codec();
    let codec = Codec::new(&codec, Latents::Mean, &processor());
    let grey = Pixels::new(Extent::new(8, 8), vec![0.3; 192]);
    let latent = codec.encode(&grey).unwrap();
    // Sixteen pixels of three values, orthonormal: sqrt(48) times the value.
    let mean = 0.4 * 0.5 * 48_f32.sqrt() * (0.3 - config.model.shift as f32);
    for cell in latent.values().chunks_exact(3) {
        for (found, expected) in cell.iter().zip([mean, 0.0, 0.0]) {
            assert!((found - expected).abs() < 1e-5, "{cell:?}");
        }
    }
}

fn is_a_model(config: &PretrainConfig, channels: usize) {
    let objective = diffusion(config);
    let masters = masters(config, &objective, false);
    let folder = tempfile::tempdir().unwrap();
    write_model(folder.path(), config, &classes(), &masters, Dtype::F32).unwrap();
    let opened = Model::open(&Checkpoint::open(folder.path(), None).unwrap()).unwrap();
    assert_eq!(opened.unet.config, config.model.unet(SIDE));
    assert_eq!(opened.unet.config.in_channels, channels);
    let name = "mid_block.resnets.0.conv1.weight";
    assert_eq!(
        opened.unet.weights.read(name).unwrap(),
        *masters.values(name)
    );
    assert!(opened.text.is_ok());
}
