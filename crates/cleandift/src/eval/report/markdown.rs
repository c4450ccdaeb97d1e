//! A report for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::{Report, Row, published};
use crate::eval::statistics::Interval;
use crate::eval::{Figure, Settings};

/// The report in Markdown; plots and pictures are linked by the names of their files.
pub fn markdown(report: &Report, plots: &[String], pictures: &[String]) -> String {
    let mut text = format!("# {}\n\n", report.task);
    if let Some(reason) = report.descriptive() {
        let _ = writeln!(
            text,
            "> **Descriptive only**: {reason}. The figures below describe these \
            data; they carry no conclusion about others.\n"
        );
    }
    settings(&mut text, &report.settings);
    let _ = writeln!(
        text,
        "Intervals hold 95 % of the bootstrap's resamples; what is drawn: {}.\n",
        report.schema.independent
    );
    figures(&mut text, report);
    seeds(&mut text, report);
    for plot in plots {
        let _ = writeln!(text, "![{plot}]({plot})\n");
    }
    categories(&mut text, report);
    papers(&mut text, report);
    text += "## Candidates\n\n";
    for row in &report.rows {
        let _ = writeln!(
            text,
            "**{}**: {} items, {} units, {:.1} s, [items]({})\n",
            row.name, row.count, row.units, row.seconds, row.items
        );
        settings(&mut text, &row.settings);
    }
    if !pictures.is_empty() {
        text += "## Best and worst\n\n";
        for picture in pictures {
            let _ = writeln!(text, "![{picture}]({picture})\n");
        }
    }
    text
}

/// A list of settings.
pub(crate) fn settings(text: &mut String, settings: &Settings) {
    for (key, value) in settings {
        let value = match value {
            Value::Null => "none".to_owned(),
            Value::String(words) => words.clone(),
            other => other.to_string(),
        };
        let _ = writeln!(text, "- {}: {value}", key.replace('_', " "));
    }
    text.push('\n');
}

/// A value with its interval: `20.38 (18.90 to 21.77)`.
fn words(figure: &Figure, interval: &Interval) -> String {
    let value = figure.words(interval.value);
    let (low, high) = (figure.words(interval.low), figure.words(interval.high));
    format!("{value} ({low} to {high})")
}

/// One line a figure, one column a candidate.
fn figures(text: &mut String, report: &Report) {
    text.push_str("| |");
    for row in &report.rows {
        let _ = write!(text, " {} |", row.name);
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(report.rows.len()));
    for (index, figure) in report.schema.figures.iter().enumerate() {
        let arrow = if figure.higher_is_better {
            "↑"
        } else {
            "↓"
        };
        let _ = write!(text, "| {} {arrow} |", figure.name);
        for row in &report.rows {
            let _ = write!(text, " {} |", words(figure, &row.figures[index]));
        }
        text.push('\n');
    }
    text.push('\n');
}

/// The spread over seeds, for groups of rows that differ in nothing else.
fn seeds(text: &mut String, report: &Report) {
    let mut groups: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &report.rows {
        groups.entry(&row.group).or_default().push(row);
    }
    for (group, rows) in groups.into_iter().filter(|(_, rows)| rows.len() > 1) {
        let figure = &report.schema.figures[0];
        let values = rows.iter().map(|row| row.figures[0].value);
        let mean = values.clone().sum::<f64>() / rows.len() as f64;
        let squares = values.map(|value| (value - mean).powi(2)).sum::<f64>();
        let deviation = (squares / (rows.len() - 1) as f64).sqrt();
        let _ = writeln!(
            text,
            "{group}: {} over {} seeds has mean {} and standard deviation {}.\n",
            figure.name,
            rows.len(),
            figure.words(mean),
            figure.words(deviation)
        );
    }
}

/// The first figure of each category.
fn categories(text: &mut String, report: &Report) {
    let Some(first) = report.rows.first().filter(|row| !row.categories.is_empty()) else {
        return;
    };
    let figure = &report.schema.figures[0];
    let _ = write!(text, "## By category: {}\n\n| | items |", figure.name);
    for row in &report.rows {
        let _ = write!(text, " {} |", row.name);
    }
    let _ = writeln!(text, "\n|---|---:|{}", "---:|".repeat(report.rows.len()));
    for (index, category) in first.categories.iter().enumerate() {
        let _ = write!(text, "| {} | {} |", category.name, category.count);
        for row in &report.rows {
            let found = row.categories.get(index);
            let found = found.map_or_else(String::new, |found| words(figure, &found.figure));
            let _ = write!(text, " {found} |");
        }
        text.push('\n');
    }
    text.push('\n');
}

/// Published figures, with what differs here.
fn papers(text: &mut String, report: &Report) {
    let found = published(&report.task, &report.settings);
    if found.is_empty() {
        return;
    }
    text.push_str("## Published\n\n| method | figure | value | from |\n|---|---|---:|---|\n");
    for known in found {
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} | {} |",
            known.method, known.figure, known.value, known.source
        );
    }
    text.push_str(
        "\nThey are of the whole official test split. What the protocols here leave out of the \
         published code is said in the documentation of the protocols.\n\n",
    );
}
