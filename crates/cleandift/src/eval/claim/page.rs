//! The findings for people.

use std::fmt::Write;

use super::{Answer, Findings, Score, Way};
use crate::eval::Figure;
use crate::eval::report::settings;
use crate::eval::statistics::Interval;

/// What a page says about the run, beside its findings.
pub struct About<'a> {
    /// The command that made it.
    pub command: &'a str,
    /// The file of the tasks, unless they are the built-in ones.
    pub suite: Option<&'a str>,
    /// Machine, time and date, in words.
    pub run: &'a str,
    /// Plots, by title and file name.
    pub plots: &'a [(String, String)],
}

/// The page in Markdown; plots are linked by the names of their files.
pub fn page(findings: &Findings, about: &About) -> String {
    let mut text = String::from("# The claim, tested\n\n");
    let _ = writeln!(text, "<!-- generated: {} -->\n", about.command);
    text += "CleanDIFT (arXiv 2412.03439) claims that one pass over the clean picture, by a network \
        fine-tuned for it, gives features at least as good as those of noisy pictures at the best \
        timestep, averaged over draws of noise. This page is written by the command that tests it; ";
    let _ = match about.suite {
        None => writeln!(
            text,
            "tasks, sizes and statistics were fixed before any model was looked at.\n"
        ),
        Some(file) => writeln!(
            text,
            "statistics were fixed before any model was looked at, tasks, sizes and timesteps are \
             those of `{file}`.\n"
        ),
    };
    summary(&mut text, findings);
    verdicts(&mut text, findings);
    for (title, file) in about.plots {
        let _ = writeln!(text, "![{title}]({file})\n");
    }
    text += "## By task\n\n";
    for answer in &findings.answers {
        task(&mut text, answer);
    }
    method(&mut text, findings);
    models(&mut text, findings);
    let _ = writeln!(
        text,
        "## The run\n\n{}\n\n```\n{}\n```",
        about.run, about.command
    );
    text
}

fn summary(text: &mut String, findings: &Findings) {
    let found = findings.summary();
    let _ = writeln!(
        text,
        "Against the base's features over {}, of {} tasks CleanDIFT is **better on {}, not worse on \
         {}, undecided on {}, worse on {}**; {} have too few independent units for a verdict. It \
         lies above every floor on {}.\n",
        findings.opponent().name().replace("noisy, ", ""),
        found.tasks,
        found.better,
        found.not_worse,
        found.undecided,
        found.worse,
        found.descriptive,
        found.above_floors,
    );
}

/// A figure with its direction: `mIoU ↑`.
fn title(figure: &Figure) -> String {
    let arrow = if figure.higher_is_better {
        "↑"
    } else {
        "↓"
    };
    format!("{} {arrow}", figure.name)
}

fn interval(figure: &Figure, found: &Interval) -> String {
    let [value, low, high] = [found.value, found.low, found.high].map(|v| figure.words(v));
    format!("{value} ({low} to {high})")
}

fn score(figure: &Figure, found: &Score) -> String {
    format!(
        "{} [{}]",
        interval(figure, &found.figure),
        found.chosen.join("; ")
    )
}

/// One line a task: both sides as chosen on validation, their difference, the verdict.
fn verdicts(text: &mut String, findings: &Findings) {
    let opponent = findings.opponent();
    let _ = writeln!(
        text,
        "| task | figure | {} | CleanDIFT | difference, 95 % | p | p (Holm) | verdict | best floor \
         |\n|---|---|---:|---:|---:|---:|---:|---|---:|",
        opponent.name()
    );
    for answer in &findings.answers {
        let (Some(theirs), Some(ours)) = (answer.way(opponent), answer.way(Way::Clean)) else {
            continue;
        };
        let Some(judged) = answer.against(opponent) else {
            continue;
        };
        let figure = &answer.figure;
        let found = &judged.comparison;
        let floor = answer.best_floor().map_or_else(
            || "–".to_owned(),
            |floor| format!("{} ({})", figure.words(floor.figure.value), floor.name),
        );
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {:.4} | {:.4} | **{}** | {floor} |",
            answer.name,
            title(figure),
            figure.words(theirs.validated.figure.value),
            figure.words(ours.validated.figure.value),
            interval(figure, &found.difference),
            found.p,
            judged.p_holm,
            judged.verdict.words(),
        );
    }
    text.push('\n');
}

/// All ways and floors of one task.
fn task(text: &mut String, answer: &Answer) {
    let figure = &answer.figure;
    let _ = writeln!(
        text,
        "### {}\n\n{}; independent: {} {}.\n",
        answer.name,
        title(figure),
        answer.units,
        answer.independent
    );
    if let Some(reason) = &answer.descriptive {
        let _ = writeln!(text, "> **Descriptive only**: {reason}.\n");
    }
    let how = match answer.has_part_for_choosing {
        true => "chosen on the validation part",
        false => "chosen for each group by all others",
    };
    let _ = writeln!(
        text,
        "| | {how} | chosen on what is reported (as papers do) | t = {} |\n|---|---:|---:|---:|",
        super::FIXED_TIMESTEP
    );
    for way in &answer.ways {
        let fixed = match (&way.fixed, way.way) {
            (Some(found), Way::Noisy { .. } | Way::Naive) => score(figure, found),
            _ => "–".to_owned(),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {fixed} |",
            way.way.name(),
            score(figure, &way.validated),
            score(figure, &way.on_report)
        );
    }
    for floor in &answer.floors {
        let found = interval(figure, &floor.figure);
        let _ = writeln!(text, "| {} | {found} | | |", floor.name);
    }
    text.push('\n');
    for way in answer.ways.iter().filter(|way| !way.models.is_empty()) {
        let values: Vec<String> = way
            .models
            .iter()
            .map(|value| figure.words(*value))
            .collect();
        let _ = writeln!(
            text,
            "The fine-tunings by themselves, each with its own choice: {}. The row above is their \
             mean, item by item.\n",
            values.join(", ")
        );
    }
    for judged in &answer.judged {
        let _ = writeln!(
            text,
            "- CleanDIFT against {}: {}, {} (p {:.4}, corrected {:.4})",
            judged.against.name(),
            judged.verdict.words(),
            interval(figure, &judged.comparison.difference),
            judged.comparison.p,
            judged.p_holm,
        );
    }
    text.push('\n');
    settings(text, &answer.settings);
}

fn method(text: &mut String, findings: &Findings) {
    let timesteps: Vec<String> = findings
        .suite
        .timesteps
        .iter()
        .map(usize::to_string)
        .collect();
    let _ = writeln!(
        text,
        "## How\n\n\
         Noisy and naive features are tried at t in {{{}}}, at every tap of the suite; noisy ones \
         over {:?} draws of noise, of which the fewer are the first of the more. CleanDIFT has a tap \
         to choose, noisy features a tap and a timestep; both are chosen where nothing is reported, \
         on the same items by the same figure, and, to be compared, also on what is reported. Where \
         the difference of two ways is judged, items are paired. Intervals hold 95 % of 2000 \
         resamples of what is independent; tests flip the signs of whole units; p-values are \
         corrected for the number of tasks (Holm). *Better* and *worse*: the interval leaves zero \
         out and the corrected p-value is below 0.05. *Not worse*: the interval lies above a loss of \
         one point (one percent, where a figure is no percentage). Fewer than 20 independent units \
         are described and not judged.\n",
        timesteps.join(", "),
        findings.suite.draws,
    );
}

fn models(text: &mut String, findings: &Findings) {
    text.push_str("## Models\n\nThe base:\n\n");
    settings(text, &findings.base);
    let _ = writeln!(text, "CleanDIFT, {} fine-tuned:\n", findings.clean.len());
    for model in &findings.clean {
        settings(text, model);
    }
}
