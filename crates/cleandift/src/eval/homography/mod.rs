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
use super::{Candidate, Case, EvalError, Figure, Formula, Image, Item, Mark, MarkKind, Progress};
use super::{Run, Schema, Settings, Task, datasets};
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

    /// The points of `picture`, the reference, that have a match in `other`, and where.
    fn matches(
        &self,
        picture: &Picture,
        [reference, other]: [&Image; 2],
        candidate: &mut Candidate,
    ) -> Result<Vec<[[f64; 2]; 2]>, EvalError> {
        let points = self.points.of(reference, picture)?;
        match candidate {
            Candidate::Floor(_) => Ok(points.iter().map(|&point| [point, point]).collect()),
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
                let matches = mutual.map(|(&point, found)| [point, found.refined]);
                Ok(matches.collect())
            }
        }
    }

    /// Every view of a sequence but the reference, and how the reference is moved onto it.
    fn pairs(&self) -> impl Iterator<Item = (&Sequence, &Image, Homography)> + Clone {
        self.sequences.iter().flat_map(|sequence| {
            let others = sequence.others.iter();
            others.map(move |(image, truth)| (sequence, image, Homography(*truth)))
        })
    }

    fn count(&self, matches: &[[[f64; 2]; 2]], truth: &Homography, extent: Extent) -> Vec<f64> {
        let errors: Vec<f64> = matches.iter().map(|found| error(found, truth)).collect();
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

/// How far a match is from where it should be, in pixels.
fn error([from, to]: &[[f64; 2]; 2], truth: &Homography) -> f64 {
    let [x, y] = truth.map(*from);
    (to[0] - x).hypot(to[1] - y)
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
        let pairs = self.pairs();
        let total = pairs.clone().count();
        for (done, (sequence, image, truth)) in pairs.enumerate() {
            if run.journal.get(&image.id).is_none() {
                let picture = sequence.reference.open()?;
                let views = [&sequence.reference, image];
                let matches = self.matches(&picture, views, candidate)?;
                let tallies = self.count(&matches, &truth, picture.extent());
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

    /// Matched points in both views; right ones are within 3 px.
    fn cases(&self, ids: &[&str], candidate: &mut Candidate) -> Result<Vec<Case>, EvalError> {
        let case = |id: &&str| {
            let known = self.pairs().find(|(_, image, _)| image.id == *id);
            let (sequence, image, truth) = known.expect("an item of these sequences");
            let picture = sequence.reference.open()?;
            let matches = self.matches(&picture, [&sequence.reference, image], candidate)?;
            let asked = matches.iter().map(|&[point, _]| Mark {
                point,
                kind: MarkKind::Asked,
                truth: None,
            });
            let found = matches.iter().map(|found| Mark {
                point: found[1],
                kind: match error(found, &truth) <= ERRORS[1] {
                    true => MarkKind::Right,
                    false => MarkKind::Wrong,
                },
                truth: Some(truth.map(found[0])),
            });
            Ok(Case {
                panels: vec![(picture, asked.collect()), (image.open()?, found.collect())],
            })
        };
        ids.iter().map(case).collect()
    }
}
