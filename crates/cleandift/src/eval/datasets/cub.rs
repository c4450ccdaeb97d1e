//! CUB-200-2011 (Wah et al., 2011): birds with 15 parts, in text files with one thing a line.

use std::collections::HashMap;
use std::path::Path;

use serde_json::json;

use super::draw::{Draw, choose};
use super::read_text;
use crate::eval::correspondence::{Keypoint, Pair, PairSet, Picture, Side};
use crate::eval::protocols::mirror_pairs_by_name;
use crate::eval::{EvalError, Image, Settings};

/// A bird.
#[derive(Default)]
struct Bird {
    path: String,
    class: String,
    training: bool,
    side: f64,
    parts: Vec<Option<[f64; 2]>>,
}

/// Fewest parts that the two pictures of a pair have in common.
const FEWEST_POINTS: usize = 3;

/// Loads pairs of one class from the test half below `folder` (`CUB_200_2011`), drawn by seed.
///
/// # Errors
/// If a file is missing or has another form.
pub fn load(folder: &Path, draw: Draw) -> Result<PairSet, EvalError> {
    let names = part_names(&folder.join("parts/parts.txt"))?;
    let birds = birds(folder, names.len())?;
    let mut birds: Vec<&Bird> = birds.values().filter(|bird| !bird.training).collect();
    birds.sort_by(|a, b| a.path.cmp(&b.path));
    let all = (0..birds.len()).flat_map(|a| (0..birds.len()).map(move |b| (a, b)));
    let suits = |&(a, b): &(usize, usize)| {
        a != b
            && birds[a].class == birds[b].class
            && common(birds[a], birds[b]).len() >= FEWEST_POINTS
    };
    let chosen = choose(all.filter(suits).collect(), draw);
    let mut places: HashMap<usize, usize> = HashMap::new();
    let mut images = Vec::new();
    let mut pairs = Vec::new();
    for (a, b) in chosen {
        let mut place = |index: usize| {
            *places.entry(index).or_insert_with(|| {
                let bird = birds[index];
                images.push(Picture {
                    image: Image::file(&bird.path, folder.join("images").join(&bird.path)),
                    category: "bird".to_owned(),
                    unit: bird.path.clone(),
                    mask: None,
                });
                images.len() - 1
            })
        };
        pairs.push(Pair {
            id: format!("{}-{}", birds[a].path, birds[b].path),
            category: birds[a].class.clone(),
            source: place(a),
            target: place(b),
            points: common(birds[a], birds[b]),
            box_side: birds[b].side,
        });
    }
    let mirrors = mirror_pairs_by_name(&names);
    let settings = [
        ("data", json!("CUB-200-2011")),
        ("split", json!("test")),
        ("seed_of_pairs", json!(draw.seed)),
    ];
    Ok(PairSet {
        name: "cub".to_owned(),
        settings: settings
            .map(|(key, value)| (key.to_owned(), value))
            .into_iter()
            .collect::<Settings>(),
        mirrors: pairs
            .iter()
            .map(|pair| (pair.category.clone(), mirrors.clone()))
            .collect(),
        images,
        pairs,
        independent: "pictures, both of a pair drawn".to_owned(),
        descriptive: None,
        alphas: vec![0.1, 0.05],
        sides: vec![Side::Box, Side::Picture],
    })
}

fn common(a: &Bird, b: &Bird) -> Vec<Keypoint> {
    let point = |slot: usize| {
        Some(Keypoint {
            slot,
            source: a.parts[slot]?,
            target: b.parts[slot]?,
        })
    };
    (0..a.parts.len()).filter_map(point).collect()
}

fn part_names(path: &Path) -> Result<Vec<String>, EvalError> {
    let text = read_text(path, "a number and a name of a part a line")?;
    let names = text.lines().filter_map(|line| line.split_once(' '));
    Ok(names
        .map(|(_, name)| name.trim().replace(' ', "_"))
        .collect())
}

/// All birds by their id.
fn birds(folder: &Path, parts: usize) -> Result<HashMap<u64, Bird>, EvalError> {
    let mut birds: HashMap<u64, Bird> = HashMap::new();
    each(folder, "images.txt", "id path", |id, fields| {
        let [path] = fields else { return None };
        let class = Path::new(path).parent()?.to_string_lossy().into_owned();
        birds.insert(
            id,
            Bird {
                path: (*path).to_owned(),
                class,
                parts: vec![None; parts],
                ..Bird::default()
            },
        );
        Some(())
    })?;
    each(
        folder,
        "train_test_split.txt",
        "id is_training",
        |id, fields| {
            birds.get_mut(&id)?.training = fields.first()? == &"1";
            Some(())
        },
    )?;
    each(
        folder,
        "bounding_boxes.txt",
        "id x y width height",
        |id, fields| {
            let [_, _, width, height] = fields else {
                return None;
            };
            birds.get_mut(&id)?.side = width.parse::<f64>().ok()?.max(height.parse().ok()?);
            Some(())
        },
    )?;
    each(
        folder,
        "parts/part_locs.txt",
        "id part x y visible",
        |id, fields| {
            let [part, x, y, visible] = fields else {
                return None;
            };
            let point = [x.parse().ok()?, y.parse().ok()?];
            let part = part.parse::<usize>().ok()?.checked_sub(1)?;
            *birds.get_mut(&id)?.parts.get_mut(part)? = (visible == &"1").then_some(point);
            Some(())
        },
    )?;
    Ok(birds)
}

/// Gives each line's id and other fields to `take`, which answers `None` for another form.
fn each(
    folder: &Path,
    file: &str,
    form: &str,
    mut take: impl FnMut(u64, &[&str]) -> Option<()>,
) -> Result<(), EvalError> {
    let path = folder.join(file);
    for (index, line) in read_text(&path, form)?.lines().enumerate() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let id = fields.first().and_then(|id| id.parse().ok());
        id.and_then(|id| take(id, &fields[1..])).ok_or_else(|| {
            EvalError::malformed(&path, format!("line {}: {line}", index + 1), form)
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("parts")).unwrap();
        let write =
            |file: &str, text: &str| std::fs::write(folder.path().join(file), text).unwrap();
        write(
            "images.txt",
            "1 001.A/a.jpg\n2 001.A/b.jpg\n3 001.A/c.jpg\n4 002.B/d.jpg\n",
        );
        write("train_test_split.txt", "1 0\n2 0\n3 1\n4 0\n");
        write(
            "bounding_boxes.txt",
            "1 0 0 30 40\n2 1 1 60.5 20\n3 0 0 9 9\n4 0 0 9 9\n",
        );
        write(
            "parts/parts.txt",
            "1 beak\n2 left eye\n3 right eye\n4 tail\n",
        );
        let mut parts = String::new();
        for bird in 1..=4 {
            for part in 1..=4 {
                let visible = u8::from((bird, part) != (1, 3));
                parts += &format!("{bird} {part} {}.5 {} {visible}\n", 10 * bird + part, part);
            }
        }
        write("parts/part_locs.txt", &parts);
        folder
    }

    #[test]
    fn pairs_of_a_class_in_the_test_half() {
        let folder = archive();
        let draw = Draw { count: 9, seed: 0 };
        let set = load(folder.path(), draw).unwrap();
        let ids: Vec<&str> = set.pairs.iter().map(|pair| pair.id.as_str()).collect();
        assert_eq!(ids, ["001.A/a.jpg-001.A/b.jpg", "001.A/b.jpg-001.A/a.jpg"]);
        let pair = &set.pairs[0];
        assert_eq!(pair.box_side, 60.5);
        let slots: Vec<usize> = pair.points.iter().map(|point| point.slot).collect();
        assert_eq!(slots, [0, 1, 3]);
        assert_eq!(pair.points[0].target, [21.5, 1.0]);
        assert_eq!(set.mirrors["001.A"], [(1, 2)]);
    }

    #[test]
    fn a_line_of_another_form_is_named() {
        let folder = archive();
        std::fs::write(
            folder.path().join("bounding_boxes.txt"),
            "1 0 0 30 40\n2 x\n",
        )
        .unwrap();
        let draw = Draw { count: 9, seed: 0 };
        let error = load(folder.path(), draw).err().unwrap().to_string();
        assert!(
            error.contains("bounding_boxes.txt") && error.contains("line 2"),
            "{error}"
        );
    }
}
