//! Depth from frozen features by a linear probe, or from no features at all.

use serde_json::json;

use super::datasets::depths::{DepthOrigin, DepthSet, Measured};
use super::datasets::{Annotated, Split};
use super::dense::{DepthMap, bilinear_at_pixels};
use super::metrics::depth::DepthErrors;
use super::per_pixel::{PerPixel, Question};
use super::probes::DepthBins;
use super::{EvalError, Figure, Formula, Probing, Scale, Settings};
use crate::image::{Extent, Frame};

/// The floor that predicts the mean of the training part's depths at each place.
pub const MEAN_DEPTH: &str = "mean depth map";

/// The task: a set of measured pictures, and how the probe is made.
///
/// The probe of the paper (arXiv 2412.03439): 256 bins from 0.1 m to 10 m, read where the features
/// are, without upsampling them; the predicted depth is resized bilinearly to the picture.
pub type Depth = PerPixel<Depths>;

impl Depth {
    /// The depth of `set`.
    pub fn new(set: DepthSet, probing: Probing, prompt: &str) -> Self {
        let bins = DepthBins::published();
        Self::of(Depths { set, bins }, probing, prompt)
    }
}

/// How far away is it, in metres?
pub struct Depths {
    set: DepthSet,
    bins: DepthBins,
}

impl Question for Depths {
    type Origin = DepthOrigin;
    type Truth = DepthMap;
    type Answer = f32;
    type Objective = DepthBins;

    const NAME: &'static str = "depth";
    const FLOOR: &'static str = MEAN_DEPTH;
    const PLACES: Extent = Extent::new(64, 64);

    fn pictures(&self) -> (&Split<Measured>, usize) {
        (&self.set.split, self.set.block)
    }

    fn settings(&self) -> Settings {
        let crop = self.set.range.crop.is_some();
        let settings = [("layout", json!(self.set.layout)), ("crop", json!(crop))];
        settings
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect()
    }

    fn truth(&self, picture: &Annotated<DepthOrigin>) -> Result<DepthMap, EvalError> {
        picture.depths()
    }

    fn answers<'t>(&self, truth: &'t DepthMap) -> (&'t [f32], Extent) {
        (truth.metres(), truth.extent())
    }

    fn at_cells(&self, truth: &DepthMap, frame: &Frame, cells: Extent) -> Vec<Option<f32>> {
        let depths = truth.at_cells(frame, cells).into_iter();
        depths
            .map(|depth| self.set.range.holds(depth).then_some(depth))
            .collect()
    }

    fn objective(&self) -> DepthBins {
        self.bins.clone()
    }

    fn read_off(&self, outputs: &[f32]) -> Vec<f32> {
        self.bins.depths(outputs)
    }

    fn spread(&self, depths: &[f32], cells: Extent, frame: &Frame) -> Vec<f32> {
        bilinear_at_pixels(depths, cells, frame)
    }

    /// The mean; where none was measured, the mean of all.
    fn by_place(
        &self,
        pictures: &mut dyn Iterator<Item = Result<Vec<Option<f32>>, EvalError>>,
    ) -> Result<Vec<f32>, EvalError> {
        let places = Self::PLACES.width * Self::PLACES.height;
        let (mut sums, mut counts) = (vec![0.0; places], vec![0.0; places]);
        for depths in pictures {
            for ((sum, count), depth) in sums.iter_mut().zip(&mut counts).zip(depths?) {
                if let Some(depth) = depth {
                    *sum += f64::from(depth);
                    *count += 1.0;
                }
            }
        }
        let all = sums.iter().sum::<f64>() / counts.iter().sum::<f64>();
        let mean =
            |(sum, count): (&f64, &f64)| (if *count > 0.0 { sum / count } else { all }) as f32;
        Ok(sums.iter().zip(&counts).map(mean).collect())
    }

    fn tallies(&self, depths: &[f32], truth: &DepthMap) -> Vec<f64> {
        let range = &self.set.range;
        match DepthErrors::compare(depths, truth.metres(), truth.extent(), range) {
            None => vec![0.0; TALLIES.len()],
            Some(errors) => {
                let [first, second, third] = errors.delta;
                let DepthErrors {
                    rmse,
                    abs_rel,
                    log10,
                    ..
                } = errors;
                vec![rmse, abs_rel, log10, first, second, third, 1.0]
            }
        }
    }

    /// The mean over pictures of each error.
    fn figures(&self) -> (Vec<String>, Vec<Figure>) {
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
        (TALLIES.map(str::to_owned).to_vec(), figures)
    }

    /// Near is light, as far as the farthest true depth is dark; what was not measured is blue.
    fn paint(&self, depths: &[f32], truth: &DepthMap) -> Vec<[u8; 3]> {
        let farthest = truth
            .metres()
            .iter()
            .copied()
            .fold(f32::MIN_POSITIVE, f32::max);
        let colour = |&depth: &f32| match depth > 0.0 {
            true => [(255.0 - 235.0 * (depth / farthest).min(1.0)) as u8; 3],
            false => [40, 60, 120],
        };
        depths.iter().map(colour).collect()
    }
}

const TALLIES: [&str; 7] = [
    "rmse", "abs_rel", "log10", "delta1", "delta2", "delta3", "pictures",
];
