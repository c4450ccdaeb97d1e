//! A whole small model in one safetensors file.
//!
//! It is a diffusers folder laid flat: tensors are called `unet.…`, `vae.…` and `text_encoder.…`
//! after the folder that they would lie in, and the metadata hold the folder's JSON files under
//! their paths (`unet/config.json`, …), and `timestep` if the U-Net is a CleanDIFT student that runs
//! at one. There is no place for a tokenizer: text encoders are class tables.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::part::{Component, ConfigOrigin, Part};
use super::write::{StoredTensor, write_stored};
use super::{Checkpoint, CheckpointError, ConvertError, Dtype, Kind, Timestep, Weights};
use crate::graph::Parameters;

const SCHEDULER: &str = "scheduler/scheduler_config.json";
const TIMESTEP: &str = "timestep";

impl Component {
    const ALL: [Self; 3] = [Self::Unet, Self::Vae, Self::TextEncoder];

    fn config_path(self) -> String {
        format!("{}/config.json", self.folder())
    }

    fn prefix(self) -> String {
        format!("{}.", self.folder())
    }
}

/// Whether a file with these contents is a bundle.
pub(super) fn is_bundle(weights: &Weights) -> bool {
    weights
        .metadata()
        .contains_key(&Component::Unet.config_path())
}

/// Takes a bundle apart.
pub(super) fn open(path: &Path, weights: &Weights) -> Result<Checkpoint, CheckpointError> {
    let invalid = |key: &str, reason: String| CheckpointError::InvalidJson {
        path: path.to_path_buf(),
        reason: format!("`{key}` of the metadata: {reason}"),
    };
    let json = |key: &str| -> Result<Option<Value>, CheckpointError> {
        let parse = |text: &String| {
            serde_json::from_str(text).map_err(|error| invalid(key, error.to_string()))
        };
        weights.metadata().get(key).map(parse).transpose()
    };
    let part = |component: Component| -> Result<Option<Part>, CheckpointError> {
        let config = json(&component.config_path())?;
        Ok(config.map(|config| Part {
            config,
            config_origin: ConfigOrigin::File(path.to_path_buf()),
            weights: weights.with_prefix(&component.prefix()),
        }))
    };
    let unet = part(Component::Unet)?.ok_or_else(|| CheckpointError::NoUnet {
        path: path.to_path_buf(),
        found: "no config of it in the metadata".into(),
    })?;
    let timestep = json(TIMESTEP)?.map(|value| {
        let number = value.as_f64();
        let number = number.ok_or_else(|| invalid(TIMESTEP, format!("{value} is not a number")))?;
        Ok::<_, CheckpointError>(Timestep::new(path, number))
    });
    Ok(Checkpoint {
        vae: part(Component::Vae)?,
        text_encoder: part(Component::TextEncoder)?,
        scheduler: json(SCHEDULER)?,
        timestep: timestep.transpose()?,
        ..Checkpoint::with_unet(path, Kind::Bundle, unet)
    })
}

impl Checkpoint {
    /// Opens a bundle whose bytes are in memory; `name` stands for its path.
    ///
    /// # Errors
    /// If the bytes are no bundle.
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Result<Self, CheckpointError> {
        let weights = Weights::from_bytes(name, bytes)?;
        open(Path::new(name), &weights)
    }

    /// Writes U-Net, VAE and class table into one file, numbers as `dtype`, or as they are.
    ///
    /// # Errors
    /// If a part is lacking, the text encoder is more than a class table, or a file cannot be read
    /// or written.
    pub(super) fn write_bundle(
        &self,
        path: &Path,
        dtype: Option<Dtype>,
    ) -> Result<(), ConvertError> {
        let text = self.text_encoder()?;
        if !text.is_class_table() {
            let class = text.config["_class_name"].as_str();
            return Err(ConvertError::NoPlace {
                path: self.path.clone(),
                part: "text encoder",
                class: class.unwrap_or("CLIPTextModel").to_owned(),
                layout: Kind::Bundle,
            });
        }
        let mut metadata = BTreeMap::new();
        let mut tensors = Vec::new();
        let parts = [self.unet(), self.vae()?, text];
        for (component, part) in Component::ALL.into_iter().zip(parts) {
            metadata.insert(component.config_path(), part.config.to_string());
            let names = part.weights.names().into_iter();
            tensors.extend(names.filter_map(|name| {
                Some(StoredTensor {
                    name: component.prefix() + name,
                    store: &part.weights,
                    stored_as: name,
                    dtype: dtype.or(part.weights.dtype(name))?,
                })
            }));
        }
        let scheduler = self.scheduler().map(Value::to_string);
        metadata.extend(scheduler.map(|json| (SCHEDULER.to_owned(), json)));
        let timestep = self.timestep().map(|timestep| timestep.to_string());
        metadata.extend(timestep.map(|timestep| (TIMESTEP.to_owned(), timestep)));
        Ok(write_stored(path, &tensors, &metadata)?)
    }

    /// Takes from `base` what is not there, and its U-Net as the teacher.
    pub fn with_base(mut self, base: &Self) -> Self {
        self.teacher.get_or_insert_with(|| base.unet.clone());
        self.vae = self.vae.or_else(|| base.vae.clone());
        self.text_encoder = self.text_encoder.or_else(|| base.text_encoder.clone());
        self.scheduler = self.scheduler.or_else(|| base.scheduler.clone());
        self.tokenizer = self.tokenizer.or_else(|| base.tokenizer.clone());
        self.base = Some(base.path.clone());
        self
    }
}
