//! What was learned, as a model folder that any command opens; and what a model has learned, to go on from.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::PretrainConfig;
use super::config::Prediction;
use crate::checkpoint::{Dtype, TensorData, WriteError, write_json, write_safetensors};
use crate::extractor::{Model, ModelError, TextModel};
use crate::graph::{Parameters, ReadError};
use crate::networks::config::CodecConfig;
use crate::networks::diffusion::CLASS_TABLE;
use crate::train::data::Classes;
use crate::train::{Masters, TrainError};

/// Writes `unet/`, `vae/`, `text_encoder/` and `scheduler/` below `folder`, weights as `dtype`.
///
/// # Errors
/// If the folder cannot be written, or a value does not fit the type.
pub fn write_model(
    folder: &Path,
    config: &PretrainConfig,
    classes: &Classes,
    masters: &Masters,
    dtype: Dtype,
) -> Result<(), WriteError> {
    let prediction = match config.objective.prediction {
        Prediction::Noise => "epsilon",
        Prediction::Velocity => "v_prediction",
    };
    let scheduler = json!({
        "_class_name": "DDIMScheduler", "num_train_timesteps": 1000,
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
        "prediction_type": prediction, "clip_sample": false, "set_alpha_to_one": false,
        "steps_offset": 1, "timestep_spacing": "leading",
    });
    let text = json!({ "_class_name": "ClassTable", "classes": classes.names() });
    let names = masters.names();
    let (table, unet): (Vec<&str>, Vec<&str>) =
        names.into_iter().partition(|name| *name == CLASS_TABLE);
    let part =
        |name: &str, config: &Value| write_json(&folder.join(name).join("config.json"), config);
    let codec = config.model.codec();
    match &codec.config {
        CodecConfig::PixelUnshuffle(config) => part("vae", &config.to_json())?,
        CodecConfig::LinearPatches(config) => {
            part("vae", &config.to_json())?;
            let file = folder.join("vae/diffusion_pytorch_model.safetensors");
            // Half precision would spoil the frequencies' inverse.
            write_weights(&file, &codec.weights, &codec.weights.names(), Dtype::F32)?;
        }
        CodecConfig::Autoencoder(_) => unreachable!("no config asks for one"),
    }
    part("unet", &config.model.unet(config.data.size).to_json())?;
    part("text_encoder", &text)?;
    let weights =
        |file: &str, names: &[&str]| write_weights(&folder.join(file), masters, names, dtype);
    weights("unet/diffusion_pytorch_model.safetensors", &unet)?;
    weights("text_encoder/model.safetensors", &table)?;
    write_json(&folder.join("scheduler/scheduler_config.json"), &scheduler)
}

/// The U-Net and class table of a model of this kind: what another run may start from.
///
/// # Errors
/// If it has no class table, or cannot be read.
pub fn parameters_of(model: &Model) -> Result<Masters, TrainError> {
    let table = match &model.text {
        Ok(TextModel::ClassTable(table)) => &table.weights,
        _ => {
            let words = "the model has no class table: `pretrain` goes on from its own kind only";
            return Err(ModelError::Parts(words.to_owned()).into());
        }
    };
    let stores = [&model.unet.weights, table];
    let tensors = stores.into_iter().flat_map(|weights| {
        let names = weights.names().into_iter();
        names.map(move |name| {
            let shape = weights.shape(name).unwrap_or_default().to_vec();
            Ok((name.to_owned(), shape, weights.read(name)?))
        })
    });
    let tensors = tensors.collect::<Result<Vec<_>, ReadError>>();
    Ok(Masters::new(tensors?))
}

fn write_weights(
    path: &Path,
    weights: &dyn Parameters,
    names: &[&str],
    dtype: Dtype,
) -> Result<(), WriteError> {
    let values = names.iter().map(|name| weights.read(name));
    let values: Vec<_> = values
        .map(|values| values.expect("they are in memory"))
        .collect();
    let tensors = names.iter().zip(&values).map(|(name, values)| TensorData {
        name,
        shape: weights.shape(name).unwrap_or_default(),
        values,
        dtype,
    });
    write_safetensors(path, &tensors.collect::<Vec<_>>(), &BTreeMap::new())
}
