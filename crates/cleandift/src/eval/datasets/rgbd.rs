//! Colour pictures with registered 16-bit depth maps in millimetres: WebDataset archives
//! (`train-0000.tar` with `KEY.color.jpg` and `KEY.depth.png`), folders with such files, or
//! folders `rgb` and `depth`.

use std::path::Path;

use super::depths::{DepthOrigin, DepthSet, Measured};
use super::split::{HoldOut, blocks};
use super::webdataset;
use super::{Split, entries};
use crate::archive::Sample;
use crate::eval::metrics::depth::DepthRange;
use crate::eval::{EvalError, Image};
use crate::image::is_picture_name;

/// Frames of a block where nothing else is said.
const BLOCK: usize = 5;

/// What the depth of a picture is called beside it.
const DEPTH: &str = "depth.png";

/// Opens the parts `train`, `val` and `test`; without `test`, `val` is reported. `None` if there
/// is no `train`.
pub(super) fn open(folder: &Path, block: Option<usize>) -> Result<Option<DepthSet>, EvalError> {
    let block = block.unwrap_or(BLOCK);
    let part = |part: &str| -> Result<Vec<Measured>, EvalError> {
        let archived = webdataset::samples(folder, part)?;
        let samples = match archived.is_empty() {
            true => unpacked(&folder.join(part), part)?,
            false => archived,
        };
        measured(folder, samples, block)
    };
    let (train, val, test) = (part("train")?, part("val")?, part("test")?);
    if train.is_empty() {
        return Ok(None);
    }
    let (validation, test) = if test.is_empty() {
        (test, val)
    } else {
        (val, test)
    };
    if test.is_empty() {
        let expected = "pictures to report, beside those to learn from";
        return Err(EvalError::malformed(
            folder,
            "a training part only",
            expected,
        ));
    }
    let split = Split {
        train,
        validation,
        test,
    };
    Ok(Some(DepthSet {
        layout: "colour and 16-bit depth".to_owned(),
        range: DepthRange::INDOOR,
        block,
        split: split.with_validation(HoldOut::LastTenth),
    }))
}

fn measured(folder: &Path, samples: Vec<Sample>, block: usize) -> Result<Vec<Measured>, EvalError> {
    let keys: Vec<String> = samples.iter().map(|sample| sample.key.clone()).collect();
    let units = blocks(keys.iter().map(String::as_str), block);
    let measured = |(sample, unit): (Sample, String)| {
        let is_colour =
            |name: &str| !name.ends_with(DEPTH) && is_picture_name(Path::new(&format!("x.{name}")));
        let parts = [
            sample.part(is_colour),
            sample.part(|extension| extension == DEPTH),
        ];
        let [Some(picture), Some(depth)] = parts else {
            let found = match parts {
                [None, _] => format!("sample `{}` without a picture", sample.key),
                _ => format!("sample `{}` without depth", sample.key),
            };
            let expected = "KEY.color.jpg (or another picture) and KEY.depth.png";
            return Err(EvalError::malformed(folder, found, expected));
        };
        Ok(Measured {
            image: Image::at(&sample.key, picture.clone()),
            origin: DepthOrigin::Png(depth.clone()),
            unit,
        })
    };
    samples.into_iter().zip(units).map(measured).collect()
}

/// The samples of a folder, as an archive of its files would have them; none if it is not there.
fn unpacked(folder: &Path, part: &str) -> Result<Vec<Sample>, EvalError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let (colours, depths) = (folder.join("rgb"), folder.join("depth"));
    let mut samples: Vec<Sample> = Vec::new();
    if colours.is_dir() && depths.is_dir() {
        for path in entries(&colours, "pictures")?
            .into_iter()
            .filter(|path| is_picture_name(path))
        {
            let stem = path
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let depth = depths.join(format!("{stem}.png"));
            if !depth.is_file() {
                let expected = format!("it is the depth of {}", path.display());
                return Err(EvalError::missing(&depth, expected));
            }
            samples.push(Sample {
                key: format!("{part}/{stem}"),
                parts: vec![
                    ("png".to_owned(), path.into()),
                    (DEPTH.to_owned(), depth.into()),
                ],
            });
        }
        return Ok(samples);
    }
    for path in entries(folder, "pictures and depth maps")? {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // 7-Scenes has a pose (a text) with each frame.
        let Some((stem, extension)) = name.split_once('.').filter(|_| is_picture_name(&path))
        else {
            continue;
        };
        let key = format!("{part}/{stem}");
        let file = (extension.to_ascii_lowercase(), path.clone().into());
        match samples.last_mut() {
            Some(sample) if sample.key == key => sample.parts.push(file),
            _ => samples.push(Sample {
                key,
                parts: vec![file],
            }),
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, path: &str, bytes: &[u8]) {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// 7-Scenes: colour, depth and pose of a frame side by side; 65535 is no measurement.
    #[test]
    fn folders_of_frames() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let depth = crate::image::depth_png(2, &[1000, 0, 65535, 2500]);
        for part in ["train", "test"] {
            for frame in 0..2 {
                write(root, &format!("{part}/frame-00000{frame}.color.png"), b"");
                write(
                    root,
                    &format!("{part}/frame-00000{frame}.depth.png"),
                    &depth,
                );
                write(root, &format!("{part}/frame-00000{frame}.pose.txt"), b"");
            }
        }
        let set = DepthSet::open(root, None).unwrap();
        let test = &set.split.test;
        assert_eq!((set.split.train.len(), test.len()), (2, 2));
        assert_eq!(test[0].depths().unwrap().metres(), [1.0, 0.0, 0.0, 2.5]);
        assert_eq!(test[0].unit, test[1].unit);
        std::fs::remove_file(root.join("test/frame-000001.depth.png")).unwrap();
        let error = DepthSet::open(root, None).unwrap_err().to_string();
        assert!(
            error.contains("`test/frame-000001` without depth"),
            "{error}"
        );
    }

    #[test]
    fn folders_of_colour_and_depth() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (part, name) in [("train", "a"), ("test", "b")] {
            write(root, &format!("{part}/rgb/{name}.jpg"), b"");
            write(root, &format!("{part}/depth/{name}.png"), &[]);
        }
        let set = DepthSet::open(root, Some(1)).unwrap();
        assert_eq!(set.split.test[0].image.id, "test/b");
        std::fs::remove_file(root.join("train/depth/a.png")).unwrap();
        let error = DepthSet::open(root, None).unwrap_err().to_string();
        assert!(error.contains("train/depth/a.png: is missing"), "{error}");
    }
}
