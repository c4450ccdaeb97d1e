//! Resampling: the bits of Pillow and of PyTorch.

use std::path::Path;

use cleandift::image::{Extent, Filter, Fit, Picture, Pixels, Resample, Size, fit};
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

#[test]
fn filters_give_the_bits_of_pillow() {
    let bytes = golden("resize.safetensors");
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut compared = std::collections::BTreeMap::new();
    for (name, expected) in tensors.tensors() {
        let [source, _, filter] = name.split('/').collect::<Vec<_>>()[..] else {
            continue;
        };
        let filter_by_name = match filter {
            "bicubic" => Filter::Bicubic,
            "bilinear" => Filter::Bilinear,
            "lanczos" => Filter::Lanczos,
            "box" => Filter::Box,
            _ => continue,
        };
        let source = picture(&tensors.tensor(&format!("{source}/input")).unwrap());
        let resized = source.resize(extent(&expected), filter_by_name);
        assert!(resized == picture(&expected), "{name}");
        *compared.entry(filter.to_owned()).or_insert(0) += 1;
    }
    assert_eq!(compared.into_values().collect::<Vec<_>>(), [7, 6, 3, 3]);
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
        let largest = pixels
            .values()
            .iter()
            .zip(floats(&expected))
            .map(|(a, b)| (a - b).abs());
        let largest = largest.fold(0.0, f32::max);
        eprintln!("{name} {largest:e}");
        compared += 1;
    }
    assert_eq!(compared, 5);
}
#[test]
fn speed() {
    let p = Picture::from_rgb(
        Extent::new(4000, 3000),
        (0..4000 * 3000 * 3u32)
            .map(|i| (i.wrapping_mul(2654435761) >> 24) as u8)
            .collect(),
    )
    .unwrap();
    for f in [
        Filter::Bicubic,
        Filter::Bilinear,
        Filter::Lanczos,
        Filter::Box,
    ] {
        let t = std::time::Instant::now();
        let r = p.resize(Extent::new(768, 768), f);
        eprintln!("{f:?} {:?} {}", t.elapsed(), r.rgb()[5]);
    }
}
