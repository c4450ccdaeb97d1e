//! Where does a point of one picture lie in another? Correspondence by cosine similarity.
//!
//! The published procedure (CleanDIFT, arXiv 2412.03439, after DIFT, arXiv 2306.03881) resizes
//! both feature maps bilinearly to the size of their pictures, takes the vector at the source
//! point and finds the target pixel with the highest cosine similarity. A [`Field`] computes the
//! same thing without resizing anything: a bilinear sample is a sum of four cells, so its dot
//! product with a vector follows from the cells' dot products, and its length from the dot
//! products of neighbouring cells among themselves. Those are a few numbers a cell; a pixel then
//! costs the same however many channels there are.
//!
//! All sums are in f64 and in a fixed order: the same bits for any number of threads. Of equal
//! candidates the first in row-major order wins. Coordinates are those of [`Frame`]: pixel
//! centres at whole numbers.
//!
//! ```
//! use cleandift::features::FeatureMap;
//! use cleandift::image::{Extent, Frame};
//! use cleandift::matching::{Field, Options, match_points};
//!
//! let map = FeatureMap::new(Extent::new(2, 1), 2, vec![1.0, 0.0, 0.0, 1.0]);
//! let frame = Frame::squash(Extent::new(8, 4), Extent::new(16, 8));
//! let field = Field::new(&map, &frame)?;
//! let found = match_points(&field, &[[1.0, 2.0]], &field, &Options::default())?;
//! assert_eq!(found[0].point, [0, 0]); // the left columns are all alike: the first one
//! # Ok::<(), cleandift::matching::MatchError>(())
//! ```
//!
//! [`Frame`]: crate::image::Frame

mod correspondence;
mod descriptor;
mod error;
mod field;
mod scan;
mod window;

#[cfg(test)]
mod tests;

pub use correspondence::{Match, Options, Readout, Return, grid, match_points};
pub use descriptor::Descriptor;
pub use error::MatchError;
pub use field::Field;
pub use window::window_soft_argmax;
