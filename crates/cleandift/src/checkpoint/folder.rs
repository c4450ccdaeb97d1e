//! A diffusers folder: `unet/`, `vae/` and `text_encoder/`, each with a config and weights, and
//! `tokenizer/` and `scheduler/`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::part::{Component, ConfigOrigin, Part};
use super::{CheckpointError, Configs, Weights, known, names};

/// A folder with components in it. Nothing is opened before it is asked for.
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
        }
    }

    /// The UNet, which may also lie in the folder itself if that is one component only.
    pub(super) fn unet(&self) -> Result<Part, CheckpointError> {
        if let Some(part) = self.part(Component::Unet)? {
            return Ok(part);
        }
        if let Some((config, path)) = read_config(&self.root)?
            && config["_class_name"] == "UNet2DConditionModel"
        {
            let weights = require_weights(&self.root, Component::Unet)?;
            return Ok(Part {
                config,
                config_origin: ConfigOrigin::File(path),
                weights,
            });
        }
        Err(CheckpointError::NoUnet {
            path: self.root.clone(),
            found: listing(&self.root),
        })
    }

    /// A component with its config and weights, `None` if there is no such folder.
    pub(super) fn part(&self, component: Component) -> Result<Option<Part>, CheckpointError> {
        let folder = self.root.join(component.folder());
        if !folder.is_dir() {
            return Ok(None);
        }
        let config = read_config(&folder)?;
        let weights = match &config {
            Some((config, _)) if is_weightless(config) => {
                Weights::from_memory(&folder.display().to_string(), [])
            }
            _ => canonical(component, &require_weights(&folder, component)?)?,
        };
        let (config, config_origin) = match config {
            Some((config, path)) => (config, ConfigOrigin::File(path)),
            None => known::config_of(component, &weights, &folder)?,
        };
        Ok(Some(Part {
            config,
            config_origin,
            weights,
        }))
    }

    /// Whether the component has weights, in any format.
    pub(super) fn has_weights(&self, component: Component) -> bool {
        let folder = self.root.join(component.folder());
        find_weights(&folder, component).is_some()
    }

    /// The folder of the tokenizer's files.
    pub(super) fn tokenizer(&self) -> Option<PathBuf> {
        let folder = self.root.join("tokenizer");
        folder.is_dir().then_some(folder)
    }

    /// The scheduler's config.
    pub(super) fn scheduler(&self) -> Result<Option<Value>, CheckpointError> {
        read_json(&self.root.join("scheduler/scheduler_config.json"))
    }
}

/// Whether a component of this config has no weights.
pub(super) fn is_weightless(config: &Value) -> bool {
    config["_class_name"] == "PixelUnshuffle"
}

/// A component's weights in the spelling that the rest of the crate uses.
pub(super) fn canonical(
    component: Component,
    weights: &Weights,
) -> Result<Weights, CheckpointError> {
    match component {
        Component::Unet => Ok(weights.clone()),
        Component::Vae => names::of_vae(weights),
        Component::TextEncoder => names::of_text_encoder(weights),
    }
}

impl Configs for Folder {
    fn config(&self, component: Component) -> Result<Option<(Value, PathBuf)>, CheckpointError> {
        read_config(&self.root.join(component.folder()))
    }
}

fn read_config(folder: &Path) -> Result<Option<(Value, PathBuf)>, CheckpointError> {
    let path = folder.join("config.json");
    Ok(read_json(&path)?.map(|config| (config, path)))
}

/// A JSON object, `None` if there is no such file.
fn read_json(path: &Path) -> Result<Option<Value>, CheckpointError> {
    if !path.exists() {
        return Ok(None);
    }
    let invalid = |reason| CheckpointError::InvalidJson {
        path: path.to_path_buf(),
        reason,
    };
    let bytes = std::fs::read(path).map_err(|error| CheckpointError::io(path, error))?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| invalid(format!("not valid JSON: {error}")))?;
    match value {
        Value::Object(_) => Ok(Some(value)),
        _ => Err(invalid("expected a JSON object".into())),
    }
}

/// The files that may hold a component's weights, the preferred first: f32 files are written
/// without a variant, and a plain file is what diffusers opens without being told otherwise.
/// Pickles come last.
pub(super) fn candidates(component: Component) -> Vec<String> {
    let (stem, pickle) = (component.weights_stem(), component.pickle_stem());
    let mut names = vec![
        format!("{stem}.safetensors"),
        format!("{stem}.safetensors.index.json"),
        format!("{stem}.fp16.safetensors"),
        format!("{stem}.safetensors.index.fp16.json"),
        format!("{stem}.fp16.safetensors.index.json"),
        format!("{stem}.bf16.safetensors"),
        format!("{stem}.safetensors.index.bf16.json"),
    ];
    let pickles = ["bin", "bin.index.json", "fp16.bin", "bin.index.fp16.json"];
    names.extend(pickles.map(|end| format!("{pickle}.{end}")));
    names
}

fn find_weights(folder: &Path, component: Component) -> Option<PathBuf> {
    candidates(component)
        .iter()
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
}

/// Opens a component's weights: one file, or the shards that an index lists.
fn require_weights(folder: &Path, component: Component) -> Result<Weights, CheckpointError> {
    match find_weights(folder, component) {
        Some(path)
            if path
                .extension()
                .is_some_and(|extension| extension == "json") =>
        {
            open_shards(&path)
        }
        Some(path) => Weights::open(&path),
        None => Err(CheckpointError::NoWeights {
            path: folder.to_path_buf(),
            looked_for: candidates(component).join(", "),
            found: listing(folder),
        }),
    }
}

/// Opens all shards of an index and checks that each has the tensors which the index promises.
fn open_shards(index: &Path) -> Result<Weights, CheckpointError> {
    let invalid = |reason: &str| CheckpointError::InvalidJson {
        path: index.into(),
        reason: reason.into(),
    };
    let json = read_json(index)?.ok_or_else(|| invalid("has gone"))?;
    let map: BTreeMap<String, String> = serde_json::from_value(json["weight_map"].clone())
        .map_err(|_| invalid("expected `weight_map`, an object of tensor names and file names"))?;

    let folder = index.parent().unwrap_or(Path::new(""));
    let mut shards = BTreeMap::new();
    for shard in map.values().collect::<BTreeSet<_>>() {
        // An index comes from outside: it must not reach out of its folder.
        if Path::new(shard).file_name() != Some(shard.as_ref()) {
            return Err(invalid(&format!(
                "`{shard}` is not the name of a file beside the index"
            )));
        }
        shards.insert(shard, Weights::open(&folder.join(shard))?);
    }
    for (tensor, shard) in &map {
        if !shards[shard].stores(tensor) {
            return Err(CheckpointError::MissingFromShard {
                path: index.to_path_buf(),
                tensor: tensor.clone(),
                shard: shard.clone(),
            });
        }
    }
    // Of each shard what the index says: some have a tensor of another one, left from before.
    let listed = |(shard, weights): (&String, Weights)| {
        weights.renamed(|name, _| (map.get(name) == Some(shard)).then(|| name.into()))
    };
    let mut shards = shards.into_iter().map(listed);
    let first = shards
        .next()
        .ok_or_else(|| invalid("`weight_map` is empty"))??;
    shards.try_fold(first, |all, shard| all.merged(&shard?))
}

fn names_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let name =
        |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut names: Vec<_> = entries.filter_map(name).collect();
    names.sort();
    names
}

/// What lies in a folder, for errors.
fn listing(folder: &Path) -> String {
    const MOST: usize = 8;
    let names = names_in(folder);
    match names.len() {
        0 => "the folder is empty".into(),
        count if count <= MOST => format!("found {}", names.join(", ")),
        count => format!(
            "found {} and {} more",
            names[..MOST].join(", "),
            count - MOST
        ),
    }
}
