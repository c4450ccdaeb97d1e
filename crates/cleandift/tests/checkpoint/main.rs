//! Tests of `cleandift::checkpoint` through its public face.
//!
//! Those that need the oracle's folders look for them under `CLEANDIFT_TESTDATA` and say so on
//! stderr when they skip.

mod cleandift_files;
mod convert;
mod folders;
mod hostile;
mod lora;
mod malformed;
mod pytorch;
mod recognition;
mod weights;
mod write;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use cleandift::checkpoint::{Dtype, TensorData, Weights, write_safetensors};
use cleandift::graph::Parameters;

/// Name, shape and values.
type Tensor = (String, Vec<usize>, Vec<f32>);

fn tensor(name: &str, shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>();
    // Quarters are exact in every storage type as long as they are small.
    let values = (0..count)
        .map(|index| (index % 61) as f32 / 4.0 - 7.0)
        .collect();
    (name.into(), shape.to_vec(), values)
}

fn write(path: &Path, dtype: Dtype, tensors: &[Tensor]) {
    let data = tensors.iter().map(|(name, shape, values)| TensorData {
        name,
        shape,
        values,
        dtype,
    });
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_safetensors(path, &data.collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
}

fn write_text(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// All tensors of a store, in memory.
fn all(weights: &Weights) -> Vec<Tensor> {
    let tensor = |name: &&str| {
        (
            name.to_string(),
            weights.shape(name).unwrap().to_vec(),
            weights.read(name).unwrap(),
        )
    };
    weights.names().iter().map(tensor).collect()
}

fn assert_message(error: impl std::fmt::Display, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

/// The oracle's golden folder, if the test data is there.
fn golden() -> Option<PathBuf> {
    match std::env::var_os("CLEANDIFT_TESTDATA") {
        Some(folder) => Some(PathBuf::from(folder).join("oracle/golden")),
        None => {
            // Past the test harness, which keeps what passing tests print to itself.
            let _ = writeln!(std::io::stderr(), "skipped: CLEANDIFT_TESTDATA is not set");
            None
        }
    }
}
