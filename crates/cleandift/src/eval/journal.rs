//! The items that an evaluation has done, kept as they come: what a killed run leaves is used by
//! the next one.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{EvalError, Item, Settings};
use crate::checkpoint::WriteError;

/// A file with one line of settings and one line per item, in JSON. A line that was cut off by a
/// kill is dropped.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Option<File>,
    items: Vec<Item>,
    known: std::collections::HashMap<String, usize>,
}

impl Journal {
    /// A journal in memory only.
    pub fn in_memory() -> Self {
        Self {
            path: PathBuf::new(),
            file: None,
            items: Vec::new(),
            known: Default::default(),
        }
    }

    /// Opens or makes the journal of an evaluation with these settings.
    ///
    /// # Errors
    /// If one with other settings is there, or the file cannot be read or written.
    pub fn open(path: &Path, settings: &Settings) -> Result<Self, EvalError> {
        let read = |source| EvalError::Read {
            path: path.to_owned(),
            source,
        };
        let options = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        let mut file = options.map_err(read)?;
        let mut text = Vec::new();
        file.read_to_end(&mut text).map_err(read)?;
        let whole = text
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |end| end + 1);
        file.set_len(whole as u64).map_err(read)?;
        file.seek(SeekFrom::End(0)).map_err(read)?;
        let mut journal = Self {
            path: path.to_owned(),
            file: Some(file),
            ..Self::in_memory()
        };
        if whole == 0 {
            journal.line(&json!({ "settings": settings }))?;
        } else {
            let text = String::from_utf8_lossy(&text[..whole]);
            let (found, items) = parse(path, &text)?;
            compare(path, &found, settings)?;
            items.into_iter().for_each(|item| journal.remember(item));
        }
        Ok(journal)
    }

    /// Reads the journal of a finished evaluation: its settings and items.
    ///
    /// # Errors
    /// If it cannot be read or is no journal.
    pub fn read(path: &Path) -> Result<(Settings, Vec<Item>), EvalError> {
        let text = std::fs::read_to_string(path).map_err(|source| EvalError::Read {
            path: path.to_owned(),
            source,
        })?;
        parse(path, &text)
    }

    /// The item of this name, if it is done.
    pub fn get(&self, id: &str) -> Option<&Item> {
        self.known.get(id).map(|&index| &self.items[index])
    }

    /// How many items are done.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether no item is done.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Keeps an item, unless it is done already.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn push(&mut self, item: Item) -> Result<(), EvalError> {
        if self.known.contains_key(&item.id) {
            return Ok(());
        }
        self.line(&serde_json::to_value(&item).expect("an item is plain data"))?;
        self.remember(item);
        Ok(())
    }

    /// All items, in the order in which they were done.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    fn remember(&mut self, item: Item) {
        self.known.insert(item.id.clone(), self.items.len());
        self.items.push(item);
    }

    fn line(&mut self, value: &Value) -> Result<(), EvalError> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        (file.write_all(format!("{value}\n").as_bytes())).map_err(|source| {
            EvalError::Write(WriteError::Io {
                path: self.path.clone(),
                source,
            })
        })
    }
}

fn parse(path: &Path, text: &str) -> Result<(Settings, Vec<Item>), EvalError> {
    let expected = "one line of settings, then one line per item";
    let malformed = |line: usize, error: serde_json::Error| {
        EvalError::malformed(path, format!("line {line}: {error}"), expected)
    };
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let mut first: Value = serde_json::from_str(first).map_err(|error| malformed(1, error))?;
    let Value::Object(settings) = first["settings"].take() else {
        return Err(EvalError::malformed(
            path,
            "no settings in line 1",
            expected,
        ));
    };
    let items = lines.enumerate().map(|(index, line)| {
        serde_json::from_str(line).map_err(|error| malformed(index + 2, error))
    });
    Ok((settings, items.collect::<Result<_, _>>()?))
}

/// Refuses results of other settings.
fn compare(path: &Path, found: &Settings, expected: &Settings) -> Result<(), EvalError> {
    let mut keys = expected.keys().chain(found.keys());
    let Some(key) = keys.find(|key| found.get(*key) != expected.get(*key)) else {
        return Ok(());
    };
    let word = |settings: &Settings| {
        (settings.get(key)).map_or_else(|| "absent".to_owned(), Value::to_string)
    };
    Err(EvalError::OtherSettings {
        path: path.to_owned(),
        key: key.clone(),
        found: word(found),
        expected: word(expected),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(id: &str) -> Item {
        Item {
            id: id.to_owned(),
            category: String::new(),
            units: vec!["a".to_owned()],
            tallies: vec![0.1 + 0.2, 1.0],
        }
    }

    fn settings(alpha: f64) -> Settings {
        let mut settings = Settings::new();
        settings.insert("alpha".to_owned(), json!(alpha));
        settings
    }

    #[test]
    fn a_torn_line_is_dropped_and_the_rest_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("items.jsonl");
        let mut journal = Journal::open(&path, &settings(0.1)).unwrap();
        journal.push(item("one")).unwrap();
        journal.push(item("two")).unwrap();
        drop(journal);
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 3]).unwrap();

        let mut journal = Journal::open(&path, &settings(0.1)).unwrap();
        assert_eq!(journal.len(), 1);
        assert_eq!(journal.get("one"), Some(&item("one")));
        assert_eq!(journal.get("two"), None);
        journal.push(item("two")).unwrap();
        drop(journal);
        let (found, items) = Journal::read(&path).unwrap();
        assert_eq!(
            (found, items),
            (settings(0.1), vec![item("one"), item("two")])
        );
    }

    /// A sequence that was judged in part before a kill is judged again from its beginning.
    #[test]
    fn an_item_is_kept_once() {
        let mut journal = Journal::in_memory();
        for id in ["a", "b", "a"] {
            journal.push(item(id)).unwrap();
        }
        assert_eq!(journal.len(), 2);
    }

    #[test]
    fn other_settings_are_refused_with_both_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("items.jsonl");
        Journal::open(&path, &settings(0.1)).unwrap();
        let error = Journal::open(&path, &settings(0.05))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`alpha` is 0.1") && error.contains("0.05"),
            "{error}"
        );
    }
}
