//! From a file to what the network sees: decoding, fitting to a canvas, resampling, coordinates.

mod error;
mod fit;
mod frame;
mod jpeg;
mod picture;
mod pixels;
mod plane;
mod resample;
mod size;

pub use error::ImageError;
pub use fit::{Fit, fit};
pub use frame::{Extent, Frame};
pub use picture::{PICTURE_ENDINGS, PIXEL_LIMIT, Picture, SIDE_LIMIT, is_picture_name};
pub use pixels::Pixels;
pub use plane::Plane;
#[cfg(test)]
pub(crate) use plane::{depth_png, indexed_png};
pub use resample::{Filter, Resample};
pub use size::Size;
