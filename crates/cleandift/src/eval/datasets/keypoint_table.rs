//! Keypoints as a table: a CSV file with one picture a line, the pictures in a tar archive beside
//! it. The first columns are `file,split,…,width,height`, then x and y of each keypoint.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::draw::{Draw, choose};
use super::{box_side, entries, read_text};
use crate::archive::{Bytes, Place, tar};
use crate::eval::correspondence::{Keypoint, Pair, PairSet, Picture, Side};
use crate::eval::protocols::mirror_pairs_by_name;
use crate::eval::{EvalError, Image, Settings};

/// A line of the table.
struct Row {
    file: String,
    split: String,
    /// Of a person: pairs join different ones, and they are what is independent.
    person: Option<String>,
    points: Vec<[f64; 2]>,
}

/// Loads pairs of a split from the only CSV file in `folder`, drawn by seed among all ordered pairs
/// (of different persons, where the table names persons).
///
/// # Errors
/// If the table or the archive is missing, or has another form.
pub fn load(folder: &Path, split: &str, draw: Draw) -> Result<PairSet, EvalError> {
    let found = entries(folder, "a table of keypoints and a tar archive of pictures")?;
    let with = |ending: &str| {
        let path = found
            .iter()
            .find(|path| path.extension().is_some_and(|e| e == ending));
        path.cloned().ok_or_else(|| {
            EvalError::missing(
                &folder.join(format!("*.{ending}")),
                "expected keypoints and pictures",
            )
        })
    };
    let (table, archive) = (with("csv")?, with("tar")?);
    let (rows, names) = parse(&table)?;
    let members = tar::members(&archive)?;
    let shared: Arc<dyn Bytes> = Arc::new(archive.clone());
    let places: HashMap<&str, Place> = members
        .iter()
        .map(|member| {
            let file = Path::new(&member.name).file_name().unwrap_or_default();
            let place = Place::Member {
                archive: shared.clone(),
                member: member.clone(),
            };
            (file.to_str().unwrap_or_default(), place)
        })
        .collect();
    let splits: std::collections::BTreeSet<&str> = rows.iter().map(|r| r.split.as_str()).collect();
    if !splits.contains(split) {
        let found = format!("the splits {splits:?}");
        return Err(EvalError::malformed(
            &table,
            found,
            format!("a split `{split}`"),
        ));
    }
    let rows: Vec<&Row> = rows.iter().filter(|row| row.split == split).collect();
    let pictures = rows.iter().map(|row| {
        let place = places.get(row.file.as_str()).cloned();
        let place = place.ok_or_else(|| {
            EvalError::malformed(&archive, "other pictures", format!("`{}`", row.file))
        })?;
        Ok(Picture {
            image: Image::at(&row.file, place),
            category: String::new(),
            unit: row.person.clone().unwrap_or_else(|| row.file.clone()),
            mask: None,
        })
    });
    let images = pictures.collect::<Result<Vec<_>, EvalError>>()?;
    let same = |a: &Row, b: &Row| a.person.is_some() && a.person == b.person;
    let all = (0..rows.len()).flat_map(|a| (0..rows.len()).map(move |b| (a, b)));
    let all = all
        .filter(|&(a, b)| a != b && !same(rows[a], rows[b]))
        .collect();
    let pairs = choose(all, draw)
        .into_iter()
        .map(|(a, b)| pair(&rows, a, b));
    let persons = rows.iter().any(|row| row.person.is_some());
    let mirrors = mirror_pairs_by_name(&names.iter().map(|name| spelled(name)).collect::<Vec<_>>());
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let settings = [
        ("data", json!(name)),
        ("split", json!(split)),
        ("seed_of_pairs", json!(draw.seed)),
    ];
    Ok(PairSet {
        name: "keypoints".to_owned(),
        settings: settings
            .map(|(key, value)| (key.to_owned(), value))
            .into_iter()
            .collect::<Settings>(),
        images,
        pairs: pairs.collect(),
        mirrors: HashMap::from([(String::new(), mirrors)]),
        independent: match persons {
            true => "persons, both of a pair drawn",
            false => "pictures, both of a pair drawn",
        }
        .to_owned(),
        descriptive: None,
        alphas: vec![0.1, 0.05],
        sides: vec![Side::Box, Side::Picture],
    })
}

/// `l_ankle` as `left_ankle`.
fn spelled(name: &str) -> String {
    match name.split_once('_') {
        Some(("l", rest)) => format!("left_{rest}"),
        Some(("r", rest)) => format!("right_{rest}"),
        _ => name.to_owned(),
    }
}

fn pair(rows: &[&Row], source: usize, target: usize) -> Pair {
    let (from, to) = (rows[source], rows[target]);
    let points = from.points.iter().zip(&to.points).enumerate();
    Pair {
        id: format!("{}-{}", from.file, to.file),
        category: String::new(),
        source,
        target,
        points: points
            .map(|(slot, (&source, &target))| Keypoint {
                slot,
                source,
                target,
            })
            .collect(),
        box_side: box_side(&to.points),
    }
}

/// All lines, and the names of the keypoints.
fn parse(path: &Path) -> Result<(Vec<Row>, Vec<String>), EvalError> {
    let expected = "columns file, split, [person,] width, height, then x and y of each keypoint";
    let text = read_text(path, expected)?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines
        .next()
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .collect();
    let column = |name: &str| header.iter().position(|known| *known == name);
    let columns = (column("file"), column("split"), column("height"));
    let (Some(file), Some(split), Some(before)) = columns else {
        return Err(EvalError::malformed(
            path,
            format!("the header {header:?}"),
            expected,
        ));
    };
    let first = before + 1;
    let named = header[first..].iter().step_by(2);
    let names = named
        .map(|name| name.trim_end_matches("_x").to_owned())
        .collect();
    let row = |line: &str| {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        if fields.len() != header.len() || !(fields.len() - first).is_multiple_of(2) {
            return None;
        }
        let numbers = fields[first..]
            .iter()
            .map(|field| field.parse::<f64>().ok());
        let numbers = numbers.collect::<Option<Vec<f64>>>()?;
        Some(Row {
            file: fields[file].to_owned(),
            split: fields[split].to_owned(),
            person: column("person").map(|person| fields[person].to_owned()),
            points: numbers.as_chunks().0.to_vec(),
        })
    };
    let rows = lines
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| {
            let found = format!("line {}: {line:.60}", index + 2);
            row(line).ok_or_else(|| EvalError::malformed(path, found, expected))
        });
    Ok((rows.collect::<Result<_, _>>()?, names))
}
