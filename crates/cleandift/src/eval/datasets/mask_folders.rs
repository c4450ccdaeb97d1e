//! Any pictures with masks in folders of their own: CamVid's lists and folders, ADE20K's
//! `images/training` and `annotations/training`, and the like.

use std::path::{Path, PathBuf};

use super::masks::{MaskOptions, MaskSet, Masked};
use super::split::{HoldOut, blocks};
use super::{Split, entries, named_by, read_text};
use crate::eval::{EvalError, Image};
use crate::image::is_picture_name;

/// What the parts are called.
const TRAIN: &[&str] = &["train", "training"];
const VALIDATION: &[&str] = &["val", "valid", "validation"];
const TEST: &[&str] = &["test", "testing"];

/// Frames of a block where nothing else is said.
const BLOCK: usize = 5;

/// A picture and its mask, by path.
type Pair = (PathBuf, PathBuf);

/// Opens lists or folders of pairs; without a test part the validation part is reported. `None`
/// if there is no training part.
pub(super) fn open(folder: &Path, options: MaskOptions) -> Result<Option<MaskSet>, EvalError> {
    let Some(train) = part(folder, TRAIN)? else {
        return Ok(None);
    };
    let validation = part(folder, VALIDATION)?.unwrap_or_default();
    let (validation, test) = match part(folder, TEST)? {
        Some(test) => (validation, test),
        None => (Vec::new(), validation),
    };
    if test.is_empty() {
        let expected = "pictures and masks to report, beside those to learn from";
        return Err(EvalError::malformed(
            folder,
            "a training part only",
            expected,
        ));
    }
    let (classes, listed_void) = classes(folder)?;
    let block = options.block.unwrap_or(BLOCK);
    let masked = |pairs: Vec<Pair>| -> Vec<Masked> {
        let names: Vec<String> = pairs.iter().map(|(picture, _)| stem(picture)).collect();
        let units = blocks(names.iter().map(String::as_str), block);
        let masked = |((picture, mask), unit): (Pair, String)| Masked {
            image: Image::file(relative(folder, &picture), picture),
            origin: mask.into(),
            unit,
        };
        pairs.into_iter().zip(units).map(masked).collect()
    };
    let split = Split {
        train: masked(train),
        validation: masked(validation),
        test: masked(test),
    };
    Ok(Some(MaskSet {
        layout: "pictures and masks in folders".to_owned(),
        classes,
        void: options.void.or(listed_void),
        block,
        split: split.with_validation(HoldOut::LastTenth),
    }))
}

/// The pairs of a part under any of its names.
fn part(folder: &Path, names: &[&str]) -> Result<Option<Vec<Pair>>, EvalError> {
    for name in names {
        let list = folder.join(format!("{name}.txt"));
        if list.is_file() {
            return listed(folder, &list).map(Some);
        }
        let layouts = [
            [name.to_string(), format!("{name}annot")],
            [format!("images/{name}"), format!("masks/{name}")],
            [format!("images/{name}"), format!("annotations/{name}")],
            [format!("{name}/images"), format!("{name}/masks")],
        ];
        for layout in layouts {
            let [pictures, masks] = layout.map(|place| folder.join(place));
            if pictures.is_dir() && masks.is_dir() {
                return paired(&pictures, &masks).map(Some);
            }
        }
    }
    Ok(None)
}

/// The pairs of a list: a picture and a mask a line. Paths that begin with `/` are looked for in
/// the folder too (CamVid's lists were written so).
fn listed(folder: &Path, list: &Path) -> Result<Vec<Pair>, EvalError> {
    let expected = "a picture and a mask a line";
    let pair = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &[picture, mask] = &words[..] else {
            return Err(EvalError::malformed(
                list,
                format!("the line {line:?}"),
                expected,
            ));
        };
        let [picture, mask] = [picture, mask].map(|path| folder.join(path.trim_start_matches('/')));
        Ok((named_by(list, picture)?, named_by(list, mask)?))
    };
    let text = read_text(list, expected)?;
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(pair)
        .collect()
}

/// Pictures and the masks of the same name.
fn paired(pictures: &Path, masks: &Path) -> Result<Vec<Pair>, EvalError> {
    let pictures = entries(pictures, "pictures")?;
    let pair = |picture: PathBuf| {
        let mask = masks.join(format!("{}.png", stem(&picture)));
        match mask.is_file() {
            true => Ok((picture, mask)),
            false => {
                let expected = format!("it is the mask of {}", picture.display());
                Err(EvalError::missing(&mask, expected))
            }
        }
    };
    pictures
        .into_iter()
        .filter(|path| is_picture_name(path))
        .map(pair)
        .collect()
}

/// Names of the classes, and the label that stands for none of them: from `classes.txt` with a
/// label and a name a line, or just a name.
fn classes(folder: &Path) -> Result<(Vec<String>, Option<u8>), EvalError> {
    let path = folder.join("classes.txt");
    if !path.is_file() {
        // Whatever labels there are.
        return Ok((
            (0..255).map(|label| format!("class {label}")).collect(),
            None,
        ));
    }
    let expected = "a class a line, the labels from 0 on without a gap";
    let text = read_text(&path, expected)?;
    let (mut names, mut void) = (Vec::new(), None);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let numbered = line.split_once(char::is_whitespace);
        let numbered = numbered.and_then(|(label, name)| Some((label.parse().ok()?, name.trim())));
        let (label, name) = numbered.unwrap_or((names.len(), line));
        let lower = name.to_lowercase();
        let is_void = ["void", "unlabelled", "unlabeled", "ignore"]
            .iter()
            .any(|word| lower.contains(word));
        if is_void {
            void = u8::try_from(label).ok();
        } else if label == names.len() {
            names.push(name.to_owned());
        } else {
            return Err(EvalError::malformed(
                &path,
                format!("the line {line:?}"),
                expected,
            ));
        }
    }
    Ok((names, void))
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn relative(folder: &Path, path: &Path) -> String {
    path.strip_prefix(folder)
        .unwrap_or(path)
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, path: &str, bytes: &[u8]) {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// CamVid as SegNet's authors gave it out: paths from a folder of theirs.
    #[test]
    fn lists_of_pairs() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(
            root,
            "classes.txt",
            b"0 Sky\n1 Building\n2 Unlabelled (void)\n",
        );
        for (part, names) in [("train", ["a_1", "a_2"]), ("test", ["b_1", "b_2"])] {
            let line = |name: &str| format!("/{part}/{name}.png /{part}annot/{name}.png\n");
            write(
                root,
                &format!("{part}.txt"),
                names.map(line).concat().as_bytes(),
            );
            for name in names {
                write(root, &format!("{part}/{name}.png"), b"");
                let mask = crate::image::indexed_png(2, &[0, 1, 2, 255]);
                write(root, &format!("{part}annot/{name}.png"), &mask);
            }
        }
        let set = MaskSet::open(root, MaskOptions::default()).unwrap();
        assert_eq!((set.classes.len(), set.void), (2, Some(2)));
        let test = &set.split.test;
        assert_eq!(set.labels(&test[0]).unwrap().labels(), [0, 1, 255, 255]);
        assert_eq!(
            (test[0].unit.as_str(), test[1].unit.as_str()),
            ("b_#0", "b_#0")
        );
        write(root, "test.txt", b"/test/b_1.png\n");
        let error = MaskSet::open(root, MaskOptions::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("test.txt: found the line"), "{error}");
    }

    #[test]
    fn folders_of_pairs() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for path in ["images/training/a.jpg", "annotations/training/a.png"] {
            write(root, path, b"");
        }
        let open = || MaskSet::open(root, MaskOptions::default());
        let error = open().unwrap_err().to_string();
        assert!(error.contains("a training part only"), "{error}");
        write(root, "images/validation/b.jpg", b"");
        std::fs::create_dir(root.join("annotations/validation")).unwrap();
        let error = open().unwrap_err().to_string();
        assert!(
            error.contains("annotations/validation/b.png: is missing"),
            "{error}"
        );
        write(root, "annotations/validation/b.png", b"");
        let set = open().unwrap();
        assert_eq!(set.split.test[0].image.id, "images/validation/b.jpg");
    }
}
