//! What is counted per item, and the figures that follow from sums of counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The result of one question: a pair of pictures, a predicted depth map, a classified picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Unique within the task, and the same for every candidate.
    pub id: String,
    /// What it is reported under; empty if the task has no categories.
    pub category: String,
    /// What is independent of other items: one unit (a picture, a person, a block of frames), or
    /// for a pair the two units it is made of.
    pub units: Vec<String>,
    /// Counts and sums, in the order of [`Schema::tallies`].
    pub tallies: Vec<f64>,
}

/// What a task counts and which figures it reports; the first figure is the one that candidates
/// are ranked by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    /// Names of [`Item::tallies`].
    pub tallies: Vec<String>,
    /// The figures.
    pub figures: Vec<Figure>,
    /// What [`Item::units`] are, in words: "pictures", "persons", "blocks of 10 frames".
    pub independent: String,
    /// Why the data cannot carry conclusions beyond themselves (one scene, too few), if so.
    pub descriptive: Option<String>,
}

/// A number that is reported.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Its name, e.g. `PCK@0.1 bbox, per point`.
    pub name: String,
    /// How it follows from tallies.
    pub formula: Formula,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// How it is shown.
    pub scale: Scale,
}

/// How a figure is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// A share of one, shown in percent.
    Percent,
    /// A number with a unit of its own (metres, pixels), named in the figure's name.
    Plain,
}

/// A figure as a function of sums of tallies (by place in [`Schema::tallies`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Formula {
    /// The sum of one tally over the sum of another, over all items.
    Ratio {
        /// Numerator.
        of: usize,
        /// Denominator.
        over: usize,
    },
    /// The same within each category, then the mean over categories, weighted by their numbers
    /// of items.
    RatioByCategory {
        /// Numerator.
        of: usize,
        /// Denominator.
        over: usize,
    },
    /// The mean of several ratios, those with an empty denominator left out: mean intersection
    /// over union.
    MeanRatio {
        /// Numerators.
        of: Vec<usize>,
        /// Denominators, as many.
        over: Vec<usize>,
    },
}

/// Weighted sums of tallies, by category.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    by_category: BTreeMap<String, CategorySums>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct CategorySums {
    items: f64,
    tallies: Vec<f64>,
}

impl Sums {
    /// The sums over items, each counted once.
    pub fn of<'i>(items: impl IntoIterator<Item = &'i Item>) -> Self {
        Self::weighted(items.into_iter().map(|item| (item, 1.0)))
    }

    /// The sums over items with weights; those of weight zero count for nothing.
    pub fn weighted<'i>(items: impl IntoIterator<Item = (&'i Item, f64)>) -> Self {
        let mut sums = Self::default();
        for (item, weight) in items.into_iter().filter(|(_, weight)| *weight > 0.0) {
            if !sums.by_category.contains_key(&item.category) {
                let empty = CategorySums {
                    items: 0.0,
                    tallies: vec![0.0; item.tallies.len()],
                };
                sums.by_category.insert(item.category.clone(), empty);
            }
            let category = sums.by_category.get_mut(&item.category).expect("just made");
            category.items += weight;
            for (sum, tally) in category.tallies.iter_mut().zip(&item.tallies) {
                *sum += weight * tally;
            }
        }
        sums
    }

    fn total(&self, tally: usize) -> f64 {
        (self.by_category.values())
            .map(|category| category.tallies[tally])
            .sum()
    }
}

impl Formula {
    /// The figure; NaN if nothing was counted.
    pub fn value(&self, sums: &Sums) -> f64 {
        match self {
            Self::Ratio { of, over } => sums.total(*of) / sums.total(*over),
            Self::RatioByCategory { of, over } => {
                let counted = sums.by_category.values();
                let counted = counted.filter(|category| category.tallies[*over] > 0.0);
                let (mut total, mut weight) = (0.0, 0.0);
                for CategorySums { items, tallies } in counted {
                    total += items * tallies[*of] / tallies[*over];
                    weight += items;
                }
                total / weight
            }
            Self::MeanRatio { of, over } => {
                let ratios = of.iter().zip(over).filter_map(|(&of, &over)| {
                    let over = sums.total(over);
                    (over > 0.0).then(|| sums.total(of) / over)
                });
                let (mut total, mut count) = (0.0, 0.0);
                for ratio in ratios {
                    total += ratio;
                    count += 1.0;
                }
                total / count
            }
        }
    }
}

impl Figure {
    /// A share of one, shown in percent, of which more is better.
    pub fn percent(name: impl Into<String>, formula: Formula) -> Self {
        Self {
            name: name.into(),
            formula,
            higher_is_better: true,
            scale: Scale::Percent,
        }
    }

    /// An error in the unit that its name gives.
    pub fn error(name: impl Into<String>, formula: Formula) -> Self {
        Self {
            name: name.into(),
            formula,
            higher_is_better: false,
            scale: Scale::Plain,
        }
    }

    /// The figure of some items.
    pub fn value<'i>(&self, items: impl IntoIterator<Item = &'i Item>) -> f64 {
        self.formula.value(&Sums::of(items))
    }

    /// A value of this figure in words: `20.38 %`, `0.469`.
    pub fn words(&self, value: f64) -> String {
        match self.scale {
            _ if value.is_nan() => "–".to_owned(),
            Scale::Percent => format!("{:.2}", 100.0 * value),
            Scale::Plain => format!("{value:.4}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(category: &str, tallies: [f64; 2]) -> Item {
        Item {
            id: String::new(),
            category: category.to_owned(),
            units: Vec::new(),
            tallies: tallies.to_vec(),
        }
    }

    /// By hand: two cats with 1 of 2 and 3 of 4, one dog with 0 of 6.
    #[test]
    fn formulas() {
        let items = [
            item("cat", [1.0, 2.0]),
            item("cat", [3.0, 4.0]),
            item("dog", [0.0, 6.0]),
        ];
        let value = |formula: Formula| formula.value(&Sums::of(&items));
        assert_eq!(value(Formula::Ratio { of: 0, over: 1 }), 4.0 / 12.0);
        let by_category = value(Formula::RatioByCategory { of: 0, over: 1 });
        assert!((by_category - (2.0 * 4.0 / 6.0 + 0.0) / 3.0).abs() < 1e-15);
        let mean = Formula::MeanRatio {
            of: vec![0, 1],
            over: vec![1, 0],
        };
        assert_eq!(value(mean), (4.0 / 12.0 + 12.0 / 4.0) / 2.0);
    }

    #[test]
    fn weights_count_items_several_times_or_not_at_all() {
        let items = [item("", [1.0, 2.0]), item("", [5.0, 7.0])];
        let weighted = Sums::weighted(items.iter().zip([3.0, 0.0]));
        assert_eq!(weighted, Sums::of([&items[0], &items[0], &items[0]]));
    }
}
