//! Where features come from: a picture goes in, maps come out.

mod canvas;
mod external;
mod model;
mod pixels;
mod pooled;
mod reduced;
mod sift;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use canvas::{Canvas, Windows};
pub use external::{EXTERNAL, WithExternal};
pub use model::{LatentSource, Latents, ModelSource, tap_name};
pub use pixels::{PixelFeature, PixelSource};
pub use pooled::Pooled;
pub use reduced::Reduced;

use serde_json::json;

use super::digest::{appearance, digest};
use super::{EvalError, Settings};
use crate::archive::Place;
use crate::features::FeatureMap;
use crate::image::{Frame, Picture};

/// A picture of a data set.
#[derive(Clone, Debug)]
pub struct Image {
    /// Unique within the data set.
    pub id: String,
    /// Where it is.
    pub origin: Origin,
    /// What the model is told about it; sources without text ignore it.
    pub prompt: String,
    /// Whether it is turned left to right before anything else.
    pub mirrored: bool,
}

/// Where a picture is.
#[derive(Clone, Debug)]
pub enum Origin {
    /// In a file or an archive's member.
    Encoded(Place),
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
    /// The file.
    fn path(&self) -> &Path;

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
        Self::at(id, Place::File(path.into()))
    }

    /// A picture in a file or an archive, not mirrored, without a prompt.
    pub fn at(id: impl Into<String>, place: Place) -> Self {
        Self {
            id: id.into(),
            origin: Origin::Encoded(place),
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
            Origin::Encoded(Place::File(path)) => Picture::open(path)?,
            Origin::Encoded(place) => Picture::decode(&place.bytes()?, &place.name())?,
            Origin::Pixels(picture) => Picture::clone(picture),
            Origin::Stack { stack, index } => stack.picture(*index)?,
        };
        Ok(if self.mirrored {
            picture.mirrored()
        } else {
            picture
        })
    }

    /// What another picture of the same name differs in, told without reading it: which file, its
    /// length, when it was changed, and which part of it.
    pub(super) fn appearance(&self) -> String {
        let (path, part) = match &self.origin {
            Origin::Encoded(Place::File(path)) => (path.as_path(), 0),
            Origin::Encoded(Place::Member { archive, member }) => (archive.path(), member.offset),
            Origin::Stack { stack, index } => (stack.path(), *index as u64),
            Origin::Pixels(picture) => {
                return format!("{} {}", picture.extent(), digest([picture.rgb()]));
            }
        };
        format!("{} {part}", appearance(path))
    }

    /// The length of what holds the picture, in bytes; 0 if it is missing.
    fn length(&self) -> u64 {
        let of_file = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        match &self.origin {
            Origin::Encoded(Place::File(path)) => of_file(path),
            Origin::Encoded(Place::Member { member, .. }) => member.length,
            Origin::Stack { stack, .. } => of_file(stack.path()),
            Origin::Pixels(picture) => picture.rgb().len() as u64,
        }
    }
}

/// What results of these pictures belong to, told without reading them. `pictures` are their names,
/// lengths, prompts and whether they are mirrored, the same wherever the set lies; `picture_files` are the
/// files as they lie here.
pub fn fingerprint(images: &[Image]) -> Settings {
    let lines = |of: &dyn Fn(&Image) -> String| digest(&images.iter().map(of).collect::<Vec<_>>());
    let pictures = lines(&|image| {
        let (length, mirrored) = (image.length(), image.mirrored);
        json!([image.id, length, image.prompt, mirrored]).to_string()
    });
    Settings::from_iter([
        ("pictures".to_owned(), pictures.into()),
        ("picture_files".to_owned(), lines(&Image::appearance).into()),
    ])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_belong_to_pictures_with_their_prompts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jpg");
        fs::write(&path, "abc").unwrap();
        let image = Image::file("a", &path);
        let other = [
            Image::file("b", &path),
            image.mirrored(),
            Image {
                prompt: "a cat".to_owned(),
                ..image.clone()
            },
        ];
        let was = fingerprint(std::slice::from_ref(&image));
        assert_eq!(was, fingerprint(std::slice::from_ref(&image)));
        for other in other {
            assert_ne!(was["pictures"], fingerprint(&[other])["pictures"]);
        }
        // Elsewhere it is the same picture in another file.
        let moved = folder.path().join("moved.jpg");
        fs::copy(&path, &moved).unwrap();
        let there = fingerprint(&[Image::file("a", &moved)]);
        assert_eq!(was["pictures"], there["pictures"]);
        assert_ne!(was["picture_files"], there["picture_files"]);
        fs::write(&path, "abcd").unwrap();
        assert_ne!(was["pictures"], fingerprint(&[image])["pictures"]);
    }
}
