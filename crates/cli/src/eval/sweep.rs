//! `cleandift sweep`: timesteps, taps, draws of noise and modes for any task. Every picture is
//! encoded once, every mode and timestep run once for all taps, and a mean over few draws is made
//! on the way to one over many.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use clap::{Args, ValueEnum};
use cleandift::eval::report::{Lines, Report, Row, Series};
use cleandift::eval::source::{
    Canvas, LatentSource, Latents as LatentsSource, WithExternal, tap_name,
};
use cleandift::eval::{Cache, Source};
use cleandift::extractor::{Codec, Latents, Mode, Noise, Request};
use serde_json::json;

use super::TaskCommand;
use super::candidates::{Timed, canvas, identity, model_source, settings};
use super::common::{CommonArguments, Floors, bytes_of};
use super::run::{Prepared, Stop, forget, items_of, missing, slug};
use super::{choices, write};
use crate::arguments::{parse_noise_timestep, parse_positive};
use crate::extract::mode_words;
use crate::failure::{Ending, Failure};
use crate::stop;

/// Evaluate a task for many timesteps, taps and modes, and choose among them honestly
#[derive(Args, Debug)]
pub struct SweepArguments {
    /// Modes: clean, noisy (the base with noise), naive (the base without), projected
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "clean,noisy"
    )]
    modes: Vec<SweepMode>,

    /// Timesteps of all modes but clean
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "0,100,200,261,300,400,500",
        value_parser = parse_noise_timestep
    )]
    timesteps: Vec<usize>,

    /// Draws of noise to average, for noisy features
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1", value_parser = parse_positive)]
    ensembles: Vec<usize>,

    /// Taps, each evaluated by itself, or several joined by `+`; default: the one that `extract` takes
    #[arg(long = "sweep-taps", value_name = "LIST", value_delimiter = ',')]
    taps: Vec<String>,

    /// The folder of the same sweep on a validation split: settings that are best there are shown
    #[arg(long, value_name = "DIR")]
    chosen_on: Option<PathBuf>,

    #[command(subcommand)]
    task: TaskCommand,
}

/// A way to make features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SweepMode {
    Clean,
    Noisy,
    Naive,
    Projected,
}

/// One pass over all pictures.
struct Pass {
    mode: SweepMode,
    timestep: Option<usize>,
}

/// A setting and its results.
pub(super) struct Tap {
    pass: Pass,
    pub(super) tap: String,
    count: Option<usize>,
    pub(super) row: Row,
}

impl Tap {
    /// The mode, with its number of draws.
    pub(super) fn mode(&self) -> String {
        mode_name(self.pass.mode, self.count)
    }

    /// The timestep, if the mode has one.
    pub(super) fn timestep(&self) -> Option<usize> {
        self.pass.timestep
    }
}

/// Runs the command.
pub fn run(arguments: &SweepArguments) -> Result<Ending, Failure> {
    stop::listen("picture")?;
    let (prepared, common) = arguments.task.prepare()?;
    refuse_what_a_sweep_chooses(common)?;
    let passes = arguments.passes();
    let (origin, extractor) = common.model.extractor(Request {
        taps: (!arguments.taps.is_empty()).then(|| arguments.taps.join(",")),
        ..Request::default()
    })?;
    let taps = match arguments.taps.is_empty() {
        true => vec![extractor.model().default_tap().to_owned()],
        false => arguments.taps.clone(),
    };
    eprintln!(
        "{}: {} passes over {} pictures, each for {} taps",
        prepared.task.name(),
        passes.len(),
        prepared.task.images().len(),
        taps.len()
    );
    if common.dry_run {
        eprintln!("nothing was done (--dry-run)");
        return Ok(Ending::Complete);
    }
    forget(common)?;
    let identity = identity(&origin)?;
    let canvas = canvas(&extractor, &prepared, common);
    let codec = Codec::new(
        &extractor.model().codec,
        Latents::Mean,
        extractor.processor(),
    );
    let mut latents = LatentSource::new(codec, canvas, identity);
    let kept = Cache::new(
        &mut latents,
        bytes_of(common.memory) as usize / 4,
        common.storage("latents"),
    )?;
    let latents: LatentsSource = Rc::new(RefCell::new(kept));
    drop(extractor);
    let mut report = Report::new(prepared.task.as_ref());
    let mut tried: Vec<Tap> = Vec::new();
    for pass in passes {
        match arguments.one_pass(&pass, &taps, &prepared, common, canvas, &latents) {
            Ok(found) => tried.extend(found),
            Err(Stop::Asked) => {
                eprintln!("stopped; the same command goes on where this one ended");
                return Ok(Ending::Interrupted);
            }
            Err(Stop::Failed(failure)) => return Err(failure),
        }
        report.rows = tried.iter().map(|found| found.row.clone()).collect();
        write::report(&report, &common.output, &[])?;
    }
    plots(&tried, &report, common)?;
    let validation = arguments.chosen_on.as_deref();
    choices::write(&tried, &report, &common.output, validation)?;
    write::print(&report);
    Ok(Ending::Complete)
}

/// Options that evaluations of one model have and that mean nothing here are refused, not ignored.
fn refuse_what_a_sweep_chooses(common: &CommonArguments) -> Result<(), Failure> {
    let instead = [
        (common.taps.is_some(), "--taps", "--sweep-taps"),
        (
            common.mode.is_special(),
            "a mode or a timestep",
            "--modes and --timesteps",
        ),
        (common.mode.ensemble > 1, "--ensemble", "--ensembles"),
    ];
    if let Some((_, given, own)) = instead.into_iter().find(|(given, ..)| *given) {
        return Err(Failure::new(format!(
            "a sweep does not take {given}: it has {own}, in front of the task"
        )));
    }
    let missing = [
        (common.floors == Floors::Only, "--floors only"),
        (common.seeds > 1, "--seeds"),
        (common.cache_components.is_some(), "--cache-components"),
    ];
    match missing.into_iter().find(|(given, _)| *given) {
        Some((_, given)) => Err(Failure::new(format!("a sweep has no {given}: use `eval`"))),
        None => Ok(()),
    }
}

impl SweepArguments {
    fn passes(&self) -> Vec<Pass> {
        let of_mode = |&mode: &SweepMode| match mode {
            SweepMode::Clean => vec![Pass {
                mode,
                timestep: None,
            }],
            _ => (self.timesteps.iter())
                .map(|&timestep| Pass {
                    mode,
                    timestep: Some(timestep),
                })
                .collect(),
        };
        self.modes.iter().flat_map(of_mode).collect()
    }

    /// All taps and means of one mode and timestep.
    fn one_pass(
        &self,
        pass: &Pass,
        taps: &[String],
        prepared: &Prepared,
        common: &CommonArguments,
        canvas: Canvas,
        latents: &LatentsSource<'_>,
    ) -> Result<Vec<Tap>, Stop> {
        let mut counts: Vec<usize> = match pass.mode {
            SweepMode::Noisy => self.ensembles.clone(),
            _ => Vec::new(),
        };
        counts.sort();
        counts.dedup();
        let timestep = pass.timestep.unwrap_or_default();
        let request = Request {
            taps: Some(taps.join(",")),
            mode: match pass.mode {
                SweepMode::Clean => Mode::Clean { timestep: None },
                SweepMode::Naive => Mode::NaiveClean {
                    timestep: timestep as f64,
                },
                SweepMode::Projected => Mode::Projected {
                    timestep: timestep as f64,
                },
                SweepMode::Noisy => Mode::Noisy {
                    timestep,
                    noise: Noise::Drawn {
                        seed: common.mode.seed,
                        count: counts.last().copied().unwrap_or(1),
                    },
                },
            },
            ..Request::default()
        };
        let (origin, extractor) = common.model.extractor(request)?;
        let words = mode_words(&extractor);
        eprintln!("{words}");
        let mut identity = identity(&origin)?;
        identity.extend(settings([("mode", json!(words))]));
        let images = prepared.task.images();
        let source = model_source(extractor, canvas, &images, identity)?;
        let source = source.sharing(Rc::clone(latents), counts.clone());
        let left = Rc::new(Cell::new(0));
        let mut timed = Timed::new(Box::new(source), Rc::clone(&left));
        let memory = bytes_of(common.memory) as usize;
        let mut cache =
            Cache::new(&mut timed, memory, common.storage("features")).map_err(Failure::from)?;
        left.set(missing(&cache, &images));
        let mut joined;
        let features: &mut dyn Source = match &prepared.fuse {
            Some(fuse) => {
                joined = WithExternal::new(&mut cache, fuse).map_err(Failure::from)?;
                &mut joined
            }
            None => &mut cache,
        };
        let means: Vec<Option<usize>> = match counts.is_empty() {
            true => vec![None],
            false => counts.into_iter().map(Some).collect(),
        };
        let mut found = Vec::new();
        for tap in taps {
            for &count in &means {
                let tap_row = self.one_tap(pass, tap, count, features, prepared, common)?;
                found.push(tap_row);
            }
        }
        Ok(found)
    }

    fn one_tap(
        &self,
        pass: &Pass,
        tap: &str,
        count: Option<usize>,
        features: &mut dyn Source,
        prepared: &Prepared,
        common: &CommonArguments,
    ) -> Result<Tap, Stop> {
        let begun = Instant::now();
        let name = name(pass, tap, count);
        let file = format!("items/{}.jsonl", slug(&name));
        let taps = vec![tap_name(tap, count)];
        let mut settings = features.settings();
        settings.insert("evaluated_taps".to_owned(), taps.join(",").into());
        let mut candidate = cleandift::eval::Candidate::Features {
            source: features,
            taps,
        };
        let path = common.output.join(&file);
        let task = prepared.task.as_ref();
        let (mut row, _) = items_of(task, &mut candidate, settings, &name, &path)?;
        row.items = file;
        row.seconds = begun.elapsed().as_secs_f64();
        Ok(Tap {
            pass: Pass { ..*pass },
            tap: tap.to_owned(),
            count,
            row,
        })
    }
}

fn name(pass: &Pass, tap: &str, count: Option<usize>) -> String {
    let mode = mode_name(pass.mode, count);
    match pass.timestep {
        None => format!("{mode}, {tap}"),
        Some(timestep) => format!("{mode}, {tap}, t {timestep}"),
    }
}

fn mode_name(mode: SweepMode, count: Option<usize>) -> String {
    let mode = format!("{mode:?}").to_lowercase();
    match count {
        None => mode,
        Some(count) => format!("{mode} x{count}"),
    }
}

/// The first figure over timesteps, one plot a tap; and over taps, each mode at its best timestep.
fn plots(tried: &[Tap], report: &Report, common: &CommonArguments) -> Result<(), Failure> {
    let figure = &report.schema.figures[0];
    let words = |value: f64| figure.words(value);
    let mut taps: Vec<&str> = tried.iter().map(|found| found.tap.as_str()).collect();
    taps.dedup();
    let mut unique: Vec<&str> = Vec::new();
    taps.iter().for_each(|tap| {
        if !unique.contains(tap) {
            unique.push(tap)
        }
    });
    for tap in &unique {
        let title = format!("{}, {tap}: {}", report.task, figure.name);
        let lines = Lines {
            title: &title,
            axis: "timestep",
            names: Vec::new(),
            series: series(tried.iter().filter(|found| found.tap == **tap), |found| {
                found.pass.timestep.map(|timestep| timestep as f64)
            }),
            words: &words,
        };
        write::plot(&lines.draw(), &common.output, &format!("timesteps-{tap}"))?;
    }
    if unique.len() > 1 {
        let place = |found: &Tap| unique.iter().position(|tap| *tap == found.tap);
        let title = format!(
            "{}: {}, each mode at its best timestep",
            report.task, figure.name
        );
        let lines = Lines {
            title: &title,
            axis: "tap",
            names: unique.iter().map(|tap| tap.to_string()).collect(),
            series: series(tried.iter(), |found| place(found).map(|place| place as f64)),
            words: &words,
        };
        write::plot(&lines.draw(), &common.output, "taps")?;
    }
    Ok(())
}

/// One line a mode; of several values at one x the highest. Without an x a mode is a level.
fn series<'t>(
    tried: impl Iterator<Item = &'t Tap>,
    x: impl Fn(&Tap) -> Option<f64>,
) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for found in tried {
        let name = found.mode();
        let at = x(found);
        let index = all
            .iter()
            .position(|series| series.name == name)
            .unwrap_or_else(|| {
                all.push(Series {
                    name,
                    points: Vec::new(),
                    level: at.is_none(),
                });
                all.len() - 1
            });
        let (at, value) = (at.unwrap_or(0.0), found.row.figures[0]);
        let points = &mut all[index].points;
        match points.iter_mut().find(|(x, _)| *x == at) {
            Some((_, known)) if known.value < value.value => *known = value,
            Some(_) => {}
            None => points.push((at, value)),
        }
    }
    all
}
