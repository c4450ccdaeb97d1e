//! What a run needs, before it starts: arithmetic, memory, disk.

use cleandift::checkpoint::Dtype;
use cleandift::extractor::{Estimate, Extractor, Prompts};
use cleandift::image::{Extent, Picture, Size};
use serde_json::json;
use sysinfo::System;

use super::inputs::Job;
use super::{Also, ExtractArguments, Pool};
use crate::failure::{Ending, Failure};
use crate::machine::{GIB, SMALLER_FEATURES, available_memory, check_memory, free_disk};
use crate::source::Source;

/// The canvas that a plan is made for: the asked one, or the first picture's own.
fn canvas(
    arguments: &ExtractArguments,
    extractor: &Extractor,
    jobs: &[Job],
) -> Result<Extent, Failure> {
    match arguments.features.size(extractor) {
        Size::Exact(extent) => Ok(extent),
        native => {
            let first = jobs.iter().find_map(|job| Picture::open(&job.path).ok());
            let picture = first.map_or(extractor.default_size(), |picture| picture.extent());
            Ok(native.canvas(picture, extractor.multiple())?)
        }
    }
}

fn estimate(
    arguments: &ExtractArguments,
    extractor: &Extractor,
    canvas: Extent,
) -> Result<Estimate, Failure> {
    let given = arguments.features.prompt_embeds.is_some();
    let prompts = match arguments.prompt_file {
        Some(_) => Prompts::Many,
        None if given => Prompts::None,
        None => Prompts::One,
    };
    Ok(extractor.estimate(canvas, arguments.batch_size, prompts)?)
}

/// Bytes that one picture's output takes, about.
fn output_bytes(arguments: &ExtractArguments, estimate: &Estimate) -> u64 {
    const HEADER: usize = 2048;
    let values = estimate.maps.iter().map(|map| match arguments.pool {
        None => map.size(),
        Some(Pool::Mean) => map.channels,
    });
    let features = values.sum::<usize>() * Dtype::from(arguments.dtype).bytes();
    let also = arguments.also.iter().map(|also| match also {
        Also::Latents => estimate.latent.size(),
        Also::PromptEmbeds => estimate.prompt.size(),
    });
    (HEADER + features + size_of::<f32>() * also.sum::<usize>()) as u64
}

/// Prints what would be done.
pub fn print(
    arguments: &ExtractArguments,
    source: &Source,
    extractor: &Extractor,
    jobs: &[Job],
    finished: &[bool],
) -> Result<Ending, Failure> {
    let canvas = canvas(arguments, extractor, jobs)?;
    let estimate = estimate(arguments, extractor, canvas)?;
    let left = finished.iter().filter(|done| !**done).count();
    let disk = left as u64 * output_bytes(arguments, &estimate);
    let (memory, free) = (available_memory(), free_disk(&arguments.output));
    let per_picture = estimate.multiply_adds();
    if arguments.json {
        println!(
            "{}",
            json!({
                "model": source.name(), "pictures": jobs.len(), "finished": jobs.len() - left,
                "left": left, "canvas": [canvas.width, canvas.height],
                "multiply_adds_per_picture": per_picture,
                "memory_bytes": estimate.peak_bytes, "available_memory_bytes": memory,
                "disk_bytes": disk, "free_disk_bytes": free,
            })
        );
        return Ok(Ending::Complete);
    }
    println!(
        "pictures:    {} ({} finished, {left} to do)",
        jobs.len(),
        jobs.len() - left
    );
    println!("canvas:      {canvas}");
    println!("per picture: {:.1} GMAC", per_picture as f64 / 1e9);
    println!(
        "all:         {:.0} GMAC",
        per_picture as f64 / 1e9 * left as f64
    );
    println!("time:        unknown until the first pictures are done; a run shows its own rate");
    println!(
        "memory:      {:.2} GiB of {:.2} GiB available",
        estimate.peak_bytes as f64 / GIB,
        memory as f64 / GIB
    );
    let free = free.map_or("unknown".to_owned(), |free| {
        format!("{:.2} GiB", free as f64 / GIB)
    });
    println!(
        "disk:        about {:.3} GiB of {free} free",
        disk as f64 / GIB
    );
    println!("nothing was done (--dry-run)");
    Ok(Ending::Complete)
}

/// Fails if the run cannot fit into the memory or onto the disk.
pub fn check_resources(
    arguments: &ExtractArguments,
    extractor: &Extractor,
    left: usize,
) -> Result<(), Failure> {
    let Size::Exact(canvas) = arguments.features.size(extractor) else {
        return Ok(());
    };
    if left == 0 {
        return Ok(());
    }
    let estimate = estimate(arguments, extractor, canvas)?;
    check_memory(estimate.peak_bytes, available_memory(), SMALLER_FEATURES)?;
    let disk = left as u64 * output_bytes(arguments, &estimate);
    match free_disk(&arguments.output) {
        Some(free) if free < disk => Err(Failure::new(format!(
            "{}: the features will take {:.2} GiB, {:.2} GiB are free: choose another disk, fewer \
             --taps, --dtype f16 or --pool mean",
            arguments.output.display(),
            disk as f64 / GIB,
            free as f64 / GIB
        ))),
        _ => Ok(()),
    }
}

/// Fails if pictures of this size cannot fit into the machine: for sizes that are known only when a
/// picture has been opened.
pub fn check_canvas(
    arguments: &ExtractArguments,
    extractor: &Extractor,
    canvas: Extent,
) -> Result<(), Failure> {
    let mut system = System::new();
    system.refresh_memory();
    let machine = system.total_memory() + system.total_swap();
    let limits = system
        .cgroup_limits()
        .map_or(u64::MAX, |limits| limits.total_memory);
    let limit = if limits == 0 {
        machine
    } else {
        machine.min(limits)
    };
    check_memory(
        estimate(arguments, extractor, canvas)?.peak_bytes,
        limit,
        SMALLER_FEATURES,
    )
}
