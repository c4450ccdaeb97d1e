//! Depth from frozen features by a linear probe, or from no features at all.

use serde_json::json;

use super::datasets::Split;
use super::datasets::depths::{DepthSet, Measured};
use super::dense::bilinear_at_pixels;
use super::metrics::depth::{DepthErrors, DepthRange};
use super::probes::DepthBins;
use super::probing::{Asked, Probing, TapSource, Taught, descriptive, independent, outputs};
use super::{Candidate, EvalError, Figure, Formula, Image, Item, Progress, Run, Schema, Settings};
use super::{Scale, Task};
use crate::image::{Extent, Frame};

/// The floor that predicts the mean of the training part's depths at each place.
pub const MEAN_DEPTH: &str = "mean depth map";

/// Columns and rows of the mean depth map.
const MEAN_CELLS: Extent = Extent::new(64, 64);

/// The task: a set of measured pictures, and how the probe is made.
///
/// The probe of the paper (arXiv 2412.03439): 256 bins from 0.1 m to 10 m, read where the features
/// are, without upsampling them; the predicted depth is resized bilinearly to the picture.
pub struct Depth {
    set: DepthSet,
    probing: Probing,
    bins: DepthBins,
    schema: Schema,
}

impl Depth {
    /// The depth of `set`.
    pub fn new(mut set: DepthSet, probing: Probing, prompt: &str) -> Self {
        let Split {
            train,
            validation,
            test,
        } = &mut set.split;
        for measured in train.iter_mut().chain(validation).chain(test) {
            measured.image.prompt = prompt.to_owned();
        }
        let schema = schema(&set);
        Self {
            set,
            probing,
            bins: DepthBins::published(),
            schema,
        }
    }

    /// Asks for the depths of every test picture and keeps the errors.
    fn ask(
        &self,
        run: &mut Run,
        mut predict: impl FnMut(&Measured) -> Result<(Vec<f32>, Extent), EvalError>,
    ) -> Result<(), EvalError> {
        let total = self.set.split.test.len();
        for (done, measured) in self.set.split.test.iter().enumerate() {
            let id = &measured.image.id;
            if run.journal.get(id).is_none() {
                let truth = measured.depths()?;
                let (prediction, extent) = predict(measured)?;
                if extent != truth.extent() {
                    return Err(EvalError::Unsuitable(format!(
                        "{id}: the picture has {extent} pixels, its depth map {}; they must be \
                         registered",
                        truth.extent()
                    )));
                }
                let errors =
                    DepthErrors::compare(&prediction, truth.metres(), extent, &self.set.range);
                run.journal.push(Item {
                    id: id.clone(),
                    category: String::new(),
                    units: vec![measured.unit.clone()],
                    tallies: tallies(errors),
                })?;
            }
            run.report(Progress {
                done: done + 1,
                total,
            })?;
        }
        Ok(())
    }

    /// The mean of the training part's depths, at places of a grid over the picture; where none
    /// was measured, the mean of all.
    fn mean_map(&self, run: &mut Run) -> Result<Vec<f32>, EvalError> {
        let cells = MEAN_CELLS.width * MEAN_CELLS.height;
        let (mut sums, mut counts) = (vec![0.0; cells], vec![0.0; cells]);
        for measured in &self.set.split.train {
            let depths = measured.depths()?;
            let frame = Frame::squash(depths.extent(), MEAN_CELLS);
            let depths = depths.at_cells(&frame, MEAN_CELLS);
            for ((sum, count), depth) in sums.iter_mut().zip(&mut counts).zip(depths) {
                if self.set.range.holds(depth) {
                    *sum += f64::from(depth);
                    *count += 1.0;
                }
            }
            run.report(Progress::PREPARING)?;
        }
        let all = sums.iter().sum::<f64>() / counts.iter().sum::<f64>();
        let mean =
            |(sum, count): (&f64, &f64)| (if *count > 0.0 { sum / count } else { all }) as f32;
        Ok(sums.iter().zip(&counts).map(mean).collect())
    }
}

/// A picture with depths, as the probe learns from it.
struct Lesson<'a> {
    measured: &'a Measured,
    range: &'a DepthRange,
}

impl Taught for Lesson<'_> {
    type Target = f32;

    fn image(&self) -> &Image {
        &self.measured.image
    }

    fn targets(&self, frame: &Frame, cells: Extent) -> Result<Vec<Option<f32>>, EvalError> {
        let depths = self.measured.depths()?.at_cells(frame, cells);
        let known = |depth: f32| self.range.holds(depth).then_some(depth);
        Ok(depths.into_iter().map(known).collect())
    }
}

const TALLIES: [&str; 7] = [
    "rmse", "abs_rel", "log10", "delta1", "delta2", "delta3", "pictures",
];

fn tallies(errors: Option<DepthErrors>) -> Vec<f64> {
    match errors {
        None => vec![0.0; TALLIES.len()],
        Some(errors) => {
            let [first, second, third] = errors.delta;
            vec![
                errors.rmse,
                errors.abs_rel,
                errors.log10,
                first,
                second,
                third,
                1.0,
            ]
        }
    }
}

/// The mean over pictures of each error.
fn schema(set: &DepthSet) -> Schema {
    let over = TALLIES.len() - 1;
    let mean = |of: usize| Formula::Ratio { of, over };
    let mut figures = vec![
        Figure::error("RMSE (m)", mean(0)),
        Figure::error("AbsRel", mean(1)),
        Figure::error("log10", mean(2)),
        Figure::percent("δ < 1.25", mean(3)),
        Figure::percent("δ < 1.25²", mean(4)),
        Figure::percent("δ < 1.25³", mean(5)),
    ];
    for figure in &mut figures[..3] {
        figure.scale = Scale::Plain;
    }
    let units = set.split.test.iter().map(|measured| measured.unit.as_str());
    Schema {
        tallies: TALLIES.map(str::to_owned).to_vec(),
        figures,
        independent: independent(set.block),
        descriptive: descriptive(units, set.block),
    }
}

impl Task for Depth {
    fn name(&self) -> &str {
        "depth"
    }

    fn settings(&self) -> Settings {
        let split = &self.set.split;
        let mut settings = self.probing.settings(split.train.len());
        settings.insert("layout".into(), json!(self.set.layout));
        settings.insert("train".into(), json!(split.train.len()));
        settings.insert("validation".into(), json!(split.validation.len()));
        settings.insert("test".into(), json!(split.test.len()));
        settings.insert("crop".into(), json!(self.set.range.crop.is_some()));
        settings
    }

    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn images(&self) -> Vec<Image> {
        let split = &self.set.split;
        match self.probing.load {
            None => split.all().map(|measured| measured.image.clone()).collect(),
            Some(_) => split
                .test
                .iter()
                .map(|measured| measured.image.clone())
                .collect(),
        }
    }

    fn floors(&self) -> &'static [&'static str] {
        &[MEAN_DEPTH]
    }

    fn evaluate(&self, candidate: &mut Candidate, run: &mut Run) -> Result<Vec<Item>, EvalError> {
        // Nothing is trained for what is known already.
        if run.journal.len() == self.set.split.test.len() {
            return Ok(run.journal.items().to_vec());
        }
        match Asked::of(candidate) {
            Asked::Floor => {
                let mean = self.mean_map(run)?;
                self.ask(run, |measured| {
                    let extent = measured.image.open()?.extent();
                    let frame = Frame::squash(extent, MEAN_CELLS);
                    Ok((bilinear_at_pixels(&mean, MEAN_CELLS, &frame), extent))
                })?;
            }
            Asked::Features(source, taps) => {
                let mut features = TapSource::of(source, taps)?;
                let [train, validation] =
                    [&self.set.split.train, &self.set.split.validation].map(|part| {
                        let range = &self.set.range;
                        let lessons = part.iter().map(|measured| Lesson { measured, range });
                        lessons.collect::<Vec<_>>()
                    });
                let lessons = [&train[..], &validation[..]];
                let probe =
                    (self.probing).probe(self.name(), &self.bins, lessons, &mut features, run)?;
                self.ask(run, |measured| {
                    let view = features.view(&measured.image)?;
                    let logits = outputs(&probe, view.map(), &measured.image)?;
                    let depths = self.bins.depths(&logits);
                    let frame = view.frame();
                    let depths = bilinear_at_pixels(&depths, view.map().extent(), frame);
                    Ok((depths, frame.picture))
                })?;
            }
        }
        Ok(run.journal.items().to_vec())
    }
}
