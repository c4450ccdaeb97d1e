//! Writing: the format, rounding, and what is left when it fails.

use std::collections::{BTreeMap, HashMap};

use cleandift::checkpoint::{Dtype, TensorData, Weights, WriteError, write_safetensors};
use cleandift::graph::Parameters;
use safetensors::tensor::{TensorView, serialize};

use super::assert_message;

fn data<'a>(name: &'a str, shape: &'a [usize], values: &'a [f32], dtype: Dtype) -> TensorData<'a> {
    TensorData {
        name,
        shape,
        values,
        dtype,
    }
}

#[test]
fn the_bytes_are_those_of_the_safetensors_crate() {
    let values = [1.0f32, -2.5, 0.0, 1e-3, 65504.0, -0.0];
    let as_bytes = |dtype| -> Vec<u8> {
        match dtype {
            safetensors::Dtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            safetensors::Dtype::F16 => values
                .iter()
                .flat_map(|&v| half::f16::from_f32(v).to_le_bytes())
                .collect(),
            _ => values
                .iter()
                .flat_map(|&v| half::bf16::from_f32(v).to_le_bytes())
                .collect(),
        }
    };
    let types = [
        safetensors::Dtype::F16,
        safetensors::Dtype::F32,
        safetensors::Dtype::BF16,
    ];
    let [f16, f32, bf16] = types.map(as_bytes);
    let view = |dtype, bytes| TensorView::new(dtype, vec![2, 3], bytes).unwrap();
    let theirs = [
        ("half", view(types[0], &f16)),
        ("single", view(types[1], &f32)),
        ("brain", view(types[2], &bf16)),
        ("also \"single\"", view(types[1], &f32)),
    ];
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let theirs = serialize(theirs, Some(metadata)).unwrap();

    let ours = [
        data("single", &[2, 3], &values, Dtype::F32),
        data("half", &[2, 3], &values, Dtype::F16),
        data("also \"single\"", &[2, 3], &values, Dtype::F32),
        data("brain", &[2, 3], &values, Dtype::BF16),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write_safetensors(&path, &ours, &[("format".into(), "pt".into())].into()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), theirs);
}

#[test]
fn the_same_tensors_give_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let metadata: BTreeMap<_, _> = (0..20)
        .map(|key| (format!("key {key}"), format!("value {key}")))
        .collect();
    let mut tensors = [
        data("b", &[2], &[1.0, 2.0], Dtype::F32),
        data("a", &[], &[3.0], Dtype::F16),
    ];
    let mut write = |name: &str| {
        let path = folder.path().join(name);
        write_safetensors(&path, &tensors, &metadata).unwrap();
        tensors.reverse();
        std::fs::read(path).unwrap()
    };
    assert_eq!(write("one"), write("two"));
}

#[test]
fn halves_round_to_nearest_even() {
    // f16 has 11 significant bits: between 2048 and 4096 it counts in twos. bf16 has 8: 261 lies in
    // the middle of 260 and 262.
    let cases = [
        (Dtype::F16, 2049.0, 2048.0),
        (Dtype::F16, 2051.0, 2052.0),
        (Dtype::F16, 65519.0, 65504.0),
        (Dtype::F16, 261.0, 261.0),
        (Dtype::BF16, 261.0, 260.0),
        (Dtype::BF16, 263.0, 264.0),
        (Dtype::BF16, 70000.0, 70144.0),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("value.safetensors");
    for (dtype, value, stored) in cases {
        write_safetensors(&path, &[data("v", &[], &[value], dtype)], &BTreeMap::new()).unwrap();
        assert_eq!(
            Weights::open(&path).unwrap().read("v").unwrap(),
            [stored],
            "{dtype} {value}"
        );
    }
}

#[test]
fn refusals_name_the_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let refuse = |tensors: &[TensorData]| {
        let error = write_safetensors(&path, tensors, &BTreeMap::new()).unwrap_err();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        error
    };
    let error = refuse(&[data("us6", &[3], &[1.0, 65520.0, 0.0], Dtype::F16)]);
    assert_message(error, &["`us6`", "65520 at index 1", "F16"]);
    let error = refuse(&[data("us6", &[1], &[f32::MAX], Dtype::BF16)]);
    assert_message(error, &["does not fit into BF16"]);
    let error = refuse(&[data("us6", &[2, 2], &[1.0; 3], Dtype::F32)]);
    assert_message(error, &["`us6` of shape [2, 2] was given 3 values"]);
    let twice = data("us6", &[1], &[1.0], Dtype::F32);
    assert!(matches!(
        refuse(&[twice, twice]),
        WriteError::NameTaken { .. }
    ));
    let reserved = data("__metadata__", &[1], &[1.0], Dtype::F32);
    assert!(matches!(refuse(&[reserved]), WriteError::NameTaken { .. }));
}

#[test]
fn a_failure_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let good = [data("a", &[1], &[1.0], Dtype::F32)];
    write_safetensors(&path, &good, &BTreeMap::new()).unwrap();
    let before = std::fs::read(&path).unwrap();
    let bad = [data("a", &[1], &[1e30], Dtype::F16)];
    write_safetensors(&path, &bad, &BTreeMap::new()).unwrap_err();
    assert_eq!(std::fs::read(&path).unwrap(), before);

    // A folder of that name cannot be replaced; the temporary file must go.
    let taken = folder.path().join("taken");
    std::fs::create_dir_all(taken.join("inside")).unwrap();
    let error = write_safetensors(&taken, &good, &BTreeMap::new()).unwrap_err();
    assert!(matches!(error, WriteError::Io { .. }), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);

    let nowhere = folder.path().join("nowhere/model.safetensors");
    let error = write_safetensors(&nowhere, &good, &BTreeMap::new()).unwrap_err();
    assert_message(error, &["nowhere/model.safetensors", "cannot be written"]);
}

#[cfg(unix)]
#[test]
fn the_file_is_an_ordinary_one() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let ordinary = folder.path().join("ordinary");
    std::fs::write(&ordinary, "").unwrap();
    write_safetensors(&path, &[], &BTreeMap::new()).unwrap();
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&path), mode(&ordinary));
}
