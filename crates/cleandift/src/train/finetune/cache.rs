//! What a picture or a prompt gives again each time, kept on the disk: one safetensors file each,
//! found by a hash of all that it was made from. Files can be removed at any time.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checkpoint::{Dtype, TensorData, Weights};
use crate::checkpoint::{hexadecimal, make_folder, write_safetensors};
use crate::extractor::{LatentDistribution, Spread};
use crate::graph::{Named, Parameters, Shape, Tensor};
use crate::image::Pixels;
use crate::train::TrainError;

/// What can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cached {
    /// What the codec makes of a picture.
    Latents,
    /// Text embeddings.
    Prompts,
    /// The teacher's taps: then a picture has the same noise and timesteps each time.
    Teacher,
}

/// A cache on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Its folder.
    pub folder: PathBuf,
    /// What is kept there.
    pub kinds: Vec<Cached>,
    /// A name of the model that no other has.
    pub model: String,
}

/// What a file is found by.
pub struct Key {
    kind: Cached,
    digest: [u8; 32],
}

impl Cache {
    /// The key of something made from these bytes, if such things are kept.
    pub fn key(&self, kind: Cached, parts: &[&[u8]]) -> Option<Key> {
        self.kinds.contains(&kind).then(|| {
            let mut digest = Sha256::new();
            for part in [&[self.model.as_bytes()], parts].concat() {
                digest.update((part.len() as u64).to_le_bytes());
                digest.update(part);
            }
            let digest = digest.finalize().into();
            Key { kind, digest }
        })
    }

    fn path(&self, key: &Key) -> PathBuf {
        let kind = match key.kind {
            Cached::Latents => "latents",
            Cached::Prompts => "prompts",
            Cached::Teacher => "teacher",
        };
        let name = hexadecimal(&key.digest);
        let folder = self.folder.join(kind).join(&name[..2]);
        folder.join(format!("{name}.safetensors"))
    }

    /// What was kept under a key, by name; nothing, too, if its file is damaged: what is made anew
    /// takes its place.
    pub fn read(&self, key: &Key) -> Option<Kept> {
        let weights = Weights::open(&self.path(key)).ok()?;
        let tensors = weights.names().into_iter().map(|name| {
            let shape = match *weights.shape(name).unwrap_or_default() {
                [height, width, channels] => Shape::map(height, width, channels),
                ref shape => Shape::vector(shape.iter().product()),
            };
            let values = weights.read(name).ok()?;
            Some((name.to_owned(), Tensor::new(1, shape, values)))
        });
        Some(Kept {
            tensors: tensors.collect::<Option<_>>()?,
            numbers: weights.metadata().clone(),
        })
    }

    /// Keeps something under a key.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, key: &Key, kept: &Kept) -> Result<(), TrainError> {
        let path = self.path(key);
        let folder = path.parent().expect("it lies in a folder");
        make_folder(folder)?;
        let shapes = kept.tensors.values().map(|tensor| {
            let Shape {
                height,
                width,
                channels,
            } = tensor.shape;
            [height, width, channels]
        });
        let shapes: Vec<[usize; 3]> = shapes.collect();
        let tensors = kept.tensors.iter().zip(&shapes);
        let tensors = tensors.map(|((name, tensor), shape)| TensorData {
            name,
            shape,
            values: &tensor.data,
            dtype: Dtype::F32,
        });
        let tensors: Vec<TensorData> = tensors.collect();
        Ok(write_safetensors(&path, &tensors, &kept.numbers)?)
    }
}

/// What is kept in a file: maps of one image, and numbers as text.
#[derive(Debug, Default)]
pub struct Kept {
    tensors: BTreeMap<String, Tensor<f32>>,
    numbers: BTreeMap<String, String>,
}

impl Kept {
    /// Maps by name.
    pub fn new(tensors: impl IntoIterator<Item = Named<f32>>) -> Self {
        Self {
            tensors: tensors.into_iter().collect(),
            numbers: BTreeMap::new(),
        }
    }

    /// A map.
    pub fn take(&mut self, name: &str) -> Option<Tensor<f32>> {
        self.tensors.remove(name)
    }
}

const MEAN: &str = "mean";
const LOGVAR: &str = "logvar";
const SCALE: &str = "scale";

impl From<&LatentDistribution> for Kept {
    fn from(latent: &LatentDistribution) -> Self {
        let mut kept = Self::new([(MEAN.to_owned(), latent.mean.clone())]);
        if let Some(Spread { logvar, scale }) = &latent.spread {
            let logvar = Tensor::new(1, latent.mean.shape, logvar.clone());
            kept.tensors.insert(LOGVAR.to_owned(), logvar);
            kept.numbers.insert(SCALE.to_owned(), scale.to_string());
        }
        kept
    }
}

impl Kept {
    /// The latent that was kept, if it is one.
    pub fn latent(mut self) -> Option<LatentDistribution> {
        let scale = self.numbers.get(SCALE).and_then(|scale| scale.parse().ok());
        let logvar = self.take(LOGVAR).zip(scale);
        Some(LatentDistribution {
            mean: self.take(MEAN)?,
            spread: logvar.map(|(logvar, scale)| Spread {
                logvar: logvar.data,
                scale,
            }),
        })
    }
}

/// A number that stands for these bytes.
pub fn number_of(bytes: &[u8]) -> u64 {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    u64::from_le_bytes(*digest.first_chunk().expect("a digest has 32 bytes"))
}

/// A picture as bytes, size and all, to be hashed.
pub fn bytes_of(pixels: &Pixels) -> Vec<u8> {
    let extent = pixels.extent();
    let sides = [extent.width as u64, extent.height as u64];
    let sides = sides.into_iter().flat_map(u64::to_le_bytes);
    let values = pixels.values().iter().flat_map(|value| value.to_le_bytes());
    sides.chain(values).collect()
}
