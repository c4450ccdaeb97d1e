//! Noise-free diffusion features.

pub mod features;
pub mod graph;
pub mod image;
pub mod matching;
