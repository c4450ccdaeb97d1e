//! PF-WILLOW (Ham, Cho, Schmid, Ponce, "Proposal Flow", CVPR 2016): a list of pairs with ten
//! points each, and a MATLAB file with the points beside each picture.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{matlab, named_by, read_text};
use crate::eval::correspondence::{Keypoint, Pair, PairSet, Picture, Side};
use crate::eval::{EvalError, Image, Settings};

/// The list of pairs.
const LIST: &str = "test_pairs_pf.csv";

/// Points of each picture.
const POINTS: usize = 10;

/// Loads the test pairs below `folder`, which is or holds `PF-dataset`.
///
/// # Errors
/// If the list or a picture is missing, a line has another form, or a picture's MATLAB file says
/// other points than the list.
pub fn load(folder: &Path) -> Result<PairSet, EvalError> {
    let list = find_list(folder)?;
    let text = read_text(&list, "the list of test pairs")?;
    let root = list
        .parent()
        .and_then(Path::parent)
        .unwrap_or(folder)
        .to_owned();
    let mut images = Images {
        root,
        list: list.clone(),
        pictures: Vec::new(),
        places: HashMap::new(),
    };
    let mut pairs = Vec::new();
    for (index, line) in text
        .lines()
        .enumerate()
        .skip(1)
        .filter(|(_, line)| !line.is_empty())
    {
        let parsed = parse(line).ok_or_else(|| {
            let found = format!("line {}: {line:.60}…", index + 1);
            EvalError::malformed(&list, found, "imageA, imageB and XA1..10, YA.., XB.., YB..")
        })?;
        let [source, target] = [
            images.place(&parsed.names[0], &parsed.points[0])?,
            images.place(&parsed.names[1], &parsed.points[1])?,
        ];
        pairs.push(pair(&images, &parsed, source, target));
    }
    // Pairs of a class follow each other, so that features are needed for a while only.
    pairs.sort_by(|a: &Pair, b| a.category.cmp(&b.category));
    let mut settings = Settings::new();
    settings.insert("data".to_owned(), json!("PF-WILLOW"));
    settings.insert("split".to_owned(), json!("test"));
    Ok(PairSet {
        name: "pf-willow".to_owned(),
        settings,
        images: images.pictures,
        pairs,
        mirrors: HashMap::new(),
        independent: "pictures, both of a pair drawn".to_owned(),
        descriptive: None,
        alphas: vec![0.1, 0.05, 0.15],
        sides: vec![Side::Box, Side::Picture],
    })
}

fn find_list(folder: &Path) -> Result<PathBuf, EvalError> {
    let places = [folder.join(LIST), folder.join("PF-dataset").join(LIST)];
    (places.iter().find(|path| path.exists()).cloned())
        .ok_or_else(|| EvalError::missing(&places[1], "expected PF-WILLOW's list of test pairs"))
}

struct Line {
    names: [String; 2],
    points: [Vec<[f64; 2]>; 2],
}

fn parse(line: &str) -> Option<Line> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let numbers = fields.get(2..)?.iter().map(|field| field.parse::<f64>());
    let numbers = numbers.collect::<Result<Vec<f64>, _>>().ok()?;
    if numbers.len() != 4 * POINTS || numbers.iter().any(|number| !number.is_finite()) {
        return None;
    }
    let points = |first: usize| {
        let (x, y) = (&numbers[first..first + POINTS], &numbers[first + POINTS..]);
        x.iter().zip(y).map(|(&x, &y)| [x, y]).collect()
    };
    Some(Line {
        names: [fields[0].to_owned(), fields[1].to_owned()],
        points: [points(0), points(2 * POINTS)],
    })
}

/// The pictures met so far.
struct Images {
    root: PathBuf,
    list: PathBuf,
    pictures: Vec<Picture>,
    places: HashMap<String, usize>,
}

impl Images {
    fn place(&mut self, name: &str, points: &[[f64; 2]]) -> Result<usize, EvalError> {
        if let Some(&place) = self.places.get(name) {
            return Ok(place);
        }
        let path = named_by(&self.list, self.root.join(name))?;
        check_points(&path.with_extension("mat"), points)?;
        let parent = Path::new(name).parent().and_then(Path::file_name);
        let category = parent.unwrap_or_default().to_string_lossy().into_owned();
        // Some pictures lie in two classes (with many views, M, or with few, S): one unit.
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        self.pictures.push(Picture {
            image: Image::file(name, &path),
            unit: file.into_owned(),
            mask: None,
            category: category.split('(').next().unwrap_or_default().to_owned(),
        });
        self.places.insert(name.to_owned(), self.pictures.len() - 1);
        Ok(self.pictures.len() - 1)
    }
}

/// Compares the list's points with the picture's own file, if it has one.
fn check_points(path: &Path, points: &[[f64; 2]]) -> Result<(), EvalError> {
    if !path.exists() {
        return Ok(());
    }
    let expected = "`pts_coord`, 2 x 10, as the list of pairs has them";
    let array = matlab::read(path)?.remove("pts_coord");
    let array = array.ok_or_else(|| EvalError::malformed(path, "no `pts_coord`", expected))?;
    let same = array.shape == [2, POINTS]
        && (array.values.chunks_exact(2).zip(points))
            .all(|(own, point)| (0..2).all(|axis| (own[axis] - point[axis]).abs() < 1e-3));
    match same {
        true => Ok(()),
        false => Err(EvalError::malformed(path, "other points", expected)),
    }
}

fn pair(images: &Images, line: &Line, source: usize, target: usize) -> Pair {
    let points = line.points[0].iter().zip(&line.points[1]).enumerate();
    let class = Path::new(&line.names[0]).parent().and_then(Path::file_name);
    Pair {
        id: format!(
            "{}-{}",
            images.pictures[source].image.id, images.pictures[target].image.id
        ),
        category: class.unwrap_or_default().to_string_lossy().into_owned(),
        source,
        target,
        points: points
            .map(|(slot, (&source, &target))| Keypoint {
                slot,
                source,
                target,
            })
            .collect(),
        box_side: super::box_side(&line.points[1]),
    }
}
