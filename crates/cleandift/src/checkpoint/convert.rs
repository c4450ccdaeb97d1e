//! Writing a model in any of the layouts that it can be read from.
//!
//! Tensors go from file to file one at a time. Their storage types stay as they are unless another
//! one is asked for, and then every value keeps its bits on the way there and back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::part::{Component, Part};
use super::write::{StoredTensor, make_folder, write_folder, write_json, write_stored};
use super::{
    Checkpoint, CheckpointError, Dtype, Kind, Weights, WriteError, ldm, prefix, write_file,
};
use crate::graph::Parameters;

/// A model could not be written in a layout.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The model lacks what the layout is made of.
    #[error("{}: has no {lacking}, which a {} is made of", path.display(), layout.words())]
    Lacking {
        /// The model.
        path: PathBuf,
        /// What it lacks.
        lacking: &'static str,
        /// The layout.
        layout: Kind,
    },
    /// A network that the layout has no names for.
    #[error("{}: its {part} is a `{class}`, which a {} has no place for", path.display(), layout.words())]
    NoPlace {
        /// The model.
        path: PathBuf,
        /// Which network.
        part: &'static str,
        /// Its class.
        class: String,
        /// The layout.
        layout: Kind,
    },
    /// Something lies where the folder is to be.
    #[error("{}: is there already: give the folder another name, or take that one away", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The model cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The files cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Checkpoint {
    /// Writes the model in another layout, whole or not at all. `dtype` is the storage type of all
    /// weights; without it each keeps its own. The student's timestep keeps its own in any case,
    /// because bf16 would move it from 261 to 260.
    ///
    /// # What goes where
    /// * A folder gets UNet, VAE, text encoder, tokenizer and scheduler, as far as they are there.
    /// * A `_unet` file gets the UNet.
    /// * A single file gets UNet, and VAE and text encoder as far as they are there.
    /// * A `_full` file gets all but the text encoder, and needs it.
    /// * A bundle gets UNet, VAE and class table, and needs them.
    ///
    /// A teacher and heads have a place in a `_full` file only. A merged LoRA is written merged.
    ///
    /// # Errors
    /// If the model lacks what the layout needs, if a folder is there already, if a value does not
    /// fit the storage type, or if reading or writing fails.
    pub fn write(
        &self,
        path: &Path,
        layout: Kind,
        dtype: Option<Dtype>,
    ) -> Result<(), ConvertError> {
        let mut metadata = format_metadata();
        let contributions = match layout {
            Kind::Folder => return self.write_as_folder(path, dtype),
            Kind::UnetFile => vec![contribution("", &self.unet.weights, dtype)],
            Kind::SingleFile => self.single_file(dtype)?,
            Kind::FullFile => {
                // What tensors don't say of heads: how they are normalised.
                let of_heads = self.heads.as_ref().map(Weights::metadata).cloned();
                metadata.extend(of_heads.unwrap_or_default());
                self.full_file(dtype)?
            }
            Kind::Bundle => return self.write_bundle(path, dtype),
        };
        Ok(write_contributions(path, &contributions, &metadata)?)
    }

    fn single_file(&self, dtype: Option<Dtype>) -> Result<Vec<Contribution>, ConvertError> {
        let mut all = vec![contribution(
            "",
            &ldm::original_unet(&self.unet.weights)?,
            dtype,
        )];
        if let Some(vae) = &self.vae {
            self.has_place(vae, "VAE", "AutoencoderKL", Kind::SingleFile)?;
            all.push(contribution("", &ldm::original_vae(&vae.weights)?, dtype));
        }
        if let Some(text) = &self.text_encoder {
            self.has_place(text, "text encoder", "CLIPTextModel", Kind::SingleFile)?;
            // Stable Diffusion 1 has OpenAI's encoder, 2 has OpenCLIP's: each with its own names.
            let original = match text.config["hidden_act"].as_str() {
                Some("gelu") => ldm::original_open_clip(&text.weights)?,
                _ => ldm::original_clip(&text.weights)?,
            };
            all.push(contribution("", &original, dtype));
        }
        Ok(all)
    }

    /// Whether a network is of the one class that single and full files have names for.
    fn has_place(
        &self,
        part: &Part,
        name: &'static str,
        expected: &str,
        layout: Kind,
    ) -> Result<(), ConvertError> {
        match part.config["_class_name"].as_str() {
            Some(class) if class != expected => Err(ConvertError::NoPlace {
                path: self.path.clone(),
                part: name,
                class: class.to_owned(),
                layout,
            }),
            _ => Ok(()),
        }
    }

    fn full_file(&self, dtype: Option<Dtype>) -> Result<Vec<Contribution>, ConvertError> {
        let lacking = |lacking| ConvertError::Lacking {
            path: self.path.clone(),
            lacking,
            layout: Kind::FullFile,
        };
        let teacher = self.teacher.as_ref().ok_or_else(|| lacking("teacher"))?;
        let vae = self.vae.as_ref().ok_or_else(|| lacking("VAE"))?;
        let heads = self.heads.as_ref().ok_or_else(|| lacking("heads"))?;
        let timestep = self.timestep.as_ref().ok_or_else(|| lacking("timestep"))?;
        self.has_place(vae, "VAE", "AutoencoderKL", Kind::FullFile)?;
        let mut all = vec![contribution(prefix::STUDENT, &self.unet.weights, dtype)];
        all.push(contribution(prefix::TEACHER, &teacher.weights, dtype));
        all.push(contribution(prefix::VAE, &vae.weights, dtype));
        all.push(contribution("", heads, dtype));
        all.push(contribution("", &timestep.weights, None));
        Ok(all)
    }

    fn write_as_folder(&self, path: &Path, dtype: Option<Dtype>) -> Result<(), ConvertError> {
        if path.exists() {
            return Err(ConvertError::Exists { path: path.into() });
        }
        write_folder(path, |folder| {
            let parts = [
                (Component::Unet, Some(&self.unet)),
                (Component::Vae, self.vae.as_ref()),
                (Component::TextEncoder, self.text_encoder.as_ref()),
            ];
            for (component, part) in parts {
                if let Some(part) = part {
                    write_part(&folder.join(component.folder()), component, part, dtype)?;
                }
            }
            if let Some(scheduler) = &self.scheduler {
                let path = folder.join("scheduler/scheduler_config.json");
                write_json(&path, scheduler)?;
            }
            if let Some(tokenizer) = &self.tokenizer {
                copy_files(tokenizer, &folder.join("tokenizer"))?;
            }
            Ok(write_json(&folder.join("model_index.json"), &self.index())?)
        })
    }

    /// What diffusers looks for first: the class of each component.
    fn index(&self) -> Value {
        let mut index = Map::new();
        index.insert("_class_name".into(), json!("StableDiffusionPipeline"));
        index.insert("feature_extractor".into(), json!([null, null]));
        index.insert("safety_checker".into(), json!([null, null]));
        index.insert("requires_safety_checker".into(), json!(false));
        let class = |config: &Value, usual: &str| {
            let class = config["_class_name"].as_str().unwrap_or(usual);
            json!(["diffusers", class])
        };
        index.insert(
            "unet".into(),
            class(&self.unet.config, "UNet2DConditionModel"),
        );
        if let Some(vae) = &self.vae {
            index.insert("vae".into(), class(&vae.config, "AutoencoderKL"));
        }
        if let Some(scheduler) = &self.scheduler {
            index.insert("scheduler".into(), class(scheduler, "DDIMScheduler"));
        }
        if self.text_encoder.is_some() {
            index.insert(
                "text_encoder".into(),
                json!(["transformers", "CLIPTextModel"]),
            );
        }
        if self.tokenizer.is_some() {
            index.insert("tokenizer".into(), json!(["transformers", "CLIPTokenizer"]));
        }
        Value::Object(index)
    }
}

/// Tensors that go into one file: those of a store, under a prefix.
struct Contribution {
    prefix: &'static str,
    weights: Weights,
    /// `None` to keep what each is stored as.
    dtype: Option<Dtype>,
}

fn contribution(prefix: &'static str, weights: &Weights, dtype: Option<Dtype>) -> Contribution {
    Contribution {
        prefix,
        weights: weights.clone(),
        dtype,
    }
}

impl Contribution {
    fn tensors(&self) -> impl Iterator<Item = StoredTensor<'_>> {
        self.weights.names().into_iter().filter_map(|name| {
            Some(StoredTensor {
                name: format!("{}{name}", self.prefix),
                store: &self.weights,
                stored_as: name,
                dtype: self.dtype.or(self.weights.dtype(name))?,
            })
        })
    }
}

fn write_contributions(
    path: &Path,
    contributions: &[Contribution],
    metadata: &BTreeMap<String, String>,
) -> Result<(), WriteError> {
    let tensors = contributions.iter().flat_map(Contribution::tensors);
    write_stored(path, &tensors.collect::<Vec<_>>(), metadata)
}

/// What diffusers and transformers ask of a file.
fn format_metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".into(), "pt".into())])
}

fn write_part(
    folder: &Path,
    component: Component,
    part: &Part,
    dtype: Option<Dtype>,
) -> Result<(), ConvertError> {
    write_json(&folder.join("config.json"), &part.config)?;
    if part.weights.is_empty() {
        return Ok(());
    }
    let path = folder.join(format!("{}.safetensors", component.weights_stem()));
    Ok(write_contributions(
        &path,
        &[contribution("", &part.weights, dtype)],
        &format_metadata(),
    )?)
}

/// Copies the files of a folder, not its folders.
fn copy_files(from: &Path, to: &Path) -> Result<(), ConvertError> {
    make_folder(to)?;
    let unreadable = |error| CheckpointError::io(from, error);
    for entry in std::fs::read_dir(from).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.path().is_file() {
            let bytes = std::fs::read(entry.path()).map_err(unreadable)?;
            write_file(&to.join(entry.file_name()), &bytes)?;
        }
    }
    Ok(())
}
