//! NYU Depth v2 in HDF5: the labelled set (`nyu_depth_v2_labeled.mat`, which is MATLAB 7.3, with
//! `splits.mat`), or FastDepth's files (`train/SCENE/00001.h5`, `val/official/00001.h5`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hdf5_reader::{Dataset, Hdf5File, SliceInfo, SliceInfoElem};

use super::depths::{DepthOrigin, DepthSet, DepthStack, Measured};
use super::split::{HoldOut, blocks};
use super::{Split, entries, matlab};
use crate::eval::dense::DepthMap;
use crate::eval::metrics::depth::DepthRange;
use crate::eval::{EvalError, Image, Origin, Stack};
use crate::image::{Extent, Picture};

const LABELLED: &str = "nyu_depth_v2_labeled.mat";

/// Opens either form; `None` if it is neither.
pub(super) fn open(folder: &Path, block: Option<usize>) -> Result<Option<DepthSet>, EvalError> {
    if folder.join(LABELLED).is_file() {
        return labelled(folder, block).map(Some);
    }
    fast_depth(folder, block)
}

/// The labelled set: 1449 pictures, read one at a time. MATLAB's arrays appear with their axes
/// reversed: `images` [picture, colour, column, row], `depths` [picture, column, row].
fn labelled(folder: &Path, block: Option<usize>) -> Result<DepthSet, EvalError> {
    let file = Arc::new(Labelled::open(&folder.join(LABELLED))?);
    let splits = folder.join("splits.mat");
    let variables = matlab::read(&splits)?;
    let part = |name: &str| -> Result<Vec<usize>, EvalError> {
        let places = variables.get(name).ok_or_else(|| {
            let known: Vec<&str> = variables.keys().map(String::as_str).collect();
            let expected = format!("a numeric variable `{name}`");
            EvalError::malformed(&splits, format!("variables {known:?}"), expected)
        })?;
        let place = |place: f64| {
            // Counted from 1.
            let known = place.fract() == 0.0 && (1.0..=file.count as f64).contains(&place);
            known.then(|| place as usize - 1).ok_or_else(|| {
                let found = format!("`{name}` holds {place}");
                EvalError::malformed(&splits, found, format!("numbers from 1 to {}", file.count))
            })
        };
        places.values.iter().copied().map(place).collect()
    };
    let block = block.unwrap_or(1);
    let measured = |places: Vec<usize>| -> Vec<Measured> {
        let names: Vec<String> = places
            .iter()
            .map(|place| format!("nyu_{:04}", place + 1))
            .collect();
        let units = blocks(names.iter().map(String::as_str), block);
        let measured = |((&index, name), unit): ((&usize, &String), String)| Measured {
            image: Image {
                origin: Origin::Stack {
                    stack: Arc::<Labelled>::clone(&file),
                    index,
                },
                ..Image::file(name, "")
            },
            origin: DepthOrigin::Stack {
                stack: Arc::<Labelled>::clone(&file),
                index,
            },
            unit,
        };
        places.iter().zip(&names).zip(units).map(measured).collect()
    };
    let split = Split {
        train: measured(part("trainNdxs")?),
        validation: Vec::new(),
        test: measured(part("testNdxs")?),
    };
    // Pictures of one scene follow each other.
    Ok(DepthSet {
        layout: "NYU Depth v2, labelled".to_owned(),
        range: DepthRange::nyu(),
        block,
        split: split.with_validation(HoldOut::LastTenth),
    })
}

/// FastDepth's files; `None` if there are none.
fn fast_depth(folder: &Path, block: Option<usize>) -> Result<Option<DepthSet>, EvalError> {
    let block = block.unwrap_or(1);
    let part = |part: &str| -> Result<Vec<Measured>, EvalError> {
        let root = folder.join(part);
        let mut files = Vec::new();
        if root.is_dir() {
            collect(&root, &mut files)?;
        }
        let name = |path: &PathBuf| {
            let path = path.strip_prefix(folder).unwrap_or(path).with_extension("");
            path.display().to_string()
        };
        let names: Vec<String> = files.iter().map(name).collect();
        let units = blocks(names.iter().map(String::as_str), block);
        let measured = |((path, name), unit): ((PathBuf, &String), String)| {
            let sample = Arc::new(Sample(path));
            Measured {
                image: Image {
                    origin: Origin::Stack {
                        stack: Arc::<Sample>::clone(&sample),
                        index: 0,
                    },
                    ..Image::file(name, "")
                },
                origin: DepthOrigin::Stack {
                    stack: sample,
                    index: 0,
                },
                unit,
            }
        };
        Ok(files
            .into_iter()
            .zip(&names)
            .zip(units)
            .map(measured)
            .collect())
    };
    let split = Split {
        train: part("train")?,
        validation: Vec::new(),
        test: part("val")?,
    };
    if split.train.is_empty() || split.test.is_empty() {
        return Ok(None);
    }
    Ok(Some(DepthSet {
        layout: "NYU Depth v2, FastDepth's files".to_owned(),
        range: DepthRange::nyu(),
        block,
        split: split.with_validation(HoldOut::LastTenth),
    }))
}

/// All `.h5` files below a folder, by name.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), EvalError> {
    for path in entries(folder, "HDF5 files")? {
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "h5") {
            files.push(path);
        }
    }
    Ok(())
}

/// The file of the labelled set.
struct Labelled {
    path: PathBuf,
    images: Dataset,
    depths: Dataset,
    count: usize,
    extent: Extent,
}

impl std::fmt::Debug for Labelled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Labelled").field(&self.path).finish()
    }
}

impl Labelled {
    fn open(path: &Path) -> Result<Self, EvalError> {
        let file = Hdf5File::open(path).map_err(damaged(path))?;
        let images = file.dataset("/images").map_err(damaged(path))?;
        let depths = file.dataset("/depths").map_err(damaged(path))?;
        let (&[count, 3, width, height], &[same, columns, rows]) = (images.shape(), depths.shape())
        else {
            return Err(unexpected(path, &images, &depths));
        };
        if (same, columns, rows) != (count, width, height) {
            return Err(unexpected(path, &images, &depths));
        }
        Ok(Self {
            path: path.to_owned(),
            count: count as usize,
            extent: Extent::new(width as usize, height as usize),
            images,
            depths,
        })
    }
}

impl Stack for Labelled {
    fn path(&self) -> &Path {
        &self.path
    }

    fn picture(&self, index: usize) -> Result<Picture, EvalError> {
        let planes = slice::<u8>(&self.path, &self.images, index)?;
        let Extent { width, height } = self.extent;
        let sample = |row: usize, column: usize, colour: usize| {
            planes[(colour * width + column) * height + row]
        };
        Ok(Picture::from_rgb(self.extent, pixels(self.extent, sample))?)
    }
}

impl DepthStack for Labelled {
    fn depth(&self, index: usize) -> Result<DepthMap, EvalError> {
        let columns = slice::<f32>(&self.path, &self.depths, index)?;
        let Extent { width, height } = self.extent;
        let depth = |row: usize| {
            let columns = &columns;
            (0..width).map(move |column| columns[column * height + row])
        };
        Ok(DepthMap::new(
            self.extent,
            (0..height).flat_map(depth).collect(),
        ))
    }
}

/// One of FastDepth's files: `rgb` [3, row, column] and `depth` [row, column] in metres.
#[derive(Debug)]
struct Sample(PathBuf);

impl Sample {
    fn open(&self) -> Result<(Dataset, Dataset, Extent), EvalError> {
        let path = &self.0;
        let file = Hdf5File::open(path).map_err(damaged(path))?;
        let images = file.dataset("/rgb").map_err(damaged(path))?;
        let depths = file.dataset("/depth").map_err(damaged(path))?;
        let extent = match (images.shape(), depths.shape()) {
            (&[3, rows, columns], &[height, width]) if (rows, columns) == (height, width) => {
                Extent::new(width as usize, height as usize)
            }
            _ => return Err(unexpected(path, &images, &depths)),
        };
        Ok((images, depths, extent))
    }
}

impl Stack for Sample {
    fn path(&self) -> &Path {
        &self.0
    }

    fn picture(&self, _index: usize) -> Result<Picture, EvalError> {
        let (images, _, extent) = self.open()?;
        let planes = images.read_array::<u8>().map_err(damaged(&self.0))?;
        let planes: Vec<u8> = planes.iter().copied().collect();
        let Extent { width, height } = extent;
        let sample = |row: usize, column: usize, colour: usize| {
            planes[(colour * height + row) * width + column]
        };
        Ok(Picture::from_rgb(extent, pixels(extent, sample))?)
    }
}

impl DepthStack for Sample {
    fn depth(&self, _index: usize) -> Result<DepthMap, EvalError> {
        let (_, depths, extent) = self.open()?;
        let depths = depths.read_array::<f32>().map_err(damaged(&self.0))?;
        Ok(DepthMap::new(extent, depths.iter().copied().collect()))
    }
}

/// The samples `[row][column][colour]`.
fn pixels(extent: Extent, sample: impl Fn(usize, usize, usize) -> u8) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(extent.width * extent.height * 3);
    for row in 0..extent.height {
        for column in 0..extent.width {
            rgb.extend([0, 1, 2].map(|colour| sample(row, column, colour)));
        }
    }
    rgb
}

/// All values at one place of the first axis.
fn slice<T: hdf5_reader::H5Type>(
    path: &Path,
    data: &Dataset,
    index: usize,
) -> Result<Vec<T>, EvalError> {
    let mut selection = SliceInfo::all(data.ndim());
    selection.selections[0] = SliceInfoElem::Index(index as u64);
    let array = data.read_slice::<T>(&selection).map_err(damaged(path))?;
    Ok(array.iter().cloned().collect())
}

fn damaged(path: &Path) -> impl Fn(hdf5_reader::error::Error) -> EvalError + '_ {
    |error| {
        EvalError::malformed(
            path,
            error.to_string(),
            "an HDF5 file with pictures and depths",
        )
    }
}

fn unexpected(path: &Path, images: &Dataset, depths: &Dataset) -> EvalError {
    EvalError::malformed(
        path,
        format!("pictures {:?}, depths {:?}", images.shape(), depths.shape()),
        "[n, 3, columns, rows] and [n, columns, rows] (the labelled set), or [3, rows, columns] \
         and [rows, columns] (FastDepth)",
    )
}
