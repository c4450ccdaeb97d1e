//! Dense, upright SIFT: histograms of gradients, a reference that needs no training (Lowe,
//! "Distinctive Image Features from Scale-Invariant Keypoints", IJCV 2004, section 6).

use crate::features::FeatureMap;
use crate::image::{Extent, Pixels};

/// Directions told apart.
const DIRECTIONS: usize = 8;
/// Blocks on each side of a descriptor.
const BLOCKS: usize = 4;
/// No component may be larger, so that no single edge rules (section 6.1).
const LARGEST: f32 = 0.2;

/// One descriptor for each cell of `side` x `side` pixels: the histograms of 4 x 4 blocks of half a
/// cell, centred at the cell, made unit length, cut at 0.2, and made unit length again. A gradient
/// counts for the two nearest directions; blocks beyond the border are empty.
///
/// # Panics
/// If `side` is odd.
pub(super) fn dense_sift(pixels: &Pixels, side: usize) -> FeatureMap {
    assert!(
        side.is_multiple_of(2),
        "cells of {side} pixels have no half"
    );
    let Extent { width, height } = pixels.extent();
    let half = side / 2;
    let blocks = Extent::new(width / half, height / half);
    let histograms = histograms(pixels, half, blocks);
    let extent = Extent::new(width / side, height / side);
    let channels = BLOCKS * BLOCKS * DIRECTIONS;
    let mut values = Vec::with_capacity(extent.width * extent.height * channels);
    for cell in 0..extent.width * extent.height {
        let (column, row) = (cell % extent.width * 2, cell / extent.width * 2);
        let start = values.len();
        for down in 0..BLOCKS {
            for across in 0..BLOCKS {
                // The cell's own two blocks are the middle ones.
                let place = (column + across)
                    .checked_sub(1)
                    .zip((row + down).checked_sub(1));
                match place.filter(|&(x, y)| x < blocks.width && y < blocks.height) {
                    Some((x, y)) => values.extend(histograms[y * blocks.width + x]),
                    None => values.extend([0.0; DIRECTIONS]),
                }
            }
        }
        let descriptor = &mut values[start..];
        make_unit(descriptor);
        descriptor
            .iter_mut()
            .for_each(|value| *value = value.min(LARGEST));
        make_unit(descriptor);
    }
    FeatureMap::new(extent, channels, values)
}

/// Gradients of the luma by direction, summed over blocks.
fn histograms(pixels: &Pixels, half: usize, blocks: Extent) -> Vec<[f32; DIRECTIONS]> {
    let Extent { width, height } = pixels.extent();
    let luma: Vec<f32> = (pixels.values().chunks_exact(3))
        .map(|rgb| 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2])
        .collect();
    let at = |x: usize, y: usize| luma[y.min(height - 1) * width + x.min(width - 1)];
    let mut histograms = vec![[0.0; DIRECTIONS]; blocks.width * blocks.height];
    for y in 0..blocks.height * half {
        for x in 0..blocks.width * half {
            let dx = at(x + 1, y) - at(x.saturating_sub(1), y);
            let dy = at(x, y + 1) - at(x, y.saturating_sub(1));
            let turns = dy.atan2(dx) / std::f32::consts::TAU;
            let position = turns.rem_euclid(1.0) * DIRECTIONS as f32;
            let (low, share) = (position as usize % DIRECTIONS, position.fract());
            let histogram = &mut histograms[y / half * blocks.width + x / half];
            let length = dx.hypot(dy);
            histogram[low] += (1.0 - share) * length;
            histogram[(low + 1) % DIRECTIONS] += share * length;
        }
    }
    histograms
}

fn make_unit(values: &mut [f32]) {
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        values.iter_mut().for_each(|value| *value /= length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(contrast: f32, across: f32, down: f32) -> FeatureMap {
        let values = (0..32 * 32).flat_map(|i| {
            let (x, y) = ((i % 32) as f32, (i / 32) as f32);
            [contrast * (across * x + down * y) / 64.0; 3]
        });
        dense_sift(&Pixels::new(Extent::new(32, 32), values.collect()), 8)
    }

    /// By hand: every gradient of a ramp has one direction, all 16 blocks of an inner cell are alike:
    /// 1 / 4 each, cut to 0.2, 1 / 4 again. Along the diagonal direction 1 (45°) has it all.
    #[test]
    fn ramps_have_one_direction() {
        for (map, direction) in [(ramp(1.0, 1.0, 0.0), 0), (ramp(1.0, 1.0, 1.0), 1)] {
            for (index, &value) in map.cell(1, 1).iter().enumerate() {
                let expected = if index % DIRECTIONS == direction {
                    0.25
                } else {
                    0.0
                };
                assert!((value - expected).abs() < 1e-4, "{index}: {value}");
            }
        }
    }

    #[test]
    fn contrast_does_not_matter() {
        let (strong, weak) = (ramp(1.0, 0.7, -0.3), ramp(0.25, 0.7, -0.3));
        for (a, b) in strong.values().iter().zip(weak.values()) {
            assert!((a - b).abs() < 1e-4);
        }
    }
}
