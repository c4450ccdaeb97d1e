//! How good an answer is: one file a measure.

pub mod confusion;
pub mod depth;
pub mod video;
