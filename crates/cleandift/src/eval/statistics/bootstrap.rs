//! Intervals by resampling what is independent (percentile bootstrap; for pairs both units are
//! drawn, Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use super::units::Units;
use crate::eval::{Figure, Item, Sums};

/// A figure and the range that holds 95 % of its resamples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The figure of the items as they are.
    pub value: f64,
    /// The 2.5th percentile.
    pub low: f64,
    /// The 97.5th percentile.
    pub high: f64,
}

impl Interval {
    /// The interval of a value from its resamples; those that are NaN are left out.
    pub fn of(value: f64, mut resampled: Vec<f64>) -> Self {
        resampled.retain(|value| !value.is_nan());
        resampled.sort_by(f64::total_cmp);
        Self {
            value,
            low: percentile(&resampled, 2.5),
            high: percentile(&resampled, 97.5),
        }
    }
}

/// The interval of each figure, from `resamples` draws.
pub fn intervals(items: &[Item], figures: &[Figure], resamples: usize, seed: u64) -> Vec<Interval> {
    let units = Units::of(items);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut drawn = vec![Vec::with_capacity(resamples); figures.len()];
    for _ in 0..resamples {
        let weights = units.resample(&mut random);
        let sums = Sums::weighted(items.iter().zip(weights));
        for (drawn, figure) in drawn.iter_mut().zip(figures) {
            drawn.push(figure.formula.value(&sums));
        }
    }
    let sums = Sums::of(items);
    (figures.iter().zip(drawn))
        .map(|(figure, drawn)| Interval::of(figure.formula.value(&sums), drawn))
        .collect()
}

/// A percentile of sorted values, linear between the nearest two (NumPy's default); NaN of none.
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let position = percent / 100.0 * last as f64;
    let low = (position as usize).min(last);
    let high = (low + 1).min(last);
    sorted[low] + (position - low as f64) * (sorted[high] - sorted[low])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Formula;

    /// By hand, as numpy.percentile([1, 2, 4, 8], [25, 50, 97.5]) gives it.
    #[test]
    fn percentiles_are_numpys() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(percentile(&sorted, 25.0), 1.75);
        assert_eq!(percentile(&sorted, 50.0), 3.0);
        assert!((percentile(&sorted, 97.5) - 7.7).abs() < 1e-12);
        assert!(percentile(&[], 50.0).is_nan());
    }

    fn items(values: impl Iterator<Item = f64>) -> Vec<Item> {
        let item = |(index, value): (usize, f64)| Item {
            id: index.to_string(),
            category: String::new(),
            units: vec![index.to_string()],
            tallies: vec![value, 1.0],
        };
        values.enumerate().map(item).collect()
    }

    /// The bootstrap's standard error of a mean is the standard deviation over √n: for a share of
    /// 0.5 of 400 it is 0.025, the interval 0.5 ± 0.049.
    #[test]
    fn a_means_interval_has_the_width_that_theory_gives() {
        let items = items((0..400).map(|index| f64::from(index % 2)));
        let figure = Figure::percent("mean", Formula::Ratio { of: 0, over: 1 });
        let found = intervals(&items, &[figure], 4000, 7)[0];
        assert_eq!(found.value, 0.5);
        // Percentiles of 4000 draws have a standard error of about 0.0011 here.
        assert!((found.low - 0.451).abs() < 0.004, "{found:?}");
        assert!((found.high - 0.549).abs() < 0.004, "{found:?}");
    }

    /// Ten items of each of 40 units, equal within a unit: the interval is that of 40 values.
    #[test]
    fn items_of_one_unit_are_not_independent() {
        let mut many = items((0..400).map(|index| f64::from(index % 2)));
        for (index, item) in many.iter_mut().enumerate() {
            item.units = vec![(index / 20 * 2 + index % 2).to_string()];
        }
        let figure = Figure::percent("mean", Formula::Ratio { of: 0, over: 1 });
        let found = intervals(&many, &[figure], 4000, 7)[0];
        // √(0.25 / 40) = 0.079, times 1.96: 0.155.
        assert!((found.high - found.low - 0.31).abs() < 0.02, "{found:?}");
    }
}
