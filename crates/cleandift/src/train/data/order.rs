//! Which example a sample's number means.

use crate::train::Random;

/// The endless order of a data set: all of its examples, shuffled, then all of them again in
/// another order. It depends on the seed and the number of examples alone.
#[derive(Clone, Debug)]
pub struct Order {
    seed: u64,
    examples: usize,
    /// The epoch that was asked for last, and its permutation.
    epoch: Option<(u64, Vec<usize>)>,
}

impl Order {
    /// The order of so many examples.
    ///
    /// # Panics
    /// If there is none.
    pub fn new(examples: usize, seed: u64) -> Self {
        assert!(examples > 0, "an order of no examples");
        Self {
            seed,
            examples,
            epoch: None,
        }
    }

    /// The example of a sample, then those that take its place, one after the other, if it cannot
    /// be read: the ones that follow in the same epoch, each once.
    pub fn candidates(&mut self, sample: u64) -> impl Iterator<Item = usize> + use<'_> {
        let count = self.examples as u64;
        let (epoch, place) = (sample / count, (sample % count) as usize);
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
            self.epoch = Some((epoch, self.permutation(epoch)));
        }
        let (_, permutation) = self.epoch.as_ref().expect("it was just made");
        let (before, from) = permutation.split_at(place);
        from.iter().chain(before).copied()
    }

    /// Fisher and Yates.
    fn permutation(&self, epoch: u64) -> Vec<usize> {
        let mut random = Random::new(self.seed, "order", epoch);
        let mut permutation: Vec<usize> = (0..self.examples).collect();
        for last in (1..self.examples).rev() {
            permutation.swap(last, random.below(last as u64 + 1) as usize);
        }
        permutation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(order: &mut Order, sample: u64) -> usize {
        order.candidates(sample).next().unwrap()
    }

    #[test]
    fn each_epoch_has_all_examples_in_an_order_of_its_own() {
        let mut order = Order::new(50, 7);
        let all: Vec<usize> = (0..150).map(|sample| first(&mut order, sample)).collect();
        for epoch in all.chunks(50) {
            let mut sorted = epoch.to_vec();
            sorted.sort();
            assert!(sorted.iter().copied().eq(0..50));
        }
        assert_ne!(all[..50], all[50..100]);
        // Asked for in any order, by another object: the same.
        let mut again = Order::new(50, 7);
        assert!(
            (0..150)
                .rev()
                .all(|sample| first(&mut again, sample) == all[sample as usize])
        );
        let mut other = Order::new(50, 8);
        assert!((0..50).any(|sample| first(&mut other, sample) != all[sample as usize]));
    }

    #[test]
    fn those_that_take_a_place_follow_in_the_epoch() {
        let mut order = Order::new(5, 0);
        let firsts: Vec<usize> = (5..10).map(|sample| first(&mut order, sample)).collect();
        let expected = [firsts[3], firsts[4], firsts[0], firsts[1], firsts[2]];
        assert!(order.candidates(8).eq(expected));
    }

    /// With 6 permutations of 3 examples, each as likely: binomial, deviation √(6000 · 1/6 · 5/6)
    /// ≈ 29; five of them are allowed.
    #[test]
    fn every_permutation_is_as_likely() {
        let mut counts = std::collections::HashMap::new();
        let mut order = Order::new(3, 1);
        for epoch in 0..6000 {
            let found: Vec<usize> = (0..3)
                .map(|place| first(&mut order, 3 * epoch + place))
                .collect();
            *counts.entry(found).or_insert(0_u32) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(
            counts.values().all(|&n| n.abs_diff(1000) < 145),
            "{counts:?}"
        );
    }
}
