//! Keypoints in COCO's form: one JSON file with `images`, `annotations` and `categories`; and
//! AP-10K (Yu et al., arXiv 2108.12617), which has it with 54 species of 23 families.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::draw::{Draw, choose};
use super::{named_by, read_json};
use crate::eval::correspondence::{Keypoint, Pair, PairSet, Picture, Side};
use crate::eval::protocols::mirror_pairs_by_name;
use crate::eval::{EvalError, Image, Settings};

#[derive(Deserialize)]
struct File {
    images: Vec<ImageEntry>,
    annotations: Vec<Annotation>,
    categories: Vec<Category>,
}

#[derive(Deserialize)]
struct ImageEntry {
    id: u64,
    file_name: String,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: u64,
    category_id: u64,
    bbox: [f64; 4],
    #[serde(default)]
    keypoints: Vec<f64>,
}

#[derive(Deserialize)]
struct Category {
    id: u64,
    name: String,
    #[serde(default)]
    supercategory: String,
    #[serde(default)]
    keypoints: Vec<String>,
}

/// Which pictures are paired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Across {
    /// Two of a species (of a category).
    Species,
    /// Two species of a family (two categories of a supercategory).
    Family,
    /// Two families (supercategories).
    Families,
}

impl Across {
    /// What reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Species => "intra-species",
            Self::Family => "cross-species",
            Self::Families => "cross-family",
        }
    }

    fn allows(self, a: &Category, b: &Category) -> bool {
        match self {
            Self::Species => a.id == b.id,
            Self::Family => a.id != b.id && a.supercategory == b.supercategory,
            Self::Families => a.supercategory != b.supercategory,
        }
    }

    /// What pairs are reported under.
    fn category(self, source: &Category) -> String {
        match self {
            Self::Species => source.name.clone(),
            _ => source.supercategory.clone(),
        }
    }
}

/// What a picture must have to be used, as the makers of AP-10K's correspondence pairs ask:
/// one animal only, and so many points in common.
const FEWEST_POINTS: usize = 3;

/// A picture with its only annotation.
struct Single<'f> {
    entry: &'f ImageEntry,
    annotation: &'f Annotation,
    category: &'f Category,
}

impl Single<'_> {
    fn point(&self, slot: usize) -> Option<[f64; 2]> {
        match self.annotation.keypoints.get(3 * slot..3 * slot + 3) {
            Some(&[x, y, visible]) if visible > 0.0 => Some([x, y]),
            _ => None,
        }
    }
}

/// Loads pairs from `annotations`; pictures lie in `pictures`. At most `draw.count` pairs are drawn
/// by seed. Pictures with several annotated things are left out.
///
/// # Errors
/// If a file is missing or has another form, or there are no pairs.
pub fn load(
    annotations: &Path,
    pictures: &Path,
    across: Across,
    draw: Draw,
) -> Result<PairSet, EvalError> {
    let file: File = read_json(
        annotations,
        "COCO keypoints: images, annotations, categories",
    )?;
    let singles = singles(&file, annotations)?;
    let mut used: BTreeMap<usize, usize> = BTreeMap::new();
    let mut images = Vec::new();
    let mut pairs = Vec::new();
    for (a, b) in choose(candidates(&singles, across), draw) {
        let mut place = |index: usize| -> Result<usize, EvalError> {
            if let Some(&place) = used.get(&index) {
                return Ok(place);
            }
            images.push(picture(&singles[index], pictures, annotations)?);
            used.insert(index, images.len() - 1);
            Ok(images.len() - 1)
        };
        let (source, target) = (place(a)?, place(b)?);
        let [_, _, width, height] = singles[b].annotation.bbox;
        pairs.push(Pair {
            id: format!(
                "{}-{}",
                singles[a].entry.file_name, singles[b].entry.file_name
            ),
            category: across.category(singles[a].category),
            source,
            target,
            points: common(&singles[a], &singles[b]),
            box_side: width.max(height),
        });
    }
    if pairs.is_empty() {
        let found = format!(
            "{} pictures with one annotation and no pairs",
            singles.len()
        );
        return Err(EvalError::malformed(annotations, found, across.name()));
    }
    pairs.sort_by(|a, b| a.category.cmp(&b.category));
    let name = annotations
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let settings = [
        ("data", json!(name)),
        ("pairing", json!(across.name())),
        ("seed_of_pairs", json!(draw.seed)),
    ];
    Ok(PairSet {
        name: "keypoints".to_owned(),
        settings: settings
            .map(|(key, value)| (key.to_owned(), value))
            .into_iter()
            .collect::<Settings>(),
        mirrors: mirrors(&file, &pairs),
        images,
        pairs,
        independent: "pictures, both of a pair drawn".to_owned(),
        descriptive: None,
        alphas: vec![0.1, 0.05, 0.01],
        sides: vec![Side::Box, Side::Picture],
    })
}

/// AP-10K's split below `folder`: `annotations/ap10k-{test,val,train}-split{1,2,3}.json`.
///
/// # Errors
/// As [`load`].
pub fn load_ap10k(
    folder: &Path,
    split: &str,
    across: Across,
    draw: Draw,
) -> Result<PairSet, EvalError> {
    let file = folder
        .join("annotations")
        .join(format!("ap10k-{split}.json"));
    let mut set = load(&file, &folder.join("data"), across, draw)?;
    set.name = "ap10k".to_owned();
    Ok(set)
}

fn singles<'f>(file: &'f File, path: &Path) -> Result<Vec<Single<'f>>, EvalError> {
    let categories: HashMap<u64, &Category> = file.categories.iter().map(|c| (c.id, c)).collect();
    let mut of_image: HashMap<u64, Vec<&Annotation>> = HashMap::new();
    for annotation in &file.annotations {
        of_image
            .entry(annotation.image_id)
            .or_default()
            .push(annotation);
    }
    let mut singles = Vec::new();
    for entry in &file.images {
        let Some([annotation]) = of_image.get(&entry.id).map(Vec::as_slice) else {
            continue;
        };
        let category = categories.get(&annotation.category_id).ok_or_else(|| {
            let found = format!("category_id {}", annotation.category_id);
            EvalError::malformed(path, found, "the id of one of the categories")
        })?;
        let count = annotation.keypoints.len();
        if !count.is_multiple_of(3) {
            let found = format!("{count} numbers in the keypoints of image {}", entry.id);
            return Err(EvalError::malformed(path, found, "x, y and v of each"));
        }
        singles.push(Single {
            entry,
            annotation,
            category,
        });
    }
    Ok(singles)
}

/// All ordered pairs that may be used.
fn candidates(singles: &[Single], across: Across) -> Vec<(usize, usize)> {
    let all = (0..singles.len()).flat_map(|a| (0..singles.len()).map(move |b| (a, b)));
    let suits = |&(a, b): &(usize, usize)| {
        let (a, b) = (&singles[a], &singles[b]);
        a.entry.id != b.entry.id
            && across.allows(a.category, b.category)
            && common(a, b).len() >= FEWEST_POINTS
    };
    all.filter(suits).collect()
}

fn common(a: &Single, b: &Single) -> Vec<Keypoint> {
    let slots = 0..a.annotation.keypoints.len() / 3;
    let point = |slot: usize| {
        Some(Keypoint {
            slot,
            source: a.point(slot)?,
            target: b.point(slot)?,
        })
    };
    slots.filter_map(point).collect()
}

fn picture(single: &Single, folder: &Path, list: &Path) -> Result<Picture, EvalError> {
    let name = &single.entry.file_name;
    Ok(Picture {
        image: Image::file(name, named_by(list, folder.join(name))?),
        category: single.category.name.clone(),
        unit: name.clone(),
        mask: None,
    })
}

fn mirrors(file: &File, pairs: &[Pair]) -> HashMap<String, Vec<(usize, usize)>> {
    // One list of keypoints serves all categories of such files.
    let names = file.categories.iter().map(|category| &category.keypoints);
    let names = names
        .max_by_key(|names| names.len())
        .cloned()
        .unwrap_or_default();
    let mirrored = mirror_pairs_by_name(&names);
    pairs
        .iter()
        .map(|pair| (pair.category.clone(), mirrored.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AP-10K's layout: two cats and a lion (Felidae), a dog (Canidae); one picture shows two.
    fn archive() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for sub in ["annotations", "data"] {
            std::fs::create_dir_all(folder.path().join(sub)).unwrap();
        }
        let names: Vec<String> = (1..=5).map(|id| format!("{id:012}.jpg")).collect();
        for name in &names {
            std::fs::write(folder.path().join("data").join(name), "").unwrap();
        }
        let keypoints = |shift: i32| json!([10 + shift, 5, 2, 20 + shift, 5, 2, 0, 0, 0, 15, 9, 1]);
        let annotation = |image: u64, category: u64, shift: i32| {
            json!({"image_id": image, "category_id": category, "bbox": [1, 2, 30, 40],
                   "keypoints": keypoints(shift), "num_keypoints": 3})
        };
        let points = ["left_eye", "right_eye", "nose", "neck"];
        let category = |id: u64, name: &str, family: &str| json!({"id": id, "name": name, "supercategory": family, "keypoints": points});
        let images = names.iter().zip(1..);
        let file = json!({
            "images": images.map(|(name, id)| json!({"id": id, "file_name": name})).collect::<Vec<_>>(),
            "annotations": [annotation(1, 1, 0), annotation(2, 1, 1), annotation(3, 2, 2),
                annotation(4, 3, 3), annotation(5, 1, 4), annotation(5, 1, 5)],
            "categories": [category(1, "cat", "Felidae"), category(2, "lion", "Felidae"),
                category(3, "dog", "Canidae")],
        });
        let path = folder.path().join("annotations/ap10k-test-split1.json");
        std::fs::write(path, file.to_string()).unwrap();
        folder
    }

    fn pairs(across: Across) -> PairSet {
        let folder = archive();
        let draw = Draw {
            count: 100,
            seed: 0,
        };
        load_ap10k(folder.path(), "test-split1", across, draw).unwrap()
    }

    #[test]
    fn pairs_within_and_across() {
        // Cats 1 and 2, both ways; a cat or two with the lion, both ways; a feline with the dog.
        assert_eq!(pairs(Across::Species).pairs.len(), 2);
        assert_eq!(pairs(Across::Family).pairs.len(), 4);
        assert_eq!(pairs(Across::Families).pairs.len(), 6);
        let set = pairs(Across::Species);
        let pair = &set.pairs[0];
        assert_eq!(pair.category, "cat");
        assert_eq!(pair.box_side, 40.0);
        let slots: Vec<usize> = pair.points.iter().map(|point| point.slot).collect();
        assert_eq!(slots, [0, 1, 3]);
        assert_eq!(set.mirrors["cat"], [(0, 1)]);
    }
}
