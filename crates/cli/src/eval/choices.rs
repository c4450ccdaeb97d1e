//! `choices.md`: which setting of a sweep each mode is given, by four ways to choose, and what that
//! gives on the test items.

use std::collections::BTreeSet;
use std::path::Path;

use cleandift::eval::Journal;
use cleandift::eval::report::Report;
use cleandift::eval::source::EXTERNAL;
use cleandift::eval::statistics::{Interval, RESAMPLES, intervals};
use cleandift::eval::sweep::{Tried, best, leave_a_group_out};

use super::sweep::Tap;
use crate::failure::Failure;

/// The timestep that is reported whatever comes out best.
const FIXED: usize = 261;

const HEAD: &str = "# How a setting is chosen

| mode | on the test items, as papers do | without looking: each category (or fifth of the units) by \
all others | on the validation split | t = 261 |
|---|---:|---:|---:|---:|
";

/// Writes the choices into a sweep's folder. `validation` is the folder of the same sweep on
/// another split.
pub fn write(
    tried: &[Tap],
    report: &Report,
    folder: &Path,
    validation: Option<&Path>,
) -> Result<(), Failure> {
    let mut modes: Vec<String> = tried.iter().map(Tap::mode).collect();
    let mut seen = std::collections::HashSet::new();
    modes.retain(|mode| seen.insert(mode.clone()));
    let mut text = HEAD.to_owned();
    for mode in modes {
        let rows: Vec<&Tap> = tried.iter().filter(|found| found.mode() == mode).collect();
        let words = Words {
            report,
            rows: &rows,
        };
        let on_test = settings(&rows, folder)?;
        let cells = [
            words.best(&on_test),
            words.without_looking(&on_test),
            match validation {
                Some(validation) => {
                    let on_validation = settings(&rows, validation)?;
                    refuse_what_is_no_validation(&on_validation, &on_test, &rows, validation)?;
                    words.best(&on_validation)
                }
                None => "not given (--chosen-on)".to_owned(),
            },
            words.fixed(),
        ];
        text += &format!("| {mode} | {} |\n", cells.join(" | "));
    }
    let path = folder.join("choices.md");
    Ok(cleandift::checkpoint::write_file(&path, text.as_bytes())?)
}

/// Only results of the same features, on the same items throughout, of which none are reported, may
/// choose.
fn refuse_what_is_no_validation(
    validation: &[Tried],
    test: &[Tried],
    rows: &[&Tap],
    folder: &Path,
) -> Result<(), Failure> {
    let wrong = |name: &str, reason: String| {
        Err(Failure::new(format!(
            "{}: nothing is chosen on it: {name} {reason}",
            folder.display()
        )))
    };
    let ids = |tried: &Tried| -> BTreeSet<String> {
        tried.items.iter().map(|item| item.id.clone()).collect()
    };
    let Some(expected) = validation.first().map(ids) else {
        return Ok(());
    };
    for (found, (tried, reported)) in rows.iter().zip(validation.iter().zip(test)) {
        let (header, _) = Journal::read(&folder.join(&found.row.items))?;
        // Files of external features are those of the split's pictures.
        let settings = found.row.settings.iter();
        let mut other = settings
            .filter(|(key, value)| !key.starts_with(EXTERNAL) && header.get(*key) != Some(value));
        if let Some((key, value)) = other.next() {
            let was = header
                .get(key)
                .map_or("absent".to_owned(), |was| was.to_string());
            return wrong(
                &tried.name,
                format!("was made with `{key}` {was}, not {value}"),
            );
        }
        if ids(tried) != expected {
            return wrong(
                &tried.name,
                "has other items than the first setting".to_owned(),
            );
        }
        if !ids(reported).is_disjoint(&expected) {
            return wrong(&tried.name, "has items that are reported".to_owned());
        }
    }
    Ok(())
}

/// The items of these settings in a sweep's folder.
fn settings(rows: &[&Tap], folder: &Path) -> Result<Vec<Tried>, Failure> {
    let read = |found: &&Tap| {
        let (_, items) = Journal::read(&folder.join(&found.row.items))?;
        Ok(Tried {
            name: found.row.name.clone(),
            items,
        })
    };
    rows.iter().map(read).collect()
}

/// The cells of one mode's row.
struct Words<'r> {
    report: &'r Report,
    rows: &'r [&'r Tap],
}

impl Words<'_> {
    fn interval(&self, found: &Interval) -> String {
        let figure = &self.report.schema.figures[0];
        let [value, low, high] = [found.value, found.low, found.high].map(|v| figure.words(v));
        format!("{value} ({low} to {high})")
    }

    /// What the setting that is best on some items gives on the test items.
    fn best(&self, settings: &[Tried]) -> String {
        match best(settings, &self.report.schema, |_| true) {
            Some(index) => {
                let row = &self.rows[index].row;
                format!("{}: {}", row.name, self.interval(&row.figures[0]))
            }
            None => "no figure".to_owned(),
        }
    }

    fn without_looking(&self, settings: &[Tried]) -> String {
        let schema = &self.report.schema;
        match leave_a_group_out(settings, schema) {
            Some((items, _)) => {
                self.interval(&intervals(&items, &schema.figures[..1], RESAMPLES, 0)[0])
            }
            None => "too few units".to_owned(),
        }
    }

    fn fixed(&self) -> String {
        let fixed = self
            .rows
            .iter()
            .filter(|found| found.timestep() == Some(FIXED));
        let words = fixed.map(|found| {
            let figure = self.interval(&found.row.figures[0]);
            format!("{}: {figure}", found.tap)
        });
        let words: Vec<String> = words.collect();
        match words.is_empty() {
            true => "not tried".to_owned(),
            false => words.join("; "),
        }
    }
}
