//! The directions in which features vary most (principal components): fewer numbers for each cell,
//! with almost the same distances between cells.

use cleandift_kernels::Kernels;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;

/// Sums of products of all pairs of channels over some cells.
#[derive(Clone, Debug, PartialEq)]
pub struct Products {
    channels: usize,
    /// `[channel][channel]`.
    sums: Vec<f32>,
}

/// Some directions that are orthogonal and of length one; what lies in them is kept.
///
/// Which directions of a subspace are taken is of no account: lengths of cells and angles between
/// them are the same for all.
#[derive(Clone, Debug, PartialEq)]
pub struct Components {
    channels: usize,
    /// `[component][channel]`; zeros where the cells have no more directions.
    directions: Vec<f32>,
}

/// Multiplications by the products that turn random directions into the strongest ones. PyTorch's
/// `pca_lowrank`, with the two iterations that it is usually given, does the same three times.
const ITERATIONS: usize = 4;

/// A direction that keeps no more of its length beside the others has nothing of its own.
const NOTHING: f32 = 1e-5;

impl Products {
    /// No cells yet.
    pub fn new(channels: usize) -> Self {
        Self {
            channels,
            sums: vec![0.0; channels * channels],
        }
    }

    /// Takes account of more cells, `[cell][channel]`.
    ///
    /// # Panics
    /// If the cells are not whole.
    pub fn add(&mut self, cells: &[f32]) {
        let channels = self.channels;
        assert_eq!(cells.len() % channels, 0, "whole cells");
        if cells.is_empty() {
            return;
        }
        let mut sums = vec![0.0; channels * channels];
        Kernels::best().product_weight_gradient(cells, cells, channels, channels, &mut sums);
        self.sums
            .iter_mut()
            .zip(sums)
            .for_each(|(sum, more)| *sum += more);
    }

    /// The `count` directions that hold most of the cells' squares; all, if there are no more
    /// channels. Found by subspace iteration from directions that are always the same.
    pub fn components(&self, count: usize) -> Components {
        let (channels, count) = (self.channels, count.min(self.channels));
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let mut directions: Vec<f32> = (0..count * channels)
            .map(|_| StandardNormal.sample(&mut random))
            .collect();
        let kernels = Kernels::best();
        let packed = kernels.pack_linear(&self.sums, channels, channels);
        let mut longer = vec![0.0; directions.len()];
        for _ in 1..ITERATIONS {
            kernels.product(&directions, &packed, None, &mut longer);
            std::mem::swap(&mut directions, &mut longer);
            orthonormalise(&mut directions, channels, 0.0);
        }
        kernels.product(&directions, &packed, None, &mut longer);
        orthonormalise(&mut longer, channels, NOTHING);
        // Once more, for what rounding has left between directions of very different lengths.
        orthonormalise(&mut longer, channels, 0.0);
        Components {
            channels,
            directions: longer,
        }
    }
}

impl Components {
    /// Directions that were found before, `[component][channel]`.
    ///
    /// # Panics
    /// If they are not whole.
    pub fn new(channels: usize, directions: Vec<f32>) -> Self {
        assert_eq!(directions.len() % channels, 0, "whole directions");
        Self {
            channels,
            directions,
        }
    }

    /// How many values a cell has before.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// How many it has afterwards.
    pub fn count(&self) -> usize {
        self.directions.len() / self.channels
    }

    /// The directions, `[component][channel]`.
    pub fn directions(&self) -> &[f32] {
        &self.directions
    }

    /// Cells in these directions: `[cell][component]` of `[cell][channel]`.
    ///
    /// # Panics
    /// If the cells are not whole.
    pub fn of(&self, cells: &[f32]) -> Vec<f32> {
        let kernels = Kernels::best();
        let packed = kernels.pack_linear(&self.directions, self.count(), self.channels);
        let mut out = vec![0.0; cells.len() / self.channels * self.count()];
        kernels.product(cells, &packed, None, &mut out);
        out
    }
}

/// Makes rows of `length` values orthogonal and of length one, in their order (modified Gram and
/// Schmidt). A row that keeps no more than the share `least` of its length becomes zeros.
fn orthonormalise(rows: &mut [f32], length: usize, least: f32) {
    let norm = |row: &[f32]| dot(row, row).sqrt();
    let whole: Vec<f32> = rows.chunks_exact(length).map(norm).collect();
    let mut rest = rows;
    for whole in whole {
        let (row, later) = rest.split_at_mut(length);
        let left = norm(row);
        let scale = if left > least * whole {
            1.0 / left
        } else {
            0.0
        };
        row.iter_mut().for_each(|value| *value *= scale);
        let row = &*row;
        later
            .par_chunks_exact_mut(length)
            .with_min_len(16)
            .for_each(|other| {
                let shared = dot(row, other);
                other
                    .iter_mut()
                    .zip(row)
                    .for_each(|(value, part)| *value -= shared * part);
            });
        rest = later;
    }
}

/// In sixteen sums, which a compiler keeps in vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<16>();
    let (b, b_rest) = b.as_chunks::<16>();
    let mut sums = [0.0f32; 16];
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cells on a plane of three channels, in which the second direction is weaker: both are kept
    /// by two components, and all angles with them; one keeps the stronger, (3, 4, 0) / 5.
    #[test]
    fn the_strongest_directions_are_kept() {
        let cells = [3.0, 4.0, 0.0, -3.0, -4.0, 0.0, 0.0, 0.0, 2.0, 3.0, 4.0, 1.0];
        let mut products = Products::new(3);
        products.add(&cells[..6]);
        products.add(&cells[6..]);
        let two = products.components(2);
        let kept = two.of(&cells);
        for (cell, kept) in cells.chunks_exact(3).zip(kept.chunks_exact(2)) {
            assert!((dot(cell, cell) - dot(kept, kept)).abs() < 1e-4);
        }
        let one = products.components(1);
        let along = one.directions().iter().zip([0.6, 0.8, 0.0]);
        // The weak direction is mixed in a little: tan 2a = 2 * 5 / (75 - 5), a = 0.071.
        let share: f32 = along.map(|(a, b)| a * b).sum();
        assert!((share.abs() - 0.0709f32.cos()).abs() < 1e-3, "{share}");
    }

    /// Two cells in four channels: there is nothing of them in a third direction.
    #[test]
    fn there_are_no_more_directions_than_cells_have() {
        let cells = [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0];
        let mut products = Products::new(4);
        products.add(&cells);
        let kept = products.components(3).of(&cells);
        assert_eq!([kept[2], kept[5]], [0.0; 2]);
        assert!((dot(&kept[..2], &kept[..2]) - 1.0).abs() < 1e-6);
        assert_eq!(products.components(9).count(), 4);
    }
}
