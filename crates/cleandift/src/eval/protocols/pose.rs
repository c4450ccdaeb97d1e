//! Whether the source is more like the target when it is turned left to right.

use cleandift_kernels::Kernels;

use crate::features::FeatureMap;
use crate::features::resampled;
use crate::image::Extent;

/// The mean distance of cells that are each other's nearest among two maps, all cells made unit
/// length ("Telling Left from Right", arXiv 2311.17034, its variant without masks). Infinite if
/// there are none.
///
/// # Panics
/// If the maps have different numbers of channels.
pub fn mutual_distance(source: &FeatureMap, target: &FeatureMap) -> f64 {
    let channels = source.channels();
    assert_eq!(channels, target.channels(), "maps of different taps");
    let (source, target) = (unit(source), unit(target));
    let (rows, columns) = (source.len() / channels, target.len() / channels);
    let kernels = Kernels::best();
    let packed = kernels.pack_linear(&target, columns, channels);
    let mut similarities = vec![0.0; rows * columns];
    kernels.product(&source, &packed, None, &mut similarities);

    let nearest_target: Vec<usize> = (similarities.chunks_exact(columns))
        .map(first_largest)
        .collect();
    let mut nearest_source = vec![0; columns];
    for (row, line) in similarities.chunks_exact(columns).enumerate() {
        for (column, &similarity) in line.iter().enumerate() {
            if similarity > similarities[nearest_source[column] * columns + column] {
                nearest_source[column] = row;
            }
        }
    }
    let (mut total, mut count) = (0.0, 0.0);
    for (row, &column) in nearest_target.iter().enumerate() {
        if nearest_source[column] == row {
            // |a - b| of unit vectors
            let similarity = f64::from(similarities[row * columns + column]);
            total += (2.0 - 2.0 * similarity).max(0.0).sqrt();
            count += 1.0;
        }
    }
    if count > 0.0 {
        total / count
    } else {
        f64::INFINITY
    }
}

/// Columns and rows of the cells over the canvas in which poses are compared within masks.
pub const POSE_CELLS: Extent = Extent::new(64, 64);

/// The mean distance of the source's cells to their nearest of the target, both within their masks
/// of [`POSE_CELLS`]: cells are made unit length, then brought to that grid ("Telling Left from
/// Right", section 4.2). Infinite if a mask is empty.
///
/// # Panics
/// If the maps have different numbers of channels, or the masks another number of cells.
pub fn masked_distance(maps: [&FeatureMap; 2], masks: &[Vec<bool>; 2]) -> f64 {
    let channels = maps[0].channels();
    assert_eq!(channels, maps[1].channels(), "maps of different taps");
    let masked = |place: usize| -> Vec<f32> {
        let map = maps[place];
        let unit = FeatureMap::new(map.extent(), channels, unit(map));
        let cells = resampled(&unit, POSE_CELLS);
        let cells = cells.values().chunks_exact(channels);
        assert_eq!(cells.len(), masks[place].len(), "a mask of these cells");
        let masked = cells.zip(&masks[place]).filter(|(_, inside)| **inside);
        masked.flat_map(|(cell, _)| cell).copied().collect()
    };
    let (source, target) = (masked(0), masked(1));
    let (rows, columns) = (source.len() / channels, target.len() / channels);
    if rows == 0 || columns == 0 {
        return f64::INFINITY;
    }
    let kernels = Kernels::best();
    let packed = kernels.pack_linear(&target, columns, channels);
    let mut products = vec![0.0; rows * columns];
    kernels.product(&source, &packed, None, &mut products);
    let squares = |cells: &[f32]| -> Vec<f64> {
        let square = |cell: &[f32]| cell.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        cells.chunks_exact(channels).map(square).collect()
    };
    let target_squares = squares(&target);
    let nearest = |(square, products): (f64, &[f32])| {
        let distances = products.iter().zip(&target_squares);
        let distances = distances.map(|(&dot, other)| square + other - 2.0 * f64::from(dot));
        distances.fold(f64::INFINITY, f64::min).max(0.0).sqrt()
    };
    let all = squares(&source)
        .into_iter()
        .zip(products.chunks_exact(columns));
    all.map(nearest).sum::<f64>() / rows as f64
}

fn first_largest(line: &[f32]) -> usize {
    let mut best = 0;
    for (index, &value) in line.iter().enumerate() {
        if value > line[best] {
            best = index;
        }
    }
    best
}

/// All cells of a map, made unit length.
fn unit(map: &FeatureMap) -> Vec<f32> {
    let cells = map.values().chunks_exact(map.channels());
    let unit = cells.flat_map(|cell| {
        let squares = cell
            .iter()
            .map(|&value| f64::from(value) * f64::from(value));
        let length = squares.sum::<f64>().sqrt().max(1e-10);
        cell.iter()
            .map(move |&value| (f64::from(value) / length) as f32)
    });
    unit.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand. Source cells along x and y; target cells along x and along (1, 2). The pairs (x, x)
    /// and (y, (1, 2)) are mutual: distances 0 and √(2 - 4/√5).
    #[test]
    fn mutual_neighbours() {
        let source = FeatureMap::new(Extent::new(2, 1), 2, vec![2.0, 0.0, 0.0, 3.0]);
        let target = FeatureMap::new(Extent::new(2, 1), 2, vec![1.0, 0.0, 1.0, 2.0]);
        let expected = (2.0 - 4.0 / 5f64.sqrt()).sqrt() / 2.0;
        assert!((mutual_distance(&source, &target) - expected).abs() < 1e-3);
    }

    /// By hand. Quarters of the canvas; the source's left half is the object, along x above and
    /// along y below. In the target x is within the mask and y is not: x is found at distance 0, y
    /// is √2 away, but where quarters are blended it is nearer.
    #[test]
    fn only_masked_cells_are_compared() {
        let map = |cells: [[f32; 2]; 4]| FeatureMap::new(Extent::new(2, 2), 2, cells.concat());
        let (x, y) = ([2.0, 0.0], [0.0, 5.0]);
        let (source, target) = (map([x, x, y, y]), map([x, y, x, y]));
        let half = |left: bool| -> Vec<bool> {
            (0..64 * 64).map(|cell| (cell % 64 < 16) == left).collect()
        };
        // The first sixteen columns are all x; rows 0 to 15 of the source are x, 48 to 63 y.
        let distance = masked_distance([&source, &target], &[half(true), half(true)]);
        let blended = |row: f64| {
            // Between rows 16 and 47 y takes over from x; both parts are straight lines.
            let share = ((row + 0.5) / 32.0 - 0.5).clamp(0.0, 1.0);
            (share * share * 2.0).sqrt()
        };
        let expected = (0..64).map(|row| blended(f64::from(row))).sum::<f64>() / 64.0;
        assert!(
            (distance - expected).abs() < 1e-3,
            "{distance}, expected {expected}"
        );
        let nothing = vec![false; 64 * 64];
        let empty = masked_distance([&source, &target], &[half(true), nothing]);
        assert_eq!(empty, f64::INFINITY);
    }
}
