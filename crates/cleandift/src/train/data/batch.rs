//! Some samples in a row.

use crate::image::Pixels;

/// Samples with neighbouring numbers, all of one size.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The number of the first sample.
    pub first: u64,
    /// The samples, by number.
    pub samples: Vec<Sample>,
    /// Pictures that turned out to be unreadable since the batch before, each told once in a run:
    /// why, in words. Others took their places.
    pub skipped: Vec<String>,
}

/// A picture as it is learned from.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its place in the endless shuffled order of the data.
    pub number: u64,
    /// Cropped and scaled, in [-1, 1].
    pub pixels: Pixels,
    /// What it shows, in words, if that is known.
    pub caption: Option<String>,
}
