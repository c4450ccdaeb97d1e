//! Sampling against diffusers' DDIM scheduler, for models that predict noise and velocity.

mod common;

use cleandift::engine::cpu::Processor;
use cleandift::extractor::Prompt;
use cleandift::features::FeatureMap;
use cleandift::graph::{Parameters, Shape, Tensor};
use cleandift::image::Extent;
use cleandift::sampler::{Sampler, Sampling};
use cleandift_kernels::Kernels;
use common::{golden, model, relative_error, tensors, wide};

/// What the golden file was made with.
const SAMPLING: Sampling = Sampling {
    steps: 4,
    guidance: 1.5,
};

/// The images of `[2, 4, 16, 12]`.
fn latents(values: &[f32]) -> Vec<FeatureMap> {
    let shape = Shape::map(16, 12, 4);
    let tensor = Tensor::<f32>::from_channels_first(2, shape, values);
    let map = |image| FeatureMap::new(Extent::new(12, 16), 4, tensor.image(image).to_vec());
    (0..2).map(map).collect()
}

#[test]
fn latents_are_those_of_diffusers() {
    let expected = tensors(&golden("sampling.safetensors"));
    for preset in ["tiny-sd15", "tiny-sd21"] {
        let read = |name: &str| expected.read(&format!("{preset}/{name}")).unwrap();
        let noise = latents(&read("noise"));
        let [prompt, none] = ["prompt", "none"].map(|name| {
            let values = read(name);
            Prompt::from_embeddings(9, values.len() / 9, values)
        });
        for (name, ends_clean) in [("latents", false), ("clean", true)] {
            let mut model = model(preset);
            model.schedule.ends_clean = ends_clean;
            for kernels in Kernels::all() {
                let processor = Processor::new(kernels, 2).unwrap();
                let sampler = Sampler::new(&model, &processor);
                let mut steps = Vec::new();
                let mut sample = |noise: &[FeatureMap]| {
                    let mut watch = |step| steps.push(step);
                    sampler
                        .sample(noise, &prompt, &none, SAMPLING, &mut watch)
                        .unwrap()
                };
                let found = sample(&noise);
                for (found, expected) in found.iter().zip(latents(&read(name))) {
                    let (found, expected) = (wide(found.values()), wide(expected.values()));
                    // PyTorch's own f32 is 4e-6 off.
                    let error = relative_error(&found, &expected);
                    assert!(error < 5e-5, "{preset} {name}: {error:e}");
                }
                assert_eq!(
                    sample(&noise[1..])[0],
                    found[1],
                    "a batch changes a picture"
                );
                assert_eq!(steps, [1, 2, 3, 4, 1, 2, 3, 4]);
            }
        }
    }
}

#[test]
fn guidance_of_one_is_the_prompt_alone() {
    let model = model("tiny-sd21");
    let processor = Processor::new(Kernels::best(), 1).unwrap();
    let sampler = Sampler::new(&model, &processor);
    let noise = [sampler.noise(Extent::new(64, 32), 5, 0)];
    let width = model.unet.config.cross_attention_dim;
    let prompt = Prompt::from_embeddings(2, width, vec![0.5; 2 * width]);
    let none = Prompt::from_embeddings(2, width, vec![0.0; 2 * width]);
    let sample = |prompt: &Prompt, none: &Prompt, guidance: f64| {
        let sampling = Sampling { steps: 3, guidance };
        let mut watch = |_| {};
        sampler
            .sample(&noise, prompt, none, sampling, &mut watch)
            .unwrap()
    };
    let alone = sample(&prompt, &none, 1.0);
    assert_eq!(alone, sample(&none, &prompt, 0.0));
    assert_ne!(alone, sample(&prompt, &none, 2.0));
    let picture = sampler.decode(&alone[0]).unwrap();
    assert_eq!(picture.extent(), Extent::new(64, 32));
}
