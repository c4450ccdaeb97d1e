//! PF-PASCAL (Ham et al., PAMI 2018): pictures, keypoints in MATLAB files, and a list of pairs in
//! one of two forms: with the points (NCNet's), or with pictures only (HPF's).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{box_side, matlab, read_text, voc};
use crate::eval::correspondence::{Keypoint, Pair, PairSet, Picture, Side};
use crate::eval::{EvalError, Image, Settings};

/// Loads the pairs of a list, e.g. `test_pairs.csv`; pictures lie below `folder`.
///
/// # Errors
/// If a file is missing, or has another form.
pub fn load(folder: &Path, list: &Path) -> Result<PairSet, EvalError> {
    let text = read_text(list, "a list of pairs")?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .collect();
    let with_points = header.contains(&"XA");
    let expected = "source_image,target_image,class[,XA,YA,XB,YB][,flip]";
    if header.len() < 3 || header[0] != "source_image" {
        return Err(EvalError::malformed(
            list,
            format!("the header {header:?}"),
            expected,
        ));
    }
    let mut loader = Loader {
        root: root(folder)?,
        pictures: Vec::new(),
        places: HashMap::new(),
    };
    let mut pairs = Vec::new();
    for (index, line) in lines
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let class = fields.get(2).and_then(|class| class_of(class));
        let pair = match (&fields[..], class) {
            ([source, target, _, rest @ ..], Some(class)) => {
                let flipped = !with_points && rest.first() == Some(&"1");
                loader.pair(
                    [source, target],
                    class,
                    with_points.then_some(rest),
                    flipped,
                )?
            }
            _ => None,
        };
        let found = || EvalError::malformed(list, format!("line {}: {line}", index + 2), expected);
        pairs.push(pair.ok_or_else(found)?);
    }
    pairs.sort_by(|a: &Pair, b| a.category.cmp(&b.category));
    let name = list.file_name().unwrap_or_default().to_string_lossy();
    let mut settings = Settings::new();
    settings.insert("data".to_owned(), json!("PF-PASCAL"));
    settings.insert("list".to_owned(), json!(name));
    Ok(PairSet {
        name: "pf-pascal".to_owned(),
        settings,
        images: loader.pictures,
        pairs,
        mirrors: HashMap::new(),
        independent: "pictures, both of a pair drawn".to_owned(),
        descriptive: None,
        alphas: vec![0.1, 0.05, 0.15],
        sides: vec![Side::Picture, Side::Box],
    })
}

/// The folder that holds `JPEGImages`.
fn root(folder: &Path) -> Result<PathBuf, EvalError> {
    let places = [folder.to_owned(), folder.join("PF-dataset-PASCAL")];
    (places
        .iter()
        .find(|place| place.join("JPEGImages").is_dir())
        .cloned())
    .ok_or_else(|| EvalError::missing(&folder.join("JPEGImages"), "expected PF-PASCAL's pictures"))
}

/// A class by its number from 1, or by its name.
fn class_of(text: &str) -> Option<&'static str> {
    let by_number = text.parse::<f64>().ok().map(|number| number as usize);
    match by_number {
        Some(0) => None,
        Some(number) => voc::CLASSES.get(number).copied(),
        None => voc::CLASSES[1..]
            .iter()
            .find(|class| **class == text)
            .copied(),
    }
}

struct Loader {
    root: PathBuf,
    pictures: Vec<Picture>,
    places: HashMap<(String, String), usize>,
}

impl Loader {
    /// A pair; `None` if its points have another form.
    fn pair(
        &mut self,
        names: [&str; 2],
        class: &'static str,
        points: Option<&[&str]>,
        flipped: bool,
    ) -> Result<Option<Pair>, EvalError> {
        let (source, target) = (self.place(names[0], class)?, self.place(names[1], class)?);
        let both = match points {
            Some([xa, ya, xb, yb, ..]) => (list_of(xa, ya), list_of(xb, yb)),
            Some(_) => (None, None),
            None => (
                Some(self.annotation(source, class)?),
                Some(self.annotation(target, class)?),
            ),
        };
        let (Some(a), Some(b)) = both else {
            return Ok(None);
        };
        if a.len() != b.len() || flipped {
            // HPF's lists mark training pairs to be turned; test lists have none.
            return Ok(None);
        }
        let shown = |point: &[f64; 2]| point.iter().all(|v| v.is_finite());
        let both = a.iter().zip(&b).enumerate();
        let points: Vec<Keypoint> = both
            .filter(|(_, (a, b))| shown(a) && shown(b))
            .map(|(slot, (&source, &target))| Keypoint {
                slot,
                source,
                target,
            })
            .collect();
        let in_target: Vec<[f64; 2]> = points.iter().map(|point| point.target).collect();
        Ok(Some(Pair {
            id: format!(
                "{}-{}:{class}",
                self.pictures[source].image.id, self.pictures[target].image.id
            ),
            category: class.to_owned(),
            source,
            target,
            box_side: box_side(&in_target),
            points,
        }))
    }

    fn place(&mut self, name: &str, class: &str) -> Result<usize, EvalError> {
        let file = Path::new(name).file_name().unwrap_or_default();
        let id = file.to_string_lossy().into_owned();
        // One picture may show two classes, and is told to models as each of them.
        let key = (id.clone(), class.to_owned());
        if let Some(&place) = self.places.get(&key) {
            return Ok(place);
        }
        let path = self.root.join("JPEGImages").join(file);
        if !path.exists() {
            return Err(EvalError::missing(&path, "the list of pairs names it"));
        }
        self.pictures.push(Picture {
            image: Image::file(&id, path),
            category: class.to_owned(),
            unit: id.clone(),
            mask: None,
        });
        self.places.insert(key, self.pictures.len() - 1);
        Ok(self.pictures.len() - 1)
    }

    /// A picture's own keypoints: `kps`, [n, 2], NaN where one is absent.
    fn annotation(&self, place: usize, class: &str) -> Result<Vec<[f64; 2]>, EvalError> {
        let id = Path::new(&self.pictures[place].image.id).with_extension("mat");
        let path = self.root.join("Annotations").join(class).join(id);
        let array = matlab::read(&path)?.remove("kps");
        let array = array.filter(|array| array.shape.len() == 2 && array.shape[1] == 2);
        let array =
            array.ok_or_else(|| EvalError::malformed(&path, "no such array", "`kps`, [n, 2]"))?;
        let (x, y) = array.values.split_at(array.shape[0]);
        Ok(x.iter().zip(y).map(|(&x, &y)| [x, y]).collect())
    }
}

/// Points from two lists with `;` between numbers.
fn list_of(x: &str, y: &str) -> Option<Vec<[f64; 2]>> {
    let numbers = |text: &str| {
        let parts = text
            .split(';')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        parts
            .map(|part| part.parse::<f64>().ok())
            .collect::<Option<Vec<_>>>()
    };
    let (x, y) = (numbers(x)?, numbers(y)?);
    (x.len() == y.len()).then(|| x.into_iter().zip(y).map(|(x, y)| [x, y]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::datasets::matlab::tests::file;

    fn archive() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for sub in ["JPEGImages", "Annotations/cat"] {
            std::fs::create_dir_all(root.join(sub)).unwrap();
        }
        for (name, points) in [
            ("a", [1.0, 2.0, f64::NAN, 10.0, 20.0, f64::NAN]),
            ("b", [3.0, 13.0, 5.0, 11.0, 16.0, 7.0]),
        ] {
            image::RgbImage::new(30, 20)
                .save(root.join(format!("JPEGImages/{name}.png")))
                .unwrap();
            let renamed = root.join(format!("JPEGImages/{name}.jpg"));
            std::fs::rename(root.join(format!("JPEGImages/{name}.png")), renamed).unwrap();
            let path = root.join(format!("Annotations/cat/{name}.mat"));
            std::fs::write(path, file("kps", [3, 2], &points, true)).unwrap();
        }
        folder
    }

    #[test]
    fn both_forms_of_lists_give_the_same_pairs() {
        let folder = archive();
        let list = folder.path().join("test_pairs.csv");
        let with_points = "source_image,target_image,class,XA,YA,XB,YB\n\
            PF-dataset-PASCAL/JPEGImages/a.jpg,PF-dataset-PASCAL/JPEGImages/b.jpg,8,\
            1;2,10;20,3;13,11;16\n";
        std::fs::write(&list, with_points).unwrap();
        let ncnet = load(folder.path(), &list).unwrap();
        let by_name = "source_image,target_image,class,flip\na.jpg,b.jpg,8,0\n";
        std::fs::write(&list, by_name).unwrap();
        let hpf = load(folder.path(), &list).unwrap();
        assert_eq!(ncnet.pairs, hpf.pairs);
        let pair = &hpf.pairs[0];
        assert_eq!((pair.category.as_str(), pair.points.len()), ("cat", 2));
        assert_eq!(pair.points[1].target, [13.0, 16.0]);
        assert_eq!(pair.box_side, 10.0);
    }

    /// Two pictures may show two classes: they are two pairs, and each is told to models as it is.
    #[test]
    fn a_pair_of_two_classes_is_two_pairs() {
        let folder = archive();
        let annotations = folder.path().join("Annotations");
        std::fs::create_dir(annotations.join("dog")).unwrap();
        for name in ["a.mat", "b.mat"] {
            std::fs::copy(
                annotations.join("cat").join(name),
                annotations.join("dog").join(name),
            )
            .unwrap();
        }
        let list = folder.path().join("test_pairs.csv");
        let lines = "source_image,target_image,class,flip\na.jpg,b.jpg,8,0\na.jpg,b.jpg,12,0\n";
        std::fs::write(&list, lines).unwrap();
        let set = load(folder.path(), &list).unwrap();
        let [cat, dog] = &set.pairs[..] else {
            panic!("{} pairs", set.pairs.len());
        };
        assert_ne!(cat.id, dog.id);
        for (pair, class) in [(cat, "cat"), (dog, "dog")] {
            assert_eq!(pair.category, class);
            assert_eq!(set.images[pair.source].category, class);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = archive();
        let list = folder.path().join("test_pairs.csv");
        let refused = |text: &str| {
            std::fs::write(&list, text).unwrap();
            load(folder.path(), &list).unwrap_err().to_string()
        };
        let header = "source_image,target_image,class,flip\n";
        assert!(refused(&format!("{header}a.jpg,c.jpg,8,0\n")).contains("c.jpg"));
        assert!(refused(&format!("{header}a.jpg,b.jpg,99,0\n")).contains("line 2"));
        assert!(refused("a,b\n").contains("header"));
    }
}
