//! How far a predicted depth map is from a measured one.

use std::ops::Range;

use crate::image::Extent;

/// Which measured pixels count, and to what range predictions are clamped.
#[derive(Clone, Debug, PartialEq)]
pub struct DepthRange {
    /// Measured depths must lie above this, in metres.
    pub min: f32,
    /// Measured depths must lie below this, in metres.
    pub max: f32,
    /// The columns and rows that count; `None` for all.
    pub crop: Option<[Range<usize>; 2]>,
}

impl DepthRange {
    /// The convention of NYU Depth v2: 1 mm to 10 m.
    pub const INDOOR: Self = Self {
        min: 1e-3,
        max: 10.0,
        crop: None,
    };

    /// NYU Depth v2 at 640x480 with the crop of Eigen et al. (NIPS 2014), which leaves out the
    /// border that the sensor does not see: columns 41 to 600, rows 45 to 470.
    pub fn nyu() -> Self {
        Self {
            crop: Some([41..601, 45..471]),
            ..Self::INDOOR
        }
    }

    /// Whether a measured depth lies in the range.
    pub fn holds(&self, depth: f32) -> bool {
        depth > self.min && depth < self.max
    }

    fn counts(&self, column: usize, row: usize, depth: f32) -> bool {
        let inside = |crop: &[Range<usize>; 2]| crop[0].contains(&column) && crop[1].contains(&row);
        self.holds(depth) && self.crop.as_ref().is_none_or(inside)
    }
}

/// The usual errors of one depth map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DepthErrors {
    /// Root of the mean squared difference, in metres.
    pub rmse: f64,
    /// Mean of |prediction - truth| / truth.
    pub abs_rel: f64,
    /// Mean of |log10 prediction - log10 truth|.
    pub log10: f64,
    /// Shares of the pixels where max(prediction / truth, truth / prediction) lies below 1.25,
    /// 1.25² and 1.25³.
    pub delta: [f64; 3],
    /// How many pixels were compared.
    pub pixels: usize,
}

impl DepthErrors {
    /// Compares two maps `[row][column]` in metres; `None` if no measured pixel counts.
    ///
    /// # Panics
    /// If a map has not as many values as `extent` has pixels.
    pub fn compare(
        prediction: &[f32],
        truth: &[f32],
        extent: Extent,
        range: &DepthRange,
    ) -> Option<Self> {
        let Extent { width, height } = extent;
        assert_eq!(prediction.len(), width * height, "values of the prediction");
        assert_eq!(truth.len(), width * height, "values of the truth");
        let (mut square, mut relative, mut log, mut pixels) = (0.0, 0.0, 0.0, 0);
        let mut close = [0usize; 3];
        for (index, (&prediction, &truth)) in prediction.iter().zip(truth).enumerate() {
            if !range.counts(index % width, index / width, truth) {
                continue;
            }
            let prediction = f64::from(prediction.clamp(range.min, range.max));
            let truth = f64::from(truth);
            let difference = prediction - truth;
            square += difference * difference;
            relative += difference.abs() / truth;
            log += (prediction.log10() - truth.log10()).abs();
            let ratio = (prediction / truth).max(truth / prediction);
            for (count, power) in close.iter_mut().zip(1..) {
                *count += usize::from(ratio < 1.25f64.powi(power));
            }
            pixels += 1;
        }
        let mean = |sum: f64| sum / pixels as f64;
        (pixels > 0).then(|| Self {
            rmse: mean(square).sqrt(),
            abs_rel: mean(relative),
            log10: mean(log),
            delta: close.map(|count| mean(count as f64)),
            pixels,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Truth 1, 2, 4 m and a hole; prediction 1, 1, 5 m: squares 0, 1, 1; relative errors 0, 1/2,
    /// 1/4; ratios 1, 2, 1.25 (which is not below 1.25, but below 1.25²).
    #[test]
    fn a_case_computed_by_hand() {
        let errors = DepthErrors::compare(
            &[1.0, 1.0, 5.0, 3.0],
            &[1.0, 2.0, 4.0, 0.0],
            Extent::new(2, 2),
            &DepthRange::INDOOR,
        )
        .unwrap();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        near(errors.rmse, (2.0f64 / 3.0).sqrt());
        near(errors.abs_rel, 0.25);
        near(errors.log10, (2.0f64.log10() + 1.25f64.log10()) / 3.0);
        near(errors.delta[0], 1.0 / 3.0);
        near(errors.delta[1], 2.0 / 3.0);
        near(errors.delta[2], 2.0 / 3.0);
        assert_eq!(errors.pixels, 3);
    }

    #[test]
    fn predictions_are_clamped_and_far_truth_is_left_out() {
        let extent = Extent::new(2, 1);
        let errors =
            DepthErrors::compare(&[50.0, 1.0], &[9.0, 11.0], extent, &DepthRange::INDOOR).unwrap();
        assert_eq!((errors.rmse, errors.pixels), (1.0, 1));
    }

    /// Only what lies outside the crop is wrong.
    #[test]
    fn the_crop_of_eigen_has_426_rows_of_560_columns() {
        let extent = Extent::new(640, 480);
        let inside =
            |index: usize| (41..601).contains(&(index % 640)) && (45..471).contains(&(index / 640));
        let prediction: Vec<f32> = (0..640 * 480)
            .map(|index| if inside(index) { 2.0 } else { 9.0 })
            .collect();
        let truth = vec![2.0; 640 * 480];
        let errors = DepthErrors::compare(&prediction, &truth, extent, &DepthRange::nyu()).unwrap();
        assert_eq!((errors.rmse, errors.pixels), (0.0, 560 * 426));
    }

    #[test]
    fn a_map_of_holes_has_no_errors() {
        let errors = DepthErrors::compare(&[1.0], &[0.0], Extent::new(1, 1), &DepthRange::INDOOR);
        assert_eq!(errors, None);
    }
}
