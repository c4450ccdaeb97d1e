//! The networks, each written once as a function that builds a graph from a config.
//!
//! Nothing here opens a file or knows an engine.

pub mod clip;
pub mod codec;
pub mod config;
pub mod diffusion;
pub mod heads;
pub mod random;
mod resnet;
pub mod schedule;
pub mod tokenizer;
pub mod training;
pub mod unet;
mod vae;
