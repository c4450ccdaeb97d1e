//! What can go wrong between a file and the pixels that the network sees.

use std::path::PathBuf;

use super::{Extent, PIXEL_LIMIT, SIDE_LIMIT};

/// Why a picture could not be read or fitted.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is nothing at this path.
    #[error("{}: no such file; check the spelling and the folder", path.display())]
    NotFound {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The path is a folder.
    #[error("{}: is a folder, not a picture; name the files inside it", path.display())]
    Folder {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The file may not be read.
    #[error("{}: no permission to read it; change its permissions or its owner", path.display())]
    Permission {
        /// The path as it was given.
        path: PathBuf,
    },
    /// Reading the file failed.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The path as it was given.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file has no bytes.
    #[error("{name}: is empty (0 bytes); was it copied or downloaded whole?")]
    Empty {
        /// The file.
        name: String,
    },
    /// The content is no picture format that we know, whatever the file is called.
    #[error(
        "{name}: is not a picture: it starts with {start}; \
         PNG, JPEG, WebP, GIF, BMP, TIFF and PNM are read"
    )]
    NotAPicture {
        /// The file.
        name: String,
        /// The first bytes, as text where they are text, otherwise in hexadecimal.
        start: String,
    },
    /// A picture, but of a kind that is not read.
    #[error("{name}: {kind} is not supported; convert the picture to PNG or JPEG")]
    Unsupported {
        /// The file.
        name: String,
        /// The format, or what is unusual about the file.
        kind: String,
    },
    /// The file is cut short or its content contradicts itself.
    #[error("{name}: damaged or incomplete {format}: {reason}; copy or download it again")]
    Damaged {
        /// The file.
        name: String,
        /// The format by its content.
        format: &'static str,
        /// What the decoder met.
        reason: String,
    },
    /// The header announces more pixels than [`PIXEL_LIMIT`], or a side over [`SIDE_LIMIT`].
    #[error(
        "{name}: has {extent} pixels; at most {PIXEL_LIMIT} in all and {SIDE_LIMIT} a side are \
         decoded; shrink it first"
    )]
    TooLarge {
        /// The file.
        name: String,
        /// The announced width and height.
        extent: Extent,
    },
    /// Decoding needs more memory than a picture within the limits should.
    #[error("{name}: this {format} needs more memory than its decoder is given; convert it to PNG")]
    Memory {
        /// The file.
        name: String,
        /// The format by its content.
        format: &'static str,
    },
    /// Raw bytes that are not `3 * width * height`.
    #[error("{found} bytes for an RGB picture of {extent}, expected {}", extent.width.saturating_mul(extent.height).saturating_mul(3))]
    WrongLength {
        /// The announced width and height; both must be at least 1.
        extent: Extent,
        /// The number of bytes given.
        found: usize,
    },
    /// A size that is written in no accepted form, or out of range.
    #[error(
        "size \"{text}\": {reason}; write a side (\"768\"), width x height (\"512x384\"), \
         \"native\" or \"native:64\""
    )]
    BadSize {
        /// What was written.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A size whose sides the network cannot take.
    #[error("size {size}: {reason}")]
    NotMultiple {
        /// The size as it is written.
        size: String,
        /// Which side is wrong, and the nearest ones that are right.
        reason: String,
    },
    /// Fitting would need an image, or an image between the two passes, of too many pixels.
    #[error(
        "fitting a picture of {picture} to {canvas} needs an image of {needed}, \
         more than {PIXEL_LIMIT} pixels; choose a smaller size"
    )]
    CanvasTooLarge {
        /// The picture.
        picture: Extent,
        /// The canvas asked for.
        canvas: Extent,
        /// The largest image on the way.
        needed: Extent,
    },
    /// A name that is none of the accepted ones.
    #[error("unknown {what} \"{text}\"; choose one of: {accepted}")]
    UnknownName {
        /// What the name stands for.
        what: &'static str,
        /// What was written.
        text: String,
        /// The accepted names.
        accepted: &'static str,
    },
}
