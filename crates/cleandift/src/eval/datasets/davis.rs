//! DAVIS 2017: `JPEGImages/480p/SEQUENCE/*.jpg`, `Annotations/480p/SEQUENCE/*.png` (palette, the
//! number of the object), `ImageSets/2017/val.txt`.

use std::path::{Path, PathBuf};

use super::{entries, read_text};
use crate::eval::dense::LabelMap;
use crate::eval::{EvalError, Image};
use crate::image::Plane;

/// A video.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// Its name.
    pub name: String,
    /// Its frames, in order.
    pub frames: Vec<Image>,
    /// The masks of the frames.
    pub masks: Vec<PathBuf>,
}

impl Sequence {
    /// The objects of each pixel of a frame: 0 for the background, 255 for unknown.
    ///
    /// # Errors
    /// If the mask cannot be read.
    pub fn mask(&self, frame: usize) -> Result<LabelMap, EvalError> {
        let path = &self.masks[frame];
        let name = path.display().to_string();
        Ok(LabelMap::from_plane(&Plane::open(path)?, None, &name)?)
    }
}

/// Opens the sequences of `ImageSets/2017/{part}.txt` below the folder `DAVIS`, or in it.
///
/// # Errors
/// If something is missing, or a sequence has not a mask for each frame.
pub fn open(folder: &Path, part: &str) -> Result<Vec<Sequence>, EvalError> {
    let places = ["", "DAVIS"].map(|place| folder.join(place));
    let root = (places
        .iter()
        .find(|root| root.join("JPEGImages/480p").is_dir()))
    .ok_or_else(|| {
        let expected = "expected the unpacked 480p archive of DAVIS 2017";
        EvalError::missing(&folder.join("JPEGImages/480p"), expected)
    })?;
    let list = root.join(format!("ImageSets/2017/{part}.txt"));
    let text = read_text(&list, "a sequence's name a line")?;
    let sequences: Vec<Sequence> = text
        .split_whitespace()
        .map(|name| sequence(root, name))
        .collect::<Result<_, _>>()?;
    match sequences.is_empty() {
        true => Err(EvalError::malformed(
            &list,
            "no name",
            "a sequence's name a line",
        )),
        false => Ok(sequences),
    }
}

fn sequence(root: &Path, name: &str) -> Result<Sequence, EvalError> {
    let annotations = root.join("Annotations/480p").join(name);
    let frames = entries(
        &root.join("JPEGImages/480p").join(name),
        "the frames of a sequence",
    )?;
    let mask = |frame: &PathBuf| annotations.join(frame.with_extension("png").file_name().unwrap());
    let masks: Vec<PathBuf> = frames.iter().map(mask).collect();
    if let Some((frame, mask)) = frames.iter().zip(&masks).find(|(_, mask)| !mask.is_file()) {
        return Err(EvalError::missing(
            mask,
            format!("it is the mask of {}", frame.display()),
        ));
    }
    let image = |frame: &PathBuf| {
        let file = frame.file_stem().unwrap_or_default().to_string_lossy();
        Image::file(format!("{name}/{file}"), frame)
    };
    Ok(Sequence {
        name: name.to_owned(),
        frames: frames.iter().map(image).collect(),
        masks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_official_layout() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("DAVIS");
        let write = |path: &str, bytes: &[u8]| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        assert!(
            open(folder.path(), "val")
                .unwrap_err()
                .to_string()
                .contains("480p")
        );
        write("ImageSets/2017/val.txt", b"bear\n");
        write("JPEGImages/480p/bear/00000.jpg", b"");
        write("JPEGImages/480p/bear/00001.jpg", b"");
        let mask = crate::image::indexed_png(2, &[0, 1, 2, 2]);
        write("Annotations/480p/bear/00000.png", &mask);
        let error = open(folder.path(), "val").unwrap_err().to_string();
        assert!(error.contains("00001.png: is missing"), "{error}");
        write("Annotations/480p/bear/00001.png", &mask);
        let sequences = open(folder.path(), "val").unwrap();
        assert_eq!(sequences[0].frames[1].id, "bear/00001");
        assert_eq!(sequences[0].mask(0).unwrap().labels(), [0, 1, 2, 2]);
        let error = open(folder.path(), "test-dev").unwrap_err().to_string();
        assert!(error.contains("test-dev.txt: is missing"), "{error}");
    }
}
