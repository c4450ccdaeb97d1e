//! Features of the golden models against PyTorch and diffusers: the reference in f64, and every
//! instruction set's engine in f32. The golden features were computed in f64 and stored as f32.

mod common;

use cleandift::engine::cpu::{Precision, Processor};
use cleandift::extractor::{Extraction, Extractor, Latents, Mode, Noise, Prompts, Request};
use cleandift::features::Tap;
use cleandift::graph::{Parameters, Shape, Tensor};
use cleandift::image::{Extent, Filter, Picture, Pixels};
use cleandift_kernels::Kernels;
use common::{extractor, golden, model, relative_error, tensors, values, wide};

/// Family, picture and prompt, width and height, filter, kind.
type Golden = (
    &'static str,
    [&'static str; 2],
    [usize; 2],
    Filter,
    &'static str,
);

const DOG: [&str; 2] = ["shapes", "a photo of a dog"];
const WAVES: [&str; 2] = ["waves", ""];

const CASES: [Golden; 6] = [
    ("sd15", DOG, [128, 128], Filter::Bicubic, "clean"),
    ("sd15", DOG, [128, 128], Filter::Bicubic, "noise261"),
    ("sd15", WAVES, [192, 128], Filter::Bilinear, "clean"),
    ("sd21", DOG, [128, 128], Filter::Bicubic, "clean"),
    ("sd21", DOG, [128, 128], Filter::Bicubic, "noise261"),
    ("sd21", WAVES, [192, 128], Filter::Bilinear, "clean"),
];

struct Case {
    expected: std::sync::Arc<cleandift::checkpoint::Weights>,
    picture: Picture,
    request: Request,
    prompt: &'static str,
    family: &'static str,
}

impl Case {
    fn load(index: usize) -> Self {
        let (family, [image, prompt], [width, height], filter, kind) = CASES[index];
        let file = format!("features/{family}-{image}-{width}x{height}-{kind}.safetensors");
        let expected = tensors(&golden(&file));
        let picture = Picture::open(golden(&format!("images/{image}.png"))).unwrap();
        let picture = picture.resize(Extent::new(width, height), filter);
        let mode = match kind {
            "clean" => Mode::NaiveClean { timestep: 261.0 },
            _ => {
                let [n, c, h, w] = expected.shape("noise").unwrap().try_into().unwrap();
                let noise = expected.read("noise").unwrap();
                let noise = Tensor::from_channels_first(n, Shape::map(h, w, c), &noise);
                Mode::Noisy {
                    timestep: 261,
                    noise: Noise::Given(noise),
                }
            }
        };
        let request = Request {
            taps: Some("all".into()),
            mode,
            role: None,
            latents: Latents::Mean,
        };
        Self {
            expected,
            picture,
            request,
            prompt,
            family,
        }
    }

    fn extractor(&self, kernels: &'static Kernels) -> Extractor {
        let folder = format!("tiny-{}", self.family);
        extractor(model(&folder), self.request.clone(), kernels, 2)
    }

    fn compare(&self, name: &str, found: &[f64], tolerance: f64) {
        let error = relative_error(found, &values(&self.expected, name));
        assert!(error <= tolerance, "{} {name}: {error:e}", self.family);
    }
}

#[test]
fn the_reference_is_pytorch_in_double_precision() {
    for index in 0..CASES.len() {
        let case = Case::load(index);
        let Extent { width, height } = case.picture.extent();
        let pixels = case
            .picture
            .rgb()
            .iter()
            .map(|&v| f64::from(v) / 255.0 * 2.0 - 1.0);
        let image = Tensor::new(1, Shape::map(height, width, 3), pixels.collect());
        let extractor = case.extractor(Kernels::best());
        let outputs = extractor.reference(&image, case.prompt).unwrap();
        assert_eq!(outputs.len(), Tap::ALL.len() + 2);
        for (name, tensor) in outputs {
            let found = match name.as_str() {
                "prompt_embeds" => tensor.data,
                _ => tensor.to_channels_first(),
            };
            case.compare(&name, &found, 1e-7);
        }
    }
}

fn extract(extractor: &Extractor, prompt: &str, pixels: &[&Pixels]) -> Vec<Extraction> {
    let prompt = extractor.text_encoder().unwrap().encode(prompt).unwrap();
    let condition = extractor.condition(prompt).unwrap();
    extractor.extract(pixels, &condition).unwrap()
}

#[test]
fn every_instruction_set_agrees_with_pytorch() {
    for kernels in Kernels::all() {
        for index in 0..CASES.len() {
            let case = Case::load(index);
            let extractor = case.extractor(kernels);
            let pixels = Pixels::from(&case.picture);
            let extraction = extract(&extractor, case.prompt, &[&pixels]).remove(0);
            case.compare(
                "latents",
                &wide(&extraction.latents.to_channels_first()),
                5e-6,
            );
            for (name, map) in &extraction.maps {
                case.compare(name, &wide(&map.to_channels_first()), 1e-5);
            }
        }
    }
}

/// For one or two pictures, weights are packed one after the other into the same memory: the same
/// bits, picture after picture, and less memory than all of them.
#[test]
fn for_few_pictures_no_weight_is_kept_and_no_bit_changes() {
    let case = Case::load(3);
    let pixels = Pixels::from(&case.picture);
    let precisions = [false, true].map(|half_weights| Precision {
        half_weights,
        ..Precision::default()
    });
    for precision in precisions {
        let processor = Processor::from_env(2).unwrap();
        let processor = processor.with_precision(precision).unwrap();
        let new = || {
            let model = model(&format!("tiny-{}", case.family));
            Extractor::new(model, case.request.clone(), processor.clone()).unwrap()
        };
        let (kept, few) = (new(), new().expecting(2));
        let bytes = |extractor: &Extractor| {
            let canvas = Extent::new(128, 128);
            extractor
                .estimate(canvas, 1, Prompts::One)
                .unwrap()
                .weight_bytes
        };
        assert!(2 * bytes(&few) < bytes(&kept));
        assert_eq!(bytes(&new().expecting(3)), bytes(&kept));
        let expected = extract(&kept, case.prompt, &[&pixels]);
        // Several at once, of one extractor: their weights come and go under each other's hands.
        std::thread::scope(|scope| {
            let extracted = || extract(&few, case.prompt, &[&pixels]);
            let runs = [(); 4].map(|()| scope.spawn(extracted));
            for run in runs {
                assert_eq!(run.join().unwrap(), expected);
            }
        });
    }
}

/// Of noisy features the mean over draws is joined, as published protocols join what they compare: not
/// the parts of each draw.
#[test]
fn joined_taps_are_one_map_of_what_they_are_alone() {
    let case = Case::load(4);
    let extract_taps = |taps: &str| {
        let request = Request {
            taps: Some(taps.to_owned()),
            ..case.request.clone()
        };
        let extractor = extractor(model("tiny-sd21"), request, Kernels::best(), 2);
        let pixels = Pixels::from(&case.picture);
        extract(&extractor, case.prompt, &[&pixels]).remove(0).maps
    };
    let maps = extract_taps("us9, us3 + us9,us3");
    let names: Vec<&str> = maps.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["us9", "us3+us9", "us3"]);
    let (fine, joined, coarse) = (&maps[0].1, &maps[1].1, &maps[2].1);
    assert_eq!(joined.extent(), fine.extent());
    assert_eq!(joined.channels(), coarse.channels() + fine.channels());
    let Extent { width, height } = fine.extent();
    for (column, row) in (0..width).flat_map(|u| (0..height).map(move |v| (u, v))) {
        let (first, second) = joined.cell(column, row).split_at(coarse.channels());
        let length = |values: &[f32]| values.iter().map(|v| v * v).sum::<f32>().sqrt();
        assert!((length(first) - 1.0).abs() < 1e-5);
        let alone = fine.cell(column, row);
        for (found, value) in second.iter().zip(alone) {
            assert!((found - value / length(alone)).abs() < 1e-6);
        }
    }
    let alone = extract_taps("us9");
    assert_eq!(&alone[0].1, fine);
}
