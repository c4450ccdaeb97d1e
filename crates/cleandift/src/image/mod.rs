//! From a file to what the network sees: decoding, fitting to a canvas, resampling, coordinates.

mod frame;

pub use frame::{Extent, Frame};
