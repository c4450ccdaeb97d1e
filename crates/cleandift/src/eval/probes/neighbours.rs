//! Classification by the nearest neighbours among known pictures.

use cleandift_kernels::{Kernels, PackedMatrix};
use rayon::prelude::*;

/// How the neighbours vote.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Vote {
    /// One voice each.
    Equal,
    /// exp(cosine / temperature) voices each (Wu et al., CVPR 2018; DINO and DINOv2 use 0.07).
    Weighted {
        /// The temperature.
        temperature: f64,
    },
}

/// Known pictures, ready to be compared with others by cosine similarity.
pub struct Neighbours<'k> {
    kernels: &'k Kernels,
    known: PackedMatrix,
    classes: Vec<usize>,
    outputs: usize,
}

/// Questions answered at a time: their similarities with a million known pictures take 256 MB.
const BLOCK: usize = 64;

impl<'k> Neighbours<'k> {
    /// Pictures by their features, `[picture][feature]`, and their classes, which lie below
    /// `outputs`.
    ///
    /// # Panics
    /// If the features are not as many rows as the classes, or there are none.
    pub fn new(
        kernels: &'k Kernels,
        features: &[f32],
        classes: Vec<usize>,
        outputs: usize,
    ) -> Self {
        assert!(!classes.is_empty(), "no known picture");
        let inputs = features.len() / classes.len();
        assert_eq!(
            features.len(),
            inputs * classes.len(),
            "a class for each row"
        );
        let known = kernels.pack_linear(&directions(features, inputs), classes.len(), inputs);
        Self {
            kernels,
            known,
            classes,
            outputs,
        }
    }

    /// The class of each picture, from the votes of its `k` nearest neighbours, for each of the
    /// numbers `ks`: `[k][picture]`.
    ///
    /// Of equally similar neighbours the first known comes first; of classes with equal votes the
    /// lowest wins, as in scikit-learn.
    ///
    /// # Panics
    /// If the features are not whole rows.
    pub fn classify(&self, features: &[f32], ks: &[usize], vote: Vote) -> Vec<Vec<usize>> {
        let inputs = self.known.inputs();
        assert_eq!(features.len() % inputs, 0, "whole rows");
        let most = ks.iter().copied().max().unwrap_or(0);
        let mut found = vec![Vec::new(); ks.len()];
        for block in features.chunks(BLOCK * inputs) {
            let block = directions(block, inputs);
            let mut similarities = vec![0.0; block.len() / inputs * self.classes.len()];
            self.kernels
                .product(&block, &self.known, None, &mut similarities);
            let nearest: Vec<Vec<(f32, usize)>> = similarities
                .par_chunks_exact(self.classes.len())
                .map(|row| nearest(row, most))
                .collect();
            for (&k, found) in ks.iter().zip(&mut found) {
                let elect = |nearest: &Vec<_>| self.elect(&nearest[..k.min(nearest.len())], vote);
                found.extend(nearest.iter().map(elect));
            }
        }
        found
    }

    fn elect(&self, neighbours: &[(f32, usize)], vote: Vote) -> usize {
        let mut votes = vec![0.0; self.outputs];
        let highest = neighbours.first().map_or(0.0, |first| first.0);
        for &(similarity, index) in neighbours {
            votes[self.classes[index]] += match vote {
                Vote::Equal => 1.0,
                Vote::Weighted { temperature } => {
                    (f64::from(similarity - highest) / temperature).exp()
                }
            };
        }
        let mut best = 0;
        for (class, voices) in votes.iter().enumerate() {
            if *voices > votes[best] {
                best = class;
            }
        }
        best
    }
}

/// The `count` largest values with their places, the largest first; of equal ones the first.
fn nearest(similarities: &[f32], count: usize) -> Vec<(f32, usize)> {
    let order = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    let mut places: Vec<_> = similarities.iter().copied().zip(0..).collect();
    if count < places.len() {
        places.select_nth_unstable_by(count, order);
        places.truncate(count);
    }
    places.sort_unstable_by(order);
    places
}

/// Rows of length 1; a row of zeros stays one (the length is at least `F.normalize`'s 1e-12).
fn directions(rows: &[f32], width: usize) -> Vec<f32> {
    let direction = |row: &[f32]| {
        let square: f64 = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        let inverse = 1.0 / square.sqrt().max(1e-12);
        let scaled: Vec<f32> = row
            .iter()
            .map(|&v| (f64::from(v) * inverse) as f32)
            .collect();
        scaled
    };
    rows.chunks_exact(width).flat_map(direction).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known directions at 0°, 10°, 20° (class 0, 1, 1) and 90° (class 2); the question lies at 2°.
    fn answer(k: usize, vote: Vote) -> usize {
        let at = |degrees: f32| [degrees.to_radians().cos(), degrees.to_radians().sin()];
        let known: Vec<f32> = [0.0, 10.0, 20.0, 90.0].into_iter().flat_map(at).collect();
        let neighbours = Neighbours::new(Kernels::best(), &known, vec![0, 1, 1, 2], 3);
        let question: Vec<f32> = at(2.0).iter().map(|value| value * 7.0).collect();
        neighbours.classify(&question, &[k], vote)[0][0]
    }

    #[test]
    fn votes_by_number_and_by_nearness() {
        assert_eq!(answer(1, Vote::Equal), 0);
        assert_eq!(answer(3, Vote::Equal), 1);
        // One voice for each class of two: the lower class.
        assert_eq!(answer(2, Vote::Equal), 0);
        assert_eq!(answer(100, Vote::Equal), 1);
        // cos 2° = 0.99939, cos 8° = 0.99027, cos 18° = 0.95106: at a temperature of 0.01 the
        // first has more weight (1) than the others together (0.40 + 0.008).
        let weighted = |temperature| answer(3, Vote::Weighted { temperature });
        assert_eq!(weighted(0.01), 0);
        assert_eq!(weighted(1.0), 1);
    }

    #[test]
    fn of_equal_neighbours_the_first_counts() {
        assert_eq!(nearest(&[0.5, 1.0, 0.5, 0.5], 2), [(1.0, 1), (0.5, 0)]);
    }
}
