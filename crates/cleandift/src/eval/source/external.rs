//! Features made by other programs (DINOv2 and the like), joined to those of a source.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;

use super::{Image, Seen, Source};
use crate::archive::files_below;
use crate::checkpoint::{Weights, file_sha256};
use crate::eval::digest::{appearance, digest};
use crate::eval::{EvalError, Settings};
use crate::features::FeatureMap;
use crate::graph::Parameters;
use crate::image::Extent;

/// A source whose features are accompanied by maps from files.
///
/// A file holds tensors `[c, h, w]` named after pictures; a folder holds `NAME.npy` or
/// `NAME.safetensors` (one tensor) for each. `NAME` is the picture's file name without its ending,
/// or its identifier in the data set with `/` between folders; for a picture turned left to right
/// `NAME_mirrored`. Maps must come from the same canvas as the source's, at any resolution.
pub struct WithExternal<'s> {
    source: &'s mut dyn Source,
    path: PathBuf,
    file: Option<Weights>,
}

/// The name of the maps from files.
pub const EXTERNAL: &str = "external";

impl<'s> WithExternal<'s> {
    /// Joins the features at `path` to those of `source`.
    ///
    /// # Errors
    /// If there is nothing at the path, or a file is no safetensors file.
    pub fn new(source: &'s mut dyn Source, path: &Path) -> Result<Self, EvalError> {
        if !path.exists() {
            let expected = "expected a folder of .npy or .safetensors, or one .safetensors file";
            return Err(EvalError::missing(path, expected));
        }
        let file = (!path.is_dir()).then(|| Weights::open(path));
        Ok(Self {
            source,
            path: path.to_owned(),
            file: file.transpose()?,
        })
    }

    fn map(&self, image: &Image) -> Result<FeatureMap, EvalError> {
        let names = names(image);
        let [.., stem] = &names;
        if let Some(weights) = &self.file {
            let name = names.iter().find(|name| weights.has(name));
            let name = name.ok_or_else(|| {
                let expected = "a tensor for each picture";
                EvalError::malformed(&self.path, format!("no tensor `{stem}`"), expected)
            })?;
            return tensor(&self.path, weights, name);
        }
        for name in &names {
            let array = self.path.join(format!("{name}.npy"));
            if array.exists() {
                return npy(&array);
            }
            let file = self.path.join(format!("{name}.safetensors"));
            if file.exists() {
                let weights = Weights::open(&file)?;
                let &[name] = weights.names().as_slice() else {
                    let found = format!("{} tensors", weights.names().len());
                    return Err(EvalError::malformed(&file, found, "one tensor"));
                };
                return tensor(&file, &weights, name);
            }
        }
        let path = self.path.join(format!("{stem}.npy"));
        let expected = format!("or {stem}.safetensors: features of {}", image.id);
        Err(EvalError::missing(&path, expected))
    }
}

impl Source for WithExternal<'_> {
    fn settings(&self) -> Settings {
        let mut settings = self.source.settings();
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        settings.insert("external".to_owned(), name.into());
        let (key, what) = match self.file {
            Some(_) => (
                "external_sha256",
                file_sha256(&self.path).unwrap_or_default(),
            ),
            None => ("external_files", fingerprint(&self.path)),
        };
        settings.insert(key.to_owned(), what.into());
        settings
    }

    fn see(&mut self, image: &Image) -> Result<Arc<Seen>, EvalError> {
        let mut seen = Seen::clone(&*self.source.see(image)?);
        seen.maps.push((EXTERNAL.to_owned(), self.map(image)?));
        Ok(Arc::new(seen))
    }
}

/// All files of a folder and those in it, as they look without being read.
fn fingerprint(folder: &Path) -> String {
    let files = files_below(folder, |_| true).unwrap_or_default();
    let lines: Vec<String> = files.iter().map(|path| appearance(path)).collect();
    digest(&lines)
}

/// What a picture's features may be called, the most exact name first, the stem last.
fn names(image: &Image) -> [String; 3] {
    let path = Path::new(&image.id);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let whole = path.with_extension("").to_string_lossy().into_owned();
    let ending = if image.mirrored { "_mirrored" } else { "" };
    [image.id.clone(), whole, stem.into_owned()].map(|name| name + ending)
}

fn tensor(path: &Path, weights: &Weights, name: &str) -> Result<FeatureMap, EvalError> {
    match weights.shape(name) {
        Some(&[channels, height, width]) => {
            let values = weights.read(name)?;
            Ok(from_channels_first(
                channels,
                Extent::new(width, height),
                &values,
            ))
        }
        found => {
            let found = format!("`{name}` of shape {found:?}");
            Err(EvalError::malformed(path, found, "a tensor [c, h, w]"))
        }
    }
}

/// Reads a NumPy array `[c, h, w]` of f32 or f16 (`numpy.lib.format`, versions 1 to 3).
fn npy(path: &Path) -> Result<FeatureMap, EvalError> {
    let bytes = std::fs::read(path).map_err(|source| EvalError::Read {
        path: path.to_owned(),
        source,
    })?;
    let (header, data) = split(&bytes).ok_or_else(|| {
        EvalError::malformed(path, "no NumPy header", "an array written by numpy.save")
    })?;
    let refuse = |what: &str| {
        let expected = "a float32 or float16 array [c, h, w] in C order, little-endian";
        Err(EvalError::malformed(
            path,
            format!("{what} in {}", header.trim()),
            expected,
        ))
    };
    let shape = header
        .split_once("'shape': (")
        .and_then(|(_, rest)| rest.split_once(')'));
    let sides: Vec<usize> = shape
        .into_iter()
        .flat_map(|(sides, _)| sides.split(','))
        .filter_map(|side| side.trim().parse().ok())
        .collect();
    let &[channels, height, width] = sides.as_slice() else {
        return refuse("another shape");
    };
    let values: Vec<f32> = if header.contains("'<f4'") {
        data.as_chunks()
            .0
            .iter()
            .map(|&b| f32::from_le_bytes(b))
            .collect()
    } else if header.contains("'<f2'") {
        data.as_chunks()
            .0
            .iter()
            .map(|&b| f16::from_le_bytes(b).to_f32())
            .collect()
    } else {
        return refuse("another type");
    };
    let size = channels
        .checked_mul(height)
        .and_then(|n| n.checked_mul(width));
    if header.contains("'fortran_order': True") || size != Some(values.len()) {
        return refuse("another order or length");
    }
    Ok(from_channels_first(
        channels,
        Extent::new(width, height),
        &values,
    ))
}

/// The header and the data of an npy file.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(b"\x93NUMPY")?;
    let (start, length) = match *rest.first()? {
        1 => (
            4,
            usize::from(u16::from_le_bytes(rest.get(2..4)?.try_into().ok()?)),
        ),
        _ => (
            6,
            u32::from_le_bytes(rest.get(2..6)?.try_into().ok()?) as usize,
        ),
    };
    let header = std::str::from_utf8(rest.get(start..start + length)?).ok()?;
    Some((header, &rest[start + length..]))
}

fn from_channels_first(channels: usize, extent: Extent, values: &[f32]) -> FeatureMap {
    let cells = extent.width * extent.height;
    let turned = (0..cells).flat_map(|cell| (0..channels).map(move |c| values[c * cells + cell]));
    FeatureMap::new(extent, channels, turned.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Dtype, TensorData, write_safetensors};
    use crate::image::Frame;

    struct Nothing;

    impl Source for Nothing {
        fn settings(&self) -> Settings {
            Settings::new()
        }

        fn see(&mut self, _: &Image) -> Result<Arc<Seen>, EvalError> {
            let extent = Extent::new(1, 1);
            let frame = Frame::squash(extent, extent);
            Ok(Arc::new(Seen {
                frame,
                maps: Vec::new(),
            }))
        }
    }

    /// An array as numpy.save writes it: [2, 1, 3], f32.
    #[test]
    fn arrays_are_found_by_the_pictures_name() {
        let folder = tempfile::tempdir().unwrap();
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1, 3), }\n";
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend((0..6).flat_map(|value| (value as f32).to_le_bytes()));
        std::fs::write(folder.path().join("one.npy"), &bytes).unwrap();
        let mut nothing = Nothing;
        let mut source = WithExternal::new(&mut nothing, folder.path()).unwrap();
        let seen = source.see(&Image::file("cat/one.jpg", "")).unwrap();
        let expected = FeatureMap::new(Extent::new(3, 1), 2, vec![0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        assert_eq!(seen.maps, [(EXTERNAL.to_owned(), expected)]);
        let mirrored = Image::file("cat/one.jpg", "").mirrored();
        let error = source.see(&mirrored).unwrap_err().to_string();
        assert!(error.contains("one_mirrored.npy"), "{error}");
    }

    /// One of several tensors would be a guess.
    #[test]
    fn a_pictures_own_file_holds_one_tensor() {
        let folder = tempfile::tempdir().unwrap();
        let write = |names: &[&str]| {
            let tensors: Vec<_> = (names.iter())
                .map(|name| TensorData {
                    name,
                    shape: &[1, 1, 1],
                    values: &[2.0],
                    dtype: Dtype::F32,
                })
                .collect();
            let path = folder.path().join("one.safetensors");
            write_safetensors(&path, &tensors, &Default::default()).unwrap();
        };
        let mut nothing = Nothing;
        let mut source = WithExternal::new(&mut nothing, folder.path()).unwrap();
        let image = Image::file("one.jpg", "");
        write(&["us3"]);
        let of_one = source.settings();
        assert_eq!(source.see(&image).unwrap().maps[0].1.values(), [2.0]);
        write(&["mid", "us3"]);
        assert_ne!(source.settings(), of_one);
        let error = source.see(&image).unwrap_err().to_string();
        assert!(error.contains("2 tensors"), "{error}");
    }

    /// 2^32 x 2^32 is 0 in 64 bits, as many values as the file has.
    #[test]
    fn sides_whose_product_overflows_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.npy");
        let header = "{'descr': '<f4', 'fortran_order': False, \
                      'shape': (4294967296, 4294967296, 1), }\n";
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let error = npy(&path).unwrap_err().to_string();
        assert!(error.contains("another order or length"), "{error}");
    }
}
