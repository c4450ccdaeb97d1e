//! Noise-free diffusion features.

pub mod archive;
pub mod checkpoint;
pub mod engine;
pub mod eval;
pub mod extractor;
pub mod features;
pub mod graph;
pub mod hub;
pub mod image;
pub mod matching;
pub mod networks;
pub mod sampler;
pub mod train;
