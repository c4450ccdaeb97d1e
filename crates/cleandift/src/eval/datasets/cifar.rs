//! CIFAR-10 and CIFAR-100 in their binary form: records of a label byte (CIFAR-100: a coarse and a
//! fine one) and 32x32 pixels, all red, then all green, then all blue.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::classes::ClassSet;
use super::{Split, read_bytes, read_text};
use crate::eval::{EvalError, Image, Origin, Stack};
use crate::image::{Extent, Picture};

const PIXELS: usize = 32 * 32;

/// Which of the two sets.
struct Layout {
    name: &'static str,
    /// The folder inside the official archive.
    folder: &'static str,
    train: &'static [&'static str],
    test: &'static str,
    names: &'static str,
    classes: usize,
    /// Label bytes; the last one counts.
    labels: usize,
}

const LAYOUTS: [Layout; 2] = [
    Layout {
        name: "CIFAR-10 binaries",
        folder: "cifar-10-batches-bin",
        train: &[
            "data_batch_1.bin",
            "data_batch_2.bin",
            "data_batch_3.bin",
            "data_batch_4.bin",
            "data_batch_5.bin",
        ],
        test: "test_batch.bin",
        names: "batches.meta.txt",
        classes: 10,
        labels: 1,
    },
    Layout {
        name: "CIFAR-100 binaries",
        folder: "cifar-100-binary",
        train: &["train.bin"],
        test: "test.bin",
        names: "fine_label_names.txt",
        classes: 100,
        labels: 2,
    },
];

/// The records of one file.
#[derive(Debug)]
struct Batch {
    path: PathBuf,
    bytes: Vec<u8>,
    labels: usize,
}

impl Batch {
    fn record(&self, index: usize) -> &[u8] {
        let length = self.labels + 3 * PIXELS;
        &self.bytes[index * length..][..length]
    }

    fn len(&self) -> usize {
        self.bytes.len() / (self.labels + 3 * PIXELS)
    }
}

impl Stack for Batch {
    fn path(&self) -> &Path {
        &self.path
    }

    fn picture(&self, index: usize) -> Result<Picture, EvalError> {
        let planes = &self.record(index)[self.labels..];
        let pixel = |pixel: usize| [0, 1, 2].map(|colour| planes[colour * PIXELS + pixel]);
        let rgb = (0..PIXELS).flat_map(pixel).collect();
        Ok(Picture::from_rgb(Extent::new(32, 32), rgb)?)
    }
}

/// Opens the unpacked archive or the folder around it; `None` if it is neither set.
pub(super) fn open(folder: &Path) -> Result<Option<ClassSet>, EvalError> {
    for layout in &LAYOUTS {
        for root in [folder.to_owned(), folder.join(layout.folder)] {
            if root.join(layout.names).exists() && root.join(layout.test).exists() {
                return layout.open(&root).map(Some);
            }
        }
    }
    Ok(None)
}

impl Layout {
    fn open(&self, root: &Path) -> Result<ClassSet, EvalError> {
        let names_path = root.join(self.names);
        let text = read_text(&names_path, "a name for each class")?;
        let names: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        if names.len() != self.classes {
            let found = format!("{} names", names.len());
            let expected = format!("{}", self.classes);
            return Err(EvalError::malformed(&names_path, found, expected));
        }
        let mut train = Vec::new();
        for file in self.train {
            train.extend(self.batch(&root.join(file), &names)?);
        }
        let named = Split {
            train,
            validation: Vec::new(),
            test: self.batch(&root.join(self.test), &names)?,
        };
        ClassSet::new(self.name.to_owned(), root, named, Some(names))
    }

    fn batch(&self, path: &Path, names: &[String]) -> Result<Vec<(Image, String)>, EvalError> {
        let record = self.labels + 3 * PIXELS;
        let expected = format!("records of {record} bytes that begin with a label");
        let bytes = read_bytes(path, &expected)?;
        if bytes.is_empty() || bytes.len() % record != 0 {
            let found = format!("{} bytes", bytes.len());
            return Err(EvalError::malformed(path, found, expected));
        }
        let batch = Arc::new(Batch {
            path: path.to_owned(),
            bytes,
            labels: self.labels,
        });
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let image = |index: usize| {
            let label = usize::from(batch.record(index)[self.labels - 1]);
            let class = names.get(label).ok_or_else(|| {
                let found = format!("label {label} in record {index}");
                EvalError::malformed(&batch.path, found, format!("labels below {}", names.len()))
            })?;
            let image = Image {
                origin: Origin::Stack {
                    stack: Arc::<Batch>::clone(&batch),
                    index,
                },
                ..Image::file(format!("{stem}/{index}"), "")
            };
            Ok((image, class.clone()))
        };
        (0..batch.len()).map(image).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record whose pixels are red 1, green 2, blue 3, but the second, which is red 9.
    fn record(labels: &[u8]) -> Vec<u8> {
        let mut bytes = labels.to_vec();
        for colour in 1..=3 {
            bytes.extend([colour; PIXELS]);
        }
        bytes[labels.len() + 1] = 9;
        bytes
    }

    #[test]
    fn the_layout_of_cifar_100() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("cifar-100-binary");
        std::fs::create_dir(&root).unwrap();
        let names: Vec<String> = (0..100).map(|class| format!("class{class}")).collect();
        std::fs::write(root.join("fine_label_names.txt"), names.join("\n")).unwrap();
        let train = [record(&[0, 7]), record(&[1, 99])].concat();
        std::fs::write(root.join("train.bin"), train).unwrap();
        std::fs::write(root.join("test.bin"), record(&[5, 42])).unwrap();
        let set = ClassSet::open(folder.path()).unwrap();
        assert_eq!(set.classes.len(), 100);
        let classes: Vec<_> = set
            .split
            .train
            .iter()
            .map(|picture| picture.class)
            .collect();
        assert_eq!(classes, [7, 99]);
        let test = &set.split.test[0];
        assert_eq!((test.class, test.image.id.as_str()), (42, "test/0"));
        let picture = test.image.open().unwrap();
        assert_eq!(picture.rgb()[..9], [1, 2, 3, 9, 2, 3, 1, 2, 3]);

        std::fs::write(root.join("test.bin"), &record(&[5, 42])[1..]).unwrap();
        let error = ClassSet::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("test.bin: found 3073 bytes"), "{error}");
        std::fs::write(root.join("test.bin"), record(&[5, 100])).unwrap();
        let error = ClassSet::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("label 100 in record 0"), "{error}");
    }
}
