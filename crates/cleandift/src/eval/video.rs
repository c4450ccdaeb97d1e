//! Masks carried from a video's first frame to the others (DAVIS's semi-supervised task).

use serde_json::json;

use super::Task;
use super::datasets::davis::Sequence;
use super::dense::{LabelMap, VOID, bilinear_at_pixels, colour_of_label};
use super::metrics::video::{OverTime, boundary_accuracy, region_similarity};
use super::probes::{Propagation, propagate};
use super::probing::{Asked, TapSource, descriptive};
use super::{Candidate, Case, EvalError, Figure, Formula, Image, Item, Journal, Progress, Run};
use super::{Schema, Settings};
use crate::image::{Extent, Frame, Picture};
use cleandift_kernels::Kernels;

/// The floor that gives every frame the mask of the first.
pub const SAME_POSITION: &str = "same position";

/// The task: videos, and how masks are carried on.
pub struct Video {
    sequences: Vec<Sequence>,
    part: String,
    settings: Propagation,
    schema: Schema,
}

/// A prediction: the object of each pixel.
type Objects = Vec<u8>;

impl Video {
    /// The sequences of a part of DAVIS (`val`, `train`).
    pub fn new(
        mut sequences: Vec<Sequence>,
        part: &str,
        settings: Propagation,
        prompt: &str,
    ) -> Self {
        for frame in sequences
            .iter_mut()
            .flat_map(|sequence| &mut sequence.frames)
        {
            frame.prompt = prompt.to_owned();
        }
        let schema = schema(&sequences);
        Self {
            sequences,
            part: part.to_owned(),
            settings,
            schema,
        }
    }

    /// The masks of all frames but the first.
    fn predict(
        &self,
        sequence: &Sequence,
        first: &LabelMap,
        candidate: &mut Candidate,
        run: &mut Run,
    ) -> Result<Vec<Objects>, EvalError> {
        match Asked::of(candidate) {
            Asked::Floor => {
                let still = first.labels().iter();
                let still: Objects = still.map(|&l| if l == VOID { 0 } else { l }).collect();
                Ok(vec![still; sequence.frames.len() - 1])
            }
            Asked::Features(source, taps) => {
                let mut features = TapSource::of(source, taps)?;
                self.follow(sequence, first, &mut features, run)
            }
        }
    }

    /// The same by features.
    fn follow(
        &self,
        sequence: &Sequence,
        first: &LabelMap,
        features: &mut TapSource,
        run: &mut Run,
    ) -> Result<Vec<Objects>, EvalError> {
        let objects = objects(first);
        let view = features.view(&sequence.frames[0])?;
        let (frame, cells) = (*view.frame(), view.map().extent());
        let shares = one_hot(&first.at_cells(&frame, cells), objects);
        let mut frames = sequence.frames.iter();
        let mut found = Vec::new();
        propagate(
            Kernels::best(),
            &self.settings,
            &shares,
            objects,
            || {
                let Some(image) = frames.next() else {
                    return Ok(None);
                };
                run.report(Progress::PREPARING)?;
                let view = features.view(image)?;
                if (*view.frame(), view.map().extent()) != (frame, cells) {
                    return Err(EvalError::Unsuitable(format!(
                        "{}: is of another size than the first frame",
                        image.id
                    )));
                }
                Ok(Some(view.map().clone()))
            },
            |shares| {
                found.push(decide(shares, objects, cells, &frame));
                Ok(())
            },
        )?;
        Ok(found)
    }

    /// The accuracy of each object of a sequence, but the background.
    fn judge(
        &self,
        sequence: &Sequence,
        objects: usize,
        predictions: &[Objects],
        run: &mut Run,
    ) -> Result<(), EvalError> {
        let mut measures = vec![[Vec::new(), Vec::new()]; objects];
        // The first frame is given, and the last does not count.
        let counted = 1..sequence.frames.len().saturating_sub(1);
        for (frame, predicted) in counted.zip(predictions) {
            let truth = sequence.mask(frame)?;
            if truth.labels().len() != predicted.len() {
                let id = &sequence.frames[frame].id;
                let words = format!("{id}: its mask has another size than the picture");
                return Err(EvalError::Unsuitable(words));
            }
            for (object, [region, boundary]) in measures.iter_mut().enumerate().skip(1) {
                // Unknown pixels belong to nobody.
                let pairs = || truth.labels().iter().zip(predicted);
                let is = |label: u8| usize::from(label) == object;
                let true_mask: Vec<bool> = pairs().map(|(&truth, _)| is(truth)).collect();
                let mask: Vec<bool> = pairs()
                    .map(|(&truth, &found)| truth != VOID && is(found))
                    .collect();
                region.push(region_similarity(&mask, &true_mask));
                boundary.push(boundary_accuracy(&mask, &true_mask, truth.extent()));
            }
        }
        for (object, [region, boundary]) in measures.iter().enumerate().skip(1) {
            let (region, boundary) = (OverTime::new(region), OverTime::new(boundary));
            if let (Some(region), Some(boundary)) = (region, boundary) {
                run.journal.push(Item {
                    id: item_id(sequence, object),
                    category: String::new(),
                    units: vec![sequence.name.clone()],
                    tallies: vec![
                        (region.mean + boundary.mean) / 2.0,
                        region.mean,
                        region.recall,
                        region.decay,
                        boundary.mean,
                        boundary.recall,
                        boundary.decay,
                        1.0,
                    ],
                })?;
            }
        }
        Ok(())
    }
}

/// How many objects a first frame has, the background included.
fn objects(first: &LabelMap) -> usize {
    let known = first.labels().iter().filter(|label| **label != VOID);
    usize::from(known.copied().max().unwrap_or(0)) + 1
}

/// A picture in which every object but the background has a colour.
fn coloured(picture: &Picture, objects: &[u8]) -> Picture {
    let pixels = picture.rgb().as_chunks::<3>().0.iter().zip(objects);
    let colour = |(pixel, &object): (&[u8; 3], &u8)| match object {
        0 => *pixel,
        object => {
            let colour = colour_of_label(object);
            std::array::from_fn(|channel| pixel[channel] / 2 + colour[channel] / 2)
        }
    };
    let rgb: Vec<[u8; 3]> = pixels.map(colour).collect();
    Picture::from_rgb(picture.extent(), rgb.concat()).expect("a colour for each pixel")
}

fn item_id(sequence: &Sequence, object: usize) -> String {
    format!("{}/{object}", sequence.name)
}

/// How much each cell belongs to each object: all or nothing. Unknown cells are background.
fn one_hot(labels: &[u8], objects: usize) -> Vec<f32> {
    let mut shares = vec![0.0; labels.len() * objects];
    for (shares, &label) in shares.chunks_exact_mut(objects).zip(labels) {
        shares[if label == VOID { 0 } else { usize::from(label) }] = 1.0;
    }
    shares
}

/// The object of each pixel: shares are resized bilinearly, each object's are spread to 0 … 1 over
/// the picture, and the highest wins (the first of equal ones), as in DINO's code.
fn decide(shares: &[f32], objects: usize, cells: Extent, frame: &Frame) -> Objects {
    let pixels = frame.picture.width * frame.picture.height;
    let (mut best, mut highest) = (vec![0; pixels], vec![f32::NEG_INFINITY; pixels]);
    for object in 0..objects {
        let of_cells: Vec<f32> = shares
            .iter()
            .skip(object)
            .step_by(objects)
            .copied()
            .collect();
        let of_pixels = bilinear_at_pixels(&of_cells, cells, frame);
        let most = of_pixels.iter().copied().fold(0.0, f32::max);
        let least = of_pixels.iter().copied().fold(f32::INFINITY, f32::min);
        for ((best, highest), share) in best.iter_mut().zip(&mut highest).zip(of_pixels) {
            let spread = if most > least {
                (share - least) / (most - least)
            } else {
                0.0
            };
            if spread > *highest {
                (*best, *highest) = (object as u8, spread);
            }
        }
    }
    best
}

const TALLIES: [&str; 8] = [
    "J&F", "J", "J recall", "J decay", "F", "F recall", "F decay", "objects",
];

/// The mean over objects of each measure.
fn schema(sequences: &[Sequence]) -> Schema {
    let over = TALLIES.len() - 1;
    let names = [
        "J&F mean", "J mean", "J recall", "J decay", "F mean", "F recall", "F decay",
    ];
    let figure = |(of, name): (usize, &str)| {
        let mut figure = Figure::percent(name, Formula::Ratio { of, over });
        figure.higher_is_better = !name.ends_with("decay");
        figure
    };
    Schema {
        tallies: TALLIES.map(str::to_owned).to_vec(),
        figures: names.into_iter().enumerate().map(figure).collect(),
        independent: "sequences".to_owned(),
        descriptive: descriptive(sequences.iter().map(|s| s.name.as_str()), 1)
            .map(|words| words.replace("pictures", "sequences")),
    }
}

impl Task for Video {
    fn name(&self) -> &str {
        "davis"
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::new();
        settings.insert("part".into(), json!(self.part));
        settings.insert("sequences".into(), json!(self.sequences.len()));
        settings.insert("temperature".into(), json!(self.settings.temperature));
        settings.insert("top".into(), json!(self.settings.top));
        settings.insert("previous_frames".into(), json!(self.settings.frames));
        settings.insert("radius".into(), json!(self.settings.radius));
        settings
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn images(&self) -> Vec<Image> {
        let frames = self.sequences.iter().flat_map(|sequence| &sequence.frames);
        frames.cloned().collect()
    }

    fn floors(&self) -> &'static [&'static str] {
        &[SAME_POSITION]
    }

    fn evaluate(&self, candidate: &mut Candidate, run: &mut Run) -> Result<Vec<Item>, EvalError> {
        let total = self.sequences.len();
        for (done, sequence) in self.sequences.iter().enumerate() {
            let first = sequence.mask(0)?;
            let objects = objects(&first);
            let open = (1..objects).any(|o| run.journal.get(&item_id(sequence, o)).is_none());
            if open {
                let predictions = self.predict(sequence, &first, candidate, run)?;
                self.judge(sequence, objects, &predictions, run)?;
            }
            run.report(Progress {
                done: done + 1,
                total,
            })?;
        }
        Ok(run.journal.items().to_vec())
    }

    /// The last frame that counts with its true objects, and with those that were found; before
    /// them the first frame.
    fn cases(&self, ids: &[&str], candidate: &mut Candidate) -> Result<Vec<Case>, EvalError> {
        let mut run = Run {
            journal: Journal::in_memory(),
            watch: &mut |_| true,
        };
        let case = |id: &&str| {
            let name = id.rsplit_once('/').map_or(*id, |(name, _)| name);
            let known = self.sequences.iter().find(|sequence| sequence.name == name);
            let sequence = known.expect("an item of these sequences");
            let first = sequence.mask(0)?;
            let predictions = self.predict(sequence, &first, candidate, &mut run)?;
            let last = sequence.frames.len().saturating_sub(2).max(1);
            let picture = sequence.frames[last].open()?;
            Ok(Case::of_pictures([
                coloured(&sequence.frames[0].open()?, first.labels()),
                coloured(&picture, sequence.mask(last)?.labels()),
                coloured(&picture, &predictions[last - 1]),
            ]))
        };
        ids.iter().map(case).collect()
    }
}
