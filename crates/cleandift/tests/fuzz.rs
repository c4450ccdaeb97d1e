//! Mutations of small files and words against every parser: whatever the bytes, a value or an error
//! comes back, never a panic.
//!
//! A few thousand run with the tests. `make fuzz` sets `CLEANDIFT_FUZZ` to millions for each parser;
//! a failure prints the seed and number that make it again. The corpus is `golden/hostile`,
//! `golden/pytorch`, `golden/pictures`, and the words below.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use cleandift::checkpoint::Weights;
use cleandift::features::store::Manifest;
use cleandift::graph::Parameters;
use cleandift::hub::{Name, Reference};
use cleandift::image::{Extent, Picture, SIDE_LIMIT, Size};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

const SEED: u64 = 13;
const EXECUTIONS_IN_TESTS: u64 = 3_000;

/// What goes through a file or a picture's decoder takes some hundred times as long as the rest.
const SLOWER: u64 = 100;

fn executions() -> u64 {
    let asked = std::env::var("CLEANDIFT_FUZZ").ok();
    asked.map_or(EXECUTIONS_IN_TESTS, |text| text.parse().expect("a number"))
}

/// The files of a golden folder whose names end so, each at most 8 KiB: long ones mutate no better.
fn corpus(folders: &[&str], endings: &[&str]) -> Vec<Vec<u8>> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut paths = Vec::new();
    for folder in folders {
        let entries = std::fs::read_dir(golden.join(folder)).unwrap();
        paths.extend(entries.map(|entry| entry.unwrap().path()));
    }
    paths.sort();
    paths
        .iter()
        .filter(|path| {
            endings
                .iter()
                .any(|end| path.to_str().unwrap().ends_with(end))
        })
        .map(|path| std::fs::read(path).unwrap())
        .filter(|bytes| bytes.len() <= 8192)
        .collect()
}

/// One to eight changes: bits, bytes, lengths, copies of other places, another file's middle.
fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut ChaCha8Rng) {
    const TELLING: [u64; 8] = [0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fff_ffff, u64::MAX];
    let below = |random: &mut ChaCha8Rng, bound: usize| random.next_u64() as usize % bound.max(1);
    // Half of them keep the length, so that an archive's directory still points to its entries and
    // the parsers behind it get something to do.
    let kinds = [3, 7][below(random, 2)];
    for _ in 0..1 + below(random, 8) {
        let at = below(random, bytes.len());
        match below(random, kinds) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << below(random, 8),
            1 if !bytes.is_empty() => bytes[at] = random.next_u32() as u8,
            2 => {
                let value = TELLING[below(random, TELLING.len())].to_le_bytes();
                for (to, from) in bytes[at..].iter_mut().zip(&value[..1 << below(random, 4)]) {
                    *to = *from;
                }
            }
            3 => bytes.truncate(at),
            4 => {
                let end = (at + below(random, 64)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                let to = below(random, bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            5 => {
                let end = (at + below(random, 16)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ => {
                let other = &others[below(random, others.len())];
                let from = below(random, other.len());
                let end = (from + below(random, 64)).min(other.len());
                let until = (at + end - from).min(bytes.len());
                bytes.splice(at..until, other[from..end].iter().copied());
            }
        }
    }
}

/// Runs a parser on mutations of a corpus; gives how many were taken.
fn fuzz(name: &str, executions: u64, corpus: &[Vec<u8>], parse: impl Fn(Vec<u8>) -> bool) -> u64 {
    assert!(!corpus.is_empty(), "{name}: no corpus");
    let mut taken = 0;
    for number in 0..executions {
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        random.set_stream(number);
        let mut bytes = corpus[number as usize % corpus.len()].clone();
        mutate(&mut bytes, corpus, &mut random);
        match catch_unwind(AssertUnwindSafe(|| parse(bytes))) {
            Ok(was_taken) => taken += u64::from(was_taken),
            Err(_) => panic!("{name}: panic at seed {SEED}, number {number}"),
        }
    }
    println!("{name}: {executions} executions, {taken} taken");
    taken
}

/// Opens and, of what was taken, reads: no header may promise what is not there.
fn open(bytes: Vec<u8>) -> bool {
    let Ok(weights) = Weights::from_bytes("fuzz", bytes) else {
        return false;
    };
    for name in weights.names() {
        weights.read(name).expect("a tensor lies within the file");
    }
    true
}

#[test]
fn archives() {
    let corpus = corpus(&["pytorch", "hostile"], &[".bin", "zip.ckpt"]);
    assert!(fuzz("zip and pickle", executions(), &corpus, open) > 0);
}

/// Pickles without the archive around them, whose directory would refuse most mutations.
#[test]
fn pickles() {
    let corpus = corpus(
        &["pytorch", "hostile"],
        &["legacy.ckpt", "truncated.ckpt", "call.ckpt"],
    );
    assert!(fuzz("pickle", executions(), &corpus, open) > 0);
}

#[test]
fn safetensors() {
    let entry = r#"{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]}"#;
    let header = format!(r#"{{"__metadata__":{{"format":"pt"}},"a.weight":{entry}}}"#);
    let mut good = (header.len() as u64).to_le_bytes().to_vec();
    good.extend(header.as_bytes());
    good.extend([0; 12]);
    let mut corpus = corpus(&["hostile"], &[".safetensors"]);
    corpus.push(good);
    assert!(fuzz("safetensors", executions(), &corpus, open) > 0);
}

/// Names of layouts and of LoRAs: those of a good file, changed.
#[test]
fn names() {
    const NAMES: [&str; 16] = [
        "model.diffusion_model.input_blocks.0.0.weight",
        "model.diffusion_model.input_blocks.3.0.op.weight",
        "model.diffusion_model.output_blocks.2.1.conv.weight",
        "model.diffusion_model.middle_block.1.norm.weight",
        "first_stage_model.decoder.up.0.block.0.norm1.weight",
        "first_stage_model.encoder.mid.attn_1.q.weight",
        "first_stage_model.encoder.mid.block_1.conv1.weight",
        "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight",
        "cond_stage_model.model.transformer.resblocks.1.ln_1.weight",
        "cond_stage_model.transformer.text_model.final_layer_norm.weight",
        "unet_feature_extractor_cleandift.conv_in.weight",
        "unet.down_blocks.0.attn1.to_q.lora_A.weight",
        "unet.down_blocks.0.attn1.to_q.lora_B.weight",
        "lora_unet_mid_block_to_q.lora_down.weight",
        "lora_unet_mid_block_to_q.lora_up.weight",
        "lora_unet_mid_block_to_q.alpha",
    ];
    let corpus: Vec<_> = NAMES.iter().map(|name| name.as_bytes().to_vec()).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("names.safetensors");
    fuzz("names", executions().div_ceil(SLOWER), &corpus, |bytes| {
        let Ok(name) = String::from_utf8(bytes) else {
            return false;
        };
        let entry = |at: usize| serde_json::json!({"dtype": "F16", "shape": [3, 1], "data_offsets": [at * 6, at * 6 + 6]});
        let mut header = serde_json::Map::new();
        for (at, name) in NAMES.iter().copied().chain([name.as_str()]).enumerate() {
            header.entry(name).or_insert(entry(at));
        }
        let length = 6 * header.len();
        let header = serde_json::Value::Object(header).to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.resize(file.len() + length, 0);
        std::fs::write(&path, file).unwrap();
        let lora = cleandift::checkpoint::Lora::open(&path, 1.0);
        let checkpoint = cleandift::checkpoint::Checkpoint::open(&path, None);
        lora.is_ok() || checkpoint.is_ok()
    });
}

/// A folder's manifest: settled once more, it is the same, another one, or unreadable.
#[test]
fn manifests() {
    let settings =
        serde_json::json!({"taps": ["us3", "us6"], "size": "512x512", "noise": null, "seed": 0});
    let serde_json::Value::Object(settings) = settings else {
        unreachable!("an object was written above")
    };
    let manifest = Manifest(settings);
    let folder = tempfile::tempdir().unwrap();
    manifest.settle(folder.path()).unwrap();
    let path = folder.path().join("manifest.json");
    let corpus = [std::fs::read(&path).unwrap()];
    let executions = executions().div_ceil(SLOWER);
    fuzz("manifest", executions, &corpus, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        manifest.settle(folder.path()).is_ok()
    });
}

/// What users write for sizes and for models on a hub.
#[test]
fn words() {
    let corpus = |words: &[&str]| -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    };
    let sizes = corpus(&["512", "640x480", "native", "native:64", "1X16384"]);
    let taken = fuzz("size", executions(), &sizes, |bytes| {
        std::str::from_utf8(&bytes).is_ok_and(|text| text.parse::<Size>().is_ok())
    });
    assert!(taken > 0);
    let names = corpus(&[
        "sd21",
        "org/repo",
        "org/repo:folder/model.safetensors@main",
        "org/repo@0123456789abcdef",
    ]);
    let taken = fuzz("model's name", executions(), &names, |bytes| {
        std::str::from_utf8(&bytes)
            .is_ok_and(|text| text.parse::<Name>().is_ok() | text.parse::<Reference>().is_ok())
    });
    assert!(taken > 0);
}

/// Pictures of every format: none takes more than its limits allow.
#[test]
fn pictures() {
    let endings = [
        ".png", ".jpg", ".gif", ".bmp", ".webp", ".tif", ".ppm", ".pgm", ".pbm",
    ];
    let corpus = corpus(&["pictures"], &endings);
    let executions = executions().div_ceil(SLOWER);
    let taken = fuzz("picture", executions, &corpus, |bytes| {
        Picture::decode(&bytes, "fuzz").is_ok_and(|picture| {
            let Extent { width, height } = picture.extent();
            assert!(width.max(height) <= SIDE_LIMIT);
            assert_eq!(picture.rgb().len(), 3 * width * height);
            true
        })
    });
    assert!(taken > 0);
}
