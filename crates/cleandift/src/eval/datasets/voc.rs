//! PASCAL VOC's segmentation task: `JPEGImages`, `SegmentationClass` (palette PNG, 255 for void),
//! `ImageSets/Segmentation/{train,val}.txt`.

use std::path::Path;

use super::masks::{MaskOptions, MaskSet, Masked};
use super::split::{HoldOut, blocks};
use super::{Split, named_by, read_text};
use crate::eval::{EvalError, Image};

/// Label 0 is the background, the others follow in alphabetical order.
pub(super) const CLASSES: [&str; 21] = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
];

/// Opens VOC 2012 (or the folder of another year), or a folder above it. Its `val` part is
/// reported, choices are made on a tenth of `train`. `None` if it is none.
pub(super) fn open(folder: &Path, options: MaskOptions) -> Result<Option<MaskSet>, EvalError> {
    let places = ["", "VOC2012", "VOCdevkit/VOC2012"].map(|place| folder.join(place));
    let Some(root) = places
        .iter()
        .find(|root| root.join("SegmentationClass").is_dir())
    else {
        return Ok(None);
    };
    let block = options.block.unwrap_or(1);
    let split = Split {
        train: part(root, "train", block)?,
        validation: Vec::new(),
        test: part(root, "val", block)?,
    };
    let hold_out = if block > 1 {
        HoldOut::LastTenth
    } else {
        HoldOut::EveryTenth
    };
    Ok(Some(MaskSet {
        layout: "PASCAL VOC".to_owned(),
        classes: CLASSES.map(str::to_owned).to_vec(),
        void: options.void,
        block,
        split: split.with_validation(hold_out),
    }))
}

fn part(root: &Path, part: &str, block: usize) -> Result<Vec<Masked>, EvalError> {
    let list = root
        .join("ImageSets/Segmentation")
        .join(format!("{part}.txt"));
    let text = read_text(&list, "a picture's name a line")?;
    let names: Vec<&str> = text.split_whitespace().collect();
    if names.is_empty() {
        return Err(EvalError::malformed(
            &list,
            "no name",
            "a picture's name a line",
        ));
    }
    let units = blocks(names.iter().copied(), block);
    let masked = |(name, unit): (&&str, String)| {
        let [picture, mask] = [("JPEGImages", "jpg"), ("SegmentationClass", "png")]
            .map(|(folder, extension)| root.join(folder).join(format!("{name}.{extension}")));
        Ok(Masked {
            image: Image::file(*name, named_by(&list, picture)?),
            origin: named_by(&list, mask)?.into(),
            unit,
        })
    };
    names.iter().zip(units).map(masked).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_official_layout() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("VOCdevkit/VOC2012");
        for place in ["JPEGImages", "SegmentationClass", "ImageSets/Segmentation"] {
            std::fs::create_dir_all(root.join(place)).unwrap();
        }
        let lists = root.join("ImageSets/Segmentation");
        std::fs::write(lists.join("train.txt"), "2007_000032\n").unwrap();
        std::fs::write(lists.join("val.txt"), "2007_000033\n").unwrap();
        for name in ["2007_000032", "2007_000033"] {
            std::fs::write(root.join(format!("JPEGImages/{name}.jpg")), b"").unwrap();
            let mask = crate::image::indexed_png(2, &[0, 255, 20, 15]);
            std::fs::write(root.join(format!("SegmentationClass/{name}.png")), mask).unwrap();
        }
        let open = || MaskSet::open(folder.path(), MaskOptions::default());
        let set = open().unwrap();
        assert_eq!((set.split.train.len(), set.split.test.len()), (1, 1));
        let test = &set.split.test[0];
        assert_eq!(set.labels(test).unwrap().labels(), [0, 255, 20, 15]);
        assert_eq!(
            (set.classes[15].as_str(), test.unit.as_str()),
            ("person", "2007_000033")
        );

        let mask = crate::image::indexed_png(2, &[0, 21, 0, 0]);
        std::fs::write(root.join("SegmentationClass/2007_000033.png"), mask).unwrap();
        let error = set.labels(test).unwrap_err().to_string();
        assert!(error.contains("2007_000033.png: found label 21"), "{error}");
        std::fs::remove_file(root.join("JPEGImages/2007_000032.jpg")).unwrap();
        let error = open().unwrap_err().to_string();
        assert!(error.contains("2007_000032.jpg: is missing"), "{error}");
        std::fs::remove_file(lists.join("val.txt")).unwrap();
        std::fs::write(root.join("JPEGImages/2007_000032.jpg"), b"").unwrap();
        let error = open().unwrap_err().to_string();
        assert!(error.contains("val.txt: is missing"), "{error}");
    }
}
