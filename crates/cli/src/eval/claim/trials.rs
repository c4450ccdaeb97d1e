//! Every setting of every way, on one task: each pass over its pictures makes all taps and all means
//! over draws at once, and serves the part for choosing and the part that is reported.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use cleandift::engine::cpu::Arithmetic;
use cleandift::eval::claim::{Contest, Setting, Suite, Trial, Way};
use cleandift::eval::source::{LatentSource, Latents as SharedLatents, Pooled, tap_name};
use cleandift::eval::{Cache, Candidate, Item, Settings, Source as FeatureSource, Task};
use cleandift::extractor::{Codec, Latents, Mode, Noise, Request};
use serde_json::json;

use super::super::candidates::{self, identity, model_source, settings};
use super::super::common::bytes_of;
use super::super::run::{Stop, items, slug};
use super::described;
use crate::arguments::ModelArguments;
use crate::extract::mode_words;
use crate::failure::Failure;

/// The seed of noise.
const SEED: u64 = 0;

/// Draws of noise that are run at once.
const BATCH: usize = 8;

/// Where a task's folder has the items that are reported.
pub const ITEMS: &str = "items";

/// Where it has those that settings are chosen on.
pub const CHOOSING: &str = "choosing";

/// The tap of the floor of random weights.
const FLOOR_TAP: &str = "us6";

/// The base and its fine-tunings.
pub struct Models {
    pub base: ModelArguments,
    clean: Vec<ModelArguments>,
    /// Features kept in memory, in GiB.
    memory: f64,
}

/// What was tried.
pub struct Tried {
    pub base: Vec<Trial>,
    /// By fine-tuning.
    pub clean: Vec<Vec<Trial>>,
}

/// One pass over all pictures of a task.
pub struct Pass<'m> {
    pub model: &'m ModelArguments,
    /// Which fine-tuning it is, if it is one.
    pub seed: Option<usize>,
    /// Ways with their means; several of noisy features.
    pub ways: Vec<Way>,
    pub timestep: Option<usize>,
}

impl Models {
    /// The models of these paths or names; fine-tunings take from the base what they lack.
    pub fn new(base: &Path, clean: &[PathBuf], threads: usize, memory: f64) -> Self {
        let arguments = |model: &Path, base: Option<&Path>| ModelArguments {
            model: Some(model.to_owned()),
            base: base.map(Path::to_owned),
            lora: None,
            lora_scale: 1.0,
            threads,
            arithmetic: Arithmetic::default(),
            low_memory: false,
        };
        let tuned = clean.iter().map(|model| arguments(model, Some(base)));
        Self {
            clean: tuned.collect(),
            base: arguments(base, None),
            memory,
        }
    }

    /// Opens all of them, so that what does not fit is said before anything is done.
    pub fn check(&self) -> Result<(), Failure> {
        for model in self.clean.iter().chain([&self.base]) {
            model.source()?.model()?;
        }
        Ok(())
    }

    pub fn base_settings(&self) -> Result<Settings, Failure> {
        described(&self.base.source()?)
    }

    pub fn clean_settings(&self) -> Result<Vec<Settings>, Failure> {
        let models = self.clean.iter();
        models.map(|model| described(&model.source()?)).collect()
    }

    /// All passes of a suite; those of the same pictures follow each other by model.
    pub fn passes(&self, suite: &Suite) -> Vec<Pass<'_>> {
        let noisy = || suite.draws.iter().map(|&draws| Way::Noisy { draws });
        let of_base = |ways: Vec<Way>| {
            suite.timesteps.iter().map(move |&timestep| Pass {
                model: &self.base,
                seed: None,
                ways: ways.clone(),
                timestep: Some(timestep),
            })
        };
        let tuned = self.clean.iter().enumerate().map(|(seed, model)| Pass {
            model,
            seed: Some(seed),
            ways: vec![Way::Clean],
            timestep: None,
        });
        let base = of_base(noisy().collect()).chain(of_base(vec![Way::Naive]));
        base.chain(tuned).collect()
    }

    /// The base's latents of a task's pictures, for all its passes.
    pub fn latents(&self, contest: &Contest) -> Result<LatentSource, Failure> {
        latents(&self.base, contest)
    }

    pub fn memory(&self) -> usize {
        bytes_of(self.memory) as usize
    }
}

/// What a model's codec makes of a task's pictures.
fn latents(model: &ModelArguments, contest: &Contest) -> Result<LatentSource, Failure> {
    let (origin, extractor) = model.extractor(Request::default())?;
    let codec = &extractor.model().codec;
    let codec = Codec::new(codec, Latents::Mean, extractor.processor());
    Ok(LatentSource::new(codec, contest.canvas, identity(&origin)?))
}

impl Pass<'_> {
    fn counts(&self) -> Vec<usize> {
        let draws = self.ways.iter().filter_map(|way| match way {
            Way::Noisy { draws } => Some(*draws),
            _ => None,
        });
        let mut counts: Vec<usize> = draws.collect();
        counts.sort();
        counts
    }

    fn mode(&self) -> Mode {
        match (self.timestep, self.counts().last()) {
            (Some(timestep), Some(&count)) => Mode::Noisy {
                timestep,
                noise: Noise::Drawn { seed: SEED, count },
            },
            (Some(timestep), None) => Mode::NaiveClean {
                timestep: timestep as f64,
            },
            (None, _) => Mode::Clean { timestep: None },
        }
    }

    /// Features of this pass, of all taps.
    pub fn source<'l>(
        &self,
        contest: &Contest,
        latents: &SharedLatents<'l>,
    ) -> Result<Box<dyn FeatureSource + 'l>, Failure> {
        let request = Request {
            taps: Some(contest.taps.join(",")),
            mode: self.mode(),
            ..Request::default()
        };
        let (origin, extractor) = self.model.extractor(request)?;
        let mut identity = identity(&origin)?;
        identity.extend(settings([("mode", json!(mode_words(&extractor)))]));
        let images = contest.images();
        let source = model_source(extractor, contest.canvas, &images, identity)?;
        let source = source.sharing(Rc::clone(latents), self.counts());
        let source = source.in_batches_of(BATCH);
        Ok(of_maps(contest, Box::new(source)))
    }

    /// The settings that this pass serves, with their taps' names.
    pub fn settings(&self, contest: &Contest) -> Vec<(Setting, String)> {
        let of_way = |&way: &Way| {
            let count = match way {
                Way::Noisy { draws } => Some(draws),
                _ => None,
            };
            contest.taps.iter().map(move |tap| {
                let setting = Setting {
                    way,
                    timestep: self.timestep,
                    tap: tap.clone(),
                };
                (setting, tap_name(tap, count))
            })
        };
        self.ways.iter().flat_map(of_way).collect()
    }

    /// Evaluates all settings of this pass.
    pub fn run(
        &self,
        contest: &Contest,
        latents: &SharedLatents,
        memory: usize,
        folder: &Path,
    ) -> Result<Vec<Trial>, Stop> {
        let mut source = self.source(contest, latents)?;
        let mut features = Cache::new(source.as_mut(), memory, None)?;
        let mut trials = Vec::new();
        for (setting, tap) in self.settings(contest) {
            let name = match self.seed {
                Some(seed) => format!("{}, fine-tuning {}", setting.name(), seed + 1),
                None => setting.name(),
            };
            let mut part = |task: &dyn Task, part: &str| {
                let path = folder.join(part).join(format!("{}.jsonl", slug(&name)));
                with_features(task, &mut features, &tap, &path)
            };
            let choosing = contest.choosing.as_ref();
            trials.push(Trial {
                choosing: choosing
                    .map(|task| part(task.as_ref(), CHOOSING))
                    .transpose()?,
                reported: part(contest.reported.as_ref(), ITEMS)?,
                setting,
            });
        }
        Ok(trials)
    }
}

/// What a task looks at of some features.
fn of_maps<'s>(
    contest: &Contest,
    source: Box<dyn FeatureSource + 's>,
) -> Box<dyn FeatureSource + 's> {
    match contest.pooled {
        true => Box::new(Pooled::new(source)),
        false => source,
    }
}

/// The items of a task with one tap of some features.
pub fn with_features(
    task: &dyn Task,
    features: &mut dyn FeatureSource,
    tap: &str,
    path: &Path,
) -> Result<Vec<Item>, Stop> {
    let mut settings = features.settings();
    settings.insert("evaluated_taps".to_owned(), tap.into());
    let mut candidate = Candidate::Features {
        source: features,
        taps: vec![tap.to_owned()],
    };
    items(task, &mut candidate, settings, path)
}

/// All passes of a task.
pub fn run(
    suite: &Suite,
    contest: &Contest,
    models: &Models,
    folder: &Path,
) -> Result<Tried, Stop> {
    for part in [ITEMS, CHOOSING] {
        fs::create_dir_all(folder.join(part))?;
    }
    let mut latents = models.latents(contest)?;
    let latents: SharedLatents = Rc::new(RefCell::new(Cache::new(
        &mut latents,
        models.memory() / 4,
        None,
    )?));
    let mut tried = Tried {
        base: Vec::new(),
        clean: Vec::new(),
    };
    let passes = models.passes(suite);
    let count = passes.len();
    for (place, pass) in passes.into_iter().enumerate() {
        let begun = std::time::Instant::now();
        let found = match pass.seed {
            None => pass.run(contest, &latents, models.memory(), folder)?,
            // A fine-tuning may have a codec of its own.
            Some(_) => {
                let own: SharedLatents = Rc::new(RefCell::new(self::latents(pass.model, contest)?));
                pass.run(contest, &own, models.memory(), folder)?
            }
        };
        eprintln!(
            "  pass {} of {count}: {}{}, {:.1} s",
            place + 1,
            pass.ways.last().map_or_else(String::new, |way| way.name()),
            pass.timestep
                .map_or_else(String::new, |t| format!(", t {t}")),
            begun.elapsed().as_secs_f64()
        );
        match pass.seed {
            Some(_) => tried.clean.push(found),
            None => tried.base.extend(found),
        }
    }
    Ok(tried)
}

/// What needs no training, on the part that is reported.
pub fn floors(
    contest: &Contest,
    models: &Models,
    folder: &Path,
) -> Result<Vec<(String, Vec<Item>)>, Stop> {
    let task = contest.reported.as_ref();
    let memory = models.memory();
    let mut found = Vec::new();
    for floor in candidates::floors(task.floors()) {
        let images = task.images();
        let taps = FLOOR_TAP;
        let ready = candidates::floor(&floor, &images, contest.canvas, taps, models.base.threads)?;
        let path = folder
            .join(ITEMS)
            .join(format!("{}.jsonl", slug(&ready.name)));
        let items = match (ready.source, &floor) {
            (Some(source), _) => {
                let mut source = of_maps(contest, source);
                let mut features = Cache::new(source.as_mut(), memory, None)?;
                with_features(task, &mut features, &ready.taps[0], &path)?
            }
            (None, candidates::Candidate::Floor(name)) => {
                let settings = Settings::new();
                items(task, &mut Candidate::Floor(name), settings, &path)?
            }
            (None, _) => unreachable!("only a task's own floors have no source"),
        };
        eprintln!("  floor: {}", ready.name);
        found.push((ready.name, items));
    }
    Ok(found)
}
