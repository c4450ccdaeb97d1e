//! The paper's figures for this model.

use std::path::Path;

use cleandift::eval::claim::{Answer, Findings, Way};
use cleandift::eval::report::{Lines, Series};
use cleandift::eval::statistics::Interval;

use super::super::write;
use crate::failure::Failure;

/// The first figure of each task over timesteps, with CleanDIFT and the best floor as levels. Gives
/// titles and the files' names, without their endings.
pub fn timesteps(findings: &Findings, folder: &Path) -> Result<Vec<(String, String)>, Failure> {
    let mut drawn = Vec::new();
    for answer in &findings.answers {
        let title = format!("{}: {}", answer.name, answer.figure.name);
        let lines = Lines {
            title: &title,
            axis: "timestep",
            names: Vec::new(),
            series: series(answer),
            words: &|value| answer.figure.words(value),
        };
        let file = format!("timesteps-{}", answer.name);
        write::plot(&lines.draw(), folder, &file)?;
        drawn.push((title, file));
    }
    Ok(drawn)
}

/// The tap of each point is chosen on the validation part.
fn series(answer: &Answer) -> Vec<Series> {
    let of_way = answer.ways.iter().map(|way| Series {
        name: way.way.name(),
        points: (way.timesteps.iter())
            .map(|(timestep, score)| (timestep.unwrap_or(0) as f64, score.figure))
            .collect(),
        level: way.way == Way::Clean,
    });
    let floor = answer.best_floor().map(|floor| Series {
        name: floor.name.clone(),
        points: vec![(0.0, floor.figure)],
        level: true,
    });
    of_way.chain(floor).collect()
}

/// What an ensemble costs: a score over the time for a picture.
pub fn cost(
    answer: &Answer,
    noisy: Vec<(f64, Interval)>,
    clean: (f64, Interval),
    folder: &Path,
) -> Result<(String, String), Failure> {
    let title = format!("{}: {}, and what it costs", answer.name, answer.figure.name);
    let series = |name: &str, points| Series {
        name: name.to_owned(),
        points,
        level: false,
    };
    let lines = Lines {
        title: &title,
        axis: "milliseconds for a picture; each point of the noisy features has twice as many draws",
        names: Vec::new(),
        series: vec![series("noisy", noisy), series("CleanDIFT", vec![clean])],
        words: &|value| answer.figure.words(value),
    };
    write::plot(&lines.draw(), folder, "cost")?;
    Ok((title, "cost".to_owned()))
}
