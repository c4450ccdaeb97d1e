//! NYU Depth v2 as the lists of BTS and DINOv2 name it: `nyu_train.txt` and `nyu_test.txt` with a
//! picture, its depth (16-bit PNG in millimetres) and a focal length a line.

use std::path::{Path, PathBuf};

use super::depths::{DepthOrigin, DepthSet, Measured};
use super::split::{HoldOut, blocks};
use super::{Split, named_by, read_text};
use crate::eval::metrics::depth::DepthRange;
use crate::eval::{EvalError, Image};

/// Opens a folder with both lists; `None` if there is none of them.
pub(super) fn open(folder: &Path, block: Option<usize>) -> Result<Option<DepthSet>, EvalError> {
    let lists = ["nyu_train.txt", "nyu_test.txt"].map(|name| folder.join(name));
    if !lists.iter().any(|list| list.is_file()) {
        return Ok(None);
    }
    let block = block.unwrap_or(1);
    let [train, test] = lists.map(|list| listed(folder, &list, block));
    let split = Split {
        train: train?,
        validation: Vec::new(),
        test: test?,
    };
    // Frames of one scene follow each other in the training list.
    Ok(Some(DepthSet {
        layout: "NYU Depth v2, lists".to_owned(),
        range: DepthRange::nyu(),
        block,
        split: split.with_validation(HoldOut::LastTenth),
    }))
}

fn listed(folder: &Path, list: &Path, block: usize) -> Result<Vec<Measured>, EvalError> {
    let expected = "a picture, its depth and a focal length a line";
    let text = read_text(list, expected)?;
    let mut pairs: Vec<(&str, [PathBuf; 2])> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[picture, depth, ..] = &words[..] else {
            return Err(EvalError::malformed(
                list,
                format!("the line {line:?}"),
                expected,
            ));
        };
        // Lines of frames without depth (DINOv2 leaves them out, too).
        if depth != "None" {
            let named = |path: &str| named_by(list, folder.join(path.trim_start_matches('/')));
            pairs.push((picture, [named(picture)?, named(depth)?]));
        }
    }
    let stems = pairs
        .iter()
        .map(|(name, _)| name.split('.').next().unwrap_or(name));
    let units = blocks(stems, block);
    let measured = |((name, [picture, depth]), unit): ((&str, [PathBuf; 2]), String)| Measured {
        image: Image::file(name.trim_start_matches('/'), picture),
        origin: DepthOrigin::Png(depth.into()),
        unit,
    };
    Ok(pairs.into_iter().zip(units).map(measured).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_of_bts() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let line = |place: &str| format!("/{place}.jpg {place}.png 518.8579\n");
        std::fs::write(root.join("nyu_train.txt"), line("kitchen_rgb_1")).unwrap();
        let test = line("bath_rgb_2") + "x.jpg None 518.8579\n";
        std::fs::write(root.join("nyu_test.txt"), test).unwrap();
        for place in ["kitchen_rgb_1", "bath_rgb_2"] {
            std::fs::write(root.join(format!("{place}.jpg")), b"").unwrap();
            let depth = crate::image::depth_png(2, &[2000; 4]);
            std::fs::write(root.join(format!("{place}.png")), depth).unwrap();
        }
        let set = DepthSet::open(root, None).unwrap();
        assert_eq!((set.split.train.len(), set.split.test.len()), (1, 1));
        assert_eq!(set.range, DepthRange::nyu());
        let test = &set.split.test[0];
        assert_eq!(test.image.id, "bath_rgb_2.jpg");
        assert_eq!(test.depths().unwrap().metres(), [2.0; 4]);
        std::fs::remove_file(root.join("bath_rgb_2.png")).unwrap();
        let error = DepthSet::open(root, None).unwrap_err().to_string();
        assert!(error.contains("bath_rgb_2.png: is missing"), "{error}");
        std::fs::write(root.join("nyu_test.txt"), "a.jpg\n").unwrap();
        let error = DepthSet::open(root, None).unwrap_err().to_string();
        assert!(error.contains("nyu_test.txt: found the line"), "{error}");
    }
}
