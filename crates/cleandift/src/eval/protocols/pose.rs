//! Whether the source is more like the target when it is turned left to right.

use cleandift_kernels::Kernels;

use crate::features::FeatureMap;

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
    use crate::image::Extent;

    /// By hand. Source cells along x and y; target cells along x and along (1, 2). The pairs (x, x)
    /// and (y, (1, 2)) are mutual: distances 0 and √(2 - 4/√5).
    #[test]
    fn mutual_neighbours() {
        let source = FeatureMap::new(Extent::new(2, 1), 2, vec![2.0, 0.0, 0.0, 3.0]);
        let target = FeatureMap::new(Extent::new(2, 1), 2, vec![1.0, 0.0, 1.0, 2.0]);
        let expected = (2.0 - 4.0 / 5f64.sqrt()).sqrt() / 2.0;
        assert!((mutual_distance(&source, &target) - expected).abs() < 1e-3);
    }
}
