//! PyTorch's own files. `golden/pytorch` was written by PyTorch (`scripts/make_pytorch_golden.py`).

use std::path::{Path, PathBuf};

use cleandift::checkpoint::{Checkpoint, CheckpointError, Dtype, Weights};
use cleandift::graph::Parameters;

use super::{assert_message, golden};

fn file(name: &str) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    golden.join("pytorch").join(name)
}

/// The script's `values`.
fn values(range: std::ops::Range<usize>) -> Vec<f32> {
    range.map(|index| index as f32 / 4.0 - 3.0).collect()
}

#[test]
fn both_forms_hold_the_same_tensors() {
    for name in ["zip.ckpt", "legacy.ckpt", "plain.bin"] {
        let weights = Weights::open(&file(name)).unwrap();
        let expected: [(&str, &[usize], Dtype, Vec<f32>); 7] = [
            ("brain", &[5], Dtype::BF16, values(0..5)),
            ("empty", &[0, 4], Dtype::F32, vec![]),
            ("half", &[3, 2], Dtype::F16, values(0..6)),
            ("parameter", &[4], Dtype::F32, values(0..4)),
            ("scalar", &[], Dtype::F32, vec![261.0]),
            ("single", &[2, 3, 4], Dtype::F32, values(0..24)),
            ("view", &[2, 3], Dtype::F32, values(4..10)),
        ];
        let names: Vec<_> = expected.iter().map(|(name, ..)| *name).collect();
        assert_eq!(weights.names(), names);
        for (tensor, shape, dtype, values) in expected {
            assert_eq!(weights.shape(tensor), Some(shape), "{name}: {tensor}");
            assert_eq!(weights.dtype(tensor), Some(dtype), "{name}: {tensor}");
            assert_eq!(weights.read(tensor).unwrap(), values, "{name}: {tensor}");
        }
        let skipped: Vec<_> = weights.skipped().collect();
        assert_eq!(skipped, [("positions", "I64".to_owned())]);
    }
}

#[test]
fn axes_may_be_stored_in_another_order() {
    let weights = Weights::open(&file("transposed.bin")).unwrap();
    let turned = (0..24).map(|place| (place % 4 * 6 + place / 4) as f32 / 4.0 - 3.0);
    assert_eq!(weights.read("turned").unwrap(), turned.collect::<Vec<_>>());
    assert_eq!(weights.shape("channels_last"), Some(&[2, 3, 2, 2][..]));
    assert_eq!(weights.read("channels_last").unwrap(), values(0..24));
    let skipped: Vec<_> = weights.skipped().collect();
    assert_eq!(skipped, [("complex", "C64".to_owned())]);
    let error = Weights::open(&file("gaps.bin")).unwrap_err();
    assert_message(error, &["`gaps` [4, 3]", "[6, 1]", "`.contiguous()`"]);
}

/// Neither form may lose a byte without an error, or make a tensor of what is not there.
#[test]
fn every_truncation_is_an_error() {
    for name in ["zip.ckpt", "legacy.ckpt"] {
        let whole = std::fs::read(file(name)).unwrap();
        for length in 0..whole.len() {
            let error = Weights::from_bytes(name, whole[..length].to_vec());
            assert!(error.is_err(), "{name} cut to {length} bytes");
        }
    }
}

/// No byte that is changed may cause a panic.
#[test]
fn every_changed_byte_is_read_or_refused() {
    for name in ["zip.ckpt", "legacy.ckpt", "plain.bin"] {
        let whole = std::fs::read(file(name)).unwrap();
        for at in 0..whole.len() {
            for bits in [0x01, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] ^= bits;
                if let Ok(weights) = Weights::from_bytes(name, changed) {
                    for tensor in weights.names() {
                        let _ = weights.read(tensor);
                    }
                }
            }
        }
    }
}

#[test]
fn a_pickle_that_would_run_something() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    let witness = folder.path().join("witness");
    let command = format!("touch {}", witness.display());
    let mut bytes = b"\x80\x02cposix\nsystem\nX".to_vec();
    bytes.extend((command.len() as u32).to_le_bytes());
    bytes.extend(command.as_bytes());
    bytes.extend(b"\x85R.");
    std::fs::write(&path, bytes).unwrap();
    let error = Checkpoint::open(&path, None).unwrap_err();
    assert!(matches!(error, CheckpointError::InvalidPyTorch { .. }));
    assert_message(error, &["model.bin", "`posix.system`", "nothing was run"]);
    assert!(!witness.exists());
}

#[test]
fn the_layouts_of_full_size_models_are_understood() {
    let Some(golden) = golden() else { return };
    for name in ["full-sd15", "full-sd21"] {
        let text = std::fs::read_to_string(golden.join(format!("layouts/{name}.txt"))).unwrap();
        let single = section(&text, "# single_file ");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        write_shapes(&path, &single);
        let checkpoint = Checkpoint::open(&path, None).unwrap();
        let parts = [
            ("# unet ", checkpoint.unet()),
            ("# vae ", checkpoint.vae().unwrap()),
            ("# text_encoder ", checkpoint.text_encoder().unwrap()),
        ];
        for (heading, part) in parts {
            let mut expected = section(&text, heading);
            expected.retain(|(name, _)| !name.ends_with("position_ids"));
            expected.sort();
            let found = part.weights.names().into_iter();
            let found: Vec<_> = found
                .map(|tensor| {
                    (
                        tensor.to_owned(),
                        part.weights.shape(tensor).unwrap().to_vec(),
                    )
                })
                .collect();
            assert_eq!(found, expected, "{name}, {heading}");
        }
    }
}

type Shapes = Vec<(String, Vec<usize>)>;

/// The names and shapes below a heading.
fn section(text: &str, heading: &str) -> Shapes {
    let lines = text.lines().skip_while(|line| !line.starts_with(heading));
    let lines = lines.skip(1).take_while(|line| !line.starts_with('#'));
    let shape = |text: &str| match text {
        "" | "scalar" | "()" => vec![],
        shape => shape
            .split('x')
            .map(|length| length.parse().unwrap())
            .collect(),
    };
    lines
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, text)| (name.to_owned(), shape(text)))
        .collect()
}

/// A file of these shapes in f16 whose data is a hole: it takes no room on the disk.
fn write_shapes(path: &Path, shapes: &Shapes) {
    let mut start = 0;
    let mut header = serde_json::Map::new();
    for (name, shape) in shapes {
        let end = start + 2 * shape.iter().product::<usize>();
        let entry =
            serde_json::json!({"dtype": "F16", "shape": shape, "data_offsets": [start, end]});
        header.insert(name.clone(), entry);
        start = end;
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    std::fs::write(path, &bytes).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len((bytes.len() + start) as u64).unwrap();
}
