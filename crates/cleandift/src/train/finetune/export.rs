//! What was learned, as files that other programs open: CleanDIFT's two, a diffusers folder, and
//! factors of low rank as diffusers and peft take them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Finetune;
use super::student::Student;
use crate::archive::files_below;
use crate::checkpoint::{Checkpoint, Dtype, Kind, StoredTensor, WriteError};
use crate::checkpoint::{make_folder, prefix, write_file, write_stored};
use crate::extractor::Model;
use crate::graph::{Parameters, ReadError};
use crate::networks::heads::{FILM_INTENDED, HEADS_NORM, HeadNorm};
use crate::networks::training::STUDENT_TIMESTEP;
use crate::train::{Masters, TrainError};

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Export {
    /// `student_unet.safetensors`: the U-Net alone, in diffusers' names, factors of low rank merged.
    Unet,
    /// `student_full.safetensors`: student, teacher, VAE, heads and timestep in the published names.
    Full,
    /// `model/`: the base as a diffusers folder, with the student as its U-Net.
    Folder,
    /// `pytorch_lora_weights.safetensors`: the factors of low rank alone.
    Lora,
}

impl Export {
    /// The file's, or folder's, name.
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::Unet => "student_unet.safetensors",
            Self::Full => "student_full.safetensors",
            Self::Folder => "model",
            Self::Lora => "pytorch_lora_weights.safetensors",
        }
    }
}

/// What is written, with the stores that it comes from.
pub struct Exporter<'e> {
    finetune: &'e Finetune,
    student: Arc<dyn Parameters>,
    masters: &'e Masters,
    dtype: Dtype,
}

impl<'e> Exporter<'e> {
    /// For parameters in training, or their average.
    pub fn new(finetune: &'e Finetune, masters: &'e Arc<Masters>, dtype: Dtype) -> Self {
        Self {
            finetune,
            student: finetune.student().view(masters),
            masters,
            dtype,
        }
    }

    /// Writes one below `out`, and returns its path. `base` is what a [`Export::Folder`] takes the
    /// rest from.
    ///
    /// # Errors
    /// If it cannot be written, or a weight cannot be read.
    pub fn write(
        &self,
        export: Export,
        base: &Checkpoint,
        out: &Path,
    ) -> Result<PathBuf, TrainError> {
        let path = out.join(export.file_name());
        let (tensors, metadata) = match export {
            Export::Unet => (self.unet(""), BTreeMap::new()),
            Export::Full => (self.full(), self.heads_norm()),
            Export::Folder => return self.folder(base, path),
            Export::Lora => return self.lora(path),
        };
        write_stored(&path, &tensors, &metadata)?;
        Ok(path)
    }

    fn model(&self) -> &Model {
        self.finetune.model()
    }

    fn stored<'s>(
        &self,
        prefix: &str,
        store: &'s dyn Parameters,
        names: impl IntoIterator<Item = &'s str>,
    ) -> Vec<StoredTensor<'s>> {
        let names = names.into_iter();
        let tensors = names.map(|name| StoredTensor {
            name: format!("{prefix}{name}"),
            store,
            stored_as: name,
            dtype: self.dtype,
        });
        tensors.collect()
    }

    /// The student's U-Net.
    fn unet(&self, prefix: &str) -> Vec<StoredTensor<'_>> {
        self.stored(prefix, &*self.student, self.model().unet.weights.names())
    }

    /// The tensors of an [`Export::Full`]: all that the published trainer saves. The timestep stays in f32: bf16 has no 261.
    pub fn full(&self) -> Vec<StoredTensor<'_>> {
        let model = self.model();
        let teacher = &model.teacher.as_ref().unwrap_or(&model.unet).weights;
        let vae = &model.codec.weights;
        let mut tensors = self.unet(prefix::STUDENT);
        tensors.extend(self.stored(prefix::TEACHER, teacher, teacher.names()));
        tensors.extend(self.stored(prefix::VAE, vae, vae.names()));
        let others = self.student.names().into_iter();
        let others = others.filter(|name| !model.unet.weights.has(name));
        tensors.extend(self.stored("", &*self.student, others));
        let timestep = tensors.iter_mut().filter(|t| t.name == STUDENT_TIMESTEP);
        timestep.for_each(|tensor| tensor.dtype = Dtype::F32);
        tensors
    }

    fn heads_norm(&self) -> BTreeMap<String, String> {
        let norm = self.finetune.heads().map(|heads| heads.norm());
        let intended = norm == Some(HeadNorm::FilmIntended);
        let entry = intended.then(|| (HEADS_NORM.to_owned(), FILM_INTENDED.to_owned()));
        entry.into_iter().collect()
    }

    /// The base as a folder, with another U-Net: all files of a folder, each copied whole or not at
    /// all, or what any other layout holds.
    fn folder(&self, base: &Checkpoint, out: PathBuf) -> Result<PathBuf, TrainError> {
        match base.kind() {
            Kind::Folder => copy_base(base.path(), &out)?,
            // Of an earlier export: the U-Net is all that changes.
            _ if out.exists() => {}
            _ => base.write(&out, Kind::Folder, None)?,
        }
        let unet = out.join("unet/diffusion_pytorch_model.safetensors");
        write_stored(&unet, &self.unet(""), &BTreeMap::new())?;
        Ok(out)
    }

    /// The factors under the names that `load_lora_weights` takes. The factor of their product is in
    /// B, so that no `alpha` needs to be said.
    fn lora(&self, path: PathBuf) -> Result<PathBuf, TrainError> {
        let student: &Student = self.finetune.student();
        let (lora, factors) = student.lora().ok_or(TrainError::NoLora)?;
        let scaled = Scaled {
            masters: self.masters,
            scale: lora.scale as f32,
        };
        let factors = factors
            .values()
            .flat_map(|factors| [&factors.a, &factors.b]);
        let names = factors.map(|factor| factor.name.as_str());
        let tensors = self.stored("unet.", &scaled, names);
        write_stored(&path, &tensors, &BTreeMap::new())?;
        Ok(path)
    }
}

/// Factors of low rank, B multiplied by the factor of the product.
struct Scaled<'s> {
    masters: &'s Masters,
    scale: f32,
}

impl Parameters for Scaled<'_> {
    fn shape(&self, name: &str) -> Option<&[usize]> {
        self.masters.shape(name)
    }

    fn names(&self) -> Vec<&str> {
        self.masters.names()
    }

    fn read_into(&self, name: &str, values: &mut Vec<f32>) -> Result<(), ReadError> {
        self.masters.read_into(name, values)?;
        if name.ends_with(".lora_B.weight") {
            values.iter_mut().for_each(|value| *value *= self.scale);
        }
        Ok(())
    }
}

/// Copies a base's files, but for the weights of its U-Net in any format.
fn copy_base(base: &Path, to: &Path) -> Result<(), WriteError> {
    let base = base.canonicalize().map_err(at(base))?;
    let unet = base.join("unet");
    let is_unet_weights = |path: &Path| {
        let inside = path.strip_prefix(&unet).unwrap_or(Path::new(""));
        inside.file_name().is_some_and(|name| name != "config.json")
    };
    // A run's own folder may lie inside its base's.
    let run = to.parent().and_then(|run| run.canonicalize().ok());
    let run = run.filter(|run| run.starts_with(&base));
    let is_of_run = |path: &Path| run.as_ref().is_some_and(|run| path.starts_with(run));
    let files = files_below(&base, |path| !is_of_run(path) && !is_unet_weights(path))
        .map_err(|error| at(&error.folder)(error.source))?;
    for path in files {
        let copy = to.join(path.strip_prefix(&base).expect("it lies below"));
        make_folder(copy.parent().unwrap_or(to))?;
        let bytes = std::fs::read(&path).map_err(at(&path))?;
        write_file(&copy, &bytes)?;
    }
    Ok(())
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError::Io { path, source }
}
