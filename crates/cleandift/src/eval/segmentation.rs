//! A class for every pixel from frozen features by a linear probe, or from no features at all.

use serde_json::json;

use super::datasets::masks::{MaskSet, Masked};
use super::datasets::{Annotated, Split};
use super::dense::{LabelMap, VOID, colour_of_label, nearest_at_pixels};
use super::metrics::confusion::Confusion;
use super::per_pixel::{PerPixel, Question};
use super::probes::{CrossEntropy, classes};
use super::{EvalError, Figure, Formula, Probing, Settings};
use crate::archive::Place;
use crate::image::{Extent, Frame};

/// The floor that predicts the training part's most frequent class at each place.
pub const CLASS_PER_POSITION: &str = "class per position";

/// The task: a set of masked pictures, and how the probe is made.
///
/// As in the paper (arXiv 2412.03439) the probe is trained where the features are; a pixel has the
/// class of the cell that holds it.
pub type Segmentation = PerPixel<Classes>;

impl Segmentation {
    /// The segmentation of `set`.
    pub fn new(set: MaskSet, probing: Probing, prompt: &str) -> Self {
        Self::of(Classes(set), probing, prompt)
    }
}

/// What is it?
pub struct Classes(MaskSet);

impl Classes {
    fn count(&self) -> usize {
        self.0.classes.len()
    }
}

impl Question for Classes {
    type Origin = Place;
    type Truth = LabelMap;
    type Answer = u8;
    type Objective = CrossEntropy;

    const NAME: &'static str = "segmentation";
    const FLOOR: &'static str = CLASS_PER_POSITION;
    const PLACES: Extent = Extent::new(32, 32);

    fn pictures(&self) -> (&Split<Masked>, usize) {
        (&self.0.split, self.0.block)
    }

    fn settings(&self) -> Settings {
        let settings = [
            ("layout", json!(self.0.layout)),
            ("classes", json!(self.count())),
            ("void", json!(self.0.void)),
        ];
        settings
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect()
    }

    fn truth(&self, picture: &Annotated<Place>) -> Result<LabelMap, EvalError> {
        self.0.labels(picture)
    }

    fn answers<'t>(&self, truth: &'t LabelMap) -> (&'t [u8], Extent) {
        (truth.labels(), truth.extent())
    }

    fn at_cells(&self, truth: &LabelMap, frame: &Frame, cells: Extent) -> Vec<Option<u8>> {
        let labels = truth.at_cells(frame, cells).into_iter();
        labels
            .map(|label| (label != VOID).then_some(label))
            .collect()
    }

    fn objective(&self) -> CrossEntropy {
        CrossEntropy::new(self.count())
    }

    fn read_off(&self, outputs: &[f32]) -> Vec<u8> {
        let found = classes(outputs, self.count()).into_iter();
        found.map(|class| class as u8).collect()
    }

    fn spread(&self, labels: &[u8], cells: Extent, frame: &Frame) -> Vec<u8> {
        nearest_at_pixels(labels, cells, frame)
    }

    /// The most frequent class; of equally frequent ones the lowest.
    fn by_place(
        &self,
        pictures: &mut dyn Iterator<Item = Result<Vec<Option<u8>>, EvalError>>,
    ) -> Result<Vec<u8>, EvalError> {
        let places = Self::PLACES.width * Self::PLACES.height;
        let mut counts = vec![vec![0usize; self.count()]; places];
        for labels in pictures {
            for (counts, label) in counts.iter_mut().zip(labels?) {
                if let Some(label) = label {
                    counts[usize::from(label)] += 1;
                }
            }
        }
        let most = |counts: &Vec<usize>| {
            let most = (0..counts.len()).rev().max_by_key(|&class| counts[class]);
            most.unwrap_or(0) as u8
        };
        Ok(counts.iter().map(most).collect())
    }

    /// Intersections by class, unions by class, pixels with the right class, pixels.
    fn tallies(&self, labels: &[u8], truth: &LabelMap) -> Vec<f64> {
        let confusion = Confusion::count(self.count(), truth.labels(), labels);
        let overlaps = confusion.overlaps();
        let intersections = overlaps.iter().map(|overlap| overlap.intersection as f64);
        let unions = overlaps.iter().map(|overlap| overlap.union as f64);
        let right: f64 = intersections.clone().sum();
        let pixels = truth.labels().iter().filter(|label| **label != VOID);
        let totals = [right, pixels.count() as f64];
        intersections.chain(unions).chain(totals).collect()
    }

    /// Mean intersection over union from the sums of all pictures, then that of each class.
    fn figures(&self) -> (Vec<String>, Vec<Figure>) {
        let count = self.count();
        let names = |what: &'static str| {
            let names = self.0.classes.iter();
            names.map(move |name| format!("{what} {name}"))
        };
        let mut tallies: Vec<String> = names("intersection").chain(names("union")).collect();
        tallies.extend(["right pixels".to_owned(), "pixels".to_owned()]);
        let ratio = |of, over| Formula::Ratio { of, over };
        let mean = Formula::MeanRatio {
            of: (0..count).collect(),
            over: (count..2 * count).collect(),
        };
        let mut figures = vec![
            Figure::percent("mIoU", mean),
            Figure::percent("pixel accuracy", ratio(2 * count, 2 * count + 1)),
        ];
        let each = names("IoU").enumerate();
        figures
            .extend(each.map(|(class, name)| Figure::percent(name, ratio(class, count + class))));
        (tallies, figures)
    }

    fn paint(&self, labels: &[u8], _truth: &LabelMap) -> Vec<[u8; 3]> {
        labels.iter().map(|&label| colour_of_label(label)).collect()
    }
}
