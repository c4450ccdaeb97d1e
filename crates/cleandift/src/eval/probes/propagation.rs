//! The masks of a video's first frame, carried on to the others by similarity.

use std::collections::VecDeque;

use cleandift_kernels::{Kernels, PackedMatrix};
use rayon::prelude::*;

use crate::features::FeatureMap;
use crate::image::Extent;

/// The procedure of DINO (arXiv 2104.14294, after UVC, arXiv 1909.11895), with the numbers that
/// DIFT (arXiv 2306.03881) chose for diffusion features.
///
/// Each cell of a frame takes the mean of the masks of its most similar cells in the first frame
/// and in the last few ones, weighted by exp(cosine / temperature). Only cells near its own place
/// are looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Propagation {
    /// The temperature of the weights.
    pub temperature: f64,
    /// How many of the most similar cells count, over all frames looked at.
    pub top: usize,
    /// Frames looked at beside the first.
    pub frames: usize,
    /// How far a cell may lie away, in cells along each axis.
    pub radius: usize,
}

impl Propagation {
    /// DIFT's: temperature 0.2, 15 cells, 28 frames, radius 15.
    pub const DIFT: Self = Self {
        temperature: 0.2,
        top: 15,
        frames: 28,
        radius: 15,
    };
}

/// How much a cell belongs to each object (the first is the background), `[cell][object]`.
type Shares = Vec<f32>;

/// A frame that others look at.
struct Context {
    /// Each row of cells as the weight of a linear layer, so that similarities are a product.
    rows: Vec<PackedMatrix>,
    shares: Shares,
}

/// Carries the masks of the first frame on. `first` is how much each of its cells belongs to each
/// of the `objects` (background included), `[cell][object]`; `next` gives the maps of the frames in
/// order, the first included.
///
/// What comes back, for every frame but the first, is passed to `done` as it is found.
///
/// # Errors
/// The first error of `next` or `done`.
///
/// # Panics
/// If the maps differ in extent or channels, or `first` in length.
pub fn propagate<E>(
    kernels: &Kernels,
    settings: &Propagation,
    first: &[f32],
    objects: usize,
    mut next: impl FnMut() -> Result<Option<FeatureMap>, E>,
    mut done: impl FnMut(&[f32]) -> Result<(), E>,
) -> Result<(), E> {
    let Some(map) = next()? else {
        return Ok(());
    };
    let (extent, channels) = (map.extent(), map.channels());
    assert_eq!(
        first.len(),
        extent.width * extent.height * objects,
        "a share for each cell"
    );
    let start = Context {
        rows: packed_rows(kernels, &directions(&map), extent, channels),
        shares: first.to_vec(),
    };
    let mut recent: VecDeque<Context> = VecDeque::new();
    while let Some(map) = next()? {
        assert_eq!(
            (map.extent(), map.channels()),
            (extent, channels),
            "maps of one kind"
        );
        let target = directions(&map);
        let contexts: Vec<&Context> = std::iter::once(&start).chain(&recent).collect();
        let look = Look {
            kernels,
            settings,
            extent,
            objects,
            contexts: &contexts,
        };
        let shares: Shares = target
            .par_chunks_exact(extent.width * channels)
            .enumerate()
            .flat_map_iter(|(row, cells)| look.row(row, cells))
            .collect();
        done(&shares)?;
        if settings.frames > 0 {
            if recent.len() == settings.frames {
                recent.pop_front();
            }
            recent.push_back(Context {
                rows: packed_rows(kernels, &target, extent, channels),
                shares,
            });
        }
    }
    Ok(())
}

/// What a row of cells looks at.
struct Look<'a> {
    kernels: &'a Kernels,
    settings: &'a Propagation,
    extent: Extent,
    objects: usize,
    contexts: &'a [&'a Context],
}

/// A cell of a context, and how much it is like the one that looks.
#[derive(Clone, Copy)]
struct Sight {
    similarity: f32,
    context: usize,
    cell: usize,
}

/// The most similar cells so far, all of those that are as similar as the last one included. A
/// long look at tens of thousands of cells takes no more memory than some multiple of them.
#[derive(Clone)]
struct Nearest {
    top: usize,
    sights: Vec<Sight>,
    /// What is less similar than this is not among them.
    least: f32,
    /// How many may be gathered before the others are thrown away.
    room: usize,
}

impl Nearest {
    fn new(top: usize) -> Self {
        Self {
            top,
            sights: Vec::new(),
            least: f32::NEG_INFINITY,
            room: 4 * top,
        }
    }

    fn add(&mut self, sight: Sight) {
        if sight.similarity >= self.least {
            self.sights.push(sight);
            if self.sights.len() > self.room {
                self.prune();
                // Twice what is left: many equal ones are not looked through again and again.
                self.room = self.room.max(2 * self.sights.len());
            }
        }
    }

    fn prune(&mut self) {
        let Some(last) = self.top.min(self.sights.len()).checked_sub(1) else {
            return;
        };
        let order = |a: &Sight, b: &Sight| b.similarity.total_cmp(&a.similarity);
        let (_, last, _) = self.sights.select_nth_unstable_by(last, order);
        // Fewer than wanted leave the door open.
        let least = last.similarity;
        if self.sights.len() >= self.top {
            self.least = least;
        }
        self.sights.retain(|sight| sight.similarity >= least);
    }
}

impl Look<'_> {
    /// The shares of the cells of one row.
    fn row(&self, row: usize, cells: &[f32]) -> Shares {
        let Extent { width, height } = self.extent;
        let radius = self.settings.radius;
        let near = |place: usize, count: usize| {
            place.saturating_sub(radius)..(place + radius + 1).min(count)
        };
        let mut nearest = vec![Nearest::new(self.settings.top); width];
        let mut similarities = vec![0.0; width * width];
        for (context, frame) in self.contexts.iter().enumerate() {
            for other_row in near(row, height) {
                let weight = &frame.rows[other_row];
                self.kernels.product(cells, weight, None, &mut similarities);
                let of_column = similarities.chunks_exact(width);
                for (column, (similarities, nearest)) in of_column.zip(&mut nearest).enumerate() {
                    for other in near(column, width) {
                        nearest.add(Sight {
                            similarity: similarities[other],
                            context,
                            cell: other_row * width + other,
                        });
                    }
                }
            }
        }
        let shares = nearest.into_iter().map(|nearest| self.mean(nearest));
        shares.flatten().collect()
    }

    /// The weighted mean of the shares of the most similar cells.
    fn mean(&self, mut nearest: Nearest) -> Shares {
        nearest.prune();
        let mut sights = nearest.sights;
        // One order of summing, whatever order they were left in.
        sights.sort_unstable_by_key(|sight| (sight.context, sight.cell));
        let highest = sights
            .iter()
            .map(|sight| sight.similarity)
            .fold(-1.0, f32::max);
        let mut sums = vec![0.0; self.objects];
        let mut total = 0.0;
        for sight in sights {
            let difference = f64::from(sight.similarity - highest);
            let weight = (difference / self.settings.temperature).exp();
            let shares = &self.contexts[sight.context].shares[sight.cell * self.objects..];
            for (sum, &share) in sums.iter_mut().zip(shares) {
                *sum += weight * f64::from(share);
            }
            total += weight;
        }
        sums.into_iter().map(|sum| (sum / total) as f32).collect()
    }
}

fn packed_rows(
    kernels: &Kernels,
    cells: &[f32],
    extent: Extent,
    channels: usize,
) -> Vec<PackedMatrix> {
    let rows = cells.chunks_exact(extent.width * channels);
    rows.map(|row| kernels.pack_linear(row, extent.width, channels))
        .collect()
}

/// Cells of length 1 (of at least `F.normalize`'s 1e-12).
fn directions(map: &FeatureMap) -> Vec<f32> {
    let cells = map.values().chunks_exact(map.channels());
    let direction = |cell: &[f32]| {
        let square: f64 = cell.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        let inverse = 1.0 / square.sqrt().max(1e-12);
        let scaled: Vec<f32> = cell
            .iter()
            .map(|&v| (f64::from(v) * inverse) as f32)
            .collect();
        scaled
    };
    cells.flat_map(direction).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(settings: Propagation, frames: &[[f32; 4]], first: &[f32]) -> Vec<Vec<f32>> {
        // A row of two cells of two channels.
        let extent = Extent::new(2, 1);
        let mut maps = frames
            .iter()
            .map(|frame| FeatureMap::new(extent, 2, frame.to_vec()));
        let mut found = Vec::new();
        propagate::<()>(
            Kernels::best(),
            &settings,
            first,
            2,
            || Ok(maps.next()),
            |shares| {
                found.push(shares.to_vec());
                Ok(())
            },
        )
        .unwrap();
        found
    }

    /// The object (right cell) moves to the left cell; the frame after is the first one again.
    #[test]
    fn an_object_is_followed() {
        let settings = Propagation {
            temperature: 0.2,
            top: 1,
            frames: 1,
            radius: 1,
        };
        let still = [1.0, 0.0, 0.0, 2.0];
        let moved = [0.0, 1.0, 3.0, 0.0];
        let found = run(settings, &[still, moved, still], &[1.0, 0.0, 0.0, 1.0]);
        assert_eq!(found, [vec![0.0, 1.0, 1.0, 0.0], vec![1.0, 0.0, 0.0, 1.0]]);
    }

    /// Nothing may come from further than the radius: each cell sees itself alone.
    #[test]
    fn the_radius_holds() {
        let settings = Propagation {
            temperature: 0.2,
            top: 1,
            frames: 0,
            radius: 0,
        };
        let found = run(
            settings,
            &[[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]],
            &[1.0, 0.0, 0.0, 1.0],
        );
        assert_eq!(found, [vec![1.0, 0.0, 0.0, 1.0]]);
    }

    /// Cosines 1 and 0 at a temperature of 1 weigh e and 1.
    #[test]
    fn weights_follow_the_temperature() {
        let settings = Propagation {
            temperature: 1.0,
            top: 2,
            frames: 0,
            radius: 1,
        };
        let frame = [1.0, 0.0, 0.0, 1.0];
        let found = run(settings, &[frame, frame], &[1.0, 0.0, 0.0, 1.0]);
        let e = std::f32::consts::E;
        let expected = [
            e / (e + 1.0),
            1.0 / (e + 1.0),
            1.0 / (e + 1.0),
            e / (e + 1.0),
        ];
        for (found, expected) in found[0].iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    /// Against sorting all of them, with many that are equal.
    #[test]
    fn pruning_on_the_way_keeps_what_sorting_would() {
        let similarity = |place: usize| ((place * 7919) % 101) as f32 / 101.0;
        let mut nearest = Nearest::new(15);
        let mut all: Vec<(f32, usize)> = Vec::new();
        for place in 0..5000 {
            all.push((similarity(place), place));
            nearest.add(Sight {
                similarity: similarity(place),
                context: 0,
                cell: place,
            });
        }
        nearest.prune();
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        let least = all[14].0;
        let mut expected: Vec<usize> = all.iter().filter(|s| s.0 >= least).map(|s| s.1).collect();
        let mut found: Vec<usize> = nearest.sights.iter().map(|sight| sight.cell).collect();
        expected.sort();
        found.sort();
        assert!(found.len() > 15);
        assert_eq!(found, expected);
    }
}
