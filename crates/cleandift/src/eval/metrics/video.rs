//! Region and boundary accuracy of an object's mask, as DAVIS measures them (Perazzi et al., CVPR
//! 2016; Pont-Tuset et al., arXiv 1704.00675).

use crate::image::Extent;

/// Boundaries may lie this share of the picture's diagonal apart.
const TOLERANCE: f64 = 0.008;

/// J: pixels in both masks over pixels in either; 1 if both are empty.
///
/// # Panics
/// If the masks differ in length.
pub fn region_similarity(predicted: &[bool], truth: &[bool]) -> f64 {
    assert_eq!(predicted.len(), truth.len(), "masks of one size");
    let pairs = || predicted.iter().zip(truth);
    let both = pairs().filter(|(a, b)| **a && **b).count();
    match pairs().filter(|(a, b)| **a || **b).count() {
        0 => 1.0,
        either => both as f64 / either as f64,
    }
}

/// F: the harmonic mean of the precision and the recall of the mask's boundary, where a boundary
/// pixel is found if the other boundary has one within 0.008 of the diagonal (rounded up to
/// pixels).
///
/// Where only one of the masks has a boundary F is 0, where neither has one it is 1.
///
/// # Panics
/// If a mask has not as many values as `extent` has pixels.
pub fn boundary_accuracy(predicted: &[bool], truth: &[bool], extent: Extent) -> f64 {
    let diagonal = (extent.width as f64).hypot(extent.height as f64);
    let radius = (TOLERANCE * diagonal).ceil() as usize;
    let (predicted, truth) = (boundary(predicted, extent), boundary(truth, extent));
    let precision = share_near(&predicted, &truth, extent, radius);
    let recall = share_near(&truth, &predicted, extent, radius);
    match (precision, recall) {
        (None, None) => 1.0,
        (Some(precision), Some(recall)) if precision + recall > 0.0 => {
            2.0 * precision * recall / (precision + recall)
        }
        _ => 0.0,
    }
}

/// One-pixel-wide boundaries: the pixels that differ from their neighbour to the right, below, or
/// diagonally to the right below. Neighbours beyond the edge are like the pixel itself.
fn boundary(mask: &[bool], extent: Extent) -> Vec<bool> {
    let Extent { width, height } = extent;
    assert_eq!(mask.len(), width * height, "values of the mask");
    let differs = |index: usize| {
        let (column, row) = (index % width, index / width);
        let (right, below) = ((column + 1).min(width - 1), (row + 1).min(height - 1));
        [(right, row), (column, below), (right, below)]
            .iter()
            .any(|(column, row)| mask[row * width + column] != mask[index])
    };
    (0..mask.len()).map(differs).collect()
}

/// The share of the pixels of `boundary` that have one of `other` within `radius`; `None` if there
/// are none.
fn share_near(boundary: &[bool], other: &[bool], extent: Extent, radius: usize) -> Option<f64> {
    let near = dilated(other, extent, radius);
    let all = boundary.iter().filter(|pixel| **pixel).count();
    let found = boundary.iter().zip(near).filter(|(a, b)| **a && *b).count();
    (all > 0).then(|| found as f64 / all as f64)
}

/// All pixels within `radius` of one of the mask.
fn dilated(mask: &[bool], extent: Extent, radius: usize) -> Vec<bool> {
    let Extent { width, height } = extent;
    let mut out = vec![false; mask.len()];
    // Half the width of the disk's row at each distance from its middle.
    let reach: Vec<usize> = (0..=radius)
        .map(|distance| (radius * radius - distance * distance).isqrt())
        .collect();
    for index in (0..mask.len()).filter(|&index| mask[index]) {
        let (column, row) = (index % width, index / width);
        for near in row.saturating_sub(radius)..(row + radius + 1).min(height) {
            let reach = reach[near.abs_diff(row)];
            let from = column.saturating_sub(reach);
            let to = (column + reach + 1).min(width);
            out[near * width + from..near * width + to].fill(true);
        }
    }
    out
}

/// One object's accuracy over a sequence, from its values by frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OverTime {
    /// The mean over frames.
    pub mean: f64,
    /// The share of the frames with more than 0.5.
    pub recall: f64,
    /// The mean of the first quarter less that of the last.
    pub decay: f64,
}

impl OverTime {
    /// Summarises the frames that count (in the semi-supervised measure all but the first, whose
    /// mask is given, and the last); `None` without any.
    ///
    /// The quarters are cut as the official evaluation does, which gives neighbours one frame in
    /// common.
    pub fn new(frames: &[f64]) -> Option<Self> {
        let count = frames.len();
        let mean = |frames: &[f64]| frames.iter().sum::<f64>() / frames.len() as f64;
        let cut = |quarter: usize| {
            let place = 1.0 + (count as f64 - 1.0) * quarter as f64 / 4.0;
            (place + 1e-10).round_ties_even() as usize - 1
        };
        (count > 0).then(|| Self {
            mean: mean(frames),
            recall: frames.iter().filter(|frame| **frame > 0.5).count() as f64 / count as f64,
            decay: mean(&frames[cut(0)..=cut(1)]) - mean(&frames[cut(3)..=cut(4)]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(extent: Extent, left: usize, top: usize, side: usize) -> Vec<bool> {
        (0..extent.width * extent.height)
            .map(|index| {
                let (column, row) = (index % extent.width, index / extent.width);
                (left..left + side).contains(&column) && (top..top + side).contains(&row)
            })
            .collect()
    }

    /// Squares of 4x4 pixels, one moved by a pixel: 12 in both, 20 in either.
    #[test]
    fn the_region_of_a_moved_square() {
        let extent = Extent::new(12, 12);
        let (a, b) = (square(extent, 3, 3, 4), square(extent, 4, 3, 4));
        assert_eq!(region_similarity(&a, &b), 12.0 / 20.0);
        assert_eq!(region_similarity(&a, &a), 1.0);
        let nothing = vec![false; 144];
        assert_eq!(region_similarity(&nothing, &nothing), 1.0);
        assert_eq!(region_similarity(&a, &nothing), 0.0);
    }

    /// The diagonal of 12x12 is 17 pixels: boundaries may be one pixel apart. A square moved by
    /// one is found whole, one moved by 6 not at all.
    #[test]
    fn boundaries_within_the_tolerance_are_found() {
        let extent = Extent::new(12, 12);
        let a = square(extent, 2, 2, 3);
        assert_eq!(boundary_accuracy(&a, &square(extent, 3, 2, 3), extent), 1.0);
        assert_eq!(boundary_accuracy(&a, &square(extent, 8, 8, 3), extent), 0.0);
        let nothing = vec![false; 144];
        assert_eq!(boundary_accuracy(&nothing, &nothing, extent), 1.0);
        assert_eq!(boundary_accuracy(&a, &nothing, extent), 0.0);
    }

    /// One pixel in the middle of 3x3: itself, its left and upper neighbours, and the one between.
    #[test]
    fn the_boundary_of_one_pixel() {
        let mut mask = vec![false; 9];
        mask[4] = true;
        let expected = [true, true, false, true, true, false, false, false, false];
        assert_eq!(boundary(&mask, Extent::new(3, 3)), expected);
    }

    /// Five frames are cut at 0, 1, 2, 3, 4: the first quarter is frames 0 and 1, the last 3 and 4.
    #[test]
    fn over_time() {
        let summary = OverTime::new(&[1.0, 0.8, 0.6, 0.5, 0.3]).unwrap();
        assert!((summary.mean - 0.64).abs() < 1e-12);
        assert_eq!(summary.recall, 0.6);
        assert!((summary.decay - 0.5).abs() < 1e-12);
        assert_eq!(OverTime::new(&[]), None);
    }
}
