//! What the test leaves behind: `findings.json`, the page `claim.md`, its figures in `claim/`.

use std::path::Path;
use std::time::Duration;

use cleandift::checkpoint::write_file;
use cleandift::eval::Settings;
use cleandift::eval::claim::{About, Findings, Way, page};
use cleandift::eval::statistics::Verdict;

use super::ClaimArguments;
use super::cost::FIGURES;
use crate::failure::Failure;
use crate::machine;
use crate::table::Table;

/// Writes everything, and says what came out.
pub fn all(
    arguments: &ClaimArguments,
    findings: &Findings,
    figures: &[(String, String)],
    taken: Duration,
) -> Result<(), Failure> {
    let folder = &arguments.output;
    let text = serde_json::to_string_pretty(findings)?;
    write_file(
        &folder.join("findings.json"),
        format!("{text}\n").as_bytes(),
    )?;
    let plots: Vec<(String, String)> = figures
        .iter()
        .map(|(title, file)| (title.clone(), format!("{FIGURES}/{file}.svg")))
        .collect();
    let run = format!(
        "cleandift {}, {:.0} minutes on {} ({}); a run that went on from an earlier one counts its \
         own part.",
        findings.cleandift,
        taken.as_secs_f64() / 60.0,
        machine::processor(),
        match arguments.threads {
            0 => "all threads".to_owned(),
            count => format!("{count} threads"),
        }
    );
    let suite = arguments.suite.as_deref().and_then(Path::file_name);
    let suite = suite.map(|name| name.to_string_lossy());
    let about = About {
        command: &command(findings, suite.as_deref()),
        suite: suite.as_deref(),
        run: &run,
        plots: &plots,
    };
    write_file(&folder.join("claim.md"), page(findings, &about).as_bytes())?;
    print(findings)?;
    eprintln!("page: {}", folder.join("claim.md").display());
    Ok(())
}

/// The command, with names instead of this machine's paths.
fn command(findings: &Findings, suite: Option<&str>) -> String {
    let name = |settings: &Settings| {
        let name = settings.get("model").and_then(|name| name.as_str());
        name.unwrap_or_default().to_owned()
    };
    let clean: Vec<String> = findings.clean.iter().map(name).collect();
    let suite = suite.map_or_else(String::new, |file| format!(" --suite {file}"));
    format!(
        "cleandift eval claim --base {} --clean {} --data DATA{suite} -o OUT",
        name(&findings.base),
        clean.join(" ")
    )
}

fn print(findings: &Findings) -> Result<(), Failure> {
    let opponent = findings.opponent();
    let titles = [
        "task",
        "verdict",
        &opponent.name(),
        "CleanDIFT",
        "difference",
        "p (Holm)",
    ];
    let mut table = Table::new(2, titles);
    for answer in &findings.answers {
        let ways = (
            answer.way(opponent),
            answer.way(Way::Clean),
            answer.against(opponent),
        );
        let (Some(theirs), Some(ours), Some(judged)) = ways else {
            continue;
        };
        let words = |value: f64| answer.figure.words(value);
        let difference = judged.comparison.difference;
        let verdict: Verdict = judged.verdict;
        table.row([
            answer.name.clone(),
            verdict.words().to_owned(),
            words(theirs.validated.figure.value),
            words(ours.validated.figure.value),
            format!(
                "{} ({} to {})",
                words(difference.value),
                words(difference.low),
                words(difference.high)
            ),
            format!("{:.4}", judged.p_holm),
        ]);
    }
    print!("{table}");
    Ok(())
}
