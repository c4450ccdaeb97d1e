//! Names of classes, and which of them a picture is of.

use std::collections::HashMap;
use std::path::Path;

use super::{DataError, Dataset};
use crate::archive::wordnet_id;

/// The classes of a data set. A class has an id, which the names of its pictures hold, and a name
/// for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    ids: Vec<String>,
    names: Vec<String>,
}

/// What a list of classes holds.
const LIST: &str = "lines of index, id and name, separated by tabs";

impl Classes {
    /// Reads a list such as `classes.tsv`: lines of index, id and name, separated by tabs, under a
    /// heading or without one. Where two classes have one name, the ids are added to it.
    ///
    /// # Errors
    /// If it cannot be read, has another form, or lists an id twice.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let malformed = |found: String, expected| DataError::Malformed {
            path: path.to_owned(),
            found,
            expected,
        };
        let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => DataError::Missing {
                path: path.to_owned(),
                expected: LIST,
            },
            _ => DataError::read(path, source),
        })?;
        // Before the classes there may be a heading, which has no number.
        let is_heading = |line: &str| {
            let index = line.split('\t').next().unwrap_or_default();
            index.parse::<usize>().is_err()
        };
        let heading = usize::from(text.lines().next().is_some_and(is_heading));
        let mut classes = Vec::new();
        for line in text.lines().skip(heading).filter(|line| !line.is_empty()) {
            let mut columns = line.split('\t').skip(1).map(str::to_owned);
            let (Some(id), Some(name)) = (columns.next(), columns.next()) else {
                return Err(malformed(format!("the line {line:?}"), LIST));
            };
            if classes.iter().any(|(known, _)| *known == id) {
                return Err(malformed(format!("the id `{id}` twice"), "each id once"));
            }
            classes.push((id, name));
        }
        if classes.is_empty() {
            return Err(malformed("no class".to_owned(), LIST));
        }
        Ok(Self::new(classes))
    }

    /// The WordNet ids in the pictures' names, sorted; they are the names, too.
    ///
    /// # Errors
    /// If a name holds none.
    pub fn of_names(dataset: &Dataset) -> Result<Self, DataError> {
        let mut ids = Vec::new();
        for index in 0..dataset.len() {
            let name = dataset.name(index);
            let id = wordnet_id(name).ok_or_else(|| DataError::NoClass {
                name: name.to_owned(),
                known: 0,
            })?;
            ids.push(id.to_owned());
        }
        ids.sort();
        ids.dedup();
        Ok(Self {
            names: ids.clone(),
            ids,
        })
    }

    fn new(classes: Vec<(String, String)>) -> Self {
        let mut count: HashMap<String, usize> = HashMap::new();
        for (_, name) in &classes {
            *count.entry(name.clone()).or_default() += 1;
        }
        let named = |(id, name): (String, String)| match count[&name] {
            1 => (id, name),
            _ => (id.clone(), format!("{name} ({id})")),
        };
        let (ids, names) = classes.into_iter().map(named).unzip();
        Self { ids, names }
    }

    /// Their names, in the order of a class table's rows.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The row of a class with this name or id.
    pub fn row(&self, name: &str) -> Option<usize> {
        let row = |all: &[String]| all.iter().position(|known| known == name);
        row(&self.names).or_else(|| row(&self.ids))
    }

    /// The name of the class that a picture's name tells by an id in it: the WordNet id, else the
    /// first part of the name that is one (`id/picture`, `id_picture`).
    ///
    /// # Errors
    /// If it tells none.
    pub fn of(&self, picture: &str) -> Result<&str, DataError> {
        let parts = picture.split(['/', '_']);
        let mut ids = wordnet_id(picture).into_iter().chain(parts);
        let row = ids.find_map(|id| self.ids.iter().position(|known| known == id));
        match row {
            Some(row) => Ok(&self.names[row]),
            None => Err(DataError::NoClass {
                name: picture.to_owned(),
                known: self.ids.len(),
            }),
        }
    }
}
