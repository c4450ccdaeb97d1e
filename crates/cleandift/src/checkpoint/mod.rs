//! From a path to a model's parts: configs, and weights by name. Nothing is downloaded, and no
//! config is interpreted here.
//!
//! What is read: diffusers folders, the two files that CleanDIFT publishes (`_unet` and `_full`), and
//! Stable Diffusion's original single files, each as safetensors or as PyTorch's pickles, of which
//! nothing is run.

mod bundle;
mod convert;
mod error;
mod file;
mod folder;
mod hash;
mod hash_cache;
mod header;
mod known;
mod ldm;
mod listing;
mod lora;
mod names;
mod part;
mod pytorch;
mod source;
mod tensor;
mod weights;
mod write;

use std::path::{Path, PathBuf};

use serde_json::Value;

pub use convert::ConvertError;
pub use error::CheckpointError;
pub use file::prefix;
pub(crate) use hash::hexadecimal;
pub use hash::{CheckpointHash, FileHash, file_sha256};
pub use hash_cache::HashCache;
pub use known::Published;
pub use listing::{Lacking, Need, needed_files};
pub use lora::Lora;
pub use part::{ConfigOrigin, Part};
pub use tensor::Dtype;
pub use weights::Weights;
pub(crate) use write::write_json;
pub use write::{StoredTensor, TensorData, WriteError};
pub use write::{make_folder, write_file, write_safetensors, write_stored};

use folder::Folder;
use lora::Network;
use part::Component;

/// Which layout a checkpoint has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A diffusers folder with `unet/`.
    Folder,
    /// A file with the UNet alone, in diffusers' names, such as `cleandift_sd21_unet.safetensors`.
    UnetFile,
    /// A whole small model in one file, such as `tiny.safetensors`.
    Bundle,
    /// A file with UNet, and mostly VAE and text encoder, in the names of the original code (LDM),
    /// such as `v1-5-pruned-emaonly.ckpt`.
    SingleFile,
    /// A file with student, teacher, heads and VAE, such as `cleandift_sd21_full.safetensors`.
    FullFile,
}

impl Kind {
    /// Its name in a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::Folder => "diffusers folder",
            Self::UnetFile => "CleanDIFT `_unet` file",
            Self::SingleFile => "single file in the original names",
            Self::FullFile => "CleanDIFT `_full` file",
            Self::Bundle => "model in one file",
        }
    }
}

/// A student's timestep, and the tensor that stores it.
#[derive(Debug)]
struct Timestep {
    value: f64,
    weights: Weights,
}

impl Timestep {
    /// A timestep that is stored nowhere as a tensor.
    fn new(origin: &Path, value: f64) -> Self {
        let tensor = ("timestep".to_owned(), Vec::new(), vec![value as f32]);
        Self {
            value,
            weights: Weights::from_memory(&origin.display().to_string(), [tensor]),
        }
    }
}

/// A model as it lies on the disk: its networks with their configs, ready to be read.
///
/// Opening reads names, shapes and configs; no weight is read before it is asked for.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    base: Option<PathBuf>,
    kind: Kind,
    unet: Part,
    teacher: Option<Part>,
    vae: Option<Part>,
    text_encoder: Option<Part>,
    heads: Option<Weights>,
    lora: Option<Lora>,
    timestep: Option<Timestep>,
    tokenizer: Option<PathBuf>,
    scheduler: Option<Value>,
}

/// Where a file's configs come from.
trait Configs {
    /// A component's config, and the file that it is in.
    fn config(&self, component: Component) -> Result<Option<(Value, PathBuf)>, CheckpointError>;
}

impl Configs for Checkpoint {
    fn config(&self, component: Component) -> Result<Option<(Value, PathBuf)>, CheckpointError> {
        let part = match component {
            Component::Unet => Some(&self.unet),
            Component::Vae => self.vae.as_ref(),
            Component::TextEncoder => self.text_encoder.as_ref(),
        };
        Ok(part.map(|part| (part.config.clone(), self.path.clone())))
    }
}

impl Checkpoint {
    /// Opens a diffusers folder, a CleanDIFT file or a single file. What it lacks comes from `base`, a
    /// diffusers folder or a bundle.
    ///
    /// # Which files
    /// Of a component's weights, the plain file (`diffusion_pytorch_model.safetensors`, or its
    /// shards) is preferred to the `fp16` variant if both are there, and both to PyTorch's `.bin`.
    ///
    /// # What comes from where
    /// * A folder: all that it has; the base's UNet becomes the teacher.
    /// * A `_unet` file: the UNet; its config comes from the base, whose own UNet becomes the
    ///   teacher.
    /// * A bundle ([`Kind::Bundle`]): all that it has; the base's UNet becomes the
    ///   teacher. It may be a base itself.
    /// * A single file: all that it has; the configs come from the base, whose UNet becomes the
    ///   teacher.
    /// * A `_full` file: student, teacher, heads, VAE and timestep; the configs come from the base.
    ///
    /// Without a config the shapes of Stable Diffusion 1.5 and 2.1 are recognised.
    ///
    /// # Errors
    /// If nothing can be opened, if it has no UNet, or if the base is another model. A VAE or text
    /// encoder that is nowhere is an error when it is asked for.
    pub fn open(path: &Path, base: Option<&Path>) -> Result<Self, CheckpointError> {
        if let Some(base) = base.filter(|base| !base.exists()) {
            return Err(CheckpointError::NotFound {
                path: base.to_path_buf(),
            });
        }
        if let Some(base) = base.filter(|base| !base.is_dir()) {
            return match file::open(base, None) {
                Ok(bundle) if bundle.kind == Kind::Bundle => Self::open_upon(path, &bundle),
                _ => Err(CheckpointError::BaseNotFolder {
                    path: base.to_path_buf(),
                }),
            };
        }
        let base_folder = base.map(Folder::new);
        let configs = base_folder.as_ref().map(|folder| folder as &dyn Configs);
        let mut checkpoint = Self::open_alone(path, configs)?;
        if let Some(folder) = base_folder {
            checkpoint.complete_from(&folder)?;
            checkpoint.base = base.map(Path::to_path_buf);
        }
        Ok(checkpoint)
    }

    /// Opens a folder or a file; what it lacks comes from `base`, as in [`open`](Self::open).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_upon(path: &Path, base: &Self) -> Result<Self, CheckpointError> {
        Ok(Self::open_alone(path, Some(base))?.with_base(base))
    }

    fn open_alone(path: &Path, configs: Option<&dyn Configs>) -> Result<Self, CheckpointError> {
        if !path.exists() {
            return Err(CheckpointError::NotFound {
                path: path.to_path_buf(),
            });
        }
        match path.is_dir() {
            true => Self::from_folder(path),
            false => file::open(path, configs),
        }
    }

    fn from_folder(path: &Path) -> Result<Self, CheckpointError> {
        let folder = Folder::new(path);
        let unet = folder.unet()?;
        Ok(Self {
            vae: folder.part(Component::Vae)?,
            text_encoder: folder.part(Component::TextEncoder)?,
            tokenizer: folder.tokenizer(),
            scheduler: folder.scheduler()?,
            ..Self::with_unet(path, Kind::Folder, unet)
        })
    }

    /// A checkpoint that has only a UNet so far.
    fn with_unet(path: &Path, kind: Kind, unet: Part) -> Self {
        Self {
            path: path.to_path_buf(),
            base: None,
            kind,
            unet,
            teacher: None,
            vae: None,
            text_encoder: None,
            heads: None,
            lora: None,
            timestep: None,
            tokenizer: None,
            scheduler: None,
        }
    }

    /// Takes from the base what is not there yet.
    fn complete_from(&mut self, base: &Folder) -> Result<(), CheckpointError> {
        if self.teacher.is_none() && base.has_weights(Component::Unet) {
            self.teacher = base.part(Component::Unet)?;
        }
        if self.vae.is_none() {
            self.vae = base.part(Component::Vae)?;
        }
        if self.text_encoder.is_none() {
            self.text_encoder = base.part(Component::TextEncoder)?;
        }
        if self.scheduler.is_none() {
            self.scheduler = base.scheduler()?;
        }
        if self.tokenizer.is_none() {
            self.tokenizer = base.tokenizer();
        }
        Ok(())
    }

    /// The same model with a LoRA merged: into the UNet to use, and into the text encoder if there is
    /// one. The teacher stays as it is.
    ///
    /// # Errors
    /// If the LoRA changes layers that the model does not have, or a LoRA is merged already.
    pub fn with_lora(mut self, lora: Lora) -> Result<Self, CheckpointError> {
        let files = lora.weights().files();
        let path = files.first().map_or(Path::new("lora"), PathBuf::as_path);
        if self.lora.is_some() {
            return Err(CheckpointError::InvalidLora {
                path: path.into(),
                reason: "another one is merged already".into(),
            });
        }
        self.unet.weights = lora.merged(path, Network::Unet, &self.unet.weights)?;
        if let Some(part) = &mut self.text_encoder {
            part.weights = lora.merged(path, Network::TextEncoder, &part.weights)?;
        }
        self.lora = Some(lora);
        Ok(self)
    }

    /// The LoRA that was merged.
    pub fn lora(&self) -> Option<&Lora> {
        self.lora.as_ref()
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder for what that path lacks, if one was given.
    pub fn base(&self) -> Option<&Path> {
        self.base.as_deref()
    }

    /// Which layout it has.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Which of the published models the UNet has the shapes of, if any: "Stable Diffusion 2.1".
    pub fn known_model(&self) -> Option<&'static str> {
        known::model_of(Component::Unet, &self.unet.weights)
    }

    /// The UNet to use: the student, or the only one there is. Names as in diffusers.
    pub fn unet(&self) -> &Part {
        &self.unet
    }

    /// The UNet that the student was made from, for baselines on noisy latents: a full file's own,
    /// else the base's. `None` for a folder without a base, whose UNet may be either.
    pub fn teacher(&self) -> Option<&Part> {
        self.teacher.as_ref()
    }

    /// The auto-encoder, with attention named `to_q`, `to_k`, `to_v` and `to_out.0` and weights of
    /// [c, c] whatever the file has.
    ///
    /// # Errors
    /// If neither the checkpoint nor its base has one; the error lists all that is lacking.
    pub fn vae(&self) -> Result<&Part, CheckpointError> {
        self.vae.as_ref().ok_or_else(|| self.lacking())
    }

    /// The text encoder, with names that begin with `text_model.` whether the file has the prefix
    /// or not, and without the buffer `position_ids`. A part of the class `ClassTable` has one
    /// tensor, `table`.
    ///
    /// # Errors
    /// If neither the checkpoint nor its base has one; the error lists all that is lacking.
    pub fn text_encoder(&self) -> Result<&Part, CheckpointError> {
        self.text_encoder.as_ref().ok_or_else(|| self.lacking())
    }

    /// The folder of the tokenizer's files.
    ///
    /// # Errors
    /// If neither the checkpoint nor its base has one; the error lists all that is lacking.
    pub fn tokenizer(&self) -> Result<&Path, CheckpointError> {
        self.tokenizer.as_deref().ok_or_else(|| self.lacking())
    }

    /// Whether there is all that features are made with: an auto-encoder, a text encoder and, unless that
    /// is a class table, a tokenizer.
    pub fn is_whole(&self) -> bool {
        let understood = |text: &Part| text.is_class_table() || self.tokenizer.is_some();
        self.vae.is_some() && self.text_encoder.as_ref().is_some_and(understood)
    }

    /// The heads of a full file and the network that turns a timestep into their condition, with
    /// names as in the file: `adapters.…`, `mapping.…`, `time_emb.weight`, `time_in_proj.weight`.
    pub fn heads(&self) -> Option<&Weights> {
        self.heads.as_ref()
    }

    /// The timestep that a full file's student runs at, exactly as it is stored: 261, or 260 after
    /// rounding to bf16. Files of the UNet alone do not say it; upstream runs them at 261.
    pub fn timestep(&self) -> Option<f64> {
        self.timestep.as_ref().map(|timestep| timestep.value)
    }

    /// What `scheduler/scheduler_config.json` says.
    pub fn scheduler(&self) -> Option<&Value> {
        self.scheduler.as_ref()
    }

    /// The files that all weights lie in, each once.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = self
            .stores()
            .flat_map(|(_, weights)| weights.files())
            .collect();
        files.sort();
        files.dedup();
        files
    }

    /// All parts that are there, with the role that each plays.
    fn parts(&self) -> impl Iterator<Item = (&'static str, &Part)> {
        let parts = [
            ("unet", Some(&self.unet)),
            ("teacher", self.teacher.as_ref()),
            ("vae", self.vae.as_ref()),
            ("text_encoder", self.text_encoder.as_ref()),
        ];
        parts
            .into_iter()
            .filter_map(|(role, part)| Some((role, part?)))
    }

    /// All stores of weights, with the role that each plays.
    fn stores(&self) -> impl Iterator<Item = (&'static str, &Weights)> {
        self.parts()
            .map(|(role, part)| (role, &part.weights))
            .chain(self.heads.as_ref().map(|weights| ("heads", weights)))
            .chain(self.lora.as_ref().map(|lora| ("lora", lora.weights())))
    }

    fn lacking(&self) -> CheckpointError {
        let mut lacking = Vec::new();
        if self.vae.is_none() {
            lacking.push(Component::Vae.words());
        }
        match self.text_encoder {
            None => lacking.push(Component::TextEncoder.words()),
            Some(_) if self.tokenizer.is_none() => lacking.push("tokenizer"),
            Some(_) => {}
        }
        CheckpointError::Lacking {
            path: self.path.clone(),
            lacking,
            base: self.base.clone(),
        }
    }
}
