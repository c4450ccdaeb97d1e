//! `cleandift sample`: pictures out of noise, to see what a diffusion model has learned.

use std::path::PathBuf;

use clap::Args;
use cleandift::extractor::TextEncoder;
use cleandift::image::{Extent, Picture, Size};
use cleandift::sampler::{Sampler, Sampling};
use image::{Rgb, RgbImage, imageops};
use indicatif::{ProgressBar, ProgressStyle};

use crate::arguments::ModelArguments;
use crate::failure::{Ending, Failure};
use crate::machine::{available_memory, check_memory};
use crate::output::{to_image, write_picture};

/// Make pictures out of noise with a diffusion model, to see what it has learned
#[derive(Args)]
pub struct SampleArguments {
    #[command(flatten)]
    model: ModelArguments,

    /// A class to make pictures of, by name or number, for models that know classes; may be given
    /// many times, each is a row
    #[arg(long = "class", value_name = "NAME")]
    classes: Vec<String>,

    /// A prompt, for models that know text; without class and prompt, whatever comes
    #[arg(long, value_name = "TEXT", conflicts_with = "classes")]
    prompt: Option<String>,

    /// Steps from noise to picture (DDIM), at most 1000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = parse_steps)]
    steps: usize,

    /// How far beyond the prompt to go (classifier-free guidance): 1 takes it as it is
    #[arg(long, value_name = "G", default_value_t = 3.0, value_parser = parse_guidance,
        allow_negative_numbers = true)]
    guidance: f64,

    /// Pictures of each class or prompt
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = parse_count)]
    count: usize,

    /// Seed of the noise
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,

    /// The pictures' size: 64, or 96x64 (width x height); default: what the model was trained at
    #[arg(long, value_name = "SIZE")]
    size: Option<Size>,

    /// Where they go, side by side, as PNG
    #[arg(short, long, value_name = "FILE.png", default_value = "sample.png")]
    output: PathBuf,
}

/// Pixels between pictures.
const GAP: usize = 2;

fn parse_steps(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(steps @ 1..=1000) => Ok(steps),
        _ => Err("expected a whole number from 1 to 1000".to_owned()),
    }
}

/// They are made together and drawn side by side: more is a slip of the hand.
fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1000) => Ok(count),
        _ => Err("expected a whole number from 1 to 1000".to_owned()),
    }
}

fn parse_guidance(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(guidance) if f64::is_finite(guidance) => Ok(guidance),
        _ => Err("expected a number".to_owned()),
    }
}

/// Makes the pictures of each prompt, row by row.
pub fn run(arguments: &SampleArguments) -> Result<Ending, Failure> {
    let source = arguments.model.source()?;
    if let Some(warning) = source.warning() {
        eprintln!("note: {warning}");
    }
    let model = source.model()?;
    let processor = arguments.model.processor()?;
    let sampler = Sampler::new(&model, &processor);
    let size = size(arguments, &sampler)?;
    let prompts = match (&arguments.prompt, arguments.classes.as_slice()) {
        (Some(prompt), _) => std::slice::from_ref(prompt),
        (None, []) => &[String::new()],
        (None, classes) => classes,
    };
    let text = TextEncoder::new(&model, &processor, true)?;
    let none = text.encode("")?;
    let encoded: Result<Vec<_>, _> = prompts.iter().map(|prompt| text.encode(prompt)).collect();
    let encoded = encoded?;
    drop(text);
    let needed = sampler.memory(size, arguments.count, &none)?;
    let remedy = "take a smaller --size or --count";
    check_memory(needed, available_memory(), remedy)?;

    let sampling = Sampling {
        steps: arguments.steps,
        guidance: arguments.guidance,
    };
    let noise: Vec<_> = (0..arguments.count)
        .map(|index| sampler.noise(size, arguments.seed, index))
        .collect();
    let style = "{wide_bar} step {pos} of {len}, {eta} left";
    let style = ProgressStyle::with_template(style).expect("the template is well formed");
    let bar = ProgressBar::new((prompts.len() * arguments.steps) as u64).with_style(style);
    let mut rows = Vec::new();
    for prompt in &encoded {
        let mut watch = |_| bar.inc(1);
        let latents = sampler.sample(&noise, prompt, &none, sampling, &mut watch)?;
        let pictures = latents.iter().map(|latents| sampler.decode(latents));
        rows.push(pictures.collect::<Result<Vec<_>, _>>()?);
    }
    bar.finish_and_clear();
    write_picture(&arguments.output, &grid(&rows))?;
    eprintln!(
        "model: {}; {} pictures of {size} in {}",
        source.name(),
        rows.len() * arguments.count,
        arguments.output.display()
    );
    Ok(Ending::Complete)
}

fn size(arguments: &SampleArguments, sampler: &Sampler) -> Result<Extent, Failure> {
    match arguments.size {
        None => Ok(sampler.default_size()),
        Some(size @ Size::Exact(extent)) => {
            size.check_multiple(sampler.multiple())?;
            Ok(extent)
        }
        Some(size) => Err(Failure::new(format!(
            "size {size}: no picture is given that has one: name it, such as 64 or 96x64"
        ))),
    }
}

/// Rows of pictures of one size, on white.
fn grid(rows: &[Vec<Picture>]) -> RgbImage {
    let Extent { width, height } = rows[0][0].extent();
    let (across, down) = (width + GAP, height + GAP);
    let (columns, lines) = (rows[0].len(), rows.len());
    let mut grid = RgbImage::from_pixel(
        (columns * across - GAP) as u32,
        (lines * down - GAP) as u32,
        Rgb([255; 3]),
    );
    for (line, row) in rows.iter().enumerate() {
        for (column, picture) in row.iter().enumerate() {
            let (x, y) = ((column * across) as i64, (line * down) as i64);
            imageops::replace(&mut grid, &to_image(picture), x, y);
        }
    }
    grid
}
