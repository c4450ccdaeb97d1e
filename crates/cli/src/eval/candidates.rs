//! Who is evaluated: floors that need no model, and the model in the wanted mode.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use cleandift::engine::cpu::Processor;
use cleandift::eval::source::{Canvas, ModelSource, PixelFeature, PixelSource, Seen};
use cleandift::eval::{EvalError, Image, Settings, Source as FeatureSource};
use cleandift::extractor::{Extractor, Mode, Model, Noise, Prompts, Request};
use cleandift::image::{Extent, Size};
use serde_json::json;

use super::common::{CommonArguments, Floors};
use super::run::Prepared;
use crate::extract::mode_words;
use crate::failure::Failure;
use crate::source::Source;

/// The seed of the floor's random weights: not that of the built-in model, which one may evaluate
/// by itself.
const FLOOR_SEED: u64 = 1;

/// The canvas of pixels and colours, and of random weights.
const FLOOR_CANVAS: usize = 128;

/// The canvas of SIFT, which lives on detail.
const SIFT_CANVAS: usize = 256;

/// A candidate, before anything is loaded for it.
#[derive(Clone, Debug)]
pub enum Candidate {
    /// One of the task's own floors.
    Floor(&'static str),
    /// Pixels.
    Pixels(PixelFeature),
    /// The built-in small model with random weights.
    RandomWeights,
    /// The model, with a seed's place.
    Model(usize),
}

/// What needs no trained model: a task's own floors, pixels, random weights.
pub fn floors(own: &'static [&'static str]) -> Vec<Candidate> {
    let own = own.iter().map(|floor| Candidate::Floor(floor));
    let pixels = [PixelFeature::Colour, PixelFeature::Raw, PixelFeature::Sift];
    own.chain(pixels.map(Candidate::Pixels))
        .chain([Candidate::RandomWeights])
        .collect()
}

/// All candidates of a run.
pub fn candidates(floors: &'static [&'static str], common: &CommonArguments) -> Vec<Candidate> {
    let mut all = match common.floors {
        Floors::None => Vec::new(),
        Floors::All | Floors::Only => self::floors(floors),
    };
    if common.floors != Floors::Only {
        all.extend((0..common.seeds).map(Candidate::Model));
    }
    all
}

/// A candidate ready to be evaluated.
pub struct Ready {
    /// What reports call it.
    pub name: String,
    /// What rows that differ in their seed share.
    pub group: String,
    /// Its features; `None` for the task's own floors.
    pub source: Option<Box<dyn FeatureSource>>,
    /// Its taps.
    pub taps: Vec<String>,
    /// Bytes of one picture's features in f32, and of memory while they are made, if known.
    pub needs: Option<[usize; 2]>,
}

/// Makes a candidate ready: opens its model and encodes the prompts.
pub fn ready(
    candidate: &Candidate,
    prepared: &Prepared,
    common: &CommonArguments,
) -> Result<Ready, Failure> {
    match candidate {
        Candidate::Model(place) => model(*place, prepared, common),
        other => {
            let images = prepared.task.images();
            let defaults = &prepared.defaults;
            let canvas = prepared.canvas(small());
            floor(other, &images, canvas, &defaults.taps, common.model.threads)
        }
    }
}

/// The canvas of pixels and colours, and of random weights.
fn small() -> Size {
    Extent::new(FLOOR_CANVAS, FLOOR_CANVAS).into()
}

/// Makes a candidate that is no model ready: it sees `images` as `canvas` says, but at a size of its
/// own; random weights give `taps`.
pub fn floor(
    candidate: &Candidate,
    images: &[Image],
    canvas: Canvas,
    taps: &str,
    threads: usize,
) -> Result<Ready, Failure> {
    let of = |name: &str, source: Option<Box<dyn FeatureSource>>, taps: Vec<String>| Ready {
        name: name.to_owned(),
        group: name.to_owned(),
        source,
        taps,
        needs: None,
    };
    let canvas = |size: Size| Canvas { size, ..canvas };
    Ok(match candidate {
        Candidate::Floor(name) => of(name, None, Vec::new()),
        Candidate::Pixels(feature) => {
            let (name, size) = match feature {
                PixelFeature::Raw => ("raw pixels", small()),
                PixelFeature::Colour => ("mean colours", small()),
                PixelFeature::Sift => ("dense SIFT", Extent::new(SIFT_CANVAS, SIFT_CANVAS).into()),
            };
            let source = PixelSource::new(*feature, canvas(size));
            let taps = vec![PixelSource::TAP.to_owned()];
            of(name, Some(Box::new(source)), taps)
        }
        Candidate::RandomWeights => {
            let request = Request {
                taps: Some(taps.to_owned()),
                ..Request::default()
            };
            let processor = Processor::from_env(threads)?;
            let extractor = Extractor::new(Model::random(FLOOR_SEED), request, processor)?;
            let identity =
                settings([("model", json!(format!("random weights, seed {FLOOR_SEED}")))]);
            let source = model_source(extractor, canvas(small()), images, identity)?;
            let taps = tap_names(&source);
            of("random weights (small)", Some(Box::new(source)), taps)
        }
        Candidate::Model(_) => unreachable!("a model is no floor"),
    })
}

/// The canvas on which a model sees a task's pictures. What a protocol says of Stable Diffusion's does
/// not hold for a small model.
pub fn canvas(extractor: &Extractor, prepared: &Prepared, common: &CommonArguments) -> Canvas {
    let of_protocol = prepared
        .defaults
        .size
        .filter(|_| !extractor.model().is_small());
    let own = || Size::from(extractor.default_size());
    prepared.canvas(common.size.or(of_protocol).unwrap_or_else(own))
}

/// The model in the wanted mode, with a seed's place.
pub fn extractor(
    place: usize,
    prepared: &Prepared,
    common: &CommonArguments,
) -> Result<(Source, Extractor), Failure> {
    common.model.extractor_for(|model| {
        // What a protocol says of Stable Diffusion's taps does not hold for a small model.
        let protocol = (!model.is_small()).then_some(&prepared.defaults.taps);
        let taps = common.taps.as_ref().or(protocol);
        common.mode.request(taps.map(String::as_str), place)
    })
}

fn model(place: usize, prepared: &Prepared, common: &CommonArguments) -> Result<Ready, Failure> {
    let (origin, extractor) = extractor(place, prepared, common)?;
    if let Some(warning) = origin.warning() {
        eprintln!("note: {warning}");
    }
    let canvas = canvas(&extractor, prepared, common);
    let mode = mode_words(&extractor);
    let short = short_mode(&extractor.request().mode);
    let group = match origin {
        Source::Random => format!("built-in random model, {short}"),
        Source::Files(_) => format!("{}, {short}", origin.short_name()),
    };
    let name = match common.seeds {
        1 => group.clone(),
        _ => format!("{group}, seed {}", common.mode.seed + place as u64),
    };
    let network = format!("{:?}", extractor.role()).to_lowercase();
    let mut identity = identity(&origin)?;
    identity.extend(settings([
        ("mode", json!(mode)),
        ("network", json!(network)),
    ]));
    let needs = match canvas.size {
        Size::Exact(extent) => {
            let window = canvas.windows(extent).extent();
            let estimate = extractor.estimate(window, 1, Prompts::One)?;
            let bytes = match common.cache_components {
                None => estimate.feature_bytes(),
                Some(count) => {
                    let reduced = estimate.feature_cells() * count * size_of::<f32>();
                    reduced.min(estimate.feature_bytes())
                }
            };
            let area = |extent: Extent| extent.width * extent.height;
            Some([bytes * area(extent) / area(window), estimate.peak_bytes])
        }
        Size::Native { .. } => None,
    };
    let images = prepared.task.images();
    let source = model_source(extractor, canvas, &images, identity)?;
    Ok(Ready {
        needs,
        taps: tap_names(&source),
        name,
        group,
        source: Some(Box::new(source)),
    })
}

/// A mode without its seed, in a few words.
fn short_mode(mode: &Mode) -> String {
    match mode {
        Mode::Clean { timestep: None } => "clean".to_owned(),
        Mode::Clean {
            timestep: Some(timestep),
        } => format!("clean at t {timestep}"),
        Mode::NaiveClean { timestep } => format!("naive clean, t {timestep}"),
        Mode::Projected { timestep } => format!("projected, t {timestep}"),
        Mode::Noisy { timestep, noise } => {
            let count = match noise {
                Noise::Drawn { count, .. } => *count,
                Noise::Given(noise) => noise.images,
            };
            format!("noisy, t {timestep}, {count} draws")
        }
    }
}

/// What results and kept features of a model belong to: with another one they are not gone on with.
pub fn identity(origin: &Source) -> Result<Settings, Failure> {
    Ok(settings([
        ("model", json!(origin.short_name())),
        ("weights_sha256", json!(origin.hash()?)),
        ("configs_sha256", json!(origin.configs_hash())),
    ]))
}

/// A model that will see the pictures of a task, with their prompts.
pub fn model_source<'l>(
    extractor: Extractor,
    canvas: Canvas,
    images: &[Image],
    identity: Settings,
) -> Result<ModelSource<'l>, Failure> {
    let prompts = images.iter().map(|image| image.prompt.as_str());
    Ok(ModelSource::new(extractor, canvas, prompts, identity)?)
}

fn tap_names(source: &ModelSource) -> Vec<String> {
    let groups = source.extractor().groups().iter();
    groups.map(|group| group.name().to_owned()).collect()
}

pub fn settings<const N: usize>(entries: [(&str, serde_json::Value); N]) -> Settings {
    entries
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

/// A source that is timed, and says after a few pictures how long the rest will take.
pub struct Timed<'s> {
    source: Box<dyn FeatureSource + 's>,
    left: Rc<Cell<usize>>,
    times: Vec<Duration>,
}

/// Pictures after which the estimate is given.
const MEASURED: usize = 3;

impl<'s> Timed<'s> {
    /// Times `source`; `left` says how many pictures' features are to be made.
    pub fn new(source: Box<dyn FeatureSource + 's>, left: Rc<Cell<usize>>) -> Self {
        Self {
            source,
            left,
            times: Vec::new(),
        }
    }

    /// The time for the pictures that are left. The first one also prepares the weights: it counts
    /// only if there is no other.
    fn estimate(&self) -> Duration {
        let later = &self.times[1.min(self.times.len() - 1)..];
        let mean = later.iter().sum::<Duration>() / later.len() as u32;
        mean * self.left.get().saturating_sub(self.times.len()) as u32
    }
}

impl FeatureSource for Timed<'_> {
    fn settings(&self) -> Settings {
        self.source.settings()
    }

    fn see(&mut self, image: &Image) -> Result<std::sync::Arc<Seen>, EvalError> {
        let begun = Instant::now();
        let seen = self.source.see(image)?;
        self.times.push(begun.elapsed());
        if self.times.len() == MEASURED && self.left.get() > MEASURED {
            eprintln!(
                "  features: {:.2} s a picture, {} left: about {:.0} s",
                self.times[MEASURED - 1].as_secs_f64(),
                self.left.get() - MEASURED,
                self.estimate().as_secs_f64()
            );
        }
        Ok(seen)
    }
}
