//! Lists of pictures and captions: tables as CSV, TSV or Parquet.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use super::DataError;
use super::dataset::{Caption, Entry};
use crate::archive::{Place, key};

/// What the column of the pictures' paths may be called; they are relative to the list.
const PATHS: [&str; 5] = ["path", "file", "file_name", "filepath", "image"];
/// What the column of captions may be called.
const CAPTIONS: [&str; 3] = ["caption", "text", "title"];

/// What a list must have.
const EXPECTED: &str = "a table with a column path (or file, file_name, filepath, image) and, for \
    captions, caption (or text, title)";

/// Whether a file's name is that of a list.
pub(super) fn is_list(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    ["csv", "tsv", "parquet"]
        .iter()
        .any(|known| extension.eq_ignore_ascii_case(known))
}

/// The pictures that a list names.
pub(super) fn entries(list: &Path) -> Result<Vec<Entry>, DataError> {
    let is_parquet = list
        .extension()
        .is_some_and(|found| found.eq_ignore_ascii_case("parquet"));
    match is_parquet {
        true => of_parquet(list),
        false => of_csv(list),
    }
}

fn malformed(list: &Path, found: impl ToString) -> DataError {
    DataError::Malformed {
        path: list.to_owned(),
        found: found.to_string(),
        expected: EXPECTED,
    }
}

fn of_csv(list: &Path) -> Result<Vec<Entry>, DataError> {
    let file = File::open(list).map_err(|source| DataError::read(list, source))?;
    let tabs = list
        .extension()
        .is_some_and(|found| found.eq_ignore_ascii_case("tsv"));
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(if tabs { b'\t' } else { b',' })
        .from_reader(file);
    let headers = reader.headers().map_err(|error| malformed(list, error))?;
    let columns = Columns::find(list, headers.iter())?;
    let mut entries = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| malformed(list, error))?;
        let path = record.get(columns.path).unwrap_or_default();
        let caption = columns.caption.and_then(|column| record.get(column));
        entries.push(entry(list, path, caption));
    }
    Ok(entries)
}

fn of_parquet(list: &Path) -> Result<Vec<Entry>, DataError> {
    let file = File::open(list).map_err(|source| DataError::read(list, source))?;
    let reader = SerializedFileReader::new(file).map_err(|error| malformed(list, error))?;
    let schema = reader.metadata().file_metadata().schema();
    let columns = Columns::find(list, schema.get_fields().iter().map(|field| field.name()))?;
    let rows = reader.get_row_iter(None);
    let mut entries = Vec::new();
    for row in rows.map_err(|error| malformed(list, error))? {
        let row = row.map_err(|error| malformed(list, error))?;
        let text = |column: usize| match row.get_column_iter().nth(column) {
            Some((_, Field::Str(text))) => Some(text.as_str()),
            _ => None,
        };
        let path = text(columns.path);
        let path = path.ok_or_else(|| malformed(list, "a row without a path"))?;
        entries.push(entry(list, path, columns.caption.and_then(text)));
    }
    Ok(entries)
}

/// Where in a table paths and captions are.
struct Columns {
    path: usize,
    caption: Option<usize>,
}

impl Columns {
    fn find<'n>(list: &Path, names: impl Iterator<Item = &'n str>) -> Result<Self, DataError> {
        let names: Vec<&str> = names.collect();
        let column = |known: &[&str]| {
            let mut known = known.iter();
            known.find_map(|known| names.iter().position(|name| name == known))
        };
        let path = column(&PATHS);
        let found = || malformed(list, format!("the columns {}", names.join(", ")));
        Ok(Self {
            path: path.ok_or_else(found)?,
            caption: column(&CAPTIONS),
        })
    }
}

fn entry(list: &Path, path: &str, caption: Option<&str>) -> Entry {
    let folder = list.parent().unwrap_or(Path::new(""));
    let caption = caption.filter(|caption| !caption.trim().is_empty());
    Entry {
        name: key(path).map_or(path, |(key, _)| key).to_owned(),
        picture: Place::File(folder.join(path)),
        caption: caption.map(|caption| Caption::Given(caption.trim().to_owned())),
    }
}
