//! Several maps as one.

use super::FeatureMap;
use crate::image::Extent;

/// Below this a vector is not divided by its length (as the published code of "A Tale of Two
/// Features" adds it).
const SHORTEST: f64 = 1e-10;

/// What becomes of the vectors that are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parts {
    /// Nothing.
    AsTheyAre,
    /// Each map's is made unit length: all weigh the same.
    UnitLength,
}

/// Channels of all maps, one map's after another's, on a grid of `extent` cells over the same
/// canvas; other grids are interpolated bilinearly, as `F.interpolate` does.
pub(crate) fn join(maps: &[&FeatureMap], extent: Extent, parts: Parts) -> FeatureMap {
    let channels: usize = maps.iter().map(|map| map.channels()).sum();
    let mut values = vec![0.0; extent.width * extent.height * channels];
    let mut first = 0;
    for map in maps {
        let part = first..first + map.channels();
        for (cell, values) in values.chunks_exact_mut(channels).enumerate() {
            let place = [cell % extent.width, cell / extent.width];
            sample(map, extent, place, &mut values[part.clone()]);
            if parts == Parts::UnitLength {
                make_unit(&mut values[part.clone()]);
            }
        }
        first = part.end;
    }
    FeatureMap::new(extent, channels, values)
}

/// A map on another grid over the same canvas, interpolated bilinearly.
pub(crate) fn resampled(map: &FeatureMap, extent: Extent) -> FeatureMap {
    join(&[map], extent, Parts::AsTheyAre)
}

/// The vector at a cell of a grid of `extent` cells over the same canvas.
fn sample(map: &FeatureMap, extent: Extent, [column, row]: [usize; 2], out: &mut [f32]) {
    let Extent { width, height } = map.extent();
    let between = |index: usize, to: usize, from: usize| {
        let position = ((index as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
        let low = (position as usize).min(from - 1);
        (low, (low + 1).min(from - 1), (position - low as f64) as f32)
    };
    let (left, right, u) = between(column, extent.width, width);
    let (top, bottom, v) = between(row, extent.height, height);
    let corners = [
        (map.cell(left, top), (1.0 - u) * (1.0 - v)),
        (map.cell(right, top), u * (1.0 - v)),
        (map.cell(left, bottom), (1.0 - u) * v),
        (map.cell(right, bottom), u * v),
    ];
    for (values, weight) in corners.into_iter().filter(|(_, weight)| *weight > 0.0) {
        for (out, value) in out.iter_mut().zip(values) {
            *out += weight * value;
        }
    }
}

fn make_unit(values: &mut [f32]) {
    let squares = values
        .iter()
        .map(|&value| f64::from(value) * f64::from(value));
    let length = squares.sum::<f64>().sqrt() + SHORTEST;
    values
        .iter_mut()
        .for_each(|value| *value = (f64::from(*value) / length) as f32);
}
