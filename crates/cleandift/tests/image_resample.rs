//! Resampling: the bits of Pillow and of PyTorch.

use std::path::Path;

use cleandift::image::{Extent, Fit, Picture, Pixels, Resample, Size, fit};
use safetensors::{SafeTensors, tensor::TensorView};

fn golden(file: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    std::fs::read(folder.join(file)).unwrap()
}

fn extent(tensor: &TensorView) -> Extent {
    Extent::new(tensor.shape()[1], tensor.shape()[0])
}

fn picture(tensor: &TensorView) -> Picture {
    Picture::from_rgb(extent(tensor), tensor.data().to_vec()).unwrap()
}

fn floats(tensor: &TensorView) -> Vec<f32> {
    tensor
        .data()
        .as_chunks()
        .0
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
        .collect()
}

/// `resize.safetensors` has drawn pictures, `passes.safetensors` random ones of any shape, half of
/// which Pillow 13 resizes along the columns first.
#[test]
fn filters_give_the_bits_of_pillow() {
    let mut compared = 0;
    for file in ["resize.safetensors", "passes.safetensors"] {
        let bytes = golden(file);
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        for (name, expected) in tensors.tensors() {
            let [source, _, filter] = name.split('/').collect::<Vec<_>>()[..] else {
                continue;
            };
            let Ok(Resample::Filter(filter)) = filter.parse() else {
                continue;
            };
            let source = picture(&tensors.tensor(&format!("{source}/input")).unwrap());
            let resized = source.resize(extent(&expected), filter);
            assert!(resized == picture(&expected), "{file}: {name}");
            compared += 1;
        }
    }
    assert_eq!(compared, 19 + 32);
}

#[test]
fn pixels_have_the_bits_of_pytorch() {
    let bytes = golden("pixels.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let all: Vec<u8> = (0..=255).flat_map(|byte| [byte; 3]).collect();
    let pixels = Pixels::from(&Picture::from_rgb(Extent::new(256, 1), all).unwrap());
    let expected = floats(&tensors.tensor("bytes").unwrap());
    for (byte, (pixel, expected)) in pixels.values().chunks_exact(3).zip(expected).enumerate() {
        assert!(
            pixel
                .iter()
                .all(|value| value.to_bits() == expected.to_bits()),
            "{byte}"
        );
    }
}

/// Positions near pixel 32 are rounded to 2^-19 in f32, and neighbours differ by up to 2, so two
/// orders of the same operations may give values 2^-18 apart (measured: 1.8e-6).
#[test]
fn tensor_resampling_is_that_of_pytorch() {
    let bytes = golden("pixels.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut compared = 0;
    for (name, expected) in tensors.tensors() {
        let Some((source, _)) = name.split_once('/').filter(|(_, kind)| *kind != "input") else {
            continue;
        };
        let source = picture(&tensors.tensor(&format!("{source}/input")).unwrap());
        let size = Size::Exact(extent(&expected));
        let one = 1.try_into().unwrap();
        let (pixels, _) = fit(&source, size, Fit::Squash, Resample::Tensor, one).unwrap();
        for (value, expected) in pixels.values().iter().zip(floats(&expected)) {
            assert!(
                (value - expected).abs() <= 2.0_f32.powi(-18),
                "{name}: {value} {expected}"
            );
        }
        compared += 1;
    }
    assert_eq!(compared, 5);
}
