//! `cleandift reconstruct`: a picture through the latent and back, to see what the latent keeps.

use std::path::PathBuf;

use clap::Args;
use cleandift::extractor::{Codec, Latents};
use cleandift::image::{Fit, Picture, Resample, Size, fit};

use crate::arguments::ModelArguments;
use crate::failure::{Ending, Failure};
use crate::machine::{available_memory, check_memory};
use crate::output::{refuse_to_replace, to_image, write_picture};

/// What to reconstruct, and how.
#[derive(Args)]
pub struct ReconstructArguments {
    /// The picture
    picture: PathBuf,

    /// Where the reconstruction goes, as PNG
    #[arg(short, long, value_name = "FILE.png")]
    output: PathBuf,

    #[command(flatten)]
    model: ModelArguments,

    /// The canvas: 768, 512x384 (width x height), native, or native:64 for multiples of 64
    #[arg(long, value_name = "SIZE", default_value = "native")]
    size: Size,

    /// How the picture gets onto the canvas: squash, pad, crop
    #[arg(long, value_name = "RULE", default_value = "squash")]
    resize: Fit,

    /// Resampling: bicubic, bilinear, lanczos, box, tensor
    #[arg(long, value_name = "FILTER", default_value = "bicubic")]
    resample: Resample,
}

/// Encodes, decodes, writes, and says how much was lost.
pub fn run(arguments: &ReconstructArguments) -> Result<Ending, Failure> {
    refuse_to_replace(&[&arguments.picture], &[&arguments.output])?;
    let picture = Picture::open(&arguments.picture)?;
    let source = arguments.model.source()?;
    if let Some(warning) = source.warning() {
        eprintln!("warning: {warning}");
    }
    let processor = arguments.model.processor()?;
    let codec = Codec::new(&source.model()?.codec, Latents::Mean, &processor);
    let multiple = codec.multiple();
    let (pixels, _) = fit(
        &picture,
        arguments.size,
        arguments.resize,
        arguments.resample,
        multiple,
    )?;
    let canvas = pixels.extent();
    let [encoder, forth] = codec.encoder_bytes(canvas);
    let [decoder, back] = codec.decoder_bytes(canvas);
    let needed = encoder + decoder + forth.max(back);
    check_memory(needed, available_memory(), "take a smaller --size")?;
    let latents = codec.encode(&pixels)?;
    let decoded = Picture::from(&codec.decode(&latents)?);
    write_picture(&arguments.output, &to_image(&decoded))?;

    let canvas = Picture::from(&pixels);
    let likeness = match canvas.psnr(&decoded) {
        f64::INFINITY => "identical to the canvas".to_owned(),
        psnr => format!("PSNR {psnr:.2} dB against the canvas"),
    };
    println!("model   {}", source.name());
    println!(
        "canvas  {} pixels, {} values",
        canvas.extent(),
        canvas.rgb().len()
    );
    println!(
        "latent  {} cells of {} channels, {} values",
        latents.extent(),
        latents.channels(),
        latents.values().len()
    );
    println!("result  {}: {likeness}", arguments.output.display());
    Ok(Ending::Complete)
}
