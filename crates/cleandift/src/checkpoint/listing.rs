//! Which files of a diffusers folder are needed to open it, by their names alone: for folders that
//! are not here yet.

use super::folder::candidates;
use super::part::Component;

/// What a folder is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To be a model by itself.
    Model,
    /// To complete a file that has a U-Net: all but the U-Net's weights.
    Base,
}

/// Why a folder cannot be a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a model folder: it has no {0}")]
pub struct Lacking(pub String);

/// Files that are needed whole wherever they are there.
const SMALL: [&str; 10] = [
    "model_index.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/tokenizer.json",
];

/// Of a folder's files (paths below it, `/` between folders), those that [`super::Checkpoint::open`]
/// reads, in the order of `files`. A VAE or text encoder may be without weights, or not there.
///
/// # Errors
/// If there is no U-Net.
pub fn needed_files<'f>(files: &[&'f str], need: Need) -> Result<Vec<&'f str>, Lacking> {
    let mut needed: Vec<&str> = SMALL.into();
    let mut weights = Vec::new();
    for component in [Component::Unet, Component::Vae, Component::TextEncoder] {
        let unet = component == Component::Unet;
        let found = match (unet, need) {
            (true, Need::Base) => Vec::new(),
            _ => component_weights(files, component),
        };
        if unet && need == Need::Model && found.is_empty() {
            let folder = component.folder();
            let looked_for = candidates(component).join(", ");
            return Err(Lacking(format!("`{folder}/` with one of {looked_for}")));
        }
        weights.extend(found);
    }
    needed.extend(weights);
    Ok(files
        .iter()
        .copied()
        .filter(|file| needed.contains(file))
        .collect())
}

/// The preferred form of a component's weights: one file, or an index and its shards.
fn component_weights<'f>(files: &[&'f str], component: Component) -> Vec<&'f str> {
    let folder = component.folder();
    let names: Vec<(&str, &str)> = files
        .iter()
        .filter_map(|file| Some((*file, file.strip_prefix(folder)?.strip_prefix('/')?)))
        .collect();
    let candidates = candidates(component);
    let preferred = candidates
        .iter()
        .find_map(|candidate| names.iter().find(|(_, name)| name == candidate));
    let Some(&(file, chosen)) = preferred else {
        return Vec::new();
    };
    let shards = names.iter().filter(|(_, name)| is_shard(name, chosen));
    std::iter::once(file)
        .chain(shards.map(|(file, _)| *file))
        .collect()
}

/// Whether a file is one of those that an index lists: `stem-00001-of-00002.safetensors`, with
/// `.fp16` before or behind the numbers, for `stem.safetensors.index.json` with `.fp16` somewhere.
fn is_shard(name: &str, index: &str) -> bool {
    let Some((stem, kind)) = index.split_once('.') else {
        return false;
    };
    let format = kind.split('.').find(|part| *part != "fp16");
    index.ends_with(".json")
        && name.starts_with(stem)
        && name.contains("-of-")
        && name.contains(".fp16") == kind.contains("fp16")
        && name.rsplit('.').next() == format
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The published repository of Stable Diffusion 1.5 has these files, and more.
    const SD15: [&str; 16] = [
        "README.md",
        "feature_extractor/preprocessor_config.json",
        "model_index.json",
        "safety_checker/model.safetensors",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "v1-5-pruned.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ];

    #[test]
    fn a_model_is_its_parts_in_their_preferred_form() {
        let needed = needed_files(&SD15, Need::Model).unwrap();
        let expected = [2, 4, 5, 7, 8, 9, 10, 12, 14, 15].map(|index| SD15[index]);
        assert_eq!(needed, expected);
        let base = needed_files(&SD15, Need::Base).unwrap();
        assert_eq!(
            base,
            [2, 4, 5, 7, 8, 9, 10, 14, 15].map(|index| SD15[index])
        );
    }

    #[test]
    fn an_index_brings_its_own_shards() {
        let files = [
            "unet/config.json",
            "unet/diffusion_pytorch_model-00001-of-00002.fp16.safetensors",
            "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
            "unet/diffusion_pytorch_model-00002-of-00002.safetensors",
            "unet/diffusion_pytorch_model.safetensors.index.json",
            "unet/diffusion_pytorch_model-00001-of-00002.bin",
        ];
        let needed = needed_files(&files, Need::Model).unwrap();
        assert_eq!(needed, [0, 2, 3, 4].map(|index| files[index]));
    }

    #[test]
    fn without_a_unet_it_is_no_model() {
        let files = ["README.md", "vae/config.json", "unet/config.json"];
        let error = needed_files(&files, Need::Model).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("no `unet/` with one of diffusion_pytorch_model")
        );
        assert!(needed_files(&files, Need::Base).is_ok());
    }
}
