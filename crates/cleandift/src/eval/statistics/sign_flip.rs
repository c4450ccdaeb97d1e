//! Whether two candidates could be exchanged: a test by flipping which is which, for all items of
//! a unit at once.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::units::Units;
use crate::eval::{Figure, Item, Sums};

/// Up to this many units all flips are tried instead of random ones.
const EXHAUSTIVE: usize = 12;

/// Random flips.
const FLIPS: usize = 9999;

/// The two-sided p-value that figures of `a` and `b` (the same items in the same order) differ:
/// the share of flips with a difference at least as large as the observed one.
///
/// For pairs, all pairs of a source are flipped together, then all pairs of a target; the larger
/// p-value counts.
pub fn sign_flip(a: &[Item], b: &[Item], figure: &Figure, seed: u64) -> f64 {
    let units = Units::of(a);
    let sides = units.of_items().iter().map(Vec::len).max().unwrap_or(0);
    (0..sides)
        .map(|side| {
            let places = units.of_items().iter();
            let clusters: Vec<usize> = places
                .map(|places| places[side.min(places.len() - 1)])
                .collect();
            one_way(a, b, figure, &numbered(&clusters), seed)
        })
        .fold(0.0, f64::max)
}

/// The same clusters with numbers from 0 on, without gaps.
fn numbered(clusters: &[usize]) -> Vec<usize> {
    let mut known = std::collections::HashMap::new();
    let mut number = |cluster: &usize| {
        let next = known.len();
        *known.entry(*cluster).or_insert(next)
    };
    clusters.iter().map(&mut number).collect()
}

fn one_way(a: &[Item], b: &[Item], figure: &Figure, clusters: &[usize], seed: u64) -> f64 {
    let count = clusters.iter().max().map_or(0, |last| last + 1);
    let difference = |flipped: &dyn Fn(usize) -> bool| {
        let chosen = |swap: bool| {
            (a.iter().zip(b).zip(clusters))
                .map(move |((a, b), &cluster)| if flipped(cluster) == swap { a } else { b })
        };
        let value = |swap| figure.formula.value(&Sums::of(chosen(swap)));
        value(false) - value(true)
    };
    let observed = difference(&|_| false).abs();
    // Equal but for the order of a sum.
    let as_large = |found: f64| found.abs() >= observed * (1.0 - 1e-9) - 1e-15;
    if count <= EXHAUSTIVE {
        let all = 1usize << count;
        let hits = (0..all)
            .filter(|flips| as_large(difference(&|cluster| flips >> cluster & 1 == 1)))
            .count();
        return hits as f64 / all as f64;
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let hits = (0..FLIPS).filter(|_| {
        let words: Vec<u64> = (0..count.div_ceil(64)).map(|_| random.next_u64()).collect();
        as_large(difference(&|cluster| {
            words[cluster / 64] >> (cluster % 64) & 1 == 1
        }))
    });
    (hits.count() + 1) as f64 / (FLIPS + 1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Formula;

    fn items(values: &[f64], unit: impl Fn(usize) -> String) -> Vec<Item> {
        let item = |(index, value): (usize, &f64)| Item {
            id: index.to_string(),
            category: String::new(),
            units: vec![unit(index)],
            tallies: vec![*value, 1.0],
        };
        values.iter().enumerate().map(item).collect()
    }

    fn mean() -> Figure {
        Figure::percent("mean", Formula::Ratio { of: 0, over: 1 })
    }

    /// By hand: differences 1, 2, 3, 4 all have one sign; of 16 flips two reach 10.
    #[test]
    fn all_flips_of_a_few_units() {
        let unit = |index: usize| index.to_string();
        let (a, b) = (items(&[1.0, 2.0, 3.0, 4.0], unit), items(&[0.0; 4], unit));
        assert_eq!(sign_flip(&a, &b, &mean(), 0), 2.0 / 16.0);
        // Differences 1, 2, 3, -4: |sum| is 2; sums of at least 2: all but the two of 0
        // (1+... -> ±1±2±3±4 = 0 for {1,4 | 2,3} and its negative).
        let a = items(&[1.0, 2.0, 3.0, -4.0], unit);
        assert_eq!(sign_flip(&a, &b, &mean(), 0), 14.0 / 16.0);
    }

    /// By hand: the same four differences in two units flip two by two.
    #[test]
    fn units_flip_as_a_whole() {
        let unit = |index: usize| (index / 2).to_string();
        let (a, b) = (items(&[1.0, 2.0, 3.0, 4.0], unit), items(&[0.0; 4], unit));
        assert_eq!(sign_flip(&a, &b, &mean(), 0), 2.0 / 4.0);
    }

    #[test]
    fn equal_candidates_have_p_one_and_clear_ones_the_smallest() {
        let unit = |index: usize| index.to_string();
        let a = items(&[1.0; 40], unit);
        assert_eq!(sign_flip(&a, &a, &mean(), 0), 1.0);
        assert_eq!(
            sign_flip(&a, &items(&[0.0; 40], unit), &mean(), 0),
            1.0 / 10000.0
        );
    }
}
