//! What can go wrong when a checkpoint is opened, in words for the person who gave the path.

use std::path::{Path, PathBuf};

/// A checkpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// Nothing lies at this path.
    #[error("{}: no such file or folder", path.display())]
    NotFound {
        /// The path as it was given.
        path: PathBuf,
    },

    /// The operating system refused to open or read a file.
    #[error("{}: cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },

    /// The file does not begin as a safetensors file does.
    #[error(
        "{}: not a safetensors file: found {found}, expected a header length of 8 bytes and a JSON \
         header",
        path.display()
    )]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// What its first bytes look like.
        found: String,
    },

    /// The file is shorter or longer than its own header says.
    #[error(
        "{}: the header describes a file of {expected} bytes, but it has {found}: it is {}: \
         download or copy it again",
        path.display(),
        if found < expected { "truncated" } else { "followed by foreign data" }
    )]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// Its length by its header, in bytes.
        expected: u64,
        /// Its length, in bytes.
        found: u64,
    },

    /// The header of a safetensors file contradicts itself.
    #[error("{}: invalid safetensors header: {reason}", path.display())]
    InvalidHeader {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A file of PyTorch's that is damaged, or holds no weights in a form that is read.
    #[error("{}: not a PyTorch checkpoint that can be read: {reason}", path.display())]
    InvalidPyTorch {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A LoRA file that is not understood, or that was made for another model.
    #[error("{}: not a LoRA that can be merged: {reason}", path.display())]
    InvalidLora {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A JSON file (a config or a shard index) does not parse or has unexpected content.
    #[error("{}: {reason}", path.display())]
    InvalidJson {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A shard index promises a tensor that its file does not have.
    #[error("{}: lists `{tensor}` in {shard}, which does not have it", path.display())]
    MissingFromShard {
        /// The index file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The shard's file name.
        shard: String,
    },

    /// Two tensors want the same name.
    #[error("`{tensor}` is there twice: as {first} and as {second}")]
    Duplicate {
        /// The name that both have, or would get.
        tensor: String,
        /// Where the first one lies.
        first: String,
        /// Where the second one lies.
        second: String,
    },

    /// A safetensors file whose names belong to no layout that is known.
    #[error(
        "{}: neither a UNet in diffusers' names (`conv_in.weight`, `down_blocks.…`) nor a single file \
         in the original ones (`model.diffusion_model.…`) nor a full CleanDIFT checkpoint \
         (`unet_feature_extractor_cleandift.…`): {found}",
        path.display()
    )]
    UnknownLayout {
        /// The file.
        path: PathBuf,
        /// What is in it.
        found: String,
    },

    /// A full CleanDIFT checkpoint without some of its parts.
    #[error("{}: not a whole CleanDIFT checkpoint: nothing is named {}", path.display(), missing.join(", "))]
    IncompleteFull {
        /// The file.
        path: PathBuf,
        /// The names and prefixes that no tensor has.
        missing: Vec<&'static str>,
    },

    /// The folder has no UNet.
    #[error(
        "{}: no UNet here: looked for `unet/config.json` and for `config.json` of a \
         UNet2DConditionModel; {found}: give the folder that holds `unet/`, `vae/` and `text_encoder/`",
        path.display()
    )]
    NoUnet {
        /// The folder.
        path: PathBuf,
        /// What lies in it.
        found: String,
    },

    /// A component's folder without weights.
    #[error("{}: no weights here: looked for {looked_for}; {found}", path.display())]
    NoWeights {
        /// The component's folder.
        path: PathBuf,
        /// The file names that would do.
        looked_for: String,
        /// What lies in it.
        found: String,
    },

    /// The base is not a diffusers folder.
    #[error(
        "{}: not a folder: --base wants a Stable Diffusion folder with `unet/`, `vae/` and \
         `text_encoder/`",
        path.display()
    )]
    BaseNotFolder {
        /// The base's path.
        path: PathBuf,
    },

    /// There is no config, and the shapes are not those of a model that is known by heart.
    #[error(
        "{}: the {component} has no config.json, and its shapes are not Stable Diffusion 1.5's or \
         2.1's ({found}): give the folder of the model it was made from with --base DIR",
        path.display()
    )]
    UnknownConfig {
        /// The file or folder.
        path: PathBuf,
        /// Which part of the model.
        component: &'static str,
        /// The shape that tells.
        found: String,
    },

    /// The file was made from another model than the base.
    #[error(
        "{}: `{tensor}` is {found:?}, but {} asks for {expected}: the base is another model than \
         this one was made from",
        path.display(),
        config.display()
    )]
    BaseMismatch {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor that shows it.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// What the base's config means for it.
        expected: String,
        /// The base's config file.
        config: PathBuf,
    },

    /// Something that was asked for is neither in the checkpoint nor in its base.
    #[error(
        "{} has {}{}: give a Stable Diffusion folder with --base DIR",
        path.display(),
        lacking.iter().map(|what| format!("no {what}")).collect::<Vec<_>>().join(" and "),
        base.as_ref().map_or(String::new(), |base| format!(", nor has {}", base.display()))
    )]
    Lacking {
        /// The checkpoint.
        path: PathBuf,
        /// All that it lacks.
        lacking: Vec<&'static str>,
        /// The base, where it is not either.
        base: Option<PathBuf>,
    },

    /// A tensor could not be read.
    #[error(transparent)]
    Read(#[from] crate::graph::ReadError),
}

impl CheckpointError {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            std::io::ErrorKind::NotFound => Self::NotFound { path },
            _ => Self::Io { path, source },
        }
    }
}
