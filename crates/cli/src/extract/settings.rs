//! The settings that all outputs of a folder share, as data and in words.

use cleandift::checkpoint::{CheckpointError, file_sha256};
use cleandift::extractor::{DEFAULT_TIMESTEP, Extractor, Latents, Mode, Noise, Role};
use cleandift::features::store::Manifest;
use serde_json::{Value, json};

use super::{Also, ExtractArguments, Pool};
use crate::failure::Failure;
use crate::source::Source;

/// The names of an output's tensors.
pub fn tensor_names(arguments: &ExtractArguments, extractor: &Extractor) -> Vec<String> {
    let groups = extractor.groups().iter();
    let names = groups.map(|group| group.name().to_owned());
    names
        .chain(arguments.also.iter().map(|also| also.name().to_owned()))
        .collect()
}

/// How features are made, for a person.
pub fn mode_words(extractor: &Extractor) -> String {
    let at = extractor.timestep();
    match &extractor.request().mode {
        Mode::Clean { timestep: Some(_) } => format!("clean, at timestep {at} as given"),
        Mode::Clean { timestep: None } if extractor.model().timestep.is_some() => {
            format!("clean, at timestep {at} from the file")
        }
        Mode::Clean { timestep: None } => {
            format!("clean, at timestep {DEFAULT_TIMESTEP} (the default; the file says none)")
        }
        Mode::NaiveClean { .. } => format!("naive clean, at timestep {at}"),
        Mode::Noisy {
            noise: Noise::Drawn { seed, count },
            ..
        } => {
            format!("noisy, at timestep {at}, mean of {count} draws, seed {seed}")
        }
        Mode::Noisy {
            noise: Noise::Given(noise),
            ..
        } => {
            format!(
                "noisy, at timestep {at}, mean of {} given draws",
                noise.images
            )
        }
        Mode::Projected { timestep } => {
            format!("clean at timestep {at}, through the heads to timestep {timestep}")
        }
    }
}

/// The manifest. Everything that changes a bit of an output is in it, except the instruction set,
/// so that different machines can share the work.
pub fn manifest(
    arguments: &ExtractArguments,
    source: &Source,
    extractor: &Extractor,
) -> Result<Manifest, Failure> {
    let features = &arguments.features;
    let hash = |file: &Option<std::path::PathBuf>| -> Result<Value, CheckpointError> {
        file.as_deref()
            .map_or(Ok(Value::Null), |file| file_sha256(file).map(Value::String))
    };
    let taps = extractor
        .groups()
        .iter()
        .map(|group| (group.name().to_owned(), group.modules().into()));
    let settings = json!({
        "cleandift": env!("CARGO_PKG_VERSION"),
        // The hash says which weights; a path would forbid other machines to share the work.
        "model": source.short_name(),
        "weights_sha256": source.hash()?,
        "configs_sha256": source.configs_hash(),
        "mode": mode(extractor),
        "network": match extractor.role() {
            Role::Student => "student",
            Role::Teacher => "teacher",
        },
        "timestep": extractor.timestep(),
        "latents": match extractor.request().latents {
            Latents::Mean => json!("mean"),
            Latents::Sample { seed } => json!({"sample": seed}),
        },
        "noise_file_sha256": hash(&features.noise_file)?,
        "prompt": features.prompt,
        "prompt_embeds_sha256": hash(&features.prompt_embeds)?,
        "prompt_file_sha256": hash(&arguments.prompt_file)?,
        "taps": taps.collect::<serde_json::Map<_, _>>(),
        "also": arguments.also.iter().map(|also: &Also| also.name()).collect::<Vec<_>>(),
        "pool": arguments.pool.map(|Pool::Mean| "mean"),
        "size": features.size(extractor).to_string(),
        "resize": features.resize.to_string(),
        "resample": features.resample.to_string(),
        "arithmetic": arguments.model.arithmetic.name(),
        "dtype": cleandift::checkpoint::Dtype::from(arguments.dtype).to_string(),
        "format": arguments.format.to_string(),
    });
    let Value::Object(settings) = settings else {
        unreachable!("written as an object")
    };
    Ok(Manifest(settings))
}

fn mode(extractor: &Extractor) -> Value {
    match &extractor.request().mode {
        Mode::Clean { .. } => json!("clean"),
        Mode::NaiveClean { .. } => json!("naive-clean"),
        Mode::Noisy {
            noise: Noise::Drawn { seed, count },
            ..
        } => {
            json!({"noisy": {"seed": seed, "ensemble": count}})
        }
        Mode::Noisy {
            noise: Noise::Given(noise),
            ..
        } => {
            json!({"noisy": {"given": noise.images}})
        }
        Mode::Projected { timestep } => json!({"projected": timestep}),
    }
}
