//! Arguments that several commands share: which model, and how features are made.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cleandift::checkpoint::{Dtype, Lora, Weights};
use cleandift::engine::cpu::{Arithmetic, Precision, Processor};
use cleandift::extractor::{Extractor, Latents, Mode, Model, Noise, Prompt, Request, Role};
use cleandift::graph::{Parameters, Shape, Tensor};
use cleandift::image::{Fit, Resample, Size};
use cleandift::networks::schedule::TIMESTEPS;

use crate::failure::Failure;
use crate::source::Source;

/// Which model.
#[derive(Args, Clone, Debug)]
pub struct ModelArguments {
    /// A Stable Diffusion folder or single file, or a CleanDIFT `_unet` or `_full` file, by its path or by its name
    /// (`models list`, or org/repo[:file][@revision]), which is fetched if need be; or a model inside
    /// the program: tiny, tiny-base, or random (a small one with random weights); default: tiny if
    /// it is inside, else random
    #[arg(long, value_name = "MODEL")]
    pub model: Option<PathBuf>,

    /// A Stable Diffusion folder, or its name, for what the model lacks: VAE, text encoder,
    /// tokenizer, config, teacher
    #[arg(long, value_name = "MODEL", requires = "model")]
    pub base: Option<PathBuf>,

    /// A LoRA to merge into the model (diffusers', peft's or kohya's names)
    #[arg(long, value_name = "FILE", requires = "model")]
    pub lora: Option<PathBuf>,

    /// How strongly: 1 as it was trained
    #[arg(long, value_name = "S", default_value_t = 1.0, requires = "lora")]
    pub lora_scale: f32,

    /// Threads; 0 for as many as the machine has. Results don't depend on it
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = parse_threads,
        allow_negative_numbers = true)]
    pub threads: usize,

    /// f32, or bf16 where the processor has products of it: linear layers a good deal faster, features
    /// about 0.7 % off
    #[arg(long, value_name = "NUMBERS", default_value = "f32")]
    pub arithmetic: Arithmetic,

    /// Keep weights that half precision holds exactly in it: half the memory, somewhat slower, the
    /// same bits
    #[arg(long)]
    pub low_memory: bool,
}

/// Whose features, and how: clean ones, or a baseline.
#[derive(Args, Clone, Debug)]
pub struct ModeArguments {
    /// The timestep of the clean pass; default: the file's, else 261
    #[arg(long, value_name = "T", group = "mode", value_parser = parse_timestep,
        allow_negative_numbers = true)]
    pub timestep: Option<f64>,

    /// Baseline: noisy features of the base at timestep T (DIFT)
    #[arg(long, value_name = "T", group = "mode", value_parser = parse_noise_timestep,
        allow_negative_numbers = true)]
    pub noise: Option<usize>,

    /// Draws of noise to average
    #[arg(long, value_name = "N", default_value_t = 1, requires = "noise",
        value_parser = parse_positive)]
    pub ensemble: usize,

    /// Baseline: the base on the clean latent at timestep T
    #[arg(long, value_name = "T", group = "mode", value_parser = parse_timestep,
        allow_negative_numbers = true)]
    pub naive_clean: Option<f64>,

    /// The student's features through its projection heads, at timestep T (`_full` files)
    #[arg(long, value_name = "T", group = "mode", value_parser = parse_timestep,
        allow_negative_numbers = true)]
    pub at_timestep: Option<f64>,

    /// Run the student, also for a baseline
    #[arg(long, conflicts_with = "teacher")]
    pub student: bool,

    /// Run the teacher: a full file's own, or the base's U-Net
    #[arg(long)]
    pub teacher: bool,

    /// Seed of the noise (and of sampled latents)
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
}

impl ModeArguments {
    /// The mode; noisy features have this noise.
    fn mode(&self, noise: Noise) -> Mode {
        match (self.noise, self.naive_clean, self.at_timestep) {
            (Some(timestep), ..) => Mode::Noisy { timestep, noise },
            (_, Some(timestep), _) => Mode::NaiveClean { timestep },
            (.., Some(timestep)) => Mode::Projected { timestep },
            _ => Mode::Clean {
                timestep: self.timestep,
            },
        }
    }

    /// Noise drawn with the `place`th seed.
    fn drawn(&self, place: usize) -> Noise {
        Noise::Drawn {
            seed: self.seed + place as u64,
            count: self.ensemble,
        }
    }

    fn role(&self) -> Option<Role> {
        match (self.student, self.teacher) {
            (true, _) => Some(Role::Student),
            (_, true) => Some(Role::Teacher),
            _ => None,
        }
    }

    /// Whether anything is asked for but the model's own clean features.
    pub fn is_special(&self) -> bool {
        let timesteps = [self.timestep, self.naive_clean, self.at_timestep];
        timesteps.iter().any(Option::is_some)
            || self.noise.is_some()
            || self.student
            || self.teacher
    }

    /// These taps (none: the model's own), with noise drawn with the `place`th seed.
    pub fn request(&self, taps: Option<&str>, place: usize) -> Request {
        Request {
            taps: taps.map(str::to_owned),
            mode: self.mode(self.drawn(place)),
            role: self.role(),
            latents: Latents::Mean,
        }
    }
}

/// How features are made.
#[derive(Args, Clone, Debug)]
pub struct FeatureArguments {
    /// Taps: mid, us1 … us10, module paths, or `all` for the eleven of CleanDIFT; joined by `+` they
    /// make one map (us3+us9), in which all weigh the same. Default: us6; of the small models inside
    /// us3, and for `match` us2+us3+us9+us10
    #[arg(long, value_name = "LIST")]
    pub taps: Option<String>,

    /// The canvas: 768, 512x384 (width x height), native, or native:64 for multiples of 64;
    /// default: what the model was trained at, and of small models for `match` a quarter more
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,

    /// How a picture gets onto the canvas: squash, pad, crop
    #[arg(long, value_name = "RULE", default_value = "squash")]
    pub resize: Fit,

    /// Resampling: bicubic, bilinear, lanczos, box (all as Pillow), tensor (PyTorch's
    /// un-antialiased bilinear)
    #[arg(long, value_name = "FILTER", default_value = "bicubic")]
    pub resample: Resample,

    /// The prompt for all pictures
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub prompt: String,

    /// Prompt embeddings instead: a safetensors file with `prompt_embeds` [tokens, d]
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub prompt_embeds: Option<PathBuf>,

    #[command(flatten)]
    pub mode: ModeArguments,

    /// The noise itself: a safetensors file with `noise` [n, c, h, w]
    #[arg(
        long,
        value_name = "FILE",
        requires = "noise",
        conflicts_with = "ensemble"
    )]
    pub noise_file: Option<PathBuf>,

    /// Sample the latent instead of taking the VAE's mean
    #[arg(long)]
    pub sample_latents: bool,
}

/// A timestep of the schedule, or one between two.
fn parse_timestep(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(timestep) if (0.0..TIMESTEPS as f64).contains(&timestep) => Ok(timestep),
        _ => Err(format!("expected a number from 0 to {}", TIMESTEPS - 1)),
    }
}

/// A timestep of the schedule: noise has whole ones.
pub fn parse_noise_timestep(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(timestep) if timestep < TIMESTEPS => Ok(timestep),
        _ => Err(format!(
            "expected a whole number from 0 to {}",
            TIMESTEPS - 1
        )),
    }
}

/// Threads that a processor is sensibly asked for: a few for each of its own, and any number that is
/// small. Thousands would stop a machine.
pub fn parse_threads(text: &str) -> Result<usize, String> {
    let own = std::thread::available_parallelism().map_or(1, usize::from);
    let most = (4 * own).max(64);
    match text.parse() {
        Ok(threads) if threads <= most => Ok(threads),
        _ => Err(format!(
            "expected a whole number from 0 to {most}; this machine runs {own} at once"
        )),
    }
}

/// A whole number from 1 on.
pub fn parse_positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("not a whole number".to_owned()),
    }
}

/// Values of noise or prompt embeddings that are more than anyone needs.
const MOST_VALUES: usize = 1 << 26;

/// Whether a tensor of this shape has values, and not too many to be read before it is known
/// whether they fit.
fn may_be_read(shape: &[usize]) -> bool {
    let product = |all: usize, axis: &usize| all.checked_mul(*axis);
    let values = shape.iter().try_fold(1, product);
    values.is_some_and(|values| (1..=MOST_VALUES).contains(&values))
}

impl FeatureArguments {
    /// What is to be extracted.
    pub fn request(&self) -> Result<Request, Failure> {
        let latents = match self.sample_latents {
            true => Latents::Sample {
                seed: self.mode.seed,
            },
            false => Latents::Mean,
        };
        Ok(Request {
            taps: self.taps.clone(),
            mode: self.mode.mode(self.noise()?),
            role: self.mode.role(),
            latents,
        })
    }

    fn noise(&self) -> Result<Noise, Failure> {
        let Some(file) = &self.noise_file else {
            return Ok(self.mode.drawn(0));
        };
        let weights = Weights::open(file)?;
        match weights.shape("noise") {
            Some(&[n, c, h, w]) if may_be_read(&[n, c, h, w]) => {
                let values = weights.read("noise")?;
                Ok(Noise::Given(Tensor::from_channels_first(
                    n,
                    Shape::map(h, w, c),
                    &values,
                )))
            }
            Some(shape) => Err(Failure::new(format!(
                "{}: `noise` is {shape:?}, expected [n, c, h, w], a few pictures' latents",
                file.display()
            ))),
            None => Err(Failure::new(format!(
                "{}: there is no tensor `noise` [n, c, h, w]",
                file.display()
            ))),
        }
    }

    /// The given prompt embeddings, if there are any.
    pub fn embeddings(&self) -> Result<Option<Prompt>, Failure> {
        let Some(file) = &self.prompt_embeds else {
            return Ok(None);
        };
        let weights = Weights::open(file)?;
        match weights.shape("prompt_embeds") {
            Some(&[tokens, width]) if may_be_read(&[tokens, width]) => {
                let values = weights.read("prompt_embeds")?;
                Ok(Some(Prompt::from_embeddings(tokens, width, values)))
            }
            found => Err(Failure::new(format!(
                "{}: expected a tensor `prompt_embeds` [tokens, d], found {}",
                file.display(),
                found.map_or("none".to_owned(), |shape| format!("{shape:?}")),
            ))),
        }
    }

    /// The canvas that was asked for, or the model's own.
    pub fn size(&self, extractor: &Extractor) -> Size {
        self.size.unwrap_or_else(|| extractor.default_size().into())
    }
}

impl ModelArguments {
    /// The model's origin.
    pub fn source(&self) -> Result<Source, Failure> {
        let source = Source::open(self.model.as_deref(), self.base.as_deref())?;
        match &self.lora {
            Some(path) => Ok(source.with_lora(Lora::open(path, self.lora_scale)?)?),
            None => Ok(source),
        }
    }

    /// The processor, as it is to be used.
    pub fn processor(&self) -> Result<Processor, Failure> {
        let precision = Precision {
            arithmetic: self.arithmetic,
            half_weights: self.low_memory,
        };
        Ok(Processor::from_env(self.threads)?.with_precision(precision)?)
    }

    /// Opens the model and makes it ready for what is asked for.
    pub fn extractor(&self, request: Request) -> Result<(Source, Extractor), Failure> {
        self.extractor_for(|_| request)
    }

    /// The same for a request that depends on the model.
    pub fn extractor_for(
        &self,
        request: impl FnOnce(&Model) -> Request,
    ) -> Result<(Source, Extractor), Failure> {
        let source = self.source()?;
        let processor = self.processor()?;
        let model = source.model()?;
        let request = request(&model);
        Ok((source, Extractor::new(model, request, processor)?))
    }
}

/// How values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Storage {
    F32,
    F16,
    Bf16,
}

impl From<Storage> for Dtype {
    fn from(storage: Storage) -> Self {
        match storage {
            Storage::F32 => Dtype::F32,
            Storage::F16 => Dtype::F16,
            Storage::Bf16 => Dtype::BF16,
        }
    }
}
