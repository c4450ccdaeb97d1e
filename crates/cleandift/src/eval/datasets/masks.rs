//! Pictures with a class for every pixel, whatever files they come from.

use std::path::Path;

use super::{Annotated, Split, mask_folders, voc};
use crate::archive::Place;
use crate::eval::EvalError;
use crate::eval::dense::{LabelMap, VOID};
use crate::image::Plane;

/// A picture and where the bytes of its mask are: a PNG with a class a pixel.
pub type Masked = Annotated<Place>;

/// A data set for segmentation.
#[derive(Clone, Debug)]
pub struct MaskSet {
    /// What was found, in words.
    pub layout: String,
    /// Names, by label.
    pub classes: Vec<String>,
    /// The label of unknown pixels, beside 255.
    pub void: Option<u8>,
    /// How many neighbouring frames are taken as one; 1 if the pictures are independent.
    pub block: usize,
    /// The pictures.
    pub split: Split<Masked>,
}

/// What a data set does not say about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaskOptions {
    /// The label of unknown pixels, beside 255; by default the one that the list of classes calls
    /// void, unlabelled or ignore.
    pub void: Option<u8>,
    /// How many neighbouring frames are taken as one; by default 1 for PASCAL VOC, whose pictures
    /// are independent, and 5 for others, which may be videos.
    pub block: Option<usize>,
}

/// What a folder may hold.
const LAYOUTS: &str = "VOCdevkit/VOC2012 (PASCAL VOC), or pictures and masks by part: lists \
    train.txt, test.txt of pairs, or folders train and trainannot, images/train and masks/train \
    (or annotations/train), train/images and train/masks";

impl MaskSet {
    /// Opens a folder of one of the known layouts.
    ///
    /// # Errors
    /// If it is missing, of no known layout, or what it holds is malformed.
    pub fn open(folder: &Path, options: MaskOptions) -> Result<Self, EvalError> {
        if !folder.is_dir() {
            return Err(EvalError::missing(
                folder,
                format!("expected a folder with {LAYOUTS}"),
            ));
        }
        if let Some(set) = voc::open(folder, options)? {
            return Ok(set);
        }
        if let Some(set) = mask_folders::open(folder, options)? {
            return Ok(set);
        }
        Err(EvalError::malformed(
            folder,
            "none of the known layouts",
            LAYOUTS,
        ))
    }

    /// The classes of a picture's pixels.
    ///
    /// # Errors
    /// If the mask cannot be read, or has a label that is no class.
    pub fn labels(&self, picture: &Masked) -> Result<LabelMap, EvalError> {
        let name = picture.origin.name();
        let plane = Plane::decode(&picture.origin.bytes()?, &name)?;
        let labels = LabelMap::from_plane(&plane, self.void, &name)?;
        let unknown = |label: &&u8| **label != VOID && usize::from(**label) >= self.classes.len();
        if let Some(label) = labels.labels().iter().find(unknown) {
            let expected = format!("labels below {}, or 255 for void", self.classes.len());
            let found = format!("label {label}");
            return Err(EvalError::malformed(Path::new(&name), found, expected));
        }
        Ok(labels)
    }
}
