//! Models inside the binary: see `models/tiny/README.md` for what they are and how they were made.

use cleandift::checkpoint::{Checkpoint, CheckpointError};

/// The model that is used when none is named, if it is inside.
pub const DEFAULT: &str = "tiny";

/// Names and files ([bundles](cleandift::checkpoint::Kind::Bundle)); a model's base follows it.
#[cfg(feature = "tiny")]
const MODELS: &[(&str, &[u8])] = &[
    (
        DEFAULT,
        include_bytes!("../../../models/tiny/tiny.safetensors"),
    ),
    (
        "tiny-base",
        include_bytes!("../../../models/tiny/tiny-base.safetensors"),
    ),
];
#[cfg(not(feature = "tiny"))]
const MODELS: &[(&str, &[u8])] = &[];

/// The names of all that are inside.
pub fn names() -> impl Iterator<Item = &'static str> {
    MODELS.iter().map(|(name, _)| *name)
}

/// Opens the model of this name, if it is inside. The one that it was made from is its base, for
/// baselines.
pub fn open(name: &str) -> Option<Result<Checkpoint, CheckpointError>> {
    open_among(MODELS, name)
}

fn open_among(models: &[(&str, &[u8])], name: &str) -> Option<Result<Checkpoint, CheckpointError>> {
    let place = models.iter().position(|(known, _)| *known == name)?;
    let mut opened = models[place..]
        .iter()
        .map(|(name, bytes)| Checkpoint::from_bytes(name, bytes.to_vec()));
    let model = opened.next()?;
    Some(match opened.next() {
        None => model,
        Some(base) => model.and_then(|model| Ok(model.with_base(&base?))),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cleandift::checkpoint::{Dtype, TensorData, Weights, write_safetensors};
    use cleandift::extractor::{Model, TextModel};
    use cleandift::graph::Parameters;

    use super::*;

    /// The built-in small model with random weights, in the form that models inside have.
    fn bundle(seed: u64) -> Vec<u8> {
        let model = Model::random(seed);
        let Ok(TextModel::ClassTable(table)) = &model.text else {
            panic!("the random model has a class table")
        };
        let read = |part: &str, weights: &Weights| -> Vec<_> {
            let tensor = |name: &&str| {
                let shape = weights.shape(name).unwrap().to_vec();
                (format!("{part}.{name}"), shape, weights.read(name).unwrap())
            };
            weights.names().iter().map(tensor).collect()
        };
        let mut tensors = read("unet", &model.unet.weights);
        tensors.extend(read("text_encoder", &table.weights));
        let data = tensors.iter().map(|(name, shape, values)| TensorData {
            name,
            shape,
            values,
            dtype: Dtype::F16,
        });
        let codec = r#"{"_class_name": "PixelUnshuffle", "factor": 4, "shift": [0], "scale": [2]}"#;
        let configs = [
            ("unet", model.unet.config.to_json().to_string()),
            ("vae", codec.to_owned()),
            (
                "text_encoder",
                r#"{"_class_name": "ClassTable"}"#.to_owned(),
            ),
        ];
        let configs = configs.map(|(part, json)| (format!("{part}/config.json"), json));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let metadata = BTreeMap::from(configs);
        write_safetensors(&path, &data.collect::<Vec<_>>(), &metadata).unwrap();
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_model_inside_has_its_base_as_the_teacher() {
        let (student, base) = (bundle(1), bundle(2));
        let models: [(&str, &[u8]); 2] = [("tiny", &student), ("tiny-base", &base)];
        let tiny = open_among(&models, "tiny").unwrap().unwrap();
        let alone = open_among(&models, "tiny-base").unwrap().unwrap();
        assert!(open_among(&models, "large").is_none());
        assert_eq!(tiny.path().to_str(), Some("tiny"));
        assert!(Model::open(&tiny).unwrap().teacher.is_some());
        assert!(Model::open(&alone).unwrap().teacher.is_none());
        let hash = |model: &Checkpoint| model.sha256().unwrap().combined;
        assert_ne!(hash(&tiny), hash(&alone));
    }

    #[cfg(feature = "tiny")]
    #[test]
    fn the_models_inside_can_be_used() {
        for (name, bytes) in MODELS {
            assert!(bytes.len() <= 24_000_000, "{name}: {} bytes", bytes.len());
            Model::open(&open(name).unwrap().unwrap()).unwrap();
        }
    }
}
