//! A line of JSON for each event.

use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use crate::checkpoint::write_file;
use crate::train::Event;

/// An event as a line.
pub(super) fn line(event: &Event) -> String {
    let kind = match event {
        Event::Step { .. } => "step",
        Event::Validation { .. } => "validation",
        Event::Saved { .. } => "saved",
        Event::Skipped { .. } => "skipped",
    };
    let (step, numbers) = super::numbers(event);
    let mut json = Map::new();
    json.insert("event".to_owned(), kind.into());
    json.insert("step".to_owned(), step.into());
    json.extend(
        numbers
            .into_iter()
            .map(|(name, number)| (name, number.into())),
    );
    match event {
        Event::Saved { path, .. } => {
            json.insert("path".to_owned(), path.display().to_string().into());
        }
        Event::Skipped { last, .. } => {
            json.insert("last".to_owned(), last.clone().into());
        }
        Event::Step { .. } | Event::Validation { .. } => {}
    }
    format!("{}\n", Value::Object(json))
}

/// Leaves the lines of steps up to `step`, if there is such a file.
pub(super) fn forget_after(path: &Path, step: u64) -> io::Result<()> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        text => text?,
    };
    let stays = |line: &&str| {
        let json: Option<Value> = serde_json::from_str(line).ok();
        json.is_some_and(|json| json["step"].as_u64().is_some_and(|found| found <= step))
    };
    let kept: String = text
        .lines()
        .filter(stays)
        .flat_map(|line| [line, "\n"])
        .collect();
    match kept == text {
        true => Ok(()),
        false => write_file(path, kept.as_bytes()).map_err(io::Error::other),
    }
}
