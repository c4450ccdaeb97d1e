//! CleanDIFT's fine-tuning: what is trained and what is not, and what is written.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cleandift::checkpoint::{Checkpoint, Dtype, Kind, Published, Weights};
use cleandift::engine::cpu::Processor;
use cleandift::extractor::{Mode, Model, Noise, Request};
use cleandift::graph::{Parameters, Shape, Tensor};
use cleandift::image::{Extent, Pixels};
use cleandift::networks::heads::HeadNorm;
use cleandift::train::data::{Batch, Sample};
use cleandift::train::finetune::{
    Design, Export, Exporter, Finetune, FinetuneConfig, NormName, StudentTraining, Text,
};
use cleandift::train::optimiser::{Optimiser, OptimiserConfig};
use cleandift::train::{Losses, Masters, Objective, Random, TrainError, config};
use cleandift_kernels::Kernels;
use common::golden;

const SIDE: usize = 64;

fn base() -> std::path::PathBuf {
    golden("tiny-sd21")
}

/// A config for the golden model, with changes in TOML.
fn settings(changes: &[&str]) -> FinetuneConfig {
    let changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
    let text = format!(
        "[model]\nbase = '{}'\n[heads]\nwidth = 32\n",
        base().display()
    );
    let config: FinetuneConfig = config::read("test.toml", &text, &changes).unwrap();
    config.check().unwrap();
    config
}

fn finetune(config: &FinetuneConfig) -> Finetune {
    let processor = Processor::new(Kernels::best(), 2).unwrap();
    let design = Design {
        cache: config.cache.of(&teacher(config)).unwrap(),
        ..config.design().unwrap()
    };
    Finetune::new(begin_with(config), design, &processor).unwrap()
}

fn teacher(config: &FinetuneConfig) -> Checkpoint {
    Checkpoint::open(&config.model.base, None).unwrap()
}

/// The model that a config begins with.
fn begin_with(config: &FinetuneConfig) -> Model {
    let checkpoint = match &config.model.student {
        Some(student) => Checkpoint::open(student, Some(&config.model.base)).unwrap(),
        None => teacher(config),
    };
    Model::open(&checkpoint).unwrap()
}

fn sample(number: u64, caption: Option<&str>) -> Sample {
    let value = |i: usize| ((i as f32 + 7.0 * number as f32) * 0.013).sin();
    let values = (0..SIDE * SIDE * 3).map(value).collect();
    Sample {
        number,
        pixels: Pixels::new(Extent::new(SIDE, SIDE), values),
        caption: caption.map(str::to_owned),
    }
}

fn batch(numbers: impl IntoIterator<Item = u64>) -> Batch {
    let samples = numbers
        .into_iter()
        .map(|n| sample(n, Some("a photo of a cat")));
    let samples: Vec<Sample> = samples.collect();
    Batch {
        first: samples[0].number,
        samples,
        skipped: Vec::new(),
    }
}

type Gradients = BTreeMap<String, Vec<f32>>;

fn step(finetune: &mut Finetune, masters: &Arc<Masters>, batch: &Batch) -> (Losses, Gradients) {
    let mut gradients = BTreeMap::new();
    let mut sink = |name: &str, gradient: &[f32]| {
        gradients.insert(name.to_owned(), gradient.to_vec());
    };
    let losses = finetune.run(masters, batch, &mut sink).unwrap();
    (losses, gradients)
}

/// The losses of some steps of Adam on one batch.
fn train(finetune: &mut Finetune, masters: &Arc<Masters>, steps: u64, rate: f64) -> Vec<f64> {
    let config = OptimiserConfig::default();
    let mut optimiser = Optimiser::new(config, Kernels::best(), BTreeMap::new());
    let batch = batch([3, 4]);
    let losses = (1..=steps).map(|step| {
        let mut sink = |name: &str, gradient: &[f32]| {
            optimiser.apply(masters, name, gradient, step, rate);
        };
        finetune.run(masters, &batch, &mut sink).unwrap().total
    });
    losses.collect()
}

#[test]
fn losses_fall_whatever_is_trained() {
    let cases: [(&[&str], f64); 5] = [
        (&[], 1e-3),
        (&["heads.norm=film-intended", "objective.distance=l2"], 1e-3),
        (&["heads.norm=none", "export.files=[\"unet\"]"], 1e-3),
        (&["student.train=lora", "lora.rank=4"], 3e-3),
        (&["student.train=none", "objective.distance=l1"], 1e-3),
    ];
    for (changes, rate) in cases {
        let mut finetune = finetune(&settings(changes));
        let masters = Arc::new(finetune.masters().unwrap());
        let losses = train(&mut finetune, &masters, 12, rate);
        assert!(losses[11] < losses[0], "{changes:?}: {losses:?}");
    }
}

#[test]
fn a_sample_is_the_same_in_any_batch() {
    let mut finetune = finetune(&settings(&[]));
    let masters = Arc::new(finetune.masters().unwrap());
    let (together, of_both) = step(&mut finetune, &masters, &batch([5, 6]));
    let (first, of_first) = step(&mut finetune, &masters, &batch([5]));
    let (second, of_second) = step(&mut finetune, &masters, &batch([6]));
    let mean = (first.total + second.total) / 2.0;
    assert!(
        (together.total - mean).abs() < 1e-6 * mean.abs(),
        "{together:?}"
    );
    for (name, both) in &of_both {
        let halves = of_first[name].iter().zip(&of_second[name]);
        let mean: Vec<f64> = halves.map(|(a, b)| f64::from(a + b) / 2.0).collect();
        let norm = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
        if norm > 1e-4 {
            let error = common::relative_error(&common::wide(both), &mean);
            assert!(error < 1e-3, "{name}: {error}");
        }
    }
}

#[test]
fn validation_does_not_depend_on_the_seed_of_the_run() {
    let losses = |seed: &str| {
        // Heads that are trained already, as new ones depend on the seed.
        let mut finetune = finetune(&settings(&[seed, "heads.norm=none", "export.files=[]"]));
        let masters = Arc::new(finetune.masters().unwrap());
        let (run, _) = step(&mut finetune, &masters, &batch([1]));
        (run, finetune.validate(&masters, &batch([1])).unwrap())
    };
    let ((run, fixed), (other_run, other_fixed)) = (losses("seed=1"), losses("seed=2"));
    assert_ne!(run, other_run);
    assert_eq!(fixed, other_fixed);
    assert_eq!(fixed.parts.len(), 11);
    assert!((fixed.parts.iter().map(|(_, loss)| loss).sum::<f64>() - fixed.total).abs() < 1e-9);
}

/// Minus the mean cosine of two maps' cells.
fn distance(one: &[f32], other: &[f32], channels: usize) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b);
        products.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let cells = one.chunks(channels).zip(other.chunks(channels));
    let cosines = cells.map(|(a, b)| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt());
    -cosines.sum::<f64>() / (one.len() / channels) as f64
}

#[test]
fn losses_are_distances_of_the_features_that_an_extractor_gives() {
    let model = Model::random(0);
    let mut config = FinetuneConfig::default();
    config.heads.norm = NormName::None;
    config.objective.text = Text::None;
    config.objective.taps = "us6,us9".to_owned();
    let design = config.design().unwrap();
    let bins = design.bins;
    let processor = Processor::new(Kernels::best(), 1).unwrap();
    let mut finetune = Finetune::new(model.clone(), design, &processor).unwrap();
    let masters = Arc::new(finetune.masters().unwrap());
    let found = finetune.validate(&masters, &batch([5, 6])).unwrap();

    let extract = |mode, pixels: &Pixels| {
        let request = Request {
            taps: Some("us6,us9".to_owned()),
            mode,
            ..Request::default()
        };
        let extractor = common::extractor(model.clone(), request, Kernels::best(), 1);
        let prompt = extractor.encode_prompt("").unwrap();
        let condition = extractor.condition(prompt).unwrap();
        extractor.extract(&[pixels], &condition).unwrap().remove(0)
    };
    for (place, (tap, loss)) in found.parts.iter().enumerate() {
        let mut expected = 0.0;
        for number in [5, 6] {
            let pixels = sample(number, None).pixels;
            let clean = extract(Mode::Clean { timestep: None }, &pixels);
            let student = &clean.maps[place].1;
            let timesteps = bins.draw(&mut Random::new(0, "validation timesteps", number));
            for (index, timestep) in timesteps.into_iter().enumerate() {
                let extent = clean.latents.extent();
                let shape = Shape::map(extent.height, extent.width, clean.latents.channels());
                let number = number * bins.count as u64 + index as u64;
                let noise = Random::new(0, "validation noise", number).normals(shape.size());
                let noise = Noise::Given(Tensor::new(1, shape, noise));
                let noisy = extract(Mode::Noisy { timestep, noise }, &pixels);
                let teacher = noisy.maps[place].1.values();
                expected += distance(student.values(), teacher, student.channels()) / 6.0;
            }
        }
        assert!(
            (loss - expected).abs() < 1e-5,
            "{tap}: {loss}, expected {expected}"
        );
    }
}

#[test]
fn only_what_is_to_be_trained_is() {
    let names = |changes: &[&str]| -> Vec<String> {
        let finetune = finetune(&settings(changes));
        let masters = finetune.masters().unwrap();
        masters.names().into_iter().map(str::to_owned).collect()
    };
    let all = names(&[]);
    let has = |names: &[String], part: &str| names.iter().any(|name| name.contains(part));
    assert!(has(&all, "timestep") && has(&all, "adapters.us10") && has(&all, "mapping."));
    assert!(has(&all, "up_blocks.3.attentions.0"));
    // A buffer, and what lies behind the last tap.
    assert!(!all.iter().any(|name| name == "time_emb.weight"));
    assert!(!has(&all, "up_blocks.3.attentions.1") && !has(&all, "conv_out"));
    let heads = names(&["student.train=none", "student.learn_timestep=false"]);
    assert!(heads.iter().all(|name| {
        ["adapters.", "mapping.", "time_in_proj."]
            .iter()
            .any(|part| name.starts_with(part))
    }));
    let frozen = names(&["heads.frozen=true"]);
    assert!(!has(&frozen, "adapters.") && has(&frozen, "conv_in"));
    let lora = names(&[
        "student.train=lora",
        "heads.frozen=true",
        "lora.layers=[\"attn2\"]",
    ]);
    assert!(
        lora.iter()
            .all(|name| name == "timestep" || name.contains(".attn2."))
    );
    // A first tap needs nothing of the up-sampling half.
    let mid = names(&["objective.taps=mid"]);
    assert!(!has(&mid, "up_blocks") && !has(&mid, "adapters.us"));
}

#[test]
fn nothing_to_train_and_missing_captions_are_told() {
    let config = settings(&[
        "student.train=none",
        "heads.frozen=true",
        "student.learn_timestep=false",
    ]);
    let processor = Processor::new(Kernels::best(), 1).unwrap();
    let error = Finetune::new(begin_with(&config), config.design().unwrap(), &processor);
    assert!(matches!(error, Err(TrainError::NothingToTrain)));

    let mut finetune = finetune(&settings(&[]));
    let masters = Arc::new(finetune.masters().unwrap());
    let uncaptioned = Batch {
        first: 0,
        samples: vec![sample(9, None)],
        skipped: Vec::new(),
    };
    let error = finetune
        .run(&masters, &uncaptioned, &mut |_, _| ())
        .unwrap_err();
    assert!(
        matches!(error, TrainError::NoCaption { number: 9 }),
        "{error}"
    );
}

#[test]
fn a_distilled_student_sees_no_text() {
    let student_of = |text: Text, caption: &str| {
        let mut config = settings(&["heads.norm=none", "export.files=[]"]);
        config.objective.text = text;
        let mut finetune = finetune(&config);
        let masters = Arc::new(finetune.masters().unwrap());
        let batch = Batch {
            first: 0,
            samples: vec![sample(1, Some(caption))],
            skipped: Vec::new(),
        };
        finetune.validate(&masters, &batch).unwrap().total
    };
    let (cat, dog) = ("a photo of a cat", "two dogs");
    assert_eq!(student_of(Text::None, cat), student_of(Text::None, dog));
    assert_ne!(
        student_of(Text::Distilled, cat),
        student_of(Text::Distilled, dog)
    );
    assert_ne!(
        student_of(Text::Distilled, cat),
        student_of(Text::Captions, cat)
    );
    assert_eq!(student_of(Text::Captions, ""), student_of(Text::None, cat));
}

#[test]
fn what_is_kept_on_the_disk_changes_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    let kept = format!("cache.folder='{}'", folder.path().display());
    let run = |changes: &[&str]| {
        let mut finetune = finetune(&settings(changes));
        let masters = Arc::new(finetune.masters().unwrap());
        step(&mut finetune, &masters, &batch([2, 8]))
    };
    let without = run(&[]);
    let latents = [kept.as_str(), "cache.kinds=[\"latents\",\"prompts\"]"];
    assert!(without == run(&latents), "first");
    assert!(without == run(&latents), "again");
    let teacher = [kept.as_str(), "cache.kinds=[\"teacher\"]"];
    let first = run(&teacher);
    assert!(first == run(&teacher));
    // Timesteps and noise are the picture's own now.
    assert_ne!(without.0, first.0);
    let files = |kind: &str| walk(&folder.path().join(kind)).len();
    assert_eq!(
        [files("latents"), files("prompts"), files("teacher")],
        [2, 2, 2]
    );
    // A file that was cut short is made again.
    for (place, file) in walk(folder.path()).into_iter().enumerate() {
        let bytes = std::fs::read(&file).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() * (place % 2) / 2]).unwrap();
    }
    assert!(without == run(&latents), "damaged");
    assert!(first == run(&teacher), "damaged");
}

/// The files below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let below = paths.flat_map(|path| match path.is_dir() {
        true => walk(&path),
        false => vec![path],
    });
    below.collect()
}

/// Features of the middle block, clean.
fn features(model: Model, timestep: Option<f64>) -> Vec<f32> {
    let request = Request {
        taps: Some("us6".to_owned()),
        mode: match timestep {
            Some(timestep) => Mode::Projected { timestep },
            None => Mode::Clean { timestep: None },
        },
        ..Request::default()
    };
    let extractor = common::extractor(model, request, Kernels::best(), 1);
    let prompt = extractor.encode_prompt("").unwrap();
    let condition = extractor.condition(prompt).unwrap();
    let pixels = sample(1, None).pixels;
    let mut extractions = extractor.extract(&[&pixels], &condition).unwrap();
    extractions.remove(0).maps.remove(0).1.values().to_vec()
}

fn open(path: &Path, base: Option<&Path>) -> Model {
    Model::open(&Checkpoint::open(path, base).unwrap()).unwrap()
}

#[test]
fn what_was_learned_is_opened_again() {
    let out = tempfile::tempdir().unwrap();
    let config = settings(&[]);
    let mut finetune = finetune(&config);
    let masters = Arc::new(finetune.masters().unwrap());
    train(&mut finetune, &masters, 2, 1e-3);
    let exporter = Exporter::new(&finetune, &masters, Dtype::F32);
    let base_files = teacher(&config);
    let write = |export| exporter.write(export, &base_files, out.path()).unwrap();
    let (unet, full, folder) = (
        write(Export::Unet),
        write(Export::Full),
        write(Export::Folder),
    );
    let before = features(open(&base(), None), None);
    let learned = features(open(&unet, Some(&base())), None);
    assert_ne!(before, learned);
    assert_eq!(learned, features(open(&folder, None), None));
    // The full file's own timestep is trained; its U-Net is the same.
    let whole = open(&full, Some(&base()));
    let timestep = masters.values("timestep")[0];
    assert_eq!(whole.timestep, Some(f64::from(timestep)));
    let name = "mid_block.resnets.0.conv1.weight";
    assert_eq!(
        whole.unet.weights.read(name).unwrap(),
        *masters.values(name)
    );
    let teacher = whole.teacher.as_ref().unwrap();
    let untrained = open(&base(), None).unet.weights;
    assert_eq!(
        teacher.weights.read(name).unwrap(),
        untrained.read(name).unwrap()
    );
    assert_ne!(
        features(whole.clone(), Some(100.0)),
        features(whole, Some(400.0))
    );
}

#[test]
fn heads_and_student_of_a_file_are_begun_with() {
    let out = tempfile::tempdir().unwrap();
    let config = settings(&["heads.norm=film-intended"]);
    let mut first = finetune(&config);
    let masters = Arc::new(first.masters().unwrap());
    train(&mut first, &masters, 2, 1e-3);
    let exporter = Exporter::new(&first, &masters, Dtype::F32);
    let full = exporter
        .write(Export::Full, &teacher(&config), out.path())
        .unwrap();
    let learned = first.validate(&masters, &batch([1])).unwrap();

    let [student, heads] =
        ["model.student", "heads.from"].map(|key| format!("{key}='{}'", full.display()));
    let again = |norm: &str| settings(&[&student, &heads, norm, "heads.frozen=true"]);
    let mut second = finetune(&again("heads.norm=film-intended"));
    let masters = Arc::new(second.masters().unwrap());
    // Student, heads, the student's timestep and the teacher are the ones of before.
    assert_eq!(second.validate(&masters, &batch([1])).unwrap(), learned);
    assert!(
        !masters
            .names()
            .iter()
            .any(|name| name.starts_with("adapters."))
    );
    for other in ["heads.norm=adarms", "heads.norm=film"] {
        let error = again(other).design().unwrap_err().to_string();
        assert!(error.contains("`heads.norm`"), "{other}: {error}");
    }
    // Which of FiLM's two forms is meant is no tensor's: it survives another writing of the file.
    let again = out.path().join("again.safetensors");
    let opened = Checkpoint::open(&full, Some(&base())).unwrap();
    opened.write(&again, Kind::FullFile, None).unwrap();
    let heads = open(&again, Some(&base())).heads.unwrap();
    assert_eq!(heads.config.norm(), HeadNorm::FilmIntended);
}

#[test]
fn merged_factors_are_the_sum() {
    let out = tempfile::tempdir().unwrap();
    let changes = [
        "student.train=lora",
        "lora.rank=4",
        "lora.alpha=2.0",
        "heads.norm=none",
    ];
    let config = settings(&[&changes[..], &["export.files=[]"]].concat());
    let mut finetune = finetune(&config);
    let masters = Arc::new(finetune.masters().unwrap());
    train(&mut finetune, &masters, 3, 1e-2);
    let exporter = Exporter::new(&finetune, &masters, Dtype::F32);
    let base_files = teacher(&config);
    let write = |export| exporter.write(export, &base_files, out.path()).unwrap();
    let merged = Weights::open(&write(Export::Unet)).unwrap();
    let factors = Weights::open(&write(Export::Lora)).unwrap();
    let before = open(&base(), None).unet.weights;
    assert_eq!(merged.names(), before.names());
    let mut changed = 0;
    for name in before.names() {
        let mut expected = before.read(name).unwrap();
        let module = name.trim_end_matches(".weight");
        let factor = |letter: &str| factors.read(&format!("unet.{module}.lora_{letter}.weight"));
        if let (Ok(a), Ok(b)) = (factor("A"), factor("B")) {
            changed += 1;
            let inputs = a.len() / 4;
            for (index, value) in expected.iter_mut().enumerate() {
                let (o, i) = (index / inputs, index % inputs);
                *value += (0..4)
                    .map(|r| b[o * 4 + r] * a[r * inputs + i])
                    .sum::<f32>();
            }
        }
        for (found, expected) in merged.read(name).unwrap().iter().zip(expected) {
            assert!(
                (found - expected).abs() < 1e-6,
                "{name}: {found} {expected}"
            );
        }
    }
    // Self-attention and perceptrons of the transformers up to the last tap: 3 levels of 2 layers
    // on the way down, the middle, 3 levels on the way up of which the last has one: 6 + 1 + 7
    // transformers with 4 and 2 layers.
    assert_eq!(changed, 14 * 6);
    assert_eq!(factors.len(), 2 * changed);
}

/// Names and shapes of a `_full` file of Stable Diffusion, as the published files have them.
#[test]
fn a_full_file_has_the_published_names_and_shapes() {
    let Some(data) = std::env::var_os("CLEANDIFT_TESTDATA") else {
        eprintln!("skipped: CLEANDIFT_TESTDATA is not set");
        return;
    };
    for (published, name) in [
        (Published::Sd15, "full-sd15"),
        (Published::Sd21, "full-sd21"),
    ] {
        let layouts = Path::new(&data).join(format!("oracle/golden/layouts/{name}.txt"));
        let layouts = std::fs::read_to_string(layouts).unwrap();
        let section = |title: &str| -> Vec<(String, String)> {
            let start = layouts.find(title).unwrap();
            let lines = layouts[start..].lines().skip(1);
            let lines = lines.skip_while(|line| line.starts_with('#'));
            let lines = lines.take_while(|line| !line.starts_with('#'));
            let pairs = lines.filter_map(|line| line.split_once('\t'));
            pairs
                .map(|(name, shape)| (name.to_owned(), shape.to_owned()))
                .collect()
        };
        let with = |prefix: &str, title: &str| {
            let tensors = section(title).into_iter();
            let named = tensors.map(|(name, shape)| (format!("{prefix}{name}"), shape));
            named.collect::<Vec<_>>()
        };
        let expected: BTreeMap<String, String> = [
            with("unet_feature_extractor_base.", "# unet"),
            with("unet_feature_extractor_cleandift.", "# unet"),
            with("ae.ae.", "# vae"),
            section("# cleandift_full"),
        ]
        .into_iter()
        .flatten()
        .collect();
        assert_eq!(expected.len(), 1730);

        let mut config = FinetuneConfig::default();
        config.heads.norm = NormName::Adarms;
        config.student.train = StudentTraining::Full;
        let processor = Processor::new(Kernels::best(), 1).unwrap();
        let model = Model::random_like(published, 0);
        let finetune = Finetune::new(model, config.design().unwrap(), &processor).unwrap();
        let masters = Arc::new(Masters::default());
        let exporter = Exporter::new(&finetune, &masters, Dtype::BF16);
        let full = exporter.full();
        let found = full.iter().map(|tensor| {
            let shape = tensor.store.shape(tensor.stored_as).unwrap();
            let sides: Vec<String> = shape.iter().map(usize::to_string).collect();
            (tensor.name.clone(), sides.join("x"))
        });
        assert_eq!(found.collect::<BTreeMap<_, _>>(), expected);
        let values = full.iter().map(|tensor| {
            let shape = tensor.store.shape(tensor.stored_as).unwrap();
            shape.iter().product::<usize>()
        });
        if published == Published::Sd21 {
            // As established from the published file's size.
            assert_eq!(values.sum::<usize>(), 1_940_523_248);
        }
    }
}
