//! Single parts against PyTorch, diffusers and transformers: schedule, tokenizer, text encoder,
//! projection heads; and independence of batch and threads.

mod common;

use std::collections::HashMap;
use std::fs;

use cleandift::checkpoint::Weights;
use cleandift::extractor::{Extraction, Latents, Mode, Model, Noise, Request, TextModel};
use cleandift::graph::{Parameters, Shape, Tensor, reference};
use cleandift::image::{Extent, Picture, Pixels};
use cleandift::networks::heads::{HeadsConfig, TIMESTEP};
use cleandift::networks::schedule::Schedule;
use cleandift::networks::tokenizer::Tokenizer;
use cleandift_kernels::Kernels;
use common::{extractor, golden, model, relative_error, tensors, values, wide};

#[test]
fn the_schedule_has_the_bits_of_diffusers() {
    let expected = tensors(&golden("schedule.safetensors"));
    let schedule = Schedule::default();
    assert_eq!(
        schedule.alphas_cumprod(),
        expected.read("alphas_cumprod").unwrap()
    );
    let roots = expected.read("sqrt_alphas_cumprod").unwrap();
    let rest = expected.read("sqrt_one_minus_alphas_cumprod").unwrap();
    for timestep in 0..1000 {
        let (image, noise) = schedule.factors(timestep);
        // PyTorch's `** 0.5` is a power, which may round otherwise than a square root.
        for (found, expected) in [(image, roots[timestep]), (noise, rest[timestep])] {
            let units = found.to_bits().abs_diff(expected.to_bits());
            assert!(units <= 1, "t = {timestep}: {found} instead of {expected}");
        }
    }
}

/// Token ids of the golden prompts, row by row. They are stored as i64, which weights are not.
fn golden_ids(family: &str) -> (Vec<String>, Vec<Vec<u32>>) {
    let bytes = fs::read(golden(&format!("text/{family}.safetensors"))).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let prompts = &metadata.metadata().as_ref().unwrap()["prompts"];
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let ids = file.tensor("input_ids").unwrap();
    let ids: Vec<u32> = ids
        .data()
        .chunks_exact(8)
        .map(|id| i64::from_le_bytes(id.try_into().unwrap()) as u32)
        .collect();
    let rows = ids.chunks_exact(77).map(<[u32]>::to_vec).collect();
    (serde_json::from_str(prompts).unwrap(), rows)
}

#[test]
fn token_ids_are_those_of_transformers() {
    for (family, padding) in [("sd15", "<|endoftext|>"), ("sd21", "!")] {
        let (prompts, rows) = golden_ids(family);
        let text = |file: &str| {
            fs::read_to_string(golden(&format!("tiny-{family}/tokenizer/{file}"))).ok()
        };
        let vocabulary = (text("vocab.json").unwrap(), text("merges.txt").unwrap());
        let own = Tokenizer::from_vocabulary(&vocabulary.0, &vocabulary.1, Some(padding)).unwrap();
        let json = text("tokenizer.json");
        let json = json.map(|text| Tokenizer::from_json(&text, Some(padding)).unwrap());
        assert_eq!(json.is_some(), family == "sd15");
        for (prompt, expected) in prompts.iter().zip(&rows) {
            for tokenizer in [Some(&own), json.as_ref()].into_iter().flatten() {
                let tokens = tokenizer.encode(prompt, 77).unwrap();
                assert_eq!(&tokens.ids, expected, "{family}: {prompt:?}");
                assert_eq!(
                    tokens.cut > 0,
                    prompt.starts_with("word word"),
                    "{prompt:?}"
                );
            }
        }
    }
}

#[test]
fn prompt_embeddings_are_those_of_transformers() {
    for family in ["sd15", "sd21"] {
        let (prompts, _) = golden_ids(family);
        let expected = tensors(&golden(&format!("text/{family}.safetensors")));
        let expected = values(&expected, "prompt_embeds");
        for kernels in Kernels::all() {
            let model = model(&format!("tiny-{family}"));
            let extractor = extractor(model, Request::default(), kernels, 1);
            let encoder = extractor.text_encoder().unwrap();
            let size = expected.len() / 4;
            for (prompt, expected) in prompts.iter().zip(expected.chunks_exact(size)) {
                let found = encoder.encode(prompt).unwrap().embeddings;
                assert_eq!(extractor.encode_prompt(prompt).unwrap().embeddings, found);
                let error = relative_error(&wide(&found.data), expected);
                assert!(
                    error < 2e-6,
                    "{family} {}: {prompt:?}: {error:e}",
                    kernels.name()
                );
            }
        }
    }
}

/// The parameters of one golden case under other names.
fn renamed(file: &Weights, case: &str, rename: impl Fn(&str) -> String) -> Weights {
    let prefix = format!("{case}/param.");
    let tensors = file.names().into_iter().filter_map(|name| {
        let short = name.strip_prefix(&prefix)?;
        let shape = file.shape(name).unwrap().to_vec();
        Some((rename(short), shape, file.read(name).unwrap()))
    });
    Weights::from_memory(case, tensors.collect::<Vec<_>>())
}

#[test]
fn the_mapping_and_a_head_are_those_of_the_published_code() {
    let file = tensors(&golden("blocks/heads.safetensors"));
    let mapping = renamed(&file, "mapping", str::to_owned);
    // Identity heads show the mapping alone: a head whose output is its condition does not exist,
    // so the condition is checked through a head with known weights, worked out by hand below.
    let width = mapping.shape("time_in_proj.weight").unwrap()[0];
    let head = [
        ("norm.linear", vec![width, width], identity(width)),
        (
            "up_proj",
            vec![2 * width, width],
            [identity(width), identity(width)].concat(),
        ),
        ("down_proj", vec![width, width], identity(width)),
    ];
    let head = head.map(|(part, shape, values)| {
        (
            format!("adapters.mid.layers.0.{part}.weight"),
            shape,
            values,
        )
    });
    let weights = mapping.merged(&Weights::from_memory("head", head)).unwrap();
    let config = HeadsConfig::from_weights(&weights).unwrap();
    let graph = config.graph(&[("mid", Shape::vector(width))]).unwrap();
    let expected = values(&file, "mapping/out.y");
    let timesteps = values(&file, "mapping/in.t");
    for (timestep, condition) in timesteps.iter().zip(expected.chunks_exact(width)) {
        let x = vec![1.0; width];
        let inputs = [
            (TIMESTEP, &Tensor::new(1, Shape::vector(1), vec![*timestep])),
            ("mid", &Tensor::new(1, Shape::vector(width), x)),
        ];
        let outputs = reference::run(&graph, &weights, &inputs).unwrap();
        // x = 1: rms norm gives y = (c + 1) / sqrt(1 + eps), gated y * silu(y), x + that.
        let by_hand: Vec<f64> = condition
            .iter()
            .map(|c| {
                let y = (c + 1.0) / (1.0f64 + 1e-6).sqrt();
                1.0 + y * y / (1.0 + (-y).exp())
            })
            .collect();
        let error = relative_error(&outputs[0].1.data, &by_hand);
        assert!(error < 1e-6, "t = {timestep}: {error:e}");
    }
}

fn identity(size: usize) -> Vec<f32> {
    (0..size * size)
        .map(|i| f32::from(i % (size + 1) == 0))
        .collect()
}

/// Pictures that differ from image to image.
fn pictures(count: usize, extent: Extent) -> Vec<Pixels> {
    let picture = |seed: usize| {
        let size = extent.width * extent.height * 3;
        let rgb = (0..size).map(|i| ((i * (seed * 7 + 13) + i / 97 * 31) % 256) as u8);
        Pixels::from(&Picture::from_rgb(extent, rgb.collect()).unwrap())
    };
    (0..count).map(picture).collect()
}

fn bits(extractions: &[Extraction]) -> Vec<u32> {
    let maps = extractions.iter().flat_map(|extraction| {
        extraction
            .maps
            .iter()
            .map(|(_, map)| map)
            .chain([&extraction.latents])
    });
    maps.flat_map(|map| map.values())
        .map(|value| value.to_bits())
        .collect()
}

#[test]
fn bits_do_not_depend_on_batch_or_threads() {
    let images = pictures(8, Extent::new(96, 64));
    let modes = [
        Mode::Clean { timestep: None },
        Mode::Noisy {
            timestep: 261,
            noise: Noise::Drawn { seed: 3, count: 3 },
        },
    ];
    for mode in modes {
        let mut seen: HashMap<&str, Vec<u32>> = HashMap::new();
        for kernels in Kernels::all() {
            for (threads, batch) in [(1, 1), (2, 3), (2, 8), (7, 8)] {
                let latents = Latents::Sample { seed: 9 };
                let request = Request {
                    taps: Some("all".into()),
                    mode: mode.clone(),
                    role: None,
                    latents,
                };
                let extractor = extractor(model("tiny-sd21"), request, kernels, threads);
                let prompt = extractor.text_encoder().unwrap().encode("a photo").unwrap();
                let condition = extractor.condition(prompt).unwrap();
                let extractions: Vec<Extraction> = images
                    .chunks(batch)
                    .flat_map(|images| {
                        let images: Vec<&Pixels> = images.iter().collect();
                        extractor.extract(&images, &condition).unwrap()
                    })
                    .collect();
                let found = bits(&extractions);
                let first = seen.entry(kernels.name()).or_insert_with(|| found.clone());
                assert!(
                    *first == found,
                    "{}: {threads} threads, batch {batch}",
                    kernels.name()
                );
            }
        }
    }
}

#[test]
fn the_random_model_agrees_with_its_reference() {
    let request = Request {
        taps: Some("all".into()),
        ..Request::default()
    };
    let images = pictures(1, Extent::new(64, 96));
    for kernels in Kernels::all() {
        let extractor = extractor(Model::random(5), request.clone(), kernels, 2);
        let prompt = extractor.text_encoder().unwrap().encode("").unwrap();
        let condition = extractor.condition(prompt).unwrap();
        let found = extractor
            .extract(&[&images[0]], &condition)
            .unwrap()
            .remove(0);
        let image = Tensor::new(1, Shape::map(96, 64, 3), wide(images[0].values()));
        let expected: HashMap<_, _> = extractor
            .reference(&image, "")
            .unwrap()
            .into_iter()
            .collect();
        for (name, map) in &found.maps {
            let error = relative_error(&wide(map.values()), &expected[name].data);
            assert!(error < 1e-5, "{} {name}: {error:e}", kernels.name());
        }
    }
}

#[test]
fn a_nan_in_the_weights_is_named() {
    let mut broken = model("tiny-sd21");
    let name = "down_blocks.1.resnets.0.conv2.weight";
    let weights = &broken.unet.weights;
    let tensors = weights.names().into_iter().map(|tensor| {
        let mut values = weights.read(tensor).unwrap();
        if tensor == name {
            values[17] = f32::NAN;
        }
        (
            tensor.to_owned(),
            weights.shape(tensor).unwrap().to_vec(),
            values,
        )
    });
    broken.unet.weights = Weights::from_memory("broken", tensors.collect::<Vec<_>>());
    let extractor = extractor(broken, Request::default(), Kernels::best(), 1);
    let prompt = extractor.text_encoder().unwrap().encode("").unwrap();
    let condition = extractor.condition(prompt).unwrap();
    let images = pictures(1, Extent::new(64, 64));
    let error = extractor
        .extract(&[&images[0]], &condition)
        .unwrap_err()
        .to_string();
    assert!(error.contains(name), "{error}");
}

#[test]
fn a_class_table_takes_numbers() {
    let random = Model::random(1);
    let TextModel::ClassTable(table) = random.text.clone().unwrap() else {
        panic!()
    };
    let rows = table.weights.read("table").unwrap();
    let extractor = extractor(random, Request::default(), Kernels::best(), 1);
    let encoder = extractor.text_encoder().unwrap();
    for (prompt, row) in [("0", 0), ("", 1)] {
        let embeddings = encoder.encode(prompt).unwrap().embeddings;
        assert_eq!(embeddings.data, rows[row * 128..(row + 1) * 128]);
    }
    for prompt in ["1", "dog", "-1"] {
        assert!(encoder.encode(prompt).is_err());
    }
}
