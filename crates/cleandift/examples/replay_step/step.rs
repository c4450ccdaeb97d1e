//! A training step as it was recorded by another implementation: its inputs and settings, and the
//! graph, the weights and the inputs that repeat it.

use std::error::Error;
use std::path::Path;

use cleandift::checkpoint::{Checkpoint, Weights};
use cleandift::extractor::{Model, UnetModel};
use cleandift::features::Tap;
use cleandift::graph::{Distance, Graph, Named, Shape, Tensor, prune, reference};
use cleandift::networks::heads::HeadsConfig;
use cleandift::networks::training::{STUDENT_TIMESTEP, Step, teacher_input, timestep_input};
use cleandift::networks::unet::{self, LATENT, TEXT, TIMESTEP};
use safetensors::{Dtype, SafeTensors};

/// Settings that take the place of a file's.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// How the heads are conditioned: `adarms`, `film`, `film-intended` or `none`.
    pub norm: Option<String>,
    /// What is measured: `cosine`, `l2` or `l1`.
    pub objective: Option<String>,
}

/// A recorded step.
pub struct Recorded {
    unet: UnetModel,
    heads: Option<HeadsConfig>,
    taps: Vec<Tap>,
    distance: Distance,
    latents: Tensor<f64>,
    text: Tensor<f64>,
    /// Row `image * timesteps + index`.
    noisy: Tensor<f64>,
    /// `[image][index]`
    timesteps: Vec<Vec<f64>>,
    /// All that the step's graph needs: student, heads, the student's timestep.
    pub weights: Weights,
    /// The learning rate of its step of Adam.
    #[allow(dead_code)] // the test has no optimiser
    pub learning_rate: f64,
}

impl Recorded {
    /// Reads a step that was made from the model in a folder.
    pub fn open(model: &Path, step: &Path, settings: &Settings) -> Result<Self, Box<dyn Error>> {
        let model = Model::open(&Checkpoint::open(model, None)?)?;
        let bytes = std::fs::read(step)?;
        let (_, metadata) = SafeTensors::read_metadata(&bytes)?;
        let metadata = metadata.metadata().clone().unwrap_or_default();
        let setting = |name: &str| metadata.get(name).map(String::as_str).unwrap_or_default();
        let file = SafeTensors::deserialize(&bytes)?;
        let latents = maps(&file, "input.latents")?;
        let (_, timesteps) = values(&file, "input.t")?;
        let count = timesteps.len() / latents.images;
        let timesteps: Vec<Vec<f64>> = timesteps.chunks(count).map(<[f64]>::to_vec).collect();

        let schedule = model.schedule.alphas_cumprod();
        let mut noisy = maps(&file, "input.noise")?;
        let size = noisy.shape.size();
        for (row, noise) in noisy.data.chunks_exact_mut(size).enumerate() {
            let (image, index) = (row / count, row % count);
            let alpha = f64::from(schedule[timesteps[image][index] as usize]);
            for (noise, x) in noise.iter_mut().zip(latents.image(image)) {
                *noise = alpha.sqrt() * x + (1.0 - alpha).sqrt() * *noise;
            }
        }

        let heads = Weights::open(step)?.with_prefix("heads.");
        let norm = settings.norm.as_deref().unwrap_or(setting("norm"));
        let config = match heads.is_empty() || norm == "none" {
            true => None,
            false => Some(HeadsConfig::from_weights(&heads)?),
        };
        let config = match norm {
            "film-intended" => config.map(HeadsConfig::film_intended),
            "adarms" | "film" | "none" => config,
            other => {
                return Err(
                    format!("norm `{other}`: expected adarms, film, film-intended, none").into(),
                );
            }
        };
        let start: f32 = setting("t_init").parse()?;
        let timestep = (STUDENT_TIMESTEP.to_owned(), Vec::new(), vec![start]);
        let timestep = Weights::from_memory("the student's timestep", [timestep]);
        let student = &model.unet.weights;
        let whole = unet::graph(&model.unet.config, 8, 8, 1);
        Ok(Self {
            weights: student.merged(&heads)?.merged(&timestep)?,
            taps: Tap::find_all("all", &whole)?,
            distance: match settings
                .objective
                .as_deref()
                .unwrap_or(setting("objective"))
            {
                "cosine" => Distance::Cosine,
                "l2" => Distance::Squared,
                "l1" => Distance::Absolute,
                other => return Err(format!("objective `{other}`: expected cosine, l2, l1").into()),
            },
            learning_rate: setting("lr").parse()?,
            text: tokens(&file, "input.prompt_embeds")?,
            unet: model.unet,
            heads: config,
            latents,
            noisy,
            timesteps,
        })
    }

    /// Images of the batch.
    pub fn images(&self) -> usize {
        self.latents.images
    }

    /// The step as a graph.
    pub fn graph(&self) -> Result<Graph, Box<dyn Error>> {
        let taps: Vec<(&str, &str)> = self.taps.iter().map(|t| (t.name(), t.module())).collect();
        let Shape { height, width, .. } = self.latents.shape;
        let step = Step {
            unet: &self.unet.config,
            heads: self.heads.as_ref(),
            taps: &taps,
            timesteps: self.timesteps[0].len(),
            distance: self.distance,
            height,
            width,
            tokens: self.text.shape.width,
        };
        Ok(step.graph()?)
    }

    /// The graph's inputs; the teacher is run in f64.
    pub fn inputs(&self) -> Result<Vec<Named<f64>>, Box<dyn Error>> {
        let mut inputs = vec![
            (LATENT.to_owned(), self.latents.clone()),
            (TEXT.to_owned(), self.text.clone()),
        ];
        for index in 0..self.timesteps[0].len() {
            if self.heads.is_some() {
                let timesteps = self.timesteps.iter().map(|of_image| of_image[index]);
                let timesteps = Tensor::new(self.images(), Shape::vector(1), timesteps.collect());
                inputs.push((timestep_input(index), timesteps));
            }
            for (tap, values) in self.taps.iter().zip(self.teacher(index)?) {
                inputs.push((teacher_input(tap.name(), index), values));
            }
        }
        Ok(inputs)
    }

    /// The teacher's taps at each image's `index`-th timestep.
    fn teacher(&self, index: usize) -> Result<Vec<Tensor<f64>>, Box<dyn Error>> {
        let Shape { height, width, .. } = self.latents.shape;
        let whole = unet::graph(&self.unet.config, height, width, self.text.shape.width);
        let modules: Vec<&str> = self.taps.iter().map(Tap::module).collect();
        let graph = prune(&whole, &modules)?;
        let mut taps: Vec<Tensor<f64>> = Vec::new();
        for (image, timesteps) in self.timesteps.iter().enumerate() {
            let one = |tensor: &Tensor<f64>, image| {
                Tensor::new(1, tensor.shape, tensor.image(image).to_vec())
            };
            let latent = one(&self.noisy, image * timesteps.len() + index);
            let text = one(&self.text, image);
            let timestep = Tensor::new(1, Shape::vector(1), vec![timesteps[index]]);
            let inputs = [(LATENT, &latent), (TEXT, &text), (TIMESTEP, &timestep)];
            let outputs = reference::run(&graph, &self.unet.weights, &inputs)?;
            for (place, (_, output)) in outputs.into_iter().enumerate() {
                match taps.get_mut(place) {
                    Some(tap) => {
                        tap.data.extend(output.data);
                        tap.images += 1;
                    }
                    None => taps.push(output),
                }
            }
        }
        Ok(taps)
    }

    /// Whether a parameter is trained: all are, but for the Fourier frequencies.
    pub fn trains(name: &str) -> bool {
        name != "time_emb.weight"
    }

    /// The name under which a parameter was recorded.
    pub fn recorded_name(&self, name: &str) -> String {
        match self.unet.weights.has(name) {
            true => format!("student.{name}"),
            false => name.to_owned(),
        }
    }
}

/// Shape and values of a tensor, widened.
pub fn values(file: &SafeTensors, name: &str) -> Result<(Vec<usize>, Vec<f64>), Box<dyn Error>> {
    let tensor = file.tensor(name)?;
    let data = tensor.data();
    let values = match tensor.dtype() {
        Dtype::F32 => each(data, |b| f64::from(f32::from_le_bytes(b))),
        Dtype::F64 => each(data, f64::from_le_bytes),
        Dtype::I64 => each(data, |b| i64::from_le_bytes(b) as f64),
        other => return Err(format!("`{name}` is {other:?}, expected F32, F64 or I64").into()),
    };
    Ok((tensor.shape().to_vec(), values))
}

fn each<const N: usize>(data: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    let (chunks, _) = data.as_chunks::<N>();
    chunks.iter().map(|bytes| value(*bytes)).collect()
}

fn maps(file: &SafeTensors, name: &str) -> Result<Tensor<f64>, Box<dyn Error>> {
    match values(file, name)? {
        (shape, values) if shape.len() == 4 => {
            let map = Shape::map(shape[2], shape[3], shape[1]);
            Ok(Tensor::from_channels_first(shape[0], map, &values))
        }
        (shape, _) => Err(format!("`{name}` is {shape:?}, expected four axes").into()),
    }
}

fn tokens(file: &SafeTensors, name: &str) -> Result<Tensor<f64>, Box<dyn Error>> {
    match values(file, name)? {
        (shape, values) if shape.len() == 3 => {
            let tokens = Shape::tokens(shape[1], shape[2]);
            Ok(Tensor::new(shape[0], tokens, values))
        }
        (shape, _) => Err(format!("`{name}` is {shape:?}, expected three axes").into()),
    }
}

/// Narrows to what the engine takes.
pub fn narrow(tensor: &Tensor<f64>) -> Tensor<f32> {
    let data = tensor.data.iter().map(|&value| value as f32).collect();
    Tensor::new(tensor.images, tensor.shape, data)
}
