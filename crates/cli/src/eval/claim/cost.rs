//! The figures that need more passes than the findings: what an ensemble costs, and what noisy
//! features are made of.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use cleandift::archive::Place;
use cleandift::eval::claim::{Answer, Contest, Findings, Way};
use cleandift::eval::source::{Latents as SharedLatents, tap_name};
use cleandift::eval::statistics::{Interval, RESAMPLES, intervals};
use cleandift::eval::{Cache, Image, Origin, Source};

use super::super::run::{Stop, slug};
use super::super::variance::{self, VarianceArguments};
use super::trials::{Models, Pass, with_features};
use super::{ClaimArguments, plots};

/// Pictures that are timed, after a first one that prepares the weights.
const TIMED: usize = 8;

/// Pictures whose noisy features are taken apart.
const TAKEN_APART: usize = 8;

/// The seed of intervals.
const SEED: u64 = 0;

/// The folder of figures within the output.
pub const FIGURES: &str = "claim";

/// Draws all figures; gives their titles and their files within [`FIGURES`], without endings.
pub fn figures(
    arguments: &ClaimArguments,
    findings: &Findings,
    models: &Models,
) -> Result<Vec<(String, String)>, Stop> {
    let folder = arguments.output.join(FIGURES);
    std::fs::create_dir_all(&folder)?;
    let mut drawn = plots::timesteps(findings, &folder)?;
    let (Some(answer), Some(entry)) = (findings.answers.first(), findings.suite.tasks.first())
    else {
        return Ok(drawn);
    };
    let own = arguments.output.join(&entry.name);
    let contest = entry.open(&arguments.data, &own.join(super::super::run::PROBES))?;
    drawn.push(ensemble(
        findings,
        answer,
        &contest,
        models,
        [&own, &folder],
    )?);
    let pictures = contest
        .images()
        .iter()
        .filter_map(file)
        .take(TAKEN_APART)
        .collect();
    if let (Some(noisy), false) = (answer.way(findings.opponent()), Vec::is_empty(&pictures)) {
        eprintln!("variance under noise");
        let timesteps = &findings.suite.timesteps;
        let asked = VarianceArguments {
            pictures,
            output: folder,
            tap: Some(noisy.setting.tap.clone()),
            timesteps: timesteps.iter().copied().chain([800, 999]).collect(),
            draws: 4,
            size: Some(contest.canvas.size),
            model: models.base.clone(),
        };
        variance::run(&asked)?;
        let title = format!(
            "what the base's noisy features are made of, {}",
            noisy.setting.tap
        );
        drawn.push((title, "variance".to_owned()));
    }
    Ok(drawn)
}

fn file(image: &Image) -> Option<std::path::PathBuf> {
    match &image.origin {
        Origin::Encoded(Place::File(path)) => Some(path.clone()),
        _ => None,
    }
}

/// The score of a task at the chosen timestep and tap, over more and more draws, and the time that
/// they take.
fn ensemble(
    findings: &Findings,
    answer: &Answer,
    contest: &Contest,
    models: &Models,
    [own, folder]: [&Path; 2],
) -> Result<(String, String), Stop> {
    eprintln!("the cost of an ensemble");
    let noisy = answer
        .way(findings.opponent())
        .expect("the opponent was tried");
    let clean = answer.way(Way::Clean).expect("CleanDIFT was tried");
    let most = findings.suite.draws.last().copied().unwrap_or(1);
    let counts: Vec<usize> = std::iter::successors(Some(1), |n| Some(2 * n))
        .take_while(|&n| n <= most)
        .collect();
    let of_counts = |counts: &[usize]| Pass {
        model: &models.base,
        seed: None,
        ways: counts.iter().map(|&draws| Way::Noisy { draws }).collect(),
        timestep: noisy.setting.timestep,
    };
    let mut latents = models.latents(contest)?;
    let latents = Cache::new(&mut latents, models.memory() / 4, None)?;
    let latents: SharedLatents = Rc::new(RefCell::new(latents));

    let mut source = of_counts(&counts).source(contest, &latents)?;
    let mut features = Cache::new(source.as_mut(), models.memory(), None)?;
    let mut points = Vec::new();
    for &count in &counts {
        let tap = tap_name(&noisy.setting.tap, Some(count));
        let path = own
            .join(super::trials::ITEMS)
            .join(format!("cost-{}.jsonl", slug(&tap)));
        let items = with_features(contest.reported.as_ref(), &mut features, &tap, &path)?;
        let figure = intervals(
            &items,
            std::slice::from_ref(&answer.figure),
            RESAMPLES,
            SEED,
        )[0];
        let mut alone = of_counts(&[count]).source(contest, &latents)?;
        points.push((milliseconds(alone.as_mut(), contest)?, figure));
    }
    let passes = models.passes(&findings.suite);
    let tuned = passes.iter().find(|pass| pass.seed.is_some());
    let mut alone = tuned
        .expect("there is a fine-tuning")
        .source(contest, &latents)?;
    let point: (f64, Interval) = (
        milliseconds(alone.as_mut(), contest)?,
        clean.validated.figure,
    );
    Ok(plots::cost(answer, points, point, folder)?)
}

/// Whole milliseconds for a picture, its latent at hand.
fn milliseconds(source: &mut dyn Source, contest: &Contest) -> Result<f64, Stop> {
    let images = contest.images();
    source.see(&images[0])?;
    let timed = &images[..images.len().min(TIMED)];
    let begun = Instant::now();
    for image in timed {
        source.see(image)?;
    }
    Ok((1e3 * begun.elapsed().as_secs_f64() / timed.len() as f64)
        .round()
        .max(1.0))
}
