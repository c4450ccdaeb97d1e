//! Pictures with one class each, whatever files they come from.

use std::path::Path;

use super::{Split, cifar, image_folders, webdataset};
use crate::eval::{EvalError, Image};

/// A picture and its class.
#[derive(Clone, Debug)]
pub struct Classified {
    /// The picture.
    pub image: Image,
    /// The place of its class in [`ClassSet::classes`].
    pub class: usize,
}

/// A data set of classified pictures.
#[derive(Clone, Debug)]
pub struct ClassSet {
    /// What was found, in words.
    pub layout: String,
    /// Names.
    pub classes: Vec<String>,
    /// The pictures.
    pub split: Split<Classified>,
}

/// What a folder may hold.
const LAYOUTS: &str = "train-*.tar and val-*.tar (WebDataset), train/CLASS and val/CLASS with \
    pictures (ImageNet), or the binary files of CIFAR-10 or CIFAR-100";

impl ClassSet {
    /// Opens a folder of one of the known layouts.
    ///
    /// # Errors
    /// If it is missing, of no known layout, or what it holds is malformed.
    pub fn open(folder: &Path) -> Result<Self, EvalError> {
        if !folder.is_dir() {
            return Err(EvalError::missing(
                folder,
                format!("expected a folder with {LAYOUTS}"),
            ));
        }
        if let Some(set) = cifar::open(folder)? {
            return Ok(set);
        }
        if let Some(set) = webdataset::open_classes(folder)? {
            return Ok(set);
        }
        if let Some(set) = image_folders::open(folder)? {
            return Ok(set);
        }
        Err(EvalError::malformed(
            folder,
            "none of the known layouts",
            LAYOUTS,
        ))
    }

    /// A set from pictures and the names of their classes, in the order of `names` or, without
    /// them, in alphabetical order.
    pub(super) fn new(
        layout: String,
        folder: &Path,
        named: Split<(Image, String)>,
        names: Option<Vec<String>>,
    ) -> Result<Self, EvalError> {
        let classes = names.unwrap_or_else(|| {
            let mut names: Vec<String> = named.all().map(|(_, name)| name.clone()).collect();
            names.sort();
            names.dedup();
            names
        });
        let classified = |part: Vec<(Image, String)>| -> Result<Vec<Classified>, EvalError> {
            let class = |(image, name): (Image, String)| {
                let class = classes.iter().position(|known| *known == name);
                let class = class.ok_or_else(|| {
                    let found = format!("{}: class `{name}`", image.id);
                    EvalError::malformed(folder, found, "one of the listed classes")
                })?;
                Ok(Classified { image, class })
            };
            part.into_iter().map(class).collect()
        };
        let split = Split {
            train: classified(named.train)?,
            validation: classified(named.validation)?,
            test: classified(named.test)?,
        };
        if split.train.is_empty() || split.test.is_empty() {
            let found = format!(
                "{} pictures to learn from, {} to ask about",
                split.train.len(),
                split.test.len()
            );
            return Err(EvalError::malformed(folder, found, "both"));
        }
        Ok(Self {
            layout,
            classes,
            split: split.with_validation(super::split::HoldOut::EveryTenth),
        })
    }
}
