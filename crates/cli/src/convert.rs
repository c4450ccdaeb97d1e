//! `cleandift models convert`: a model in another layout or storage type.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use cleandift::checkpoint::{Checkpoint, Dtype, Kind, Lora};
use cleandift::extractor::{self, ModelError};

use crate::arguments::Storage;
use crate::failure::{Ending, Failure};
use crate::output::refuse_to_replace;
use crate::source;

/// What to write.
#[derive(Args)]
pub struct ConvertArguments {
    /// A model in any layout, or its name
    model: PathBuf,

    /// The file or folder to write; a file that is there is replaced, a folder is not
    #[arg(long, short, value_name = "PATH")]
    output: PathBuf,

    /// The layout to write
    #[arg(long, value_name = "LAYOUT")]
    to: Layout,

    /// How to store all weights; without it each stays as it is
    #[arg(long, value_name = "TYPE")]
    storage: Option<Storage>,

    /// A Stable Diffusion folder for what the model lacks
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,

    /// A LoRA to merge
    #[arg(long, value_name = "FILE")]
    lora: Option<PathBuf>,

    /// How strongly: 1 as it was trained
    #[arg(long, value_name = "S", default_value_t = 1.0, requires = "lora")]
    lora_scale: f32,
}

#[derive(Clone, Copy, ValueEnum)]
enum Layout {
    /// A diffusers folder
    Folder,
    /// A single file in the original names
    Single,
    /// A CleanDIFT `_unet` file
    Unet,
    /// A CleanDIFT `_full` file
    Full,
    /// A whole small model, with a class table for a text encoder, in one file
    Bundle,
}

/// A part that lacks tensors (or has them in types that are not read) would be written without them.
fn refuse_misfits(checkpoint: &Checkpoint) -> Result<(), Failure> {
    for report in extractor::inspect(checkpoint) {
        match report.check {
            Ok(check) if !check.is_usable() => {
                let part = report.part;
                return Err(ModelError::Misfit { part, check }.into());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Runs the command.
pub fn run(arguments: &ConvertArguments) -> Result<Ending, Failure> {
    let inputs = [
        Some(&arguments.model),
        arguments.base.as_ref(),
        arguments.lora.as_ref(),
    ];
    let inputs: Vec<&Path> = inputs.into_iter().flatten().map(PathBuf::as_path).collect();
    refuse_to_replace(&inputs, &[&arguments.output])?;
    let mut checkpoint = source::checkpoint(&arguments.model, arguments.base.as_deref())?;
    if let Some(path) = &arguments.lora {
        checkpoint = checkpoint.with_lora(Lora::open(path, arguments.lora_scale)?)?;
    }
    let layout = match arguments.to {
        Layout::Folder => Kind::Folder,
        Layout::Single => Kind::SingleFile,
        Layout::Unet => Kind::UnetFile,
        Layout::Full => Kind::FullFile,
        Layout::Bundle => Kind::Bundle,
    };
    let storage = arguments.storage.map(Dtype::from);
    refuse_misfits(&checkpoint)?;
    checkpoint.write(&arguments.output, layout, storage)?;
    println!("{}: {}", arguments.output.display(), layout.words());
    Ok(Ending::Complete)
}
