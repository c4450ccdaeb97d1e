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

/// Which setting a group of items was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The category, or the part of the units.
    pub group: String,
    /// The setting that was best on all others.
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

/// What choosing without looking gives: every group of items is evaluated with the setting that is
/// best on the items that have nothing in common with it. Groups are categories; where there are
/// no two, fifths of the independent units. `None` if that is impossible, too.
pub fn leave_a_group_out(tried: &[Tried], schema: &Schema) -> Option<(Vec<Item>, Vec<Choice>)> {
    let groups = Groups::of(&tried.first()?.items)?;
    let mut chosen: BTreeMap<&str, usize> = BTreeMap::new();
    for group in &groups.names {
        let setting = best(tried, schema, |item| groups.is_free_of(group, item))?;
        chosen.insert(group, setting);
    }
    let items = chosen.iter().flat_map(|(group, &index)| {
        let items = tried[index].items.iter();
        items.filter(|item| groups.holds(group, item)).cloned()
    });
    let choices = chosen.iter().map(|(group, &index)| Choice {
        group: (*group).to_owned(),
        setting: tried[index].name.clone(),
    });
    Some((items.collect(), choices.collect()))
}

/// The parts into which items without categories are cut.
const PARTS: usize = 5;

/// Items in groups.
struct Groups {
    names: BTreeSet<String>,
    /// Whether they are the items' categories, or parts of the units.
    categories: bool,
    /// The groups of each unit; of categories a unit may have several.
    units: BTreeMap<String, BTreeSet<String>>,
}

impl Groups {
    fn of(items: &[Item]) -> Option<Self> {
        let names: BTreeSet<String> = items.iter().map(|item| item.category.clone()).collect();
        let categories = names.len() > 1;
        let mut units: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for item in items {
            for unit in &item.units {
                let groups = units.entry(unit.clone()).or_default();
                groups.insert(item.category.clone());
            }
        }
        if categories {
            return Some(Self {
                names,
                categories,
                units,
            });
        }
        if units.len() < PARTS {
            return None;
        }
        let name = |place: usize| format!("part {} of {PARTS}", place % PARTS + 1);
        let parts = units.into_keys().enumerate();
        Some(Self {
            names: (0..PARTS).map(name).collect(),
            categories,
            units: parts
                .map(|(place, unit)| (unit, BTreeSet::from([name(place)])))
                .collect(),
        })
    }

    /// Whether an item is reported with this group: its category, or the part of its first unit.
    fn holds(&self, group: &str, item: &Item) -> bool {
        match (self.categories, item.units.first()) {
            (false, Some(unit)) => self.units[unit].contains(group),
            _ => item.category == group,
        }
    }

    /// Whether an item shares nothing with this group, no unit either.
    fn is_free_of(&self, group: &str, item: &Item) -> bool {
        let other = !self.categories || item.category != group;
        other
            && item
                .units
                .iter()
                .all(|unit| !self.units[unit].contains(group))
    }
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
        let (items, choices) = leave_a_group_out(&all, &schema()).unwrap();
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
        assert!(leave_a_group_out(&only, &schema()).is_none());
    }

    /// A picture that lies in two categories says nothing about either: by hand, the calf is also a
    /// cow, so that only the cat and the dog choose for the cow.
    #[test]
    fn what_shares_a_unit_does_not_choose() {
        let item = |category: &str, unit: &str, share: f64| Item {
            id: format!("{category} {unit}"),
            category: category.to_owned(),
            units: vec![unit.to_owned()],
            tallies: vec![share, 1.0],
        };
        let tried = |name: &str, shares: [f64; 4]| Tried {
            name: name.to_owned(),
            items: vec![
                item("cow", "a", shares[0]),
                item("calf", "a", shares[1]),
                item("cat", "b", shares[2]),
                item("dog", "c", shares[3]),
            ],
        };
        let all = [
            tried("A", [0.0, 0.9, 0.1, 0.1]),
            tried("B", [0.0, 0.0, 0.2, 0.2]),
        ];
        let (_, choices) = leave_a_group_out(&all, &schema()).unwrap();
        let of_cow = choices.iter().find(|choice| choice.group == "cow").unwrap();
        assert_eq!(of_cow.setting, "B");
    }

    /// Pairs of six pictures without categories. Pictures 0 and 5 make the first part; the pair of
    /// 0 and 1 belongs to it and says nothing about part two, where picture 1 is.
    #[test]
    fn parts_of_units_share_no_unit() {
        let item = |source: usize, target: usize, share: f64| Item {
            id: format!("{source}-{target}"),
            category: String::new(),
            units: vec![source.to_string(), target.to_string()],
            tallies: vec![share, 1.0],
        };
        let tried = |name: &str, shares: [f64; 3]| Tried {
            name: name.to_owned(),
            items: vec![
                item(0, 1, shares[0]),
                item(2, 3, shares[1]),
                item(4, 5, shares[2]),
            ],
        };
        let all = [tried("A", [0.9, 0.1, 0.5]), tried("B", [0.0, 0.2, 0.25])];
        let (items, choices) = leave_a_group_out(&all, &schema()).unwrap();
        let settings: Vec<&str> = choices.iter().map(|c| c.setting.as_str()).collect();
        // Without 0 and 5 only 2-3 is left: B. Without any other A has more.
        assert_eq!(settings, ["B", "A", "A", "A", "A"]);
        let shares: Vec<f64> = items.iter().map(|item| item.tallies[0]).collect();
        assert_eq!(shares, [0.0, 0.1, 0.5]);
    }
}
