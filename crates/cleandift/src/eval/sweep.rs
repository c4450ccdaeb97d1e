//! Settings that were tried on the same items (timesteps, taps, draws of noise), and honest ways to
//! choose among them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Item, Schema};

/// One setting and what it gave.
#[derive(Clone, Debug)]
pub struct Tried {
    /// The setting, in words.
    pub name: String,
    /// Its items; the same for all settings.
    pub items: Vec<Item>,
}

/// Which setting each category was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The category.
    pub category: String,
    /// The setting that was best on all other categories.
    pub setting: String,
}

/// The index of the setting whose first figure is best on some items; the first of equal ones.
pub fn best(tried: &[Tried], schema: &Schema, counts: impl Fn(&Item) -> bool) -> Option<usize> {
    let figure = schema.figures.first()?;
    let mut found: Option<(usize, f64)> = None;
    for (index, setting) in tried.iter().enumerate() {
        let value = figure.value(setting.items.iter().filter(|item| counts(item)));
        let value = if figure.higher_is_better {
            value
        } else {
            -value
        };
        if value.is_finite() && found.is_none_or(|(_, highest)| value > highest) {
            found = Some((index, value));
        }
    }
    found.map(|(index, _)| index)
}

/// What choosing without looking gives: every category is evaluated with the setting that is best
/// on all other categories. `None` if there are fewer than two categories.
pub fn leave_a_category_out(tried: &[Tried], schema: &Schema) -> Option<(Vec<Item>, Vec<Choice>)> {
    let first = tried.first()?;
    let categories: BTreeSet<&str> = first.items.iter().map(|i| i.category.as_str()).collect();
    if categories.len() < 2 {
        return None;
    }
    let mut chosen: BTreeMap<&str, usize> = BTreeMap::new();
    for &category in &categories {
        chosen.insert(
            category,
            best(tried, schema, |item| item.category != category)?,
        );
    }
    let items = categories.iter().flat_map(|&category| {
        let items = tried[chosen[category]].items.iter();
        items.filter(move |item| item.category == category).cloned()
    });
    let choices = chosen.iter().map(|(category, &index)| Choice {
        category: (*category).to_owned(),
        setting: tried[index].name.clone(),
    });
    Some((items.collect(), choices.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{Figure, Formula};

    fn tried(name: &str, shares: [f64; 3]) -> Tried {
        let item = |(category, share): (&str, f64)| Item {
            id: category.to_owned(),
            category: category.to_owned(),
            units: vec![category.to_owned()],
            tallies: vec![share, 1.0],
        };
        let categories = ["cat", "cow", "dog"].into_iter().zip(shares);
        Tried {
            name: name.to_owned(),
            items: categories.map(item).collect(),
        }
    }

    fn schema() -> Schema {
        Schema {
            tallies: vec!["share".to_owned(), "items".to_owned()],
            figures: vec![Figure::percent("share", Formula::Ratio { of: 0, over: 1 })],
            independent: "pictures".to_owned(),
            descriptive: None,
        }
    }

    /// By hand: without the cat, B is better on the others (0.9 to 0.6); without the cow A (1.1 to
    /// 0.7); without the dog A (1.3 to 0.6).
    #[test]
    fn each_category_gets_what_is_best_on_the_others() {
        let all = [tried("A", [0.9, 0.4, 0.2]), tried("B", [0.1, 0.3, 0.6])];
        let (items, choices) = leave_a_category_out(&all, &schema()).unwrap();
        let settings: Vec<&str> = choices
            .iter()
            .map(|choice| choice.setting.as_str())
            .collect();
        assert_eq!(settings, ["B", "A", "A"]);
        let shares: Vec<f64> = items.iter().map(|item| item.tallies[0]).collect();
        assert_eq!(shares, [0.1, 0.4, 0.2]);
        assert_eq!(best(&all, &schema(), |_| true), Some(0));
        let only = [Tried {
            items: all[0].items[..1].to_vec(),
            ..all[0].clone()
        }];
        assert!(leave_a_category_out(&only, &schema()).is_none());
    }
}
