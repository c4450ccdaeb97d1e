//! The codec in both directions, and how pictures are compared.

mod common;

use cleandift::engine::cpu::Processor;
use cleandift::extractor::{Codec, Latents, Model};
use cleandift::features::FeatureMap;
use cleandift::graph::{Shape, Tensor, reference};
use cleandift::image::{Extent, Filter, Picture, Pixels};
use cleandift::networks::codec::{IMAGE, LATENTS};
use cleandift_kernels::Kernels;
use common::{golden, model, relative_error, tensors, values, wide};

const CELLS: (usize, usize) = (8, 6);

fn codec(model: &Model, kernels: &'static Kernels) -> Codec {
    let processor = Processor::new(kernels, 2).unwrap();
    Codec::new(&model.codec, Latents::Mean, &processor)
}

#[test]
fn the_reference_decodes_as_diffusers_in_double_precision() {
    let expected = tensors(&golden("decode.safetensors"));
    let codec = model("tiny-sd21").codec;
    let (height, width) = CELLS;
    let latents = values(&expected, "latents");
    let latents = Tensor::from_channels_first(1, Shape::map(height, width, 4), &latents);
    let graph = codec.config.decoder(height, width);
    let outputs = reference::run(&graph, &codec.weights, &[(LATENTS, &latents)]).unwrap();
    let [(name, image)] = &outputs[..] else {
        panic!("{} outputs", outputs.len());
    };
    assert_eq!(name, IMAGE);
    let error = relative_error(&image.to_channels_first(), &values(&expected, "image"));
    assert!(error <= 1e-6, "{error:e}");
}

#[test]
fn every_instruction_set_decodes_as_diffusers() {
    let expected = tensors(&golden("decode.safetensors"));
    let (height, width) = CELLS;
    let latents: Vec<f32> = values(&expected, "latents")
        .into_iter()
        .map(|value| value as f32)
        .collect();
    let latents = Tensor::from_channels_first(1, Shape::map(height, width, 4), &latents).data;
    let latents = FeatureMap::new(Extent::new(width, height), 4, latents);
    for kernels in Kernels::all() {
        let image = codec(&model("tiny-sd21"), kernels)
            .decode(&latents)
            .unwrap();
        let extent = image.extent();
        assert_eq!(extent, Extent::new(8 * width, 8 * height));
        let shape = Shape::map(extent.height, extent.width, 3);
        let image = Tensor::new(1, shape, wide(image.values()));
        let error = relative_error(&image.to_channels_first(), &values(&expected, "image"));
        assert!(error <= 1e-5, "{}: {error:e}", kernels.name());
    }
}

#[test]
fn pixels_come_back_from_pixel_unshuffle_to_the_bit() {
    let picture = Picture::open(golden("images/waves.png")).unwrap();
    let (width, height) = (48, 32);
    let picture = picture.resize(Extent::new(width, height), Filter::Bicubic);
    let pixels = Pixels::from(&picture);
    for kernels in Kernels::all() {
        let codec = codec(&Model::random(0), kernels);
        let latents = codec.encode(&pixels).unwrap();
        assert_eq!(latents.extent(), Extent::new(width / 4, height / 4));
        assert_eq!(latents.channels(), 48);
        // The scale of this codec is two: no rounding.
        assert_eq!(codec.decode(&latents).unwrap(), pixels);
    }
}

#[test]
fn a_latent_of_another_model_is_refused() {
    let latents = FeatureMap::new(Extent::new(2, 2), 4, vec![0.0; 16]);
    let error = codec(&Model::random(0), Kernels::best())
        .decode(&latents)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "input `latents` is [2, 2, 4], expected [2, 2, 48]"
    );
}

#[test]
fn every_byte_survives_the_way_through_pixels() {
    let bytes: Vec<u8> = (0..=255).chain([255, 0]).collect();
    let picture = Picture::from_rgb(Extent::new(86, 1), bytes).unwrap();
    assert_eq!(Picture::from(&Pixels::from(&picture)), picture);
    let outside = Pixels::new(Extent::new(1, 1), vec![-1.2, 0.0, 7.0]);
    // 127.5 rounds up.
    assert_eq!(Picture::from(&outside).rgb(), [0, 128, 255]);
}

#[test]
fn psnr_by_hand() {
    let picture = |rgb: [u8; 3]| Picture::from_rgb(Extent::new(1, 1), rgb.to_vec()).unwrap();
    let black = picture([0, 0, 0]);
    // Mean squares: (9 + 16 + 0) / 3, then 255².
    let expected = 10.0 * (65025.0_f64 * 3.0 / 25.0).log10();
    assert!((black.psnr(&picture([3, 4, 0])) - expected).abs() < 1e-12);
    assert_eq!(black.psnr(&picture([255; 3])), 0.0);
    assert_eq!(black.psnr(&black), f64::INFINITY);
}
