//! `cleandift models pack`: a small model into one file.

use std::path::PathBuf;

use clap::Args;
use cleandift::checkpoint::Dtype;
use cleandift::extractor::Model;

use crate::failure::{Ending, Failure};
use crate::source;
use crate::table::bytes;

/// What to pack, and where to.
#[derive(Args)]
pub struct PackArguments {
    /// A model folder or file whose text encoder is a class table
    model: PathBuf,

    /// A model folder for what the model lacks
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,

    /// The file; numbers are kept as f16
    #[arg(short, long, value_name = "FILE.safetensors")]
    output: PathBuf,
}

/// Writes U-Net, codec and class table into one file, and opens it to see that it can be used.
pub fn run(arguments: &PackArguments) -> Result<Ending, Failure> {
    let checkpoint = source::checkpoint(&arguments.model, arguments.base.as_deref())?;
    let output = &arguments.output;
    checkpoint.write_bundle(output, Dtype::F16)?;
    Model::open(&source::checkpoint(output, None)?)?;
    let size = std::fs::metadata(output)?.len();
    eprintln!("{}: {}", output.display(), bytes(size));
    Ok(Ending::Complete)
}
