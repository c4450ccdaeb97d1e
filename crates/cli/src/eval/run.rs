//! One evaluation: the plan, each candidate in turn, the report.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use cleandift::eval::report::{Report, Row};
use cleandift::eval::source::{Canvas, Reduced, WithExternal, fingerprint};
use cleandift::eval::{Cache, EvalError, Image, Item, Journal, Progress, Run, Source, Task};
use cleandift::image::{Fit, Resample, Size};

use super::candidates::{Candidate, Ready, Timed, candidates, extractor, ready};
use super::common::{CacheType, CommonArguments, bytes_of};
use super::write;
use crate::failure::{Ending, Failure};
use crate::stop;
use crate::table::bytes;

/// The folder of trained probes within the output.
pub const PROBES: &str = "probes";

/// A task with its data loaded.
pub struct Prepared {
    /// The task.
    pub task: Box<dyn Task>,
    /// How features are made, unless the user says otherwise.
    pub defaults: Defaults,
    /// Features made elsewhere.
    pub fuse: Option<PathBuf>,
}

/// How features are made, unless the user says otherwise.
pub struct Defaults {
    /// How a picture gets onto the canvas.
    pub fit: Fit,
    /// How it is resampled.
    pub resample: Resample,
    /// The canvas, if not the model's own.
    pub size: Option<Size>,
    /// The windows through which a larger canvas is seen, if not whole.
    pub window: Option<usize>,
    /// The taps.
    pub taps: String,
}

impl Prepared {
    /// A canvas of this size.
    pub fn canvas(&self, size: Size) -> Canvas {
        Canvas {
            size,
            fit: self.defaults.fit,
            resample: self.defaults.resample,
            window: self.defaults.window,
        }
    }
}

/// Runs a task for all candidates and writes the report.
pub fn run(prepared: Prepared, common: &CommonArguments) -> Result<Ending, Failure> {
    stop::listen("picture")?;
    let task = prepared.task.as_ref();
    let all = candidates(task.floors(), common);
    // What does not fit is said before anything is done: floors come first, and take their time.
    if all.iter().any(|one| matches!(one, Candidate::Model(_))) {
        extractor(0, &prepared, common)?;
    }
    say_plan(task, common, all.len());
    if common.dry_run {
        eprintln!("nothing was done (--dry-run)");
        return Ok(Ending::Complete);
    }
    forget(common)?;
    let mut report = Report::new(task);
    let mut drawn = Vec::new();
    for candidate in &all {
        match evaluate(candidate, &prepared, common) {
            Ok((row, cases)) => {
                report.rows.push(row);
                drawn.extend(cases);
            }
            Err(Stop::Asked) => {
                eprintln!("stopped; the same command goes on where this one ended");
                return Ok(Ending::Interrupted);
            }
            Err(Stop::Failed(failure)) => return Err(failure),
        }
        write::report(&report, &common.output, &drawn)?;
    }
    write::print(&report);
    eprintln!("report: {}", common.output.join("report.md").display());
    Ok(Ending::Complete)
}

/// Makes the folder for results ready; earlier ones are forgotten if that was asked for.
pub fn forget(common: &CommonArguments) -> Result<(), Failure> {
    let items = common.output.join("items");
    let forgotten = [items.clone(), common.output.join(PROBES)];
    for folder in forgotten
        .iter()
        .filter(|folder| common.overwrite && folder.exists())
    {
        fs::remove_dir_all(folder).map_err(|error| failed(folder, &error))?;
    }
    fs::create_dir_all(&items).map_err(|error| failed(&items, &error))
}

/// Why an evaluation ended early.
pub enum Stop {
    /// A signal asked for it.
    Asked,
    /// Something went wrong.
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

/// Says before the run what it will need.
fn say_plan(task: &dyn Task, common: &CommonArguments, candidates: usize) {
    let images = task.images().len();
    eprintln!(
        "{}: {images} pictures, {candidates} candidates",
        task.name()
    );
    eprintln!(
        "features are kept on disk up to {} ({:?}), in memory up to {}; the oldest go first and \
         are made again if needed; the time is said after 3 pictures",
        bytes(bytes_of(common.cache)),
        common.cache_dtype,
        bytes(bytes_of(common.memory)),
    );
}

/// Evaluates one candidate.
fn evaluate(
    candidate: &Candidate,
    prepared: &Prepared,
    common: &CommonArguments,
) -> Result<(Row, Vec<String>), Stop> {
    let Ready {
        name,
        group,
        source,
        taps,
        needs,
    } = ready(candidate, prepared, common)?;
    eprintln!("{name}");
    if let Some(needs) = needs {
        say_needs(needs, prepared.task.images().len(), common);
    }
    let begun = Instant::now();
    let task = prepared.task.as_ref();
    let file = format!("items/{}.jsonl", slug(&name));
    let path = common.output.join(&file);
    let (mut row, cases) = match source {
        None => {
            let Candidate::Floor(floor) = candidate else {
                unreachable!("only floors have no source");
            };
            let mut candidate = cleandift::eval::Candidate::Floor(floor);
            let settings = Default::default();
            let (row, _) = items_of(task, &mut candidate, settings, &name, &path)?;
            (row, Vec::new())
        }
        Some(source) => {
            let is_model = matches!(candidate, Candidate::Model(_));
            let components = common.cache_components.filter(|_| is_model);
            kept(source, components, prepared, common, |features| {
                let mut settings = features.settings();
                settings.insert("evaluated_taps".to_owned(), taps.join(",").into());
                let mut candidate = cleandift::eval::Candidate::Features {
                    source: features,
                    taps,
                };
                let (row, items) = items_of(task, &mut candidate, settings, &name, &path)?;
                let cases = match is_model {
                    true => {
                        write::cases(task, &mut candidate, &items, &common.output, &slug(&name))?
                    }
                    false => Vec::new(),
                };
                Ok((row, cases))
            })?
        }
    };
    row.items = file;
    row.group = group;
    row.seconds = begun.elapsed().as_secs_f64();
    Ok((row, cases))
}

/// Does some work with a source that is timed, reduced, kept, and joined with features made
/// elsewhere, as the arguments say.
fn kept<R>(
    source: Box<dyn Source>,
    components: Option<usize>,
    prepared: &Prepared,
    common: &CommonArguments,
    work: impl FnOnce(&mut dyn Source) -> Result<R, Stop>,
) -> Result<R, Stop> {
    let images = prepared.task.images();
    let left = Rc::new(Cell::new(0));
    let mut timed = Timed::new(source, Rc::clone(&left));
    let mut reduced;
    let features: &mut dyn Source = match components {
        Some(count) => {
            reduced = Reduced::new(&mut timed, count, &images, common.output.clone());
            &mut reduced
        }
        None => &mut timed,
    };
    let memory = bytes_of(common.memory) as usize;
    let mut cache =
        Cache::new(features, memory, common.storage("features")).map_err(Failure::from)?;
    left.set(missing(&cache, &images));
    match &prepared.fuse {
        Some(fuse) => {
            let mut joined = WithExternal::new(&mut cache, fuse).map_err(Failure::from)?;
            work(&mut joined)
        }
        None => work(&mut cache),
    }
}

/// Says what a model's features take, and what follows from the bounds.
fn say_needs([features, memory]: [usize; 2], images: usize, common: &CommonArguments) {
    let half = common.cache_dtype == CacheType::F16;
    let disk = (features * images) as u64 / if half { 2 } else { 1 };
    let follows = match disk <= bytes_of(common.cache) {
        true => "all are kept on disk",
        false => "more than --cache: the oldest go, and are made again if they are needed again",
    };
    eprintln!(
        "  features: {} a picture, {} in all: {follows}; memory while they are made: {}",
        bytes(disk / images.max(1) as u64),
        bytes(disk),
        bytes(memory as u64)
    );
}

/// How many pictures' features are not on disk yet.
pub fn missing(cache: &Cache, images: &[Image]) -> usize {
    images.iter().filter(|image| !cache.holds(image)).count()
}

/// Runs the task, with its journal at `path`.
pub fn items(
    task: &dyn Task,
    candidate: &mut cleandift::eval::Candidate,
    settings: cleandift::eval::Settings,
    path: &Path,
) -> Result<Vec<Item>, Stop> {
    let mut header = task.settings();
    header.extend(settings);
    header.insert("task".to_owned(), task.name().into());
    header.insert("cleandift".to_owned(), env!("CARGO_PKG_VERSION").into());
    header.extend(fingerprint(&task.images()));
    let begun = Instant::now();
    let mut said = Instant::now();
    let mut watch = |Progress { done, total }: Progress| {
        if said.elapsed().as_secs() >= 10 {
            said = Instant::now();
            let seconds = begun.elapsed().as_secs_f64();
            match total {
                0 => eprintln!("  preparing, {seconds:.0} s"),
                total => eprintln!("  {done} of {total}, {seconds:.0} s"),
            }
        }
        !stop::asked()
    };
    let mut run = Run {
        journal: Journal::open(path, &header).map_err(Failure::from)?,
        watch: &mut watch,
    };
    match task.evaluate(candidate, &mut run) {
        Ok(items) => Ok(items),
        Err(EvalError::Stopped) => Err(Stop::Asked),
        Err(error) => Err(Stop::Failed(error.into())),
    }
}

/// Runs the task, with its journal at `path`, and sums it up.
pub fn items_of(
    task: &dyn Task,
    candidate: &mut cleandift::eval::Candidate,
    settings: cleandift::eval::Settings,
    name: &str,
    path: &Path,
) -> Result<(Row, Vec<Item>), Stop> {
    let items = items(task, candidate, settings.clone(), path)?;
    Ok((Row::new(name, settings, &items, task.schema()), items))
}

/// A name that suits a file.
pub fn slug(name: &str) -> String {
    let letter = |c: char| {
        if c.is_ascii_alphanumeric() || c == '.' {
            c
        } else {
            '-'
        }
    };
    let text: String = name.chars().map(letter).collect();
    let parts: Vec<&str> = text.split('-').filter(|part| !part.is_empty()).collect();
    parts.join("-")
}
