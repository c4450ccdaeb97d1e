//! SPair-71k (Min et al., arXiv 1908.10543), and sets in its layout: `JPEGImages/CAT/*.jpg` and one
//! JSON file a pair in `PairAnnotation/{trn,val,test}`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;

use super::{entries, named_by, read_json};
use crate::eval::correspondence::{Keypoint, Pair, PairSet, Picture, Side};
use crate::eval::protocols::mirror_of;
use crate::eval::{EvalError, Image, Settings};

/// What a pair's file says.
#[derive(Deserialize)]
struct Annotation {
    src_imname: String,
    trg_imname: String,
    category: String,
    trg_bndbox: [f64; 4],
    src_kps: Vec<[f64; 2]>,
    trg_kps: Vec<[f64; 2]>,
    #[serde(default)]
    kps_ids: Vec<serde_json::Value>,
}

/// Official numbers of pairs, to tell the official set from others in its layout.
const OFFICIAL: [(&str, usize); 3] = [("trn", 53_340), ("val", 5_384), ("test", 12_234)];

/// Loads the pairs of a split (`trn`, `val` or `test`) below `folder`, which is or holds
/// `SPair-71k`.
///
/// # Errors
/// If a file is missing or has another form.
pub fn load(folder: &Path, split: &str) -> Result<PairSet, EvalError> {
    let root = root(folder);
    let pairs_folder = root.join("PairAnnotation").join(split);
    let files = entries(&pairs_folder, "SPair-71k's pairs, one JSON file each")?;
    let files: Vec<PathBuf> = files
        .into_iter()
        .filter(|file| file.extension().is_some_and(|ending| ending == "json"))
        .collect();
    if files.is_empty() {
        return Err(EvalError::missing(
            &pairs_folder.join("*.json"),
            "expected SPair-71k's pairs",
        ));
    }
    let mut loader = Loader {
        root,
        pictures: Vec::new(),
        places: HashMap::new(),
    };
    let mut pairs = files
        .iter()
        .map(|file| loader.pair(file))
        .collect::<Result<Vec<_>, _>>()?;
    pairs.sort_by(|a, b| a.category.cmp(&b.category));
    let official = OFFICIAL.contains(&(split, pairs.len()));
    let mut settings = Settings::new();
    settings.insert("data".to_owned(), json!("SPair-71k layout"));
    settings.insert("split".to_owned(), json!(split));
    settings.insert("official_number_of_pairs".to_owned(), json!(official));
    Ok(PairSet {
        name: "spair".to_owned(),
        settings,
        mirrors: mirrors(&pairs),
        images: loader.pictures,
        pairs,
        independent: "pictures, both of a pair drawn".to_owned(),
        descriptive: None,
        alphas: vec![0.1, 0.05, 0.01],
        sides: vec![Side::Box, Side::Picture],
    })
}

fn root(folder: &Path) -> PathBuf {
    let inside = folder.join("SPair-71k");
    if inside.is_dir() {
        inside
    } else {
        folder.to_owned()
    }
}

struct Loader {
    root: PathBuf,
    pictures: Vec<Picture>,
    places: HashMap<String, usize>,
}

impl Loader {
    fn pair(&mut self, file: &Path) -> Result<Pair, EvalError> {
        let found: Annotation = read_json(file, "a pair of SPair-71k")?;
        let count = found.src_kps.len();
        let numbered = found.kps_ids.is_empty() || found.kps_ids.len() == count;
        if found.trg_kps.len() != count || !numbered {
            let lengths = [count, found.trg_kps.len(), found.kps_ids.len()];
            let found = format!("{lengths:?} src_kps, trg_kps and kps_ids");
            return Err(EvalError::malformed(file, found, "as many of each"));
        }
        let slot = |index: usize| match found.kps_ids.get(index) {
            Some(serde_json::Value::String(id)) => id.parse().ok(),
            Some(id) => id.as_u64().map(|id| id as usize),
            None => Some(index),
        };
        let points = (0..count).map(|index| {
            Some(Keypoint {
                slot: slot(index)?,
                source: found.src_kps[index],
                target: found.trg_kps[index],
            })
        });
        let points = points.collect::<Option<Vec<_>>>();
        let points = points
            .ok_or_else(|| EvalError::malformed(file, "other kps_ids", "numbers of keypoints"))?;
        let [left, top, right, bottom] = found.trg_bndbox;
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Pair {
            id: stem.into_owned(),
            source: self.place(&found.src_imname, &found.category, file)?,
            target: self.place(&found.trg_imname, &found.category, file)?,
            category: found.category,
            points,
            box_side: (right - left).max(bottom - top),
        })
    }

    fn place(&mut self, name: &str, category: &str, list: &Path) -> Result<usize, EvalError> {
        let id = format!("{category}/{name}");
        if let Some(&place) = self.places.get(&id) {
            return Ok(place);
        }
        let path = named_by(list, self.root.join("JPEGImages").join(&id))?;
        let mask = self
            .root
            .join("Segmentation")
            .join(&id)
            .with_extension("png");
        self.pictures.push(Picture {
            image: Image::file(&id, path),
            category: category.to_owned(),
            unit: id.clone(),
            mask: mask.is_file().then(|| mask.into()),
        });
        self.places.insert(id, self.pictures.len() - 1);
        Ok(self.pictures.len() - 1)
    }
}

/// Mirror pairs by category, from the slots that any of its pairs uses.
fn mirrors(pairs: &[Pair]) -> HashMap<String, Vec<(usize, usize)>> {
    let mut used: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for pair in pairs {
        let slots = used.entry(&pair.category).or_default();
        slots.extend(pair.points.iter().map(|point| point.slot));
    }
    let of = |(category, mut slots): (&str, Vec<usize>)| {
        slots.sort();
        slots.dedup();
        (category.to_owned(), mirror_of(category, &slots))
    };
    used.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(pair: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("SPair-71k");
        std::fs::create_dir_all(root.join("JPEGImages/cat")).unwrap();
        std::fs::create_dir_all(root.join("PairAnnotation/val")).unwrap();
        for name in ["a", "b"] {
            std::fs::write(root.join(format!("JPEGImages/cat/{name}.jpg")), "").unwrap();
        }
        std::fs::write(root.join("PairAnnotation/val/1-a-b:cat.json"), pair).unwrap();
        folder
    }

    /// The fields that the official files have.
    const PAIR: &str = r#"{"pair_id": 1, "filename": "1-a-b:cat", "src_imname": "a.jpg",
        "trg_imname": "b.jpg", "src_imsize": [300, 200, 3], "trg_imsize": [500, 375, 3],
        "src_bndbox": [5, 6, 70, 80], "trg_bndbox": [10, 20, 210, 120], "category": "cat",
        "src_pose": "Unspecified", "trg_pose": "Frontal", "src_kps": [[50, 60], [7, 8]],
        "trg_kps": [[100, 110], [9, 10]], "kps_ids": ["0", "14"], "mirror": 0,
        "viewpoint_variation": 1, "scale_variation": 0, "truncation": 0, "occlusion": 0}"#;

    #[test]
    fn official_pairs_are_read() {
        let folder = archive(PAIR);
        let set = load(folder.path(), "val").unwrap();
        let pair = &set.pairs[0];
        assert_eq!((pair.id.as_str(), pair.box_side), ("1-a-b:cat", 200.0));
        let slots: Vec<usize> = pair.points.iter().map(|point| point.slot).collect();
        assert_eq!(slots, [0, 14]);
        assert_eq!(pair.points[0].target, [100.0, 110.0]);
        assert_eq!(set.mirrors["cat"], [(0, 14)]);
        assert_eq!(set.images[pair.target].image.id, "cat/b.jpg");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let folder = archive(&PAIR.replace("b.jpg", "c.jpg"));
        let error = load(folder.path(), "val").unwrap_err().to_string();
        assert!(
            error.contains("c.jpg") && error.contains("1-a-b:cat.json"),
            "{error}"
        );
        let folder = archive(&PAIR.replace(", [9, 10]", ""));
        let error = load(folder.path(), "val").unwrap_err().to_string();
        assert!(error.contains("[2, 1, 2]"), "{error}");
        let error = load(folder.path(), "test").unwrap_err().to_string();
        assert!(error.contains("PairAnnotation/test"), "{error}");
    }
}
