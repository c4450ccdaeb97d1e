//! A class for every pixel from frozen features by a linear probe, or from no features at all.

use serde_json::json;

use super::Task;
use super::datasets::Split;
use super::datasets::masks::{MaskSet, Masked};
use super::dense::{LabelMap, VOID, nearest_at_pixels};
use super::metrics::confusion::Confusion;
use super::probes::{CrossEntropy, classes};
use super::probing::{Asked, Probing, TapSource, Taught, descriptive, independent, outputs};
use super::{Candidate, EvalError, Figure, Formula, Image, Item, Progress, Run, Schema, Settings};
use crate::image::{Extent, Frame};

/// The floor that predicts the training part's most frequent class at each place.
pub const CLASS_PER_POSITION: &str = "class per position";

/// Columns and rows of the most frequent classes.
const POSITION_CELLS: Extent = Extent::new(32, 32);

/// The task: a set of masked pictures, and how the probe is made.
///
/// As in the paper (arXiv 2412.03439) the probe is trained where the features are; a pixel has the
/// class of the cell that holds it.
pub struct Segmentation {
    set: MaskSet,
    probing: Probing,
    schema: Schema,
}

impl Segmentation {
    /// The segmentation of `set`.
    pub fn new(mut set: MaskSet, probing: Probing, prompt: &str) -> Self {
        let Split {
            train,
            validation,
            test,
        } = &mut set.split;
        for masked in train.iter_mut().chain(validation).chain(test) {
            masked.image.prompt = prompt.to_owned();
        }
        let schema = schema(&set);
        Self {
            set,
            probing,
            schema,
        }
    }

    /// Asks for the classes of every test picture and keeps the counts.
    fn ask(
        &self,
        run: &mut Run,
        mut predict: impl FnMut(&Masked, &LabelMap) -> Result<Vec<u8>, EvalError>,
    ) -> Result<(), EvalError> {
        let total = self.set.split.test.len();
        for (done, masked) in self.set.split.test.iter().enumerate() {
            let id = &masked.image.id;
            if run.journal.get(id).is_none() {
                let truth = self.set.labels(masked)?;
                let predicted = predict(masked, &truth)?;
                if predicted.len() != truth.labels().len() {
                    return Err(EvalError::Unsuitable(format!(
                        "{id}: the mask has {} pixels, the picture another number",
                        truth.extent()
                    )));
                }
                let classes = self.set.classes.len();
                let confusion = Confusion::count(classes, truth.labels(), &predicted);
                run.journal.push(Item {
                    id: id.clone(),
                    category: String::new(),
                    units: vec![masked.unit.clone()],
                    tallies: tallies(&confusion),
                })?;
            }
            run.report(Progress {
                done: done + 1,
                total,
            })?;
        }
        Ok(())
    }

    /// The most frequent class of the training part at each place of a grid over the picture; of
    /// equally frequent ones the lowest.
    fn class_map(&self, run: &mut Run) -> Result<Vec<u8>, EvalError> {
        let classes = self.set.classes.len();
        let cells = POSITION_CELLS.width * POSITION_CELLS.height;
        let mut counts = vec![vec![0usize; classes]; cells];
        for masked in &self.set.split.train {
            let labels = self.set.labels(masked)?;
            let frame = Frame::squash(labels.extent(), POSITION_CELLS);
            for (counts, label) in counts
                .iter_mut()
                .zip(labels.at_cells(&frame, POSITION_CELLS))
            {
                if label != VOID {
                    counts[usize::from(label)] += 1;
                }
            }
            run.report(Progress::PREPARING)?;
        }
        let most = |counts: &Vec<usize>| {
            let most = (0..classes).rev().max_by_key(|&class| counts[class]);
            most.unwrap_or(0) as u8
        };
        Ok(counts.iter().map(most).collect())
    }
}

/// A picture with classes, as the probe learns from it.
struct Lesson<'a> {
    set: &'a MaskSet,
    masked: &'a Masked,
}

impl Taught for Lesson<'_> {
    type Target = u8;

    fn image(&self) -> &Image {
        &self.masked.image
    }

    fn targets(&self, frame: &Frame, cells: Extent) -> Result<Vec<Option<u8>>, EvalError> {
        let labels = self.set.labels(self.masked)?.at_cells(frame, cells);
        Ok(labels
            .into_iter()
            .map(|label| (label != VOID).then_some(label))
            .collect())
    }
}

/// Intersections by class, unions by class, pixels with the right class, pixels.
fn tallies(confusion: &Confusion) -> Vec<f64> {
    let overlaps = confusion.overlaps();
    let intersections = overlaps.iter().map(|overlap| overlap.intersection as f64);
    let unions = overlaps.iter().map(|overlap| overlap.union as f64);
    let right: f64 = intersections.clone().sum();
    let truth = 0..confusion.classes();
    let pixels = truth.flat_map(|truth| (0..confusion.classes()).map(move |p| (truth, p)));
    let pixels: u64 = pixels
        .map(|(truth, predicted)| confusion.get(truth, predicted))
        .sum();
    intersections
        .chain(unions)
        .chain([right, pixels as f64])
        .collect()
}

/// Mean intersection over union from the sums of all pictures, then that of each class.
fn schema(set: &MaskSet) -> Schema {
    let count = set.classes.len();
    let names = |what: &'static str| set.classes.iter().map(move |name| format!("{what} {name}"));
    let mut tallies: Vec<String> = names("intersection").chain(names("union")).collect();
    tallies.extend(["right pixels".to_owned(), "pixels".to_owned()]);
    let mut figures = vec![
        Figure::percent(
            "mIoU",
            Formula::MeanRatio {
                of: (0..count).collect(),
                over: (count..2 * count).collect(),
            },
        ),
        Figure::percent(
            "pixel accuracy",
            Formula::Ratio {
                of: 2 * count,
                over: 2 * count + 1,
            },
        ),
    ];
    figures.extend(set.classes.iter().enumerate().map(|(class, name)| {
        let ratio = Formula::Ratio {
            of: class,
            over: count + class,
        };
        Figure::percent(format!("IoU {name}"), ratio)
    }));
    let units = set.split.test.iter().map(|masked| masked.unit.as_str());
    Schema {
        tallies,
        figures,
        independent: independent(set.block),
        descriptive: descriptive(units, set.block),
    }
}

impl Task for Segmentation {
    fn name(&self) -> &str {
        "segmentation"
    }

    fn settings(&self) -> Settings {
        let split = &self.set.split;
        let mut settings = self.probing.settings(split.train.len());
        settings.insert("layout".into(), json!(self.set.layout));
        settings.insert("classes".into(), json!(self.set.classes.len()));
        settings.insert("void".into(), json!(self.set.void));
        settings.insert("train".into(), json!(split.train.len()));
        settings.insert("validation".into(), json!(split.validation.len()));
        settings.insert("test".into(), json!(split.test.len()));
        settings
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn images(&self) -> Vec<Image> {
        let split = &self.set.split;
        match self.probing.load {
            None => split.all().map(|masked| masked.image.clone()).collect(),
            Some(_) => split
                .test
                .iter()
                .map(|masked| masked.image.clone())
                .collect(),
        }
    }

    fn floors(&self) -> &'static [&'static str] {
        &[CLASS_PER_POSITION]
    }

    fn evaluate(&self, candidate: &mut Candidate, run: &mut Run) -> Result<Vec<Item>, EvalError> {
        // Nothing is trained for what is known already.
        if run.journal.len() == self.set.split.test.len() {
            return Ok(run.journal.items().to_vec());
        }
        match Asked::of(candidate) {
            Asked::Floor => {
                let map = self.class_map(run)?;
                self.ask(run, |_, truth| {
                    let frame = Frame::squash(truth.extent(), POSITION_CELLS);
                    Ok(nearest_at_pixels(&map, POSITION_CELLS, &frame))
                })?;
            }
            Asked::Features(source, taps) => {
                let mut features = TapSource::of(source, taps)?;
                let objective = CrossEntropy::new(self.set.classes.len());
                let set = &self.set;
                let [train, validation] = [&set.split.train, &set.split.validation].map(|part| {
                    part.iter()
                        .map(|masked| Lesson { set, masked })
                        .collect::<Vec<_>>()
                });
                let lessons = [&train[..], &validation[..]];
                let probe =
                    (self.probing).probe(self.name(), &objective, lessons, &mut features, run)?;
                self.ask(run, |masked, _| {
                    let view = features.view(&masked.image)?;
                    let logits = outputs(&probe, view.map(), &masked.image)?;
                    let found: Vec<u8> = (classes(&logits, probe.outputs).into_iter())
                        .map(|class| class as u8)
                        .collect();
                    Ok(nearest_at_pixels(&found, view.map().extent(), view.frame()))
                })?;
            }
        }
        Ok(run.journal.items().to_vec())
    }
}
