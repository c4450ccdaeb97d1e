//! Homography estimation on HPatches: points are matched between two views of a plane, a
//! homography is estimated from the matches, and counts as right if it moves the picture's corners
//! at most ε pixels from where they belong (DeTone et al., SuperPoint, arXiv 1712.07629, section
//! 7.3, as in DIFT); beside it the mean matching accuracy, the share of matches within ε.

mod detect;
mod estimate;
mod linear;

pub use detect::harris;
pub use estimate::{Estimator, Homography, estimate};

use serde_json::json;

use super::datasets::hpatches::Sequence;
use super::protocols::describe;
use super::{Candidate, EvalError, Figure, Formula, Image, Item, Progress, Run, Schema, Settings};
use super::{Task, datasets};
use crate::image::{Extent, Picture};
use crate::matching::{Field, Options, Readout, grid, match_points};

/// Which points of the first picture are matched.
#[derive(Clone, Debug, PartialEq)]
pub enum Points {
    /// The strongest Harris corners, so many at most.
    Harris(usize),
    /// So many in each row and column, evenly spread.
    Grid(usize),
    /// From files beside the pictures: `NAME.points` for a picture `NAME.ppm`, x and y a line.
    File,
}

impl Points {
    fn name(&self) -> String {
        match self {
            Self::Harris(count) => format!("Harris corners, at most {count}"),
            Self::Grid(side) => format!("grid of {side} x {side}"),
            Self::File => "files".to_owned(),
        }
    }

    /// The points of a picture.
    fn of(&self, image: &Image, picture: &Picture) -> Result<Vec<[f64; 2]>, EvalError> {
        match self {
            Self::Harris(count) => Ok(harris(picture, *count)),
            Self::Grid(side) => Ok(grid(picture.extent(), *side)),
            Self::File => datasets::hpatches::points(image),
        }
    }
}

/// Shares of correct corners and matches are counted at these errors, in pixels.
pub const ERRORS: [f64; 3] = [1.0, 3.0, 5.0];

/// A match is mutual if matching back ends within this distance, in pixels of the picture.
const MUTUAL: f64 = 3.0;

/// The task.
pub struct HomographyTask {
    sequences: Vec<Sequence>,
    points: Points,
    estimator: Estimator,
    schema: Schema,
}

impl HomographyTask {
    /// Homographies between the first picture of each sequence and its others.
    pub fn new(sequences: Vec<Sequence>, points: Points, estimator: Estimator) -> Self {
        let few = (sequences.len() < super::statistics::FEWEST_UNITS).then(|| {
            format!(
                "there are {} sequences; pictures of one are not independent",
                sequences.len()
            )
        });
        Self {
            sequences,
            points,
            estimator,
            schema: schema(few),
        }
    }

    fn pair(
        &self,
        reference: &Image,
        other: &Image,
        truth: &Homography,
        candidate: &mut Candidate,
    ) -> Result<Vec<f64>, EvalError> {
        let picture = reference.open()?;
        let points = self.points.of(reference, &picture)?;
        let matches = match candidate {
            Candidate::Floor(_) => points.iter().map(|&point| [point, point]).collect(),
            Candidate::Features { source, taps } => {
                let (seen, seen_other) = (source.see(reference)?, source.see(other)?);
                let failed = EvalError::matching(&other.id);
                let map = describe(&seen, taps, reference)?;
                let map_other = describe(&seen_other, taps, other)?;
                let field = Field::new(&map, &seen.frame).map_err(&failed)?;
                let field_other = Field::new(&map_other, &seen_other.frame).map_err(&failed)?;
                let options = Options {
                    readout: Readout::ArgMax,
                    mutual: true,
                };
                let found =
                    match_points(&field, &points, &field_other, &options).map_err(&failed)?;
                let mutual = points.iter().zip(&found).filter(|(_, found)| {
                    found.returned.is_some_and(|back| back.distance <= MUTUAL)
                });
                mutual
                    .map(|(&point, found)| [point, found.refined])
                    .collect::<Vec<_>>()
            }
        };
        Ok(self.count(&matches, truth, picture.extent()))
    }

    fn count(&self, matches: &[[[f64; 2]; 2]], truth: &Homography, extent: Extent) -> Vec<f64> {
        let distance = |[a, b]: [[f64; 2]; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
        let errors: Vec<f64> = (matches.iter())
            .map(|&[from, to]| distance([truth.map(from), to]))
            .collect();
        let estimated = estimate(matches, self.estimator);
        let corners = estimated.map_or(f64::INFINITY, |found| found.corner_error(truth, extent));
        let mut tallies = vec![1.0, matches.len() as f64];
        for limit in ERRORS {
            let within = errors.iter().filter(|error| **error <= limit).count() as f64;
            let share = if matches.is_empty() {
                0.0
            } else {
                within / matches.len() as f64
            };
            tallies.extend([f64::from(u8::from(corners <= limit)), share]);
        }
        tallies
    }
}

fn schema(descriptive: Option<String>) -> Schema {
    let mut tallies = vec!["pairs".to_owned(), "matches".to_owned()];
    let (mut accuracies, mut matching) = (Vec::new(), Vec::new());
    for limit in ERRORS {
        let place = tallies.len();
        tallies.extend([
            format!("right@{limit}px"),
            format!("share within {limit} px"),
        ]);
        let share = |of: usize| Formula::Ratio { of, over: 0 };
        accuracies.push(Figure::percent(
            format!("homography accuracy @{limit} px"),
            share(place),
        ));
        matching.push(Figure::percent(
            format!("mean matching accuracy @{limit} px"),
            share(place + 1),
        ));
    }
    // The accuracy at 3 px is the one that papers compare first.
    accuracies.swap(0, 1);
    Schema {
        tallies,
        figures: accuracies.into_iter().chain(matching).collect(),
        independent: "sequences".to_owned(),
        descriptive,
    }
}

/// The floor that takes the second view for the first.
pub const NO_MOTION: &str = "no motion";

impl Task for HomographyTask {
    fn name(&self) -> &str {
        "hpatches"
    }

    fn settings(&self) -> Settings {
        let settings = [
            ("data", json!("HPatches layout")),
            ("sequences", json!(self.sequences.len())),
            ("points", json!(self.points.name())),
            ("mutual_within_px", json!(MUTUAL)),
            ("estimator", json!(self.estimator.name())),
        ];
        settings
            .map(|(key, value)| (key.to_owned(), value))
            .into_iter()
            .collect()
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn images(&self) -> Vec<Image> {
        let of = |sequence: &Sequence| {
            let others = sequence.others.iter().map(|(image, _)| image.clone());
            std::iter::once(sequence.reference.clone())
                .chain(others)
                .collect::<Vec<_>>()
        };
        self.sequences.iter().flat_map(of).collect()
    }

    fn floors(&self) -> &'static [&'static str] {
        &[NO_MOTION]
    }

    fn evaluate(&self, candidate: &mut Candidate, run: &mut Run) -> Result<Vec<Item>, EvalError> {
        let pairs = self.sequences.iter().flat_map(|sequence| {
            sequence
                .others
                .iter()
                .map(move |(image, truth)| (sequence, image, truth))
        });
        let total = pairs.clone().count();
        for (done, (sequence, image, truth)) in pairs.enumerate() {
            if run.journal.get(&image.id).is_none() {
                let truth = Homography(*truth);
                let tallies = self.pair(&sequence.reference, image, &truth, candidate)?;
                let category = if sequence.name.starts_with("i_") {
                    "light"
                } else {
                    "viewpoint"
                };
                run.journal.push(Item {
                    id: image.id.clone(),
                    category: category.to_owned(),
                    units: vec![sequence.name.clone()],
                    tallies,
                })?;
            }
            let done = done + 1;
            run.report(Progress { done, total })?;
        }
        Ok(run.journal.items().to_vec())
    }
}
