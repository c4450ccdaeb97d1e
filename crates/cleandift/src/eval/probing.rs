//! The training of a linear probe on one tap's features, as all dense tasks do it: standardise,
//! train one probe for each learning rate and weight decay, keep the one that does best on the validation part.

use std::path::PathBuf;
use std::sync::Arc;

use cleandift_kernels::Kernels;
use serde_json::json;

use super::kept_probe::KeptProbe;
use super::probes::{
    Choice, Example, Examples, LinearProbe, Objective, Recipe, Standardisation, train,
};
use super::source::fingerprint;
use super::statistics::FEWEST_UNITS;
use super::{Candidate, EvalError, Image, Progress, Run, Seen, Settings, Source};
use crate::checkpoint::file_sha256;
use crate::features::FeatureMap;
use crate::image::{Extent, Frame};

/// How probes are made, or which one is taken instead.
#[derive(Clone, Debug, PartialEq)]
pub struct Probing {
    /// How they are trained; `None` for as many steps as the training part asks for.
    pub recipe: Option<Recipe>,
    /// What to choose from.
    pub choices: Vec<Choice>,
    /// The seed, if there is no recipe.
    pub seed: u64,
    /// A probe that is used as it is; nothing is trained.
    pub load: Option<PathBuf>,
    /// The folder that trained probes are written to, and taken from if they depend on the same.
    pub save: Option<PathBuf>,
}

/// DINOv2's weight decay at three learning rates (a thousand channels want 1e-3, a few 0.1), and a
/// strong one.
fn choices() -> Vec<Choice> {
    let pairs = [(1e-3, 0.01), (1e-2, 0.01), (0.1, 0.01), (1e-2, 1.0)];
    let choice = |(learning_rate, weight_decay)| Choice {
        learning_rate,
        weight_decay,
    };
    pairs.map(choice).to_vec()
}

impl Default for Probing {
    fn default() -> Self {
        Self {
            recipe: None,
            choices: choices(),
            seed: 0,
            load: None,
            save: None,
        }
    }
}

/// A picture and what is known of its cells.
pub(super) trait Taught {
    /// What is known of a cell.
    type Target: Copy;

    /// The picture.
    fn image(&self) -> &Image;

    /// What is known of each cell, `[row][column]`.
    fn targets(&self, frame: &Frame, cells: Extent)
    -> Result<Vec<Option<Self::Target>>, EvalError>;
}

/// One tap of a source.
pub(super) struct TapSource<'a> {
    source: &'a mut dyn Source,
    tap: &'a str,
}

/// The map of a tap, and where its picture lies.
pub(super) struct View {
    seen: Arc<Seen>,
    place: usize,
}

impl View {
    pub(super) fn map(&self) -> &FeatureMap {
        &self.seen.maps[self.place].1
    }

    pub(super) fn frame(&self) -> &Frame {
        &self.seen.frame
    }
}

impl<'a> TapSource<'a> {
    /// The only tap of a candidate.
    pub(super) fn of(source: &'a mut dyn Source, taps: &'a [String]) -> Result<Self, EvalError> {
        match taps {
            [tap] => Ok(Self { source, tap }),
            _ => Err(EvalError::Unsuitable(format!(
                "a dense task reads one tap, not {} ({}); name one with --taps",
                taps.len(),
                taps.join(", ")
            ))),
        }
    }

    pub(super) fn view(&mut self, image: &Image) -> Result<View, EvalError> {
        let seen = self.source.see(image)?;
        seen.map(self.tap, image)?;
        let place = seen.maps.iter().position(|(name, _)| name == self.tap);
        Ok(View {
            place: place.expect("the tap is there"),
            seen,
        })
    }
}

impl Probing {
    /// Everything that changes a trained probe.
    pub(super) fn settings(&self, train: usize) -> Settings {
        let mut settings = Settings::new();
        if let Some(path) = &self.load {
            settings.insert("probe".into(), json!(path.display().to_string()));
            // A file that cannot be read is an error when the probe is opened.
            let hash = file_sha256(path).unwrap_or_default();
            settings.insert("probe_sha256".into(), json!(hash));
            return settings;
        }
        let recipe = self.recipe(train);
        settings.insert("probe_steps".into(), json!(recipe.steps));
        settings.insert("probe_batch".into(), json!(recipe.batch));
        let pair = |choice: &Choice| [choice.learning_rate, choice.weight_decay];
        let choices: Vec<_> = self.choices.iter().map(pair).collect();
        settings.insert("probe_rates_and_decays".into(), json!(choices));
        settings.insert("probe_seed".into(), json!(recipe.seed));
        settings
    }

    /// The given recipe, or DINOv2's in outline: 25 rounds of batches of 16 pictures, but at least
    /// 300 steps, a third of them warm-up, gradients clipped at 35.
    fn recipe(&self, pictures: usize) -> Recipe {
        self.recipe.clone().unwrap_or_else(|| {
            let batch = pictures.clamp(1, 16);
            let steps = (25 * pictures / batch).max(300);
            Recipe {
                steps,
                batch,
                warm_up: steps / 3,
                clip: 35.0,
                seed: self.seed,
            }
        })
    }

    /// The probe for a tap: loaded, or trained. It works on raw features.
    pub(super) fn probe<O, T>(
        &self,
        task: &str,
        objective: &O,
        lessons: [&[T]; 2],
        features: &mut TapSource,
        run: &mut Run,
    ) -> Result<LinearProbe, EvalError>
    where
        O: Objective,
        T: Taught<Target = O::Target>,
    {
        if let Some(path) = &self.load {
            let probe = LinearProbe::open(path)?;
            if probe.outputs != objective.outputs() {
                let found = format!("{} outputs", probe.outputs);
                let expected = format!("{}", objective.outputs());
                return Err(EvalError::malformed(path, found, expected));
            }
            return Ok(probe);
        }
        let kept = self.save.as_ref().map(|folder| {
            let about = self.about(objective.outputs(), lessons);
            let taps = [features.tap.to_owned()];
            KeptProbe::new(folder, task, features.source, &taps, about)
        });
        if let Some(probe) = kept.as_ref().and_then(|kept| kept.open().transpose()) {
            return probe;
        }
        let (probe, choice) = self.train(objective, lessons, features, run)?;
        if let Some(kept) = kept {
            let found = [
                ("learning_rate", choice.learning_rate),
                ("weight_decay", choice.weight_decay),
            ];
            kept.save(&probe, &found)?;
        }
        Ok(probe)
    }

    /// The probe that does best on the validation part, and how it was trained.
    fn train<O, T>(
        &self,
        objective: &O,
        [train, validation]: [&[T]; 2],
        features: &mut TapSource,
        run: &mut Run,
    ) -> Result<(LinearProbe, Choice), EvalError>
    where
        O: Objective,
        T: Taught<Target = O::Target>,
    {
        let mut lessons = Lessons::read(train, features, run)?;
        let channels = lessons.standardisation.channels();
        let mut stop = |_| run.report(Progress::PREPARING);
        let probes = train_all(self, objective, channels, &mut lessons, &mut stop)?;
        let folded: Vec<LinearProbe> = probes
            .iter()
            .map(|probe| lessons.standardisation.fold(probe))
            .collect();
        let best = choose(objective, &folded, validation, features, run)?;
        let probe = folded.into_iter().nth(best).expect("one for each choice");
        Ok((probe, self.choices[best]))
    }

    /// What a trained probe depends on, beside the features: how it is trained, on what.
    fn about<T: Taught>(&self, outputs: usize, lessons: [&[T]; 2]) -> Settings {
        let mut about = self.settings(lessons[0].len());
        about.insert("outputs".into(), json!(outputs));
        let pictures = lessons.map(|part| {
            let images: Vec<Image> = part.iter().map(|lesson| lesson.image().clone()).collect();
            fingerprint(&images)
        });
        about.insert("pictures".into(), json!(pictures));
        about
    }
}

fn train_all<O, T>(
    probing: &Probing,
    objective: &O,
    channels: usize,
    lessons: &mut Lessons<'_, '_, T>,
    watch: &mut dyn FnMut(usize) -> Result<(), EvalError>,
) -> Result<Vec<LinearProbe>, EvalError>
where
    O: Objective,
    T: Taught<Target = O::Target>,
{
    let recipe = probing.recipe(lessons.len());
    let choices = &probing.choices;
    train(
        Kernels::best(),
        objective,
        &recipe,
        choices,
        channels,
        lessons,
        watch,
    )
}

/// The place of the probe with the least loss on the validation part; the first if there is none.
fn choose<O, T>(
    objective: &O,
    probes: &[LinearProbe],
    validation: &[T],
    features: &mut TapSource,
    run: &mut Run,
) -> Result<usize, EvalError>
where
    O: Objective,
    T: Taught<Target = O::Target>,
{
    let mut losses = vec![0.0; probes.len()];
    for lesson in validation {
        let view = features.view(lesson.image())?;
        let targets = lesson.targets(view.frame(), view.map().extent())?;
        let (cells, targets) = known(view.map(), &targets);
        if !targets.is_empty() {
            for (loss, probe) in losses.iter_mut().zip(probes) {
                let logits = probe.logits(Kernels::best(), &cells);
                *loss += objective.loss(usize::MAX, &logits, &targets).0;
            }
        }
        run.report(Progress::PREPARING)?;
    }
    let best = (0..probes.len()).min_by(|&a, &b| losses[a].total_cmp(&losses[b]));
    Ok(best.unwrap_or(0))
}

/// The cells of which something is known, and what.
fn known<T: Copy>(map: &FeatureMap, targets: &[Option<T>]) -> (Vec<f32>, Vec<T>) {
    let (mut cells, mut found) = (Vec::new(), Vec::new());
    for (cell, target) in map.values().chunks_exact(map.channels()).zip(targets) {
        if let Some(target) = target {
            cells.extend_from_slice(cell);
            found.push(*target);
        }
    }
    (cells, found)
}

/// The training part: what is known stays in memory, features come from the source.
struct Lessons<'l, 's, T: Taught> {
    lessons: &'l [T],
    targets: Vec<Vec<Option<T::Target>>>,
    standardisation: Standardisation,
    features: &'l mut TapSource<'s>,
}

impl<'l, 's, T: Taught> Lessons<'l, 's, T> {
    /// Looks at every picture once, for the moments of its features.
    fn read(
        lessons: &'l [T],
        features: &'l mut TapSource<'s>,
        run: &mut Run,
    ) -> Result<Self, EvalError> {
        let mut standardisation = Standardisation::default();
        let mut targets = Vec::with_capacity(lessons.len());
        for lesson in lessons {
            let view = features.view(lesson.image())?;
            standardisation.add(view.map().values(), view.map().channels());
            targets.push(lesson.targets(view.frame(), view.map().extent())?);
            run.report(Progress::PREPARING)?;
        }
        Ok(Self {
            lessons,
            targets,
            standardisation,
            features,
        })
    }
}

impl<T: Taught> Examples<T::Target> for Lessons<'_, '_, T> {
    fn len(&self) -> usize {
        self.lessons.len()
    }

    fn get(&mut self, index: usize) -> Result<Example<T::Target>, EvalError> {
        let view = self.features.view(self.lessons[index].image())?;
        let (mut cells, targets) = known(view.map(), &self.targets[index]);
        self.standardisation.apply(&mut cells);
        Ok(Example { cells, targets })
    }
}

/// What a probe gives for every cell of a map.
///
/// # Errors
/// If it was made for other features.
pub(super) fn outputs(
    probe: &LinearProbe,
    map: &FeatureMap,
    image: &Image,
) -> Result<Vec<f32>, EvalError> {
    match probe.inputs == map.channels() {
        true => Ok(probe.logits(Kernels::best(), map.values())),
        false => Err(EvalError::Unsuitable(format!(
            "{}: the probe takes {} channels, the features have {}; probe and features must be of \
             the same tap and kind of model",
            image.id,
            probe.inputs,
            map.channels()
        ))),
    }
}

/// The source and taps of a candidate, or the task's only floor.
pub(super) enum Asked<'a> {
    Floor,
    Features(&'a mut dyn Source, &'a [String]),
}

impl<'a> Asked<'a> {
    pub(super) fn of<'c: 'a>(candidate: &'a mut Candidate<'c>) -> Self {
        match candidate {
            Candidate::Floor(_) => Self::Floor,
            Candidate::Features { source, taps } => Self::Features(&mut **source, taps),
        }
    }
}

/// Why figures on these units carry no conclusions beyond the data, if so: fewer than ten, or all
/// from one sequence.
pub(super) fn descriptive<'u>(
    units: impl IntoIterator<Item = &'u str>,
    block: usize,
) -> Option<String> {
    let units: std::collections::BTreeSet<&str> = units.into_iter().collect();
    let sequences: std::collections::BTreeSet<&str> = units
        .iter()
        .map(|unit| unit.rsplit_once('#').map_or(*unit, |(name, _)| name))
        .collect();
    let kind = independent(block);
    if block > 1 && sequences.len() == 1 {
        return Some("all frames that are reported come from one sequence".to_owned());
    }
    (units.len() < FEWEST_UNITS).then(|| format!("only {} {kind} are reported", units.len()))
}

/// What the units are, in words.
pub(super) fn independent(block: usize) -> String {
    match block {
        0 | 1 => "pictures".to_owned(),
        block => format!("blocks of {block} frames"),
    }
}
