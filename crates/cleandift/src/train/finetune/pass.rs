//! A batch as the engine takes it: latents, texts, timesteps, and what the teacher says of them.

use super::cache::{Cache, Cached, Kept, Key, bytes_of, number_of};
use super::teacher::Rows;
use super::{Finetune, ProgramKey, stacked};
use crate::extractor::LatentDistribution;
use crate::features::Tap;
use crate::graph::{Named, Shape, Tensor};
use crate::image::Pixels;
use crate::networks::training::{teacher_input, timestep_input};
use crate::networks::unet::{LATENT, TEXT};
use crate::train::data::{Batch, Sample};
use crate::train::{Random, TrainError};

/// What a step's program is given.
pub struct Prepared {
    /// Which program.
    pub key: ProgramKey,
    inputs: Vec<Named<f32>>,
}

impl Prepared {
    /// The inputs by name.
    pub fn inputs(&self) -> Vec<(&str, &Tensor<f32>)> {
        self.inputs.iter().map(|(n, t)| (n.as_str(), t)).collect()
    }
}

/// Where a batch's random numbers come from.
#[derive(Clone, Copy)]
struct Draws {
    seed: u64,
    prefix: &'static str,
}

impl Draws {
    fn random(self, purpose: &str, number: u64) -> Random {
        Random::new(self.seed, &format!("{}{purpose}", self.prefix), number)
    }
}

/// A batch before the teacher has seen it.
struct Drawn<'b> {
    samples: &'b [Sample],
    draws: Draws,
    /// By sample: the number that its latent, noise and timesteps are drawn by.
    numbers: Vec<u64>,
    latents: Tensor<f32>,
    /// By sample, then by bin.
    timesteps: Vec<Vec<usize>>,
    /// The teacher's.
    text: Tensor<f32>,
}

impl Finetune {
    /// What the engine is given for a batch; the programs for it are compiled. What is `fixed` is
    /// drawn by the samples' numbers alone.
    pub(super) fn prepare(&mut self, batch: &Batch, fixed: bool) -> Result<Prepared, TrainError> {
        let samples = batch.samples.as_slice();
        let draws = Draws {
            seed: if fixed { 0 } else { self.design.seed },
            prefix: if fixed { "validation " } else { "" },
        };
        let text = self.prompts.embeddings(samples)?;
        let numbers: Vec<u64> = samples.iter().map(|s| self.number(s, fixed)).collect();
        let bins = self.design.bins;
        let timesteps = numbers.iter();
        let drawn = Drawn {
            latents: self.latents(samples, &numbers, draws)?,
            timesteps: timesteps
                .map(|&number| bins.draw(&mut draws.random("timesteps", number)))
                .collect(),
            text: text.teacher,
            numbers,
            samples,
            draws,
        };
        let key = ProgramKey {
            latent: drawn.latents.shape,
            tokens: text.student.shape.cells(),
            images: samples.len(),
        };
        self.compile(key)?;
        let mut inputs = self.targets(key, &drawn)?;
        if self.heads.is_some() {
            inputs.extend((0..bins.count).map(|index| {
                let of_images = drawn.timesteps.iter().map(|t| t[index] as f32);
                let values = Tensor::new(key.images, Shape::vector(1), of_images.collect());
                (timestep_input(index), values)
            }));
        }
        inputs.push((LATENT.to_owned(), drawn.latents));
        inputs.push((TEXT.to_owned(), text.student));
        Ok(Prepared { key, inputs })
    }

    /// What a sample's random numbers are drawn by: its place in the order of the data, or, where
    /// the teacher's taps are kept, the picture itself.
    fn number(&self, sample: &Sample, fixed: bool) -> u64 {
        let cache = self.design.cache.as_ref();
        match cache.is_some_and(|cache| cache.kinds.contains(&Cached::Teacher)) && !fixed {
            true => number_of(&bytes_of(&sample.pixels)),
            false => sample.number,
        }
    }

    /// A sample of each picture's latent.
    fn latents(
        &self,
        samples: &[Sample],
        numbers: &[u64],
        draws: Draws,
    ) -> Result<Tensor<f32>, TrainError> {
        let sampled = samples.iter().zip(numbers).map(|(sample, &number)| {
            let latent = self.latent(&sample.pixels)?;
            let mut random = draws.random("latent", number);
            Ok(latent.sample(&random.normals(latent.mean.data.len())))
        });
        Ok(stacked(sampled.collect::<Result<_, TrainError>>()?))
    }

    /// What the codec makes of a picture.
    fn latent(&self, pixels: &Pixels) -> Result<LatentDistribution, TrainError> {
        let Some((cache, key)) = self.key(Cached::Latents, &[&bytes_of(pixels)]) else {
            return Ok(self.codec.distribution(pixels)?);
        };
        if let Some(latent) = cache.read(&key).and_then(Kept::latent) {
            return Ok(latent);
        }
        let latent = self.codec.distribution(pixels)?;
        cache.write(&key, &Kept::from(&latent))?;
        Ok(latent)
    }

    fn key(&self, kind: Cached, parts: &[&[u8]]) -> Option<(&Cache, Key)> {
        let cache = self.design.cache.as_ref()?;
        Some((cache, cache.key(kind, parts)?))
    }

    /// The teacher's taps at all timesteps, as inputs of the step: from the cache if it has them for
    /// all samples.
    fn targets(&self, program: ProgramKey, drawn: &Drawn) -> Result<Vec<Named<f32>>, TrainError> {
        let keys = (0..drawn.samples.len()).map(|image| self.targets_key(drawn, image));
        let Some(keys) = keys.collect::<Option<Vec<_>>>() else {
            return self.run_teacher(program, drawn);
        };
        let kept = keys.iter().map(|(cache, key)| cache.read(key));
        let kept = kept.collect::<Option<Vec<Kept>>>();
        if let Some(targets) = kept.and_then(|kept| self.together(kept)) {
            return Ok(targets);
        }
        let targets = self.run_teacher(program, drawn)?;
        for (image, (cache, key)) in keys.iter().enumerate() {
            let of_image = targets.iter().map(|(name, target)| {
                let values = target.image(image).to_vec();
                (name.clone(), Tensor::new(1, target.shape, values))
            });
            cache.write(key, &Kept::new(of_image))?;
        }
        Ok(targets)
    }

    /// Everything that the teacher's taps of a sample depend on.
    fn targets_key(&self, drawn: &Drawn, image: usize) -> Option<(&Cache, Key)> {
        self.design.cache.as_ref()?;
        let text = drawn.text.image(image).iter();
        let text: Vec<u8> = text.flat_map(|value| value.to_le_bytes()).collect();
        let Draws { seed, prefix } = drawn.draws;
        let settings = format!(
            "{prefix}{seed} {} {:?} {}",
            drawn.numbers[image], self.design.bins, self.design.taps
        );
        let pixels = bytes_of(&drawn.samples[image].pixels);
        self.key(Cached::Teacher, &[&pixels, &text, settings.as_bytes()])
    }

    /// Kept targets of single samples as those of a batch, if nothing is missing.
    fn together(&self, mut kept: Vec<Kept>) -> Option<Vec<Named<f32>>> {
        let taps = self.teacher.taps().iter();
        let names = (0..self.design.bins.count).flat_map(|index| {
            taps.clone()
                .map(move |tap| teacher_input(tap.name(), index))
        });
        let targets = names.map(|name| {
            let of_samples = kept.iter_mut().map(|kept| kept.take(&name));
            let of_samples = of_samples.collect::<Option<Vec<_>>>()?;
            Some((name, stacked(of_samples)))
        });
        targets.collect()
    }

    /// The teacher's taps at all timesteps: as many timesteps at once as its program takes.
    fn run_teacher(
        &self,
        program: ProgramKey,
        drawn: &Drawn,
    ) -> Result<Vec<Named<f32>>, TrainError> {
        let images = program.images;
        let program = &self.programs[&program].teacher;
        let count = self.design.bins.count;
        let at_once = program.images() / images;
        let mut inputs = Vec::with_capacity(count * self.teacher.taps().len());
        for first in (0..count).step_by(at_once) {
            let indices = first..first + at_once;
            let rows = indices
                .clone()
                .flat_map(|index| (0..images).map(move |image| (index, image)));
            let noisy = rows
                .clone()
                .map(|(index, image)| self.noisy(drawn, index, image));
            let timesteps = rows.map(|(index, image)| drawn.timesteps[image][index] as f32);
            let rows = Rows {
                latents: stacked(noisy.collect()),
                timesteps: Tensor::new(program.images(), Shape::vector(1), timesteps.collect()),
                text: stacked(vec![drawn.text.clone(); at_once]),
            };
            let taps = self.teacher.run(program, &rows)?;
            for (tap, (_, values)) in self.teacher.taps().iter().zip(taps) {
                inputs.extend(by_index(tap, indices.clone(), images, &values));
            }
        }
        Ok(inputs)
    }

    /// A picture's latent with the noise of one of its timesteps.
    fn noisy(&self, drawn: &Drawn, index: usize, image: usize) -> Tensor<f32> {
        let number = drawn.numbers[image].wrapping_mul(self.design.bins.count as u64);
        let mut random = drawn
            .draws
            .random("noise", number.wrapping_add(index as u64));
        let shape = drawn.latents.shape;
        let noise = random.normals(shape.size());
        let timestep = drawn.timesteps[image][index];
        let latent = drawn.latents.image(image);
        let noisy = self.schedule.add_noise(latent, &noise, timestep);
        Tensor::new(1, shape, noisy)
    }
}

/// A tap's values of some timesteps, each with `images` rows, as inputs of the step.
fn by_index(
    tap: &Tap,
    indices: std::ops::Range<usize>,
    images: usize,
    values: &Tensor<f32>,
) -> Vec<Named<f32>> {
    let of_indices = values.data.chunks_exact(images * values.shape.size());
    let inputs = indices.zip(of_indices).map(|(index, of_index)| {
        let values = Tensor::new(images, values.shape, of_index.to_vec());
        (teacher_input(tap.name(), index), values)
    });
    inputs.collect()
}
