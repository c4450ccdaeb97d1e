//! Where features come from: a picture goes in, maps come out.

mod canvas;
mod external;
mod model;
mod pixels;
mod reduced;
mod sift;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

pub use canvas::{Canvas, Windows};
pub use external::{EXTERNAL, WithExternal};
pub use model::{LatentSource, Latents, ModelSource, tap_name};
pub use pixels::{PixelFeature, PixelSource};
pub use reduced::Reduced;

use super::{EvalError, Settings};
use crate::features::FeatureMap;
use crate::image::{Extent, Frame, Picture};

/// A picture of a data set.
#[derive(Clone, Debug)]
pub struct Image {
    /// Unique within the data set.
    pub id: String,
    /// Where its bytes are.
    pub origin: Origin,
    /// What the model is told about it; sources without text ignore it.
    pub prompt: String,
    /// Whether it is turned left to right before anything else.
    pub mirrored: bool,
}

/// Where a picture's bytes are.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// Part of a file, such as a member of a tar archive.
    Part {
        /// The file.
        path: PathBuf,
        /// Its member's name, for messages.
        member: String,
        /// Where the part begins, in bytes.
        offset: u64,
        /// How long it is, in bytes.
        length: u64,
    },
    /// Pixels that are at hand.
    Pixels(Arc<Picture>),
    /// A picture of a file that holds many of them unencoded.
    Stack {
        /// The file.
        stack: Arc<dyn Stack>,
        /// Which picture.
        index: usize,
    },
}

/// A file that holds many pictures as plain numbers.
pub trait Stack: std::fmt::Debug + Send + Sync {
    /// One of its pictures.
    ///
    /// # Errors
    /// If it cannot be read.
    fn picture(&self, index: usize) -> Result<Picture, EvalError>;
}

/// What was seen of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Where the picture lies on the canvas.
    pub frame: Frame,
    /// The maps, by tap.
    pub maps: Vec<(String, FeatureMap)>,
}

/// Something that makes features.
pub trait Source {
    /// Everything that changes a value of a feature: the model's hash, its mode, the canvas.
    fn settings(&self) -> Settings;

    /// The features of a picture.
    ///
    /// # Errors
    /// If it cannot be read, or its features cannot be made.
    fn see(&mut self, image: &Image) -> Result<Arc<Seen>, EvalError>;
}

impl Image {
    /// A picture in a file, not mirrored, without a prompt.
    pub fn file(id: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            id: id.into(),
            origin: Origin::File(path.into()),
            prompt: String::new(),
            mirrored: false,
        }
    }

    /// The same picture turned left to right.
    pub fn mirrored(&self) -> Self {
        Self {
            mirrored: !self.mirrored,
            ..self.clone()
        }
    }

    /// Its pixels.
    ///
    /// # Errors
    /// If it cannot be read or decoded.
    pub fn open(&self) -> Result<Picture, EvalError> {
        let picture = match &self.origin {
            Origin::File(path) => Picture::open(path)?,
            Origin::Pixels(picture) => Picture::clone(picture),
            Origin::Stack { stack, index } => stack.picture(*index)?,
            Origin::Part { .. } => Picture::decode(&self.origin.bytes()?, &self.origin.name())?,
        };
        Ok(if self.mirrored {
            mirror(&picture)
        } else {
            picture
        })
    }
}

impl Origin {
    /// What messages call it.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Part { path, member, .. } => format!("{}: {member}", path.display()),
            Self::Pixels(_) => "pixels at hand".to_owned(),
            Self::Stack { index, .. } => format!("picture {index}"),
        }
    }

    /// The bytes of a file or of a part of one.
    ///
    /// # Errors
    /// If they cannot be read.
    ///
    /// # Panics
    /// For pixels and stacks, which have no encoded bytes.
    pub fn bytes(&self) -> Result<Vec<u8>, EvalError> {
        let (path, part) = match self {
            Self::File(path) => (path, None),
            Self::Part {
                path,
                offset,
                length,
                ..
            } => (path, Some((*offset, *length))),
            Self::Pixels(_) | Self::Stack { .. } => panic!("pixels have no encoded bytes"),
        };
        let read = || {
            let Some((offset, length)) = part else {
                return std::fs::read(path);
            };
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = vec![0; length as usize];
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|source| EvalError::Read {
            path: path.clone(),
            source,
        })
    }
}

impl Seen {
    /// The map of a tap.
    ///
    /// # Errors
    /// If the source did not give it.
    pub fn map(&self, tap: &str, image: &Image) -> Result<&FeatureMap, EvalError> {
        let found = self.maps.iter().find(|(name, _)| name == tap);
        found.map(|(_, map)| map).ok_or_else(|| {
            let known: Vec<&str> = self.maps.iter().map(|(name, _)| name.as_str()).collect();
            EvalError::NoTap {
                image: image.id.clone(),
                tap: tap.to_owned(),
                known: known.join(", "),
            }
        })
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> usize {
        let values = self.maps.iter().map(|(_, map)| map.values().len());
        values.sum::<usize>() * size_of::<f32>()
    }
}

/// A picture turned left to right.
fn mirror(picture: &Picture) -> Picture {
    let Extent { width, .. } = picture.extent();
    let lines = picture.rgb().chunks_exact(width * 3);
    let turned = lines.flat_map(|line| line.rchunks_exact(3).flatten().copied());
    Picture::from_rgb(picture.extent(), turned.collect()).expect("as many bytes as before")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrored_pictures_have_their_columns_in_the_other_order() {
        let rgb = vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        let picture = Picture::from_rgb(Extent::new(2, 2), rgb).unwrap();
        let turned = [4, 5, 6, 1, 2, 3, 10, 11, 12, 7, 8, 9];
        assert_eq!(mirror(&picture).rgb(), turned);
    }
}
