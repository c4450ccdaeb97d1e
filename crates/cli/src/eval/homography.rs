//! The homography task.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cleandift::eval::datasets::hpatches;
use cleandift::eval::homography::{Estimator, HomographyTask, Points};
use cleandift::image::{Filter, Fit, Resample};

use super::common::CommonArguments;
use super::run::{Defaults, Prepared};
use crate::arguments::parse_positive;
use crate::failure::Failure;

/// Homography estimation on HPatches
#[derive(Args, Debug)]
pub struct HpatchesArguments {
    /// The folder with `i_*` and `v_*`
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// Which points of the first picture are matched
    #[arg(long, default_value = "harris")]
    points: PointsKind,

    /// How many: corners in all, or points in each row and column of the grid
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    count: Option<usize>,

    /// How the homography is estimated
    #[arg(long, default_value = "ransac")]
    estimator: EstimatorKind,

    /// The error that RANSAC allows a right match, in pixels
    #[arg(long, value_name = "PX", default_value_t = 3.0)]
    threshold: f64,

    #[command(flatten)]
    pub common: CommonArguments,
}

/// Which points.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PointsKind {
    /// Corners.
    Harris,
    /// Evenly spread.
    Grid,
    /// From `NAME.points` beside each first picture.
    File,
}

/// Which estimator.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum EstimatorKind {
    Ransac,
    Lmeds,
}

impl HpatchesArguments {
    pub fn prepare(&self) -> Result<Prepared, Failure> {
        let points = match self.points {
            PointsKind::Harris => Points::Harris(self.count.unwrap_or(1000)),
            PointsKind::Grid => Points::Grid(self.count.unwrap_or(32)),
            PointsKind::File => Points::File,
        };
        let estimator = match self.estimator {
            EstimatorKind::Ransac => Estimator::Ransac {
                threshold: self.threshold,
            },
            EstimatorKind::Lmeds => Estimator::LeastMedian,
        };
        let sequences = hpatches::load(&self.data)?;
        Ok(Prepared {
            task: Box::new(HomographyTask::new(sequences, points, estimator)),
            defaults: Defaults {
                fit: Fit::Squash,
                resample: Resample::Filter(Filter::Bicubic),
                size: None,
                window: None,
                // The finest map of DIFT's homographies: arXiv 2306.03881, section 5.
                taps: "us9".to_owned(),
            },
            fuse: None,
        })
    }
}
