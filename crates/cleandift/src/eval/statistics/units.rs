//! What is independent in a set of items, and how it is drawn again.

use std::collections::{BTreeMap, HashMap};

use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Uniform};

use crate::eval::Item;

/// The units of some items: pools of units that are drawn from, and each item's places in them.
#[derive(Clone, Debug)]
pub struct Units {
    /// For each item one unit, or both units of a pair.
    of_items: Vec<Vec<usize>>,
    /// Units that are drawn among themselves: those of one category, and of one side if the two
    /// sides of pairs have no unit in common. Those that are alone in their categories are drawn
    /// together.
    strata: Vec<Vec<usize>>,
    count: usize,
}

impl Units {
    /// The units of `items`.
    pub fn of(items: &[Item]) -> Self {
        let sides_differ = sides_differ(items);
        let mut known: HashMap<(usize, &str), usize> = HashMap::new();
        let mut stratum_of: HashMap<(usize, &str), usize> = HashMap::new();
        let mut strata: Vec<(usize, Vec<usize>)> = Vec::new();
        let mut of_items = Vec::with_capacity(items.len());
        for item in items {
            let mut places = Vec::with_capacity(item.units.len());
            for (side, unit) in item.units.iter().enumerate() {
                let pool = if sides_differ { side } else { 0 };
                let next = known.len();
                let place = *known.entry((pool, unit)).or_insert(next);
                if place == next {
                    let stratum = *stratum_of.entry((pool, &item.category)).or_insert_with(|| {
                        strata.push((pool, Vec::new()));
                        strata.len() - 1
                    });
                    strata[stratum].1.push(place);
                }
                places.push(place);
            }
            of_items.push(places);
        }
        Self {
            of_items,
            count: known.len(),
            strata: collapsed(strata),
        }
    }

    /// How many units there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// For each item its units.
    pub fn of_items(&self) -> &[Vec<usize>] {
        &self.of_items
    }

    /// A weight for each item from one resample: how often its unit was drawn, for a pair the
    /// product for both.
    pub fn resample(&self, random: &mut ChaCha8Rng) -> Vec<f64> {
        let mut drawn = vec![0.0; self.count];
        for stratum in &self.strata {
            let place = Uniform::new(0, stratum.len()).expect("a stratum has a unit");
            for _ in 0..stratum.len() {
                drawn[stratum[place.sample(random)]] += 1.0;
            }
        }
        let weight = |places: &Vec<usize>| places.iter().map(|&place| drawn[place]).product();
        self.of_items.iter().map(weight).collect()
    }
}

/// Strata of one unit of a pool become one: by itself each would always be drawn, and a figure of
/// such units would seem to be certain. (Collapsed strata: Cochran, "Sampling
/// Techniques", 1977, chapter 5A.)
fn collapsed(strata: Vec<(usize, Vec<usize>)>) -> Vec<Vec<usize>> {
    let (alone, many): (Vec<_>, Vec<_>) =
        strata.into_iter().partition(|(_, units)| units.len() == 1);
    let mut all: Vec<Vec<usize>> = many.into_iter().map(|(_, units)| units).collect();
    let mut pools: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (pool, units) in alone {
        pools.entry(pool).or_default().extend(units);
    }
    all.extend(pools.into_values());
    all
}

/// Whether the two sides of pairs are drawn from different things.
fn sides_differ(items: &[Item]) -> bool {
    let side = |side: usize| items.iter().filter_map(move |item| item.units.get(side));
    let first: std::collections::HashSet<&String> = side(0).collect();
    !side(1).any(|unit| first.contains(unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    fn item(category: &str, units: &[&str]) -> Item {
        Item {
            id: units.join("-"),
            category: category.to_owned(),
            units: units.iter().map(|unit| unit.to_string()).collect(),
            tallies: Vec::new(),
        }
    }

    #[test]
    fn units_are_drawn_within_their_category() {
        let items = [
            item("cat", &["a"]),
            item("cat", &["b"]),
            item("dog", &["c"]),
        ];
        let units = Units::of(&items);
        assert_eq!(units.count(), 3);
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for _ in 0..50 {
            let weights = units.resample(&mut random);
            assert_eq!(weights[0] + weights[1], 2.0);
            assert_eq!(weights[2], 1.0);
        }
    }

    /// Four categories of one unit each: by hand, four draws among four, so that a weight is not
    /// always 1 and all together are 4.
    #[test]
    fn units_alone_in_their_categories_are_drawn_together() {
        let items = ["a", "b", "c", "d"].map(|name| item(name, &[name]));
        let units = Units::of(&items);
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let drawn: Vec<Vec<f64>> = (0..50).map(|_| units.resample(&mut random)).collect();
        assert!(
            drawn
                .iter()
                .all(|weights| weights.iter().sum::<f64>() == 4.0)
        );
        assert!(drawn.iter().any(|weights| weights[0] == 0.0));
        assert!(drawn.iter().any(|weights| weights[0] > 1.0));
    }

    #[test]
    fn a_pairs_weight_is_the_product_for_its_units() {
        let items = [
            item("", &["a", "b"]),
            item("", &["b", "a"]),
            item("", &["b", "c"]),
        ];
        let units = Units::of(&items);
        assert_eq!(units.count(), 3);
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..200 {
            let weights = units.resample(&mut random);
            assert_eq!(weights[0], weights[1]);
            seen.insert(weights.iter().map(|w| *w as i64).collect::<Vec<_>>());
        }
        // Of three draws a, b, c once each; or two of one and one of another; or three of one.
        let possible = [[1, 1, 1], [2, 2, 0], [0, 0, 2], [0, 0, 0]];
        assert!(
            seen.iter().all(|w| possible.iter().any(|p| p[..] == w[..])),
            "{seen:?}"
        );
        assert!(seen.len() == 4);
    }
}
