//! Semantic correspondence: points of a source picture are looked for in a target, and counted as
//! correct within a share of the target's size (PCK, the percentage of correct keypoints).

mod set;

pub use set::{Keypoint, Pair, PairSet, Picture, Side};

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;

use super::dense::{LabelMap, VOID};
use super::protocols::{
    Average, POSE_CELLS, Placement, Pose, Protocol, describe, describe_together, masked_distance,
    mutual_distance,
};
use super::{Candidate, Case, EvalError, Figure, Formula, Image, Item, Mark, MarkKind, Progress};
use super::{Run, Schema, Seen, Settings, Source, Task};
use crate::features::FeatureMap;
use crate::image::{Extent, Frame, Plane};
use crate::matching::{Field, Match, Options, Readout, match_points};

/// The floor that predicts the same relative position as in the source.
pub const SAME_POSITION: &str = "same position";

/// The task: a set of pairs and a protocol.
pub struct Correspondence {
    set: PairSet,
    protocol: Protocol,
    schema: Schema,
}

impl Correspondence {
    /// The correspondence of `set` by `protocol`.
    pub fn new(mut set: PairSet, protocol: Protocol) -> Self {
        for picture in &mut set.images {
            picture.image.prompt = protocol.prompt_for(&picture.category);
        }
        let schema = schema(&set, protocol.average);
        Self {
            set,
            protocol,
            schema,
        }
    }

    /// Where each keypoint of a pair is predicted, in pixels of the target, and how far off that
    /// is in the protocol's space.
    ///
    /// # Errors
    /// If features are missing or do not fit.
    pub fn predict(
        &self,
        pair: &Pair,
        candidate: &mut Candidate,
    ) -> Result<Vec<Prediction>, EvalError> {
        let (source, target) = (
            &self.set.images[pair.source].image,
            &self.set.images[pair.target].image,
        );
        match candidate {
            Candidate::Floor(_) => {
                same_position(pair, source.open()?.extent(), target.open()?.extent())
            }
            Candidate::Features {
                source: features,
                taps,
            } => {
                let seen = Features {
                    source: features.see(source)?,
                    target: features.see(target)?,
                    taps,
                    images: [source, target],
                };
                self.match_pair(pair, &seen, *features)
            }
        }
    }

    fn match_pair(
        &self,
        pair: &Pair,
        seen: &Features,
        features: &mut dyn Source,
    ) -> Result<Vec<Prediction>, EvalError> {
        let maps = seen.maps(self.protocol.components)?;
        let points: Vec<[f64; 2]> = pair.points.iter().map(|point| point.source).collect();
        let Some(pose) = self.protocol.pose else {
            return self.find(pair, seen, &maps, &points);
        };
        let [source, target] = seen.images;
        let turned_source = source.mirrored();
        let turned = Features {
            source: features.see(&turned_source)?,
            target: Arc::clone(&seen.target),
            taps: seen.taps,
            images: [&turned_source, target],
        };
        let turned_maps = turned.maps(self.protocol.components)?;
        let distance = |seen: &Features, maps| self.distance(pose, pair, seen, maps);
        if distance(&turned, &turned_maps)? < distance(seen, &maps)? {
            let width = turned.source.frame.picture.width;
            let points = turned_points(pair, width, self.set.mirrors.get(&pair.category));
            self.find(pair, &turned, &turned_maps, &points)
        } else {
            self.find(pair, seen, &maps, &points)
        }
    }

    /// How far the poses of a pair's objects are apart, as their features tell.
    fn distance(
        &self,
        pose: Pose,
        pair: &Pair,
        seen: &Features,
        [source, target]: &[Cow<FeatureMap>; 2],
    ) -> Result<f64, EvalError> {
        match pose {
            Pose::Neighbours => Ok(mutual_distance(source, target)),
            Pose::Masks => {
                let [source_image, target_image] = seen.images;
                let masks = [
                    self.mask(pair.source, source_image, &seen.source.frame)?,
                    self.mask(pair.target, target_image, &seen.target.frame)?,
                ];
                Ok(masked_distance([source, target], &masks))
            }
        }
    }

    /// The cells of an object among [`POSE_CELLS`] over the canvas; `image` says whether it is
    /// turned.
    fn mask(&self, place: usize, image: &Image, frame: &Frame) -> Result<Vec<bool>, EvalError> {
        let Some(mask) = &self.set.images[place].mask else {
            return Err(EvalError::Unsuitable(format!(
                "{}: has no object mask, which --pose masks needs; --pose neighbours does without",
                image.id
            )));
        };
        let name = mask.name();
        let plane = Plane::decode(&mask.bytes()?, &name)?;
        let labels = LabelMap::from_plane(&plane, None, &name)?;
        let labels = if image.mirrored {
            labels.mirrored()
        } else {
            labels
        };
        let cells = labels.at_cells(frame, POSE_CELLS).into_iter();
        Ok(cells.map(|label| label != 0 && label != VOID).collect())
    }

    /// Where these points of the source lie in the target, one for each keypoint of the pair.
    fn find(
        &self,
        pair: &Pair,
        seen: &Features,
        [source, target]: &[Cow<FeatureMap>; 2],
        points: &[[f64; 2]],
    ) -> Result<Vec<Prediction>, EvalError> {
        let (protocol, failed) = (&self.protocol, EvalError::matching(&pair.id));
        let placed = |seen: &Seen| protocol.placement(seen.frame.picture, &seen.frame);
        let (from, to) = (placed(&seen.source), placed(&seen.target));
        let source = Field::new(source, &from.frame).map_err(&failed)?;
        let target = Field::new(target, &to.frame).map_err(&failed)?;
        let found = locate(&source, points, &from, &target, &to, protocol.readout);
        let judge = |(point, found): (&Keypoint, [f64; 2])| {
            let [x, y] = to.place(point.target);
            Prediction {
                point: to.picture(found),
                error: (found[0] - x).hypot(found[1] - y),
                scale: to.scale,
                extent: seen.target.frame.picture,
            }
        };
        let found = found.map_err(&failed)?.into_iter();
        Ok(pair.points.iter().zip(found).map(judge).collect())
    }

    fn is_right(&self, pair: &Pair, found: &Prediction, side: Side, alpha: f64) -> bool {
        let side = match side {
            Side::Box => pair.box_side,
            Side::Picture => found.extent.width.max(found.extent.height) as f64,
        };
        let side = side * found.scale;
        match self.protocol.strict {
            true => found.error < alpha * side,
            false => found.error / side <= alpha,
        }
    }

    /// What is counted about a pair.
    fn count(&self, pair: &Pair, predictions: &[Prediction]) -> Vec<f64> {
        let points = pair.points.len() as f64;
        let mut tallies = vec![points, 1.0];
        for side in &self.set.sides {
            for alpha in &self.set.alphas {
                let right = |found: &&Prediction| self.is_right(pair, found, *side, *alpha);
                let correct = predictions.iter().filter(right).count() as f64;
                tallies.extend([correct, if points > 0.0 { correct / points } else { 0.0 }]);
            }
        }
        tallies
    }
}

/// A predicted keypoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// In pixels of the target.
    pub point: [f64; 2],
    /// The distance from where it should be, in the protocol's space.
    pub error: f64,
    /// The space's units per pixel of the target.
    pub scale: f64,
    /// The target's size.
    pub extent: Extent,
}

/// What was seen of a pair.
struct Features<'a> {
    source: Arc<Seen>,
    target: Arc<Seen>,
    taps: &'a [String],
    images: [&'a Image; 2],
}

impl Features<'_> {
    /// The maps that are compared: of the source and of the target.
    fn maps(&self, components: Option<usize>) -> Result<[Cow<'_, FeatureMap>; 2], EvalError> {
        let (seen, [source, target]) = ([&*self.source, &*self.target], self.images);
        match components {
            Some(count) => {
                Ok(describe_together(seen, self.taps, self.images, count)?.map(Cow::Owned))
            }
            None => Ok([
                describe(seen[0], self.taps, source)?,
                describe(seen[1], self.taps, target)?,
            ]),
        }
    }
}

/// The matches of points of the source's picture, in the target's space.
fn locate(
    source: &Field,
    points: &[[f64; 2]],
    from: &Placement,
    target: &Field,
    to: &Placement,
    readout: Readout,
) -> Result<Vec<[f64; 2]>, crate::matching::MatchError> {
    let placed = points.iter().map(|&point| from.to_frame(from.place(point)));
    let options = Options {
        readout,
        mutual: false,
    };
    let found = match_points(source, &placed.collect::<Vec<_>>(), target, &options)?;
    let point = |found: &Match| match readout {
        Readout::ArgMax => found.point.map(|v| v as f64),
        _ => to.of_frame(found.refined, readout),
    };
    Ok(found.iter().map(point).collect())
}

/// The pair's source points in the source turned left to right: each where its mirror keypoint
/// was, if both pictures show that one too.
fn turned_points(
    pair: &Pair,
    width: usize,
    mirrors: Option<&Vec<(usize, usize)>>,
) -> Vec<[f64; 2]> {
    let mirror = |slot: usize| {
        let pairs = mirrors.into_iter().flatten();
        let mut other = pairs.filter_map(|&(a, b)| match slot {
            _ if slot == a => Some(b),
            _ if slot == b => Some(a),
            _ => None,
        });
        other.next()
    };
    let turned = |point: &Keypoint| {
        let other = mirror(point.slot);
        let other = pair.points.iter().find(|known| Some(known.slot) == other);
        let [x, y] = other.unwrap_or(point).source;
        [(width as f64 - x).min(width as f64 - 0.5), y]
    };
    pair.points.iter().map(turned).collect()
}

/// Each point at the same share of the target's width and height as in the source.
fn same_position(
    pair: &Pair,
    source: Extent,
    target: Extent,
) -> Result<Vec<Prediction>, EvalError> {
    let share = |v: f64, from: usize, to: usize| v * to as f64 / from as f64;
    let judge = |point: &Keypoint| {
        let [x, y] = point.source;
        let found = [
            share(x, source.width, target.width),
            share(y, source.height, target.height),
        ];
        Prediction {
            point: found,
            error: (found[0] - point.target[0]).hypot(found[1] - point.target[1]),
            scale: 1.0,
            extent: target,
        }
    };
    Ok(pair.points.iter().map(judge).collect())
}

/// Tallies and figures: for each kind of side and each α, over points, over pairs, by category.
fn schema(set: &PairSet, average: Average) -> Schema {
    let mut tallies = vec!["points".to_owned(), "pairs".to_owned()];
    let mut figures = Vec::new();
    let by = |average: Average, correct: usize| match average {
        Average::Points => Formula::Ratio {
            of: correct,
            over: 0,
        },
        Average::Categories => Formula::RatioByCategory {
            of: correct,
            over: 0,
        },
        Average::Images => Formula::Ratio {
            of: correct + 1,
            over: 1,
        },
    };
    let mut averages = vec![Average::Points, Average::Images, Average::Categories];
    averages.retain(|other| *other != average);
    averages.insert(0, average);
    for side in &set.sides {
        for alpha in &set.alphas {
            let name = format!("@{alpha} {}", side.name());
            let correct = tallies.len();
            tallies.push(format!("correct{name}"));
            tallies.push(format!("share{name}"));
            for average in &averages {
                let words = match average {
                    Average::Points => "per point",
                    Average::Images => "per image",
                    Average::Categories => "by category, weighted by pairs",
                };
                let name = format!("PCK{name}, {words}");
                figures.push(Figure::percent(name, by(*average, correct)));
            }
        }
    }
    Schema {
        tallies,
        figures,
        independent: set.independent.clone(),
        descriptive: set.descriptive.clone(),
    }
}

impl Task for Correspondence {
    fn name(&self) -> &str {
        &self.set.name
    }

    fn settings(&self) -> Settings {
        let mut settings = self.set.settings.clone();
        settings.extend(self.protocol.settings());
        settings.insert("pairs".to_owned(), json!(self.set.pairs.len()));
        settings.insert("points".to_owned(), self.set.fingerprint().into());
        settings
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn images(&self) -> Vec<Image> {
        let mut known = std::collections::HashSet::new();
        let mut images = Vec::new();
        for pair in &self.set.pairs {
            let pose = self.protocol.pose.map(|_| (pair.source, true));
            let wanted = [Some((pair.source, false)), Some((pair.target, false)), pose];
            for (index, mirrored) in wanted.into_iter().flatten() {
                if known.insert((index, mirrored)) {
                    let image = &self.set.images[index].image;
                    images.push(if mirrored {
                        image.mirrored()
                    } else {
                        image.clone()
                    });
                }
            }
        }
        images
    }

    fn floors(&self) -> &'static [&'static str] {
        &[SAME_POSITION]
    }

    fn evaluate(&self, candidate: &mut Candidate, run: &mut Run) -> Result<Vec<Item>, EvalError> {
        let total = self.set.pairs.len();
        for (done, pair) in self.set.pairs.iter().enumerate() {
            if run.journal.get(&pair.id).is_none() {
                let predictions = self.predict(pair, candidate)?;
                let unit = |index: usize| self.set.images[index].unit.clone();
                run.journal.push(Item {
                    id: pair.id.clone(),
                    category: pair.category.clone(),
                    units: vec![unit(pair.source), unit(pair.target)],
                    tallies: self.count(pair, &predictions),
                })?;
            }
            run.report(Progress {
                done: done + 1,
                total,
            })?;
        }
        Ok(run.journal.items().to_vec())
    }

    fn cases(&self, ids: &[&str], candidate: &mut Candidate) -> Result<Vec<Case>, EvalError> {
        let pairs: HashMap<&str, &Pair> = (self.set.pairs.iter())
            .map(|pair| (pair.id.as_str(), pair))
            .collect();
        let cases = ids.iter().map(|id| self.case(pairs[id], candidate));
        cases.collect()
    }
}

impl Correspondence {
    /// What was asked for in the source, and what was found in the target.
    fn case(&self, pair: &Pair, candidate: &mut Candidate) -> Result<Case, EvalError> {
        let predictions = self.predict(pair, candidate)?;
        let asked = pair.points.iter().map(|point| Mark {
            point: point.source,
            kind: MarkKind::Asked,
            truth: None,
        });
        let judge = |(point, found): (&Keypoint, &Prediction)| Mark {
            point: found.point,
            kind: match self.is_right(pair, found, self.set.sides[0], self.set.alphas[0]) {
                true => MarkKind::Right,
                false => MarkKind::Wrong,
            },
            truth: Some(point.target),
        };
        let found = pair.points.iter().zip(&predictions).map(judge);
        let picture = |place: usize| self.set.images[place].image.open();
        Ok(Case {
            panels: vec![
                (picture(pair.source)?, asked.collect()),
                (picture(pair.target)?, found.collect()),
            ],
        })
    }
}

#[cfg(test)]
mod tests;
