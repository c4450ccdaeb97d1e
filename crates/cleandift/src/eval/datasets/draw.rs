//! Pairs for data sets that have keypoints but no list of pairs: all of them, or some by seed.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, Uniform};

/// How pairs are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// At most so many.
    pub count: usize,
    /// The seed of the choice.
    pub seed: u64,
}

/// `draw.count` of the candidates, without repetition, or all if there are no more; in their
/// order.
pub(super) fn choose<T>(mut candidates: Vec<T>, draw: Draw) -> Vec<T> {
    if candidates.len() <= draw.count {
        return candidates;
    }
    let mut random = ChaCha8Rng::seed_from_u64(draw.seed);
    let mut places: Vec<usize> = (0..candidates.len()).collect();
    // Fisher and Yates, as far as it is needed.
    for index in 0..draw.count {
        let other = Uniform::new(index, places.len()).expect("not empty");
        places.swap(index, other.sample(&mut random));
    }
    let mut chosen = vec![false; candidates.len()];
    places[..draw.count]
        .iter()
        .for_each(|&place| chosen[place] = true);
    let mut place = 0;
    candidates.retain(|_| {
        place += 1;
        chosen[place - 1]
    });
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_repeats_nothing_and_depends_on_its_seed() {
        let all: Vec<usize> = (0..100).collect();
        let draw = |count, seed| choose(all.clone(), Draw { count, seed });
        let some = draw(20, 1);
        assert_eq!(some.len(), 20);
        assert!(some.is_sorted_by(|a, b| a < b));
        assert_eq!(some, draw(20, 1));
        assert_ne!(some, draw(20, 2));
        assert_eq!(draw(200, 1), all);
    }
}
