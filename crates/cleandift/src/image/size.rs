//! How large the canvas is to be.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use super::{Extent, ImageError, SIDE_LIMIT};

/// The size of the canvas, as a person asks for it.
///
/// Written `768` (a square), `512x384` (width x height), `native` or `native:64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Size {
    /// This width and height.
    Exact(Extent),
    /// The picture's own size, each side rounded to the nearest multiple (halves up, at least one
    /// multiple).
    Native {
        /// The multiple; if `None`, the one that the network asks for.
        multiple: Option<NonZeroUsize>,
    },
}

impl Size {
    /// The canvas for a picture of extent `picture`, given a network that takes sides which are
    /// multiples of `multiple`.
    ///
    /// # Errors
    /// If the size does not go with the multiple, or a side would pass [`SIDE_LIMIT`].
    pub fn canvas(&self, picture: Extent, multiple: NonZeroUsize) -> Result<Extent, ImageError> {
        let wanted = match self {
            Size::Exact(extent) => {
                self.check_multiple(multiple)?;
                *extent
            }
            Size::Native { multiple: own } => {
                self.check_multiple(multiple)?;
                let step = own.unwrap_or(multiple).get();
                let nearest = |side: usize| ((side + step / 2) / step).max(1) * step;
                Extent::new(nearest(picture.width), nearest(picture.height))
            }
        };
        if wanted.width.max(wanted.height) > SIDE_LIMIT {
            return Err(ImageError::BadSize {
                text: self.to_string(),
                reason: format!("{wanted} has a side over {SIDE_LIMIT}"),
            });
        }
        Ok(wanted)
    }

    /// Whether a network that takes sides which are multiples of `multiple` can take this size.
    ///
    /// # Errors
    /// If it cannot: which side is wrong, and the nearest right ones.
    pub fn check_multiple(&self, multiple: NonZeroUsize) -> Result<(), ImageError> {
        let sides = match self {
            Size::Exact(extent) => {
                vec![("the width", extent.width), ("the height", extent.height)]
            }
            Size::Native {
                multiple: Some(own),
            } => vec![("the multiple", own.get())],
            Size::Native { multiple: None } => vec![],
        };
        let wrong: Vec<_> = sides
            .into_iter()
            .filter(|(_, side)| *side % multiple != 0)
            .map(|(which, side)| {
                let below = side / multiple * multiple.get();
                let above = below + multiple.get();
                let nearest = match below {
                    0 => above.to_string(),
                    below => format!("{below} or {above}"),
                };
                format!("{which} is not a multiple of {multiple}; nearest: {nearest}")
            })
            .collect();
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(ImageError::NotMultiple {
                size: self.to_string(),
                reason: wrong.join("; "),
            }),
        }
    }
}

impl From<Extent> for Size {
    fn from(extent: Extent) -> Self {
        Size::Exact(extent)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Exact(extent) => write!(f, "{extent}"),
            Size::Native { multiple: None } => f.write_str("native"),
            Size::Native {
                multiple: Some(multiple),
            } => write!(f, "native:{multiple}"),
        }
    }
}

impl FromStr for Size {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let side = |part: &str| {
            parse_side(part).map_err(|reason| ImageError::BadSize {
                text: text.to_owned(),
                reason,
            })
        };
        if text == "native" {
            return Ok(Size::Native { multiple: None });
        }
        if let Some(multiple) = text.strip_prefix("native:") {
            return Ok(Size::Native {
                multiple: NonZeroUsize::new(side(multiple)?),
            });
        }
        let (width, height) = text.split_once(['x', 'X']).unwrap_or((text, text));
        Ok(Size::Exact(Extent::new(side(width)?, side(height)?)))
    }
}

/// A number from 1 to [`SIDE_LIMIT`], or what is wrong with it.
fn parse_side(text: &str) -> Result<usize, String> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("\"{text}\" is not a number of pixels"));
    }
    match text.parse() {
        Ok(0) => Err("a side of 0 pixels".to_owned()),
        Ok(side) if side <= SIDE_LIMIT => Ok(side),
        _ => Err(format!("{text} is over {SIDE_LIMIT} pixels")),
    }
}
