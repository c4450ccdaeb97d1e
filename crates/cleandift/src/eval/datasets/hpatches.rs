//! HPatches (Balntas et al., CVPR 2017), and sets in its layout: folders `i_*` (light changes) and
//! `v_*` (viewpoint changes) with pictures 1 to 6 and homographies `H_1_2` to `H_1_6`.

use std::path::{Path, PathBuf};

use super::{entries, read_text};
use crate::archive::Place;
use crate::eval::{EvalError, Image, Origin};

/// A sequence: its first picture and what it became.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// The folder's name.
    pub name: String,
    /// The first picture.
    pub reference: Image,
    /// The others, each with the homography that maps pixels of the first to its own, row by row.
    pub others: Vec<(Image, [f64; 9])>,
}

/// Endings that pictures may have.
const ENDINGS: [&str; 4] = ["ppm", "jpg", "png", "jpeg"];

/// Loads all sequences of a folder, in the order of their names.
///
/// # Errors
/// If there are none, or a picture or homography is missing or has another form.
pub fn load(folder: &Path) -> Result<Vec<Sequence>, EvalError> {
    let mut sequences = Vec::new();
    for path in entries(folder, "HPatches' folders i_* and v_*")? {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_dir() && (name.starts_with("i_") || name.starts_with("v_")) {
            sequences.push(sequence(&path, name)?);
        }
    }
    match sequences.is_empty() {
        true => Err(EvalError::missing(
            &folder.join("v_*"),
            "expected HPatches' sequences",
        )),
        false => Ok(sequences),
    }
}

fn sequence(folder: &Path, name: String) -> Result<Sequence, EvalError> {
    let image = |number: usize| -> Result<Image, EvalError> {
        let path = picture(folder, number)?;
        Ok(Image::file(format!("{name}/{number}"), path))
    };
    let others = (2..=6).map(|number| {
        let homography = homography(&folder.join(format!("H_1_{number}")))?;
        Ok((image(number)?, homography))
    });
    Ok(Sequence {
        reference: image(1)?,
        others: others.collect::<Result<_, EvalError>>()?,
        name,
    })
}

fn picture(folder: &Path, number: usize) -> Result<PathBuf, EvalError> {
    let path = |ending: &&str| folder.join(format!("{number}.{ending}"));
    let found = ENDINGS.iter().map(path).find(|path| path.exists());
    found.ok_or_else(|| {
        EvalError::missing(&path(&ENDINGS[0]), "or .jpg, .png: picture of the sequence")
    })
}

fn homography(path: &Path) -> Result<[f64; 9], EvalError> {
    let expected = "a homography: nine numbers";
    let text = read_text(path, expected)?;
    let numbers: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse).collect();
    let numbers = numbers
        .ok()
        .and_then(|numbers| <[f64; 9]>::try_from(numbers).ok());
    numbers.ok_or_else(|| EvalError::malformed(path, format!("`{:.60}`", text.trim()), expected))
}

/// Points of a picture from the file beside it, `NAME.points`: x and y a line.
///
/// # Errors
/// If there is none, or a line has another form.
pub fn points(image: &Image) -> Result<Vec<[f64; 2]>, EvalError> {
    let Origin::Encoded(Place::File(picture)) = &image.origin else {
        return Err(EvalError::Unsuitable(format!(
            "{}: is no file with points beside it",
            image.id
        )));
    };
    let path = picture.with_extension("points");
    let expected = "points: x and y a line";
    let point = |(index, line): (usize, &str)| {
        let mut fields = line
            .split_whitespace()
            .map(|field| field.parse::<f64>().ok());
        let both = (
            fields.next().flatten(),
            fields.next().flatten(),
            fields.next(),
        );
        match both {
            (Some(x), Some(y), None) => Ok([x, y]),
            _ => Err(EvalError::malformed(
                &path,
                format!("line {}: {line}", index + 1),
                expected,
            )),
        }
    };
    read_text(&path, expected)?
        .lines()
        .enumerate()
        .map(point)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_in_the_official_layout() {
        let folder = tempfile::tempdir().unwrap();
        let sequence = folder.path().join("v_wall");
        std::fs::create_dir(&sequence).unwrap();
        for number in 1..=6 {
            std::fs::write(sequence.join(format!("{number}.ppm")), "P6").unwrap();
            std::fs::write(
                sequence.join(format!("H_1_{number}")),
                "1 0 2\n0 1 3\n0 0 1\n",
            )
            .unwrap();
        }
        let found = load(folder.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].others.len(), 5);
        assert_eq!(
            found[0].others[4].1,
            [1.0, 0.0, 2.0, 0.0, 1.0, 3.0, 0.0, 0.0, 1.0]
        );
        assert_eq!(found[0].others[4].0.id, "v_wall/6");

        std::fs::write(sequence.join("H_1_4"), "1 0 2\n0 1").unwrap();
        assert!(
            load(folder.path())
                .unwrap_err()
                .to_string()
                .contains("H_1_4")
        );
        std::fs::remove_file(sequence.join("3.ppm")).unwrap();
        assert!(
            load(folder.path())
                .unwrap_err()
                .to_string()
                .contains("3.ppm")
        );
    }
}
