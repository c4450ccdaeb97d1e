//! What all of it will need: a small part of each task is done, and the rest extrapolated.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use cleandift::eval::claim::{Contest, Suite, Way};
use cleandift::eval::source::Latents as SharedLatents;
use cleandift::eval::{Cache, Source};

use super::trials::{Models, Pass, with_features};
use super::{ClaimArguments, Stop};
use crate::machine::peak_memory;
use crate::stop;
use crate::table::{Table, bytes};

/// Pictures whose noisy features are timed, after a first one that prepares the weights.
const TIMED: usize = 3;

/// What a task needs, in seconds and bytes.
struct Needs {
    pictures: usize,
    features: f64,
    questions: f64,
    kept: usize,
}

/// Says what the whole run needs.
pub fn estimate(arguments: &ClaimArguments, suite: &Suite, models: &Models) -> Result<(), Stop> {
    let titles = [
        "task",
        "pictures",
        "features",
        "questions",
        "kept in memory",
    ];
    let mut table = Table::new(1, titles);
    let minutes = |seconds: f64| format!("{:.1} min", seconds / 60.0);
    let mut total = 0.0;
    for entry in &suite.tasks {
        let folder = tempfile::tempdir()?;
        let contest = entry.open(&arguments.data, folder.path())?;
        eprintln!("{}: measuring a part", contest.name);
        let needs = of_task(suite, &contest, models, folder.path())?;
        total += needs.features + needs.questions;
        table.row([
            contest.name.clone(),
            needs.pictures.to_string(),
            minutes(needs.features),
            minutes(needs.questions),
            bytes(needs.kept.min(models.memory()) as u64),
        ]);
    }
    print!("{table}");
    println!("about {} in all", minutes(total));
    if let Some(peak) = peak_memory() {
        println!(
            "memory: {} so far; --memory bounds what is kept of features",
            bytes(peak)
        );
    }
    eprintln!("nothing was kept (--dry-run)");
    Ok(())
}

/// Does one naive pass over all pictures, three pictures of a noisy one, and asks all questions at
/// the last tap, which is the one with the most cells.
fn of_task(
    suite: &Suite,
    contest: &Contest,
    models: &Models,
    folder: &std::path::Path,
) -> Result<Needs, Stop> {
    let mut latents = models.latents(contest)?;
    let latents = Cache::new(&mut latents, models.memory() / 4, None)?;
    let latents: SharedLatents = Rc::new(RefCell::new(latents));
    let passes = models.passes(suite);
    let of = |noisy: bool| {
        let is_noisy = |pass: &&Pass| matches!(pass.ways[0], Way::Noisy { .. });
        passes.iter().filter(move |pass| is_noisy(pass) == noisy)
    };
    let (plain, noisy) = (of(false).next(), of(true).next());
    let (Some(plain), Some(noisy)) = (plain, noisy) else {
        unreachable!("a suite has timesteps and draws");
    };
    let images = contest.images();

    let mut source = plain.source(contest, &latents)?;
    let mut features = Cache::new(source.as_mut(), models.memory(), None)?;
    let begun = Instant::now();
    let mut kept = 0;
    for image in &images {
        kept += features.see(image)?.bytes();
        if stop::asked() {
            return Err(Stop::Asked);
        }
    }
    let plain_seconds = begun.elapsed().as_secs_f64();

    let begun = Instant::now();
    let settings = plain.settings(contest);
    let (_, tap) = settings.last().expect("a task has taps");
    for (part, task) in [contest.choosing.as_ref(), Some(&contest.reported)]
        .iter()
        .enumerate()
    {
        if let Some(task) = task {
            let path = folder.join(format!("{part}.jsonl"));
            with_features(task.as_ref(), &mut features, tap, &path)?;
        }
    }
    let question_seconds = begun.elapsed().as_secs_f64();
    drop(features);

    let mut source = noisy.source(contest, &latents)?;
    let timed = images.len().min(TIMED + 1);
    source.see(&images[0])?;
    let begun = Instant::now();
    for image in &images[1.min(timed - 1)..timed] {
        source.see(image)?;
    }
    let each = begun.elapsed().as_secs_f64() / (timed - 1).max(1) as f64;
    let noisy_seconds = each * images.len() as f64;

    let count = |passes: usize| passes as f64;
    let asked: usize = passes.iter().map(|pass| pass.settings(contest).len()).sum();
    Ok(Needs {
        pictures: images.len(),
        features: count(of(false).count()) * plain_seconds
            + count(of(true).count()) * noisy_seconds,
        questions: asked as f64 * question_seconds,
        kept: kept * suite.draws.len(),
    })
}
