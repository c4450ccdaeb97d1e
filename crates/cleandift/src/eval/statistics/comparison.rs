//! Two candidates on the same items: their difference, how sure it is, and a verdict.

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use super::bootstrap::Interval;
use super::holm::holm;
use super::sign_flip::sign_flip;
use super::units::Units;
use super::{FEWEST_UNITS, RESAMPLES};
use crate::eval::{EvalError, Figure, Item, Scale, Sums};

/// The level that a corrected p-value must stay below, of intervals of 95 %.
const LEVEL: f64 = 0.05;

/// How a candidate does against another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The interval lies above zero, and the corrected test rejects.
    Better,
    /// The interval lies above a loss of one point (of one percent of the other's figure, where
    /// that is no percentage).
    NotWorse,
    /// The interval lies below zero, and the corrected test rejects.
    Worse,
    /// None of these.
    Undecided,
    /// Too few independent units, or one scene: the difference is described, not judged.
    Descriptive,
}

impl Verdict {
    /// What people read.
    pub fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::NotWorse => "not worse",
            Self::Worse => "worse",
            Self::Undecided => "undecided",
            Self::Descriptive => "descriptive",
        }
    }
}

/// The difference of a figure between two candidates, `b - a`, signed so that more is better.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The figure's name.
    pub figure: String,
    /// The figure of `a`.
    pub a: f64,
    /// The figure of `b`.
    pub b: f64,
    /// The paired difference, with its interval.
    pub difference: Interval,
    /// Of the clustered sign-flip test.
    pub p: f64,
    /// Independent units.
    pub units: usize,
    /// Whether the data carry a conclusion.
    pub conclusive: bool,
    /// The loss that counts as none.
    margin: f64,
}

/// Compares a figure of two candidates; both were evaluated on the same items.
///
/// # Errors
/// If the items are not the same, by name, category and units.
pub fn compare(
    a: &[Item],
    b: &[Item],
    figure: &Figure,
    descriptive: bool,
    seed: u64,
) -> Result<Comparison, EvalError> {
    let b = aligned(a, b)?;
    let units = Units::of(a);
    let sign = if figure.higher_is_better { 1.0 } else { -1.0 };
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let draws = (0..RESAMPLES).map(|_| {
        let weights = units.resample(&mut random);
        let value = |items: &[Item]| {
            let weighted = items.iter().zip(weights.iter().copied());
            figure.formula.value(&Sums::weighted(weighted))
        };
        sign * (value(&b) - value(a))
    });
    let draws = draws.collect();
    let (value_a, value_b) = (figure.value(a), figure.value(&b));
    Ok(Comparison {
        figure: figure.name.clone(),
        a: value_a,
        b: value_b,
        difference: Interval::of(sign * (value_b - value_a), draws),
        p: sign_flip(a, &b, figure, seed),
        units: units.count(),
        conclusive: !descriptive && units.count() >= FEWEST_UNITS,
        margin: match figure.scale {
            Scale::Percent => 0.01,
            Scale::Plain => 0.01 * value_a.abs(),
        },
    })
}

/// The items of `b` in the order of `a`.
fn aligned(a: &[Item], b: &[Item]) -> Result<Vec<Item>, EvalError> {
    let by_id: HashMap<&str, &Item> = b.iter().map(|item| (item.id.as_str(), item)).collect();
    let differ = |item: &str, how: &str| {
        let words = format!(
            "the items differ: `{item}` {how}; compare results of the same data, split, seed and \
             protocol"
        );
        EvalError::Incomparable(words)
    };
    if let Some(extra) = (b.iter()).find(|item| !a.iter().any(|other| other.id == item.id))
        && a.len() < b.len()
    {
        return Err(differ(&extra.id, "is in the second result only"));
    }
    let align = |item: &Item| match by_id.get(item.id.as_str()) {
        None => Err(differ(&item.id, "is in the first result only")),
        Some(other) if other.units != item.units || other.category != item.category => {
            Err(differ(&item.id, "has other units or another category"))
        }
        Some(other) => Ok(Item::clone(other)),
    };
    let aligned: Vec<Item> = a.iter().map(align).collect::<Result<_, _>>()?;
    match aligned.len() == b.len() {
        true => Ok(aligned),
        false => Err(differ("", "counts are not equal")),
    }
}

/// The p-values corrected for their number (Holm), and a verdict each.
pub fn judge(comparisons: &[Comparison]) -> Vec<(f64, Verdict)> {
    let p_values: Vec<f64> = comparisons.iter().map(|found| found.p).collect();
    (holm(&p_values).into_iter().zip(comparisons))
        .map(|(p, found)| (p, verdict(found, p)))
        .collect()
}

fn verdict(found: &Comparison, p: f64) -> Verdict {
    let Interval { low, high, .. } = found.difference;
    match () {
        () if !found.conclusive => Verdict::Descriptive,
        () if low > 0.0 && p < LEVEL => Verdict::Better,
        () if high < 0.0 && p < LEVEL => Verdict::Worse,
        () if low > -found.margin => Verdict::NotWorse,
        () => Verdict::Undecided,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Formula;

    fn items(count: usize, value: impl Fn(usize) -> f64) -> Vec<Item> {
        let item = |index: usize| Item {
            id: format!("item {index}"),
            category: String::new(),
            units: vec![index.to_string()],
            tallies: vec![value(index), 1.0],
        };
        (0..count).map(item).collect()
    }

    fn share() -> Figure {
        Figure::percent("share", Formula::Ratio { of: 0, over: 1 })
    }

    fn verdict_of(count: usize, gain: impl Fn(usize) -> f64) -> Verdict {
        let (a, b) = (items(count, |_| 0.5), items(count, |i| 0.5 + gain(i)));
        judge(&[compare(&a, &b, &share(), false, 3).unwrap()])[0].1
    }

    #[test]
    fn verdicts() {
        assert_eq!(verdict_of(50, |i| 0.1 + 0.001 * i as f64), Verdict::Better);
        assert_eq!(verdict_of(50, |i| -0.1 - 0.001 * i as f64), Verdict::Worse);
        let alternating =
            |size: f64| move |i: usize| if i.is_multiple_of(2) { size } else { -size };
        assert_eq!(verdict_of(50, alternating(0.005)), Verdict::NotWorse);
        assert_eq!(verdict_of(50, alternating(0.3)), Verdict::Undecided);
        assert_eq!(verdict_of(12, |_| 0.1), Verdict::Descriptive);
    }

    #[test]
    fn less_error_is_better() {
        let figure = Figure::error("error, m", Formula::Ratio { of: 0, over: 1 });
        let (a, b) = (items(50, |_| 0.5), items(50, |i| 0.4 - 0.001 * i as f64));
        let found = compare(&a, &b, &figure, false, 3).unwrap();
        assert!(found.difference.low > 0.0);
        assert_eq!(judge(&[found])[0].1, Verdict::Better);
    }

    #[test]
    fn the_order_of_items_does_not_matter_and_other_items_are_refused() {
        let a = items(30, |i| i as f64);
        let mut b = items(30, |i| i as f64);
        b.reverse();
        let found = compare(&a, &b, &share(), false, 3).unwrap();
        assert_eq!((found.difference.value, found.p), (0.0, 1.0));
        b.pop();
        let error = compare(&a, &b, &share(), false, 3).unwrap_err().to_string();
        assert!(error.contains("`item 0`"), "{error}");
        let error = compare(&b, &a, &share(), false, 3).unwrap_err().to_string();
        assert!(error.contains("`item 0`"), "{error}");
    }
}
