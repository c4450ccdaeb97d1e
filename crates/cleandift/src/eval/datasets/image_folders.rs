//! Pictures in a folder for each class, as ImageNet is unpacked: `train/n01440764/x.JPEG`.

use std::path::Path;

use super::classes::ClassSet;
use super::{Split, entries};
use crate::eval::{EvalError, Image};
use crate::image::is_picture_name;

/// Opens `train/CLASS`, `val/CLASS` and `test/CLASS`: without `test`, `val` is reported (as is
/// usual for ImageNet) and choices are made on a part of `train`. `None` if there is no `train`
/// folder with folders.
pub(super) fn open(folder: &Path) -> Result<Option<ClassSet>, EvalError> {
    let train = folder.join("train");
    if !train.is_dir() {
        return Ok(None);
    }
    let part = |name: &str| -> Result<Vec<(Image, String)>, EvalError> {
        let folder = folder.join(name);
        if folder.is_dir() {
            pictures(&folder, name)
        } else {
            Ok(Vec::new())
        }
    };
    let (train, val, test) = (part("train")?, part("val")?, part("test")?);
    let (validation, test) = if test.is_empty() {
        (test, val)
    } else {
        (val, test)
    };
    let named = Split {
        train,
        validation,
        test,
    };
    ClassSet::new("a folder for each class".to_owned(), folder, named, None).map(Some)
}

/// The pictures of a part, by class and name.
fn pictures(folder: &Path, part: &str) -> Result<Vec<(Image, String)>, EvalError> {
    let mut found = Vec::new();
    for class in entries(folder, "a folder for each class")? {
        if !class.is_dir() {
            let expected = "a folder for each class, and pictures in it";
            return Err(EvalError::malformed(&class, "a file", expected));
        }
        let name = name(&class);
        for path in entries(&class, "pictures")?
            .into_iter()
            .filter(|path| is_picture_name(path))
        {
            let id = format!("{part}/{name}/{}", self::name(&path));
            found.push((Image::file(id, path), name.clone()));
        }
    }
    Ok(found)
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(folder: &Path, path: &str) {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"").unwrap();
    }

    #[test]
    fn the_layout_of_imagenet() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for index in 0..10 {
            touch(folder, &format!("train/n01/a_{index}.JPEG"));
        }
        touch(folder, "train/n02/b.JPEG");
        touch(folder, "train/n02/readme.txt");
        touch(folder, "val/n02/c.JPEG");
        let set = ClassSet::open(folder).unwrap();
        assert_eq!(set.classes, ["n01", "n02"]);
        let ids = |part: &[super::super::classes::Classified]| -> Vec<String> {
            part.iter()
                .map(|picture| picture.image.id.clone())
                .collect()
        };
        assert_eq!(set.split.train.len(), 10);
        assert_eq!(ids(&set.split.validation), ["train/n01/a_9.JPEG"]);
        assert_eq!(ids(&set.split.test), ["val/n02/c.JPEG"]);
        assert_eq!(set.split.test[0].class, 1);
    }

    #[test]
    fn what_is_missing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let error = ClassSet::open(&folder.join("nowhere"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("nowhere: is missing"), "{error}");
        let error = ClassSet::open(folder).unwrap_err().to_string();
        assert!(error.contains("none of the known layouts"), "{error}");
        touch(folder, "train/n01/a.JPEG");
        let error = ClassSet::open(folder).unwrap_err().to_string();
        assert!(
            error.contains("1 pictures to learn from, 0 to ask about"),
            "{error}"
        );
        touch(folder, "val/ILSVRC2012_val_00000001.JPEG");
        let error = ClassSet::open(folder).unwrap_err().to_string();
        assert!(
            error.contains("ILSVRC2012_val_00000001.JPEG: found a file"),
            "{error}"
        );
    }
}
