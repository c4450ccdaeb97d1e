//! The store: values, names, views.

use cleandift::checkpoint::{Dtype, Weights};
use cleandift::graph::Parameters;
use safetensors::tensor::{TensorView, serialize};

use super::{all, assert_message, tensor, write};

/// The value of a binary float by its definition (IEEE 754), for up to 16 bits.
fn by_definition(bits: u16, exponent_bits: u32) -> f64 {
    let fraction_bits = 15 - exponent_bits;
    let bias = (1 << (exponent_bits - 1)) - 1;
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from((bits & 0x7fff) >> fraction_bits);
    let fraction = f64::from(bits & ((1 << fraction_bits) - 1)) / f64::from(1 << fraction_bits);
    if exponent == (1 << exponent_bits) - 1 {
        return if fraction == 0.0 {
            sign * f64::INFINITY
        } else {
            f64::NAN
        };
    }
    match exponent {
        0 => sign * fraction * 2f64.powi(1 - bias),
        _ => sign * (1.0 + fraction) * 2f64.powi(exponent - bias),
    }
}

#[test]
fn every_half_widens_to_its_value() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("halves.safetensors");
    let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let view = |dtype| TensorView::new(dtype, vec![256, 256], &bytes).unwrap();
    let tensors = [
        ("f16", view(safetensors::Dtype::F16)),
        ("bf16", view(safetensors::Dtype::BF16)),
    ];
    std::fs::write(&path, serialize(tensors, None).unwrap()).unwrap();

    let weights = Weights::open(&path).unwrap();
    assert_eq!(weights.dtype("f16"), Some(Dtype::F16));
    assert_eq!(weights.dtype("bf16"), Some(Dtype::BF16));
    for (name, exponent_bits) in [("f16", 5), ("bf16", 8)] {
        let values = weights.read(name).unwrap();
        assert_eq!(values.len(), 1 << 16);
        for (bits, value) in (0..=u16::MAX).zip(values) {
            let expected = by_definition(bits, exponent_bits);
            let equal = f64::from(value) == expected || (value.is_nan() && expected.is_nan());
            assert!(equal, "{name} {bits:04x}: {value}, expected {expected}");
            assert!(value.is_nan() || value.is_sign_negative() == (bits >> 15 == 1));
        }
    }
}

#[test]
fn long_tensors_are_read_whole() {
    // Longer than one portion of reading, and not a multiple of it.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.safetensors");
    let long = |name: &str| {
        let values = (0..300_001)
            .map(|index| (index % 2048) as f32)
            .collect::<Vec<_>>();
        (name.to_string(), vec![300_001], values)
    };
    for dtype in [Dtype::F32, Dtype::F16] {
        write(
            &path,
            dtype,
            &[tensor("a", &[3]), long("b"), tensor("c", &[1, 2])],
        );
        let weights = Weights::open(&path).unwrap();
        assert_eq!(
            all(&weights),
            [tensor("a", &[3]), long("b"), tensor("c", &[1, 2])]
        );
    }
}

#[test]
fn counts_names_and_versions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(
        &path,
        Dtype::BF16,
        &[
            tensor("b.weight", &[2, 3]),
            tensor("a", &[]),
            tensor("b.bias", &[2]),
        ],
    );
    let weights = Weights::open(&path).unwrap();
    assert_eq!(weights.names(), ["a", "b.bias", "b.weight"]);
    assert_eq!(
        (weights.len(), weights.parameter_count(), weights.bytes()),
        (3, 9, 18)
    );
    assert_eq!(weights.shape("a"), Some(&[][..]));
    assert_eq!(weights.shape("c"), None);
    assert_eq!(weights.files(), std::slice::from_ref(&path));
    assert_eq!(weights.version(), weights.clone().version());
    assert_ne!(weights.version(), Weights::open(&path).unwrap().version());

    let view = weights.with_prefix("b.");
    assert_eq!(view.names(), ["bias", "weight"]);
    assert_eq!(
        view.read("weight").unwrap(),
        weights.read("b.weight").unwrap()
    );
    assert_ne!(view.version(), weights.version());
    assert_message(
        view.read("norm").unwrap_err(),
        &["model.safetensors", "`norm`", "no such tensor"],
    );
}

#[test]
fn merging_takes_both_but_no_name_twice() {
    let one = Weights::from_memory("one", [tensor("a", &[2]), tensor("b", &[1])]);
    let two = Weights::from_memory("two", [tensor("c", &[4])]);
    assert_eq!(one.merged(&two).unwrap().names(), ["a", "b", "c"]);
    let again = Weights::from_memory("again", [tensor("b", &[3])]);
    assert_message(one.merged(&again).unwrap_err(), &["`b` is there twice"]);
}

#[test]
fn integers_are_skipped_but_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let view = |dtype, bytes| TensorView::new(dtype, vec![1], bytes).unwrap();
    let tensors = [
        ("ids", view(safetensors::Dtype::I64, &[0; 8])),
        ("quantised", view(safetensors::Dtype::F8_E4M3, &[0; 1])),
        ("weight", view(safetensors::Dtype::F32, &[0; 4])),
    ];
    std::fs::write(&path, serialize(tensors, None).unwrap()).unwrap();
    let weights = Weights::open(&path).unwrap();
    assert_eq!(weights.names(), ["weight"]);
    let skipped: Vec<_> = weights.skipped().collect();
    assert_eq!(
        skipped,
        [
            ("ids", "I64".to_string()),
            ("quantised", "F8_E4M3".to_string())
        ]
    );
    let error = weights.read("quantised").unwrap_err();
    assert_message(
        error,
        &["`quantised`", "F8_E4M3", "expected F32, F16 or BF16"],
    );
}

#[test]
fn values_that_are_not_finite_are_found() {
    let values = vec![1.0, f32::MAX, f32::NAN, f32::INFINITY];
    let tensors = [
        ("bad".to_string(), vec![2, 2], values),
        ("good".to_string(), vec![2], vec![f32::MIN, 0.0]),
    ];
    let weights = Weights::from_memory("memory", tensors);
    assert_eq!(weights.first_non_finite("bad").unwrap(), Some(2));
    assert_eq!(weights.first_non_finite("good").unwrap(), None);
    assert!(weights.first_non_finite("none").is_err());
}

#[test]
fn metadata_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let metadata = [
        ("format".to_string(), "pt".to_string()),
        ("tap".into(), "us6".into()),
    ]
    .into();
    cleandift::checkpoint::write_safetensors(&path, &[], &metadata).unwrap();
    let weights = Weights::open(&path).unwrap();
    assert!(weights.is_empty());
    assert_eq!(weights.metadata(), &metadata);
}
