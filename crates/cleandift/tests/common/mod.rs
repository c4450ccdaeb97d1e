//! What the tests share: golden files, and comparison by relative error.
#![allow(dead_code)] // each test binary uses a part

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cleandift::checkpoint::{Checkpoint, Weights};
use cleandift::engine::cpu::Processor;
use cleandift::extractor::{Extractor, Model, Request};
use cleandift::graph::Parameters;
use cleandift_kernels::Kernels;

/// A golden file: see `tests/golden/README.md` for its origin.
pub fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(path)
}

/// All tensors of a golden file.
pub fn tensors(path: &Path) -> Arc<Weights> {
    Arc::new(Weights::open(path).unwrap())
}

/// One tensor's values.
pub fn values(weights: &Weights, name: &str) -> Vec<f64> {
    weights
        .read(name)
        .unwrap()
        .into_iter()
        .map(f64::from)
        .collect()
}

/// The 2-norm of the difference over the 2-norm of what is expected.
pub fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    difference / norm(&mut expected.iter().copied())
}

/// Widens.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

/// A golden model folder.
pub fn model(name: &str) -> Model {
    Model::open(&Checkpoint::open(&golden(name), None).unwrap()).unwrap()
}

/// An extractor on these kernels and threads.
pub fn extractor(
    model: Model,
    request: Request,
    kernels: &'static Kernels,
    threads: usize,
) -> Extractor {
    Extractor::new(model, request, Processor::new(kernels, threads).unwrap()).unwrap()
}
