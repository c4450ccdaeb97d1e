//! `cleandift eval compare`: is one candidate better than another?

use std::path::{Path, PathBuf};

use clap::Args;
use cleandift::eval::report::{Report, Row};
use cleandift::eval::statistics::{Comparison, compare, judge};
use cleandift::eval::{Item, Journal};
use serde_json::{Value, json};

use crate::failure::{Ending, Failure};
use crate::table::Table;

/// Compare two candidates on the same items: paired differences, tests, a verdict each
#[derive(Args, Debug)]
pub struct CompareArguments {
    /// Two results, A and B: each a folder, or a folder and a candidate's name as DIR::NAME (the last
    /// candidate of its report, if none is named). More tasks follow as more pairs
    #[arg(value_name = "A B", required = true, num_args = 2..)]
    results: Vec<String>,

    /// Write the comparison as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The seed of resamples and flips.
const SEED: u64 = 0;

/// A candidate's results.
struct Evaluated {
    report: Report,
    row: Row,
    items: Vec<Item>,
    /// Which pictures they are of, if the results say so.
    pictures: Option<Value>,
}

/// Runs the command.
pub fn run(arguments: &CompareArguments) -> Result<Ending, Failure> {
    let (pairs, rest) = arguments.results.as_chunks::<2>();
    if let [alone] = rest {
        return Err(Failure::new(format!(
            "`{alone}` has no partner: results come in pairs, A B"
        )));
    }
    let mut comparisons: Vec<(String, Comparison)> = Vec::new();
    for [first, second] in pairs {
        comparisons.push(pair(&open(first)?, &open(second)?)?);
    }
    let found: Vec<Comparison> = comparisons.iter().map(|(_, found)| found.clone()).collect();
    let verdicts = judge(&found);
    let titles = [
        "task",
        "figure",
        "verdict of B",
        "A",
        "B",
        "difference",
        "95 %",
        "p",
        "p (Holm)",
    ];
    let mut table = Table::new(3, titles);
    let number = |value: f64| format!("{value:.4}");
    for ((name, found), (p, verdict)) in comparisons.iter().zip(&verdicts) {
        table.row([
            name.clone(),
            found.figure.clone(),
            verdict.words().to_owned(),
            number(found.a),
            number(found.b),
            number(found.difference.value),
            format!(
                "{} to {}",
                number(found.difference.low),
                number(found.difference.high)
            ),
            number(found.p),
            number(*p),
        ]);
    }
    print!("{table}");
    if let Some(path) = &arguments.json {
        let all = comparisons.iter().zip(&verdicts).map(|((name, found), (p, verdict))| {
            json!({"task": name, "comparison": found, "p_holm": p, "verdict": verdict})
        });
        let text = serde_json::to_string_pretty(&all.collect::<Vec<_>>())?;
        cleandift::checkpoint::write_file(path, text.as_bytes())?;
    }
    Ok(Ending::Complete)
}

/// The comparison of the first figure.
fn pair(first: &Evaluated, second: &Evaluated) -> Result<(String, Comparison), Failure> {
    let (a, b) = (&first.report, &second.report);
    if a.task != b.task || a.settings != b.settings || a.schema != b.schema {
        let keys = a.settings.keys().chain(b.settings.keys());
        let differ = keys
            .into_iter()
            .find(|key| a.settings.get(*key) != b.settings.get(*key));
        let differ = differ.map_or_else(|| "the task".to_owned(), |key| format!("`{key}`"));
        return Err(Failure::new(format!(
            "{} and {} are results of different questions: {differ} is not the same",
            first.row.name, second.row.name
        )));
    }
    if let (Some(a), Some(b)) = (&first.pictures, &second.pictures)
        && a != b
    {
        return Err(Failure::new(format!(
            "{} and {} are results of different pictures: names, sizes or prompts are not the same",
            first.row.name, second.row.name
        )));
    }
    let descriptive = a.schema.descriptive.is_some();
    let found = compare(
        &first.items,
        &second.items,
        &a.schema.figures[0],
        descriptive,
        SEED,
    )?;
    Ok((
        format!("{}: {} → {}", a.task, first.row.name, second.row.name),
        found,
    ))
}

/// Opens `DIR` (the last candidate of its report) or `DIR::NAME`.
fn open(text: &str) -> Result<Evaluated, Failure> {
    let (folder, name) = match text.split_once("::") {
        Some((folder, name)) => (Path::new(folder), Some(name)),
        None => (Path::new(text), None),
    };
    let path = folder.join("report.json");
    let wrong = |reason: String| Failure::new(format!("{}: {reason}", path.display()));
    let bytes = std::fs::read(&path).map_err(|error| wrong(error.to_string()))?;
    let report: Report =
        serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    let row = match name {
        Some(name) => report.rows.iter().find(|row| row.name == name),
        None => report.rows.last(),
    };
    let row = row.cloned().ok_or_else(|| {
        let known: Vec<&str> = report.rows.iter().map(|row| row.name.as_str()).collect();
        wrong(format!(
            "there is no candidate `{}`, only: {}",
            name.unwrap_or_default(),
            known.join("; ")
        ))
    })?;
    let (mut settings, items) = Journal::read(&folder.join(&row.items))?;
    Ok(Evaluated {
        report,
        row,
        items,
        pictures: settings.remove("pictures"),
    })
}
