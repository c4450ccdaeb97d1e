//! From noise to pictures: what a diffusion model has learned, to be looked at.

mod ddim;

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::engine::cpu::{PreparedWeights, Processor, Program};
use crate::extractor::{Codec, ExtractError, Latents, Model, Prompt, UnetModel, drawn_noise};
use crate::features::FeatureMap;
use crate::graph::{Hoisted, Named, Shape, Tensor, hoist, prune};
use crate::image::{Extent, Picture};
use crate::networks::schedule::{Schedule, TIMESTEPS};
use crate::networks::unet;
use ddim::Ddim;

/// How pictures are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Steps from noise to picture, 1 to 1000.
    pub steps: usize,
    /// How far the output is drawn from that without a prompt to that with it and beyond
    /// (classifier-free guidance, Ho and Salimans, arXiv 2207.12598): 0 ignores the prompt, 1 takes
    /// it as it is.
    pub guidance: f64,
}

/// A diffusion model made ready to make pictures, by DDIM (Song et al., arXiv 2010.02502) without
/// further noise. Of a CleanDIFT model the teacher is run: a student has forgotten how to denoise.
pub struct Sampler {
    unet: UnetModel,
    weights: PreparedWeights,
    schedule: Schedule,
    codec: Codec,
    processor: Processor,
}

impl Sampler {
    /// No weight is read yet.
    pub fn new(model: &Model, processor: &Processor) -> Self {
        let unet = model.teacher.as_ref().unwrap_or(&model.unet).clone();
        Self {
            weights: PreparedWeights::new(Arc::new(unet.weights.clone()), processor),
            unet,
            schedule: model.schedule.clone(),
            codec: Codec::new(&model.codec, Latents::Mean, processor),
            processor: processor.clone(),
        }
    }

    /// The size of picture that the model was trained at, in pixels.
    pub fn default_size(&self) -> Extent {
        let side = self.multiple().get() * self.unet.config.sample_size;
        Extent::new(side, side)
    }

    /// What a picture's sides must be multiples of.
    pub fn multiple(&self) -> NonZeroUsize {
        self.codec.multiple()
    }

    /// The noise that picture `index` of a seed begins with: the same however many are made.
    ///
    /// # Panics
    /// If a side is not a multiple of [`Sampler::multiple`].
    pub fn noise(&self, size: Extent, seed: u64, index: usize) -> FeatureMap {
        let multiple = self.multiple();
        assert!(
            size.width % multiple == 0 && size.height % multiple == 0,
            "{size} is not a multiple of {multiple}"
        );
        let cells = Extent::new(size.width / multiple, size.height / multiple);
        let channels = self.unet.config.in_channels;
        let values = vec![0.0; cells.width * cells.height * channels];
        drawn_noise(seed, index, &FeatureMap::new(cells, channels, values))
    }

    /// Bytes of memory that making `images` pictures of one size takes: weights, and the largest arena.
    ///
    /// # Errors
    /// If the prompt has another width than the U-Net takes.
    pub fn memory(
        &self,
        size: Extent,
        images: usize,
        prompt: &Prompt,
    ) -> Result<usize, ExtractError> {
        let multiple = self.multiple();
        let (rows, columns) = (size.height / multiple, size.width / multiple);
        let latent = Shape::map(rows, columns, self.unet.config.in_channels);
        let network = Network::new(self, latent, images, prompt)?;
        let [codec, codec_arena] = self.codec.decoder_bytes(size);
        let weights = network.condition.weight_bytes() + network.main.weight_bytes() + codec;
        Ok(weights + network.main.arena_bytes().max(codec_arena))
    }

    /// Latents from noise of one size, one each. `none` is the empty prompt; `watch` is told of
    /// each step that is done.
    ///
    /// # Errors
    /// If a prompt has another width than the U-Net takes, or its weights cannot be read.
    ///
    /// # Panics
    /// If there is no noise, it has several sizes, or the number of steps is not from 1 to 1000.
    pub fn sample(
        &self,
        noise: &[FeatureMap],
        prompt: &Prompt,
        none: &Prompt,
        sampling: Sampling,
        watch: &mut dyn FnMut(usize),
    ) -> Result<Vec<FeatureMap>, ExtractError> {
        assert!(
            (1..=TIMESTEPS).contains(&sampling.steps),
            "{} steps",
            sampling.steps
        );
        let guidance = sampling.guidance;
        // What each prompt's output counts.
        let shares = [(none, 1.0 - guidance), (prompt, guidance)];
        let shares = shares.into_iter().filter(|(_, share)| *share != 0.0);
        let shape = latent_shape(&noise[0]);
        let networks = shares.map(|(prompt, share)| {
            let network = Network::new(self, shape, noise.len(), prompt)?;
            Ok((network, share as f32))
        });
        let networks = networks.collect::<Result<Vec<_>, ExtractError>>()?;

        let values = noise.iter().flat_map(FeatureMap::values).copied();
        let mut latents = Tensor::new(noise.len(), shape, values.collect());
        let ddim = Ddim::new(&self.schedule, sampling.steps);
        for (done, step) in ddim.steps().enumerate() {
            let mut output = vec![0.0; latents.data.len()];
            for (network, share) in &networks {
                let found = network.run(&latents, step.timestep)?;
                let sums = output.iter_mut().zip(&found.data);
                sums.for_each(|(sum, value)| *sum += share * value);
            }
            ddim.apply(step, &mut latents.data, &output);
            watch(done + 1);
        }
        let extent = noise[0].extent();
        let map = |image| {
            let values = latents.image(image).to_vec();
            FeatureMap::new(extent, shape.channels, values)
        };
        Ok((0..noise.len()).map(map).collect())
    }

    /// The picture behind a latent.
    ///
    /// # Errors
    /// If the decoder's weights cannot be read.
    pub fn decode(&self, latents: &FeatureMap) -> Result<Picture, ExtractError> {
        Ok(Picture::from(&self.codec.decode(latents)?))
    }
}

fn latent_shape(latents: &FeatureMap) -> Shape {
    let Extent { width, height } = latents.extent();
    Shape::map(height, width, latents.channels())
}

/// The U-Net with a prompt, for latents of one size.
struct Network<'s> {
    sampler: &'s Sampler,
    prompt: &'s Prompt,
    condition: Program,
    main: Program,
}

impl<'s> Network<'s> {
    fn new(
        sampler: &'s Sampler,
        latent: Shape,
        images: usize,
        prompt: &'s Prompt,
    ) -> Result<Self, ExtractError> {
        let config = &sampler.unet.config;
        let (found, expected) = (prompt.embeddings.shape, config.cross_attention_dim);
        if found.channels != expected {
            return Err(ExtractError::PromptWidth {
                found: found.channels,
                expected,
            });
        }
        let graph = unet::graph(config, latent.height, latent.width, found.cells());
        let graph = prune(&graph, &[unet::SAMPLE]).expect("every U-Net has this output");
        let Hoisted { condition, main } = hoist(&graph);
        Ok(Self {
            sampler,
            prompt,
            condition: Program::compile(&sampler.processor, condition, 1),
            main: Program::compile(&sampler.processor, main, images),
        })
    }

    /// The U-Net's output.
    fn run(&self, latents: &Tensor<f32>, timestep: usize) -> Result<Tensor<f32>, ExtractError> {
        let timestep = Tensor::new(1, Shape::vector(1), vec![timestep as f32]);
        let inputs = [
            (unet::TIMESTEP, &timestep),
            (unet::TEXT, &self.prompt.embeddings),
        ];
        let weights = &self.sampler.weights;
        let hoisted: Vec<Named<f32>> = self.condition.run(weights, &inputs)?;
        let mut inputs = vec![(unet::LATENT, latents)];
        inputs.extend(hoisted.iter().map(|(name, value)| (name.as_str(), value)));
        let (_, output) = self.main.run(weights, &inputs)?.swap_remove(0);
        Ok(output)
    }
}
