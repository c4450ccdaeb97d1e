//! What can be wrong with a question about correspondence.

use crate::image::Extent;

/// A point cannot be matched, or a map cannot be matched against.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MatchError {
    /// A source point lies beside its picture.
    #[error(
        "point ({}, {}) lies outside the picture of {picture} pixels; x must be from -0.5 to {}, y from \
         -0.5 to {} (whole numbers are the middles of pixels)",
        point[0], point[1], picture.width as f64 - 0.5, picture.height as f64 - 0.5
    )]
    Outside {
        /// The point, in pixels of its picture.
        point: [f64; 2],
        /// The picture's size.
        picture: Extent,
    },

    /// A source point lies in its picture, but not in the part that the network saw.
    #[error(
        "point ({}, {}) lies in the picture of {picture} pixels, but the {canvas} crop that was \
         encoded does not show it; encode the whole picture (fit squash or pad) or choose a point \
         nearer to the centre",
        point[0], point[1]
    )]
    NotShown {
        /// The point, in pixels of its picture.
        point: [f64; 2],
        /// The picture's size.
        picture: Extent,
        /// The canvas that was encoded.
        canvas: Extent,
    },

    /// No pixel of the picture lies on the canvas, so there is nothing to match.
    #[error("the encoded canvas of {canvas} shows no pixel of the picture of {picture} pixels")]
    NothingShown {
        /// The picture's size.
        picture: Extent,
        /// The canvas that was encoded.
        canvas: Extent,
    },

    /// A feature map without cells or without channels.
    #[error("feature map of {extent} cells with {channels} channels is empty")]
    EmptyMap {
        /// Cells.
        extent: Extent,
        /// Values per cell.
        channels: usize,
    },

    /// A feature map holds infinities, or values that are not numbers.
    #[error(
        "feature map: the features of cell (column {column}, row {row}) are not finite; they \
         overflowed where they were computed or stored, use f32 there"
    )]
    NotFinite {
        /// The first such cell's column.
        column: usize,
        /// The first such cell's row.
        row: usize,
    },

    /// Source and target come from different taps or models.
    #[error(
        "the source's features have {source_channels} channels, the target's {target_channels}; \
         compare maps of the same tap and model"
    )]
    Channels {
        /// Channels of the source.
        source_channels: usize,
        /// Channels of the target.
        target_channels: usize,
    },

    /// A soft arg-max needs a temperature above zero.
    #[error("temperature of the window soft arg-max is {0}, expected a number above 0, e.g. 0.02")]
    Temperature(f64),
}
