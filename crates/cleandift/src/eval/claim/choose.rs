//! Which setting of a way counts.

use super::{FIXED_TIMESTEP, Setting};
use crate::eval::sweep::{Tried, best, leave_a_group_out};
use crate::eval::{EvalError, Item, Schema};

/// A setting and what it gave.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The setting.
    pub setting: Setting,
    /// Items of the part that settings are chosen on, if there is one.
    pub choosing: Option<Vec<Item>>,
    /// Items of the part that is reported.
    pub reported: Vec<Item>,
}

/// How a setting is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// By the first figure on the part for choosing; without one, for each group of reported items
    /// by all others.
    Validation,
    /// By the reported items themselves, as papers do.
    Report,
}

/// What was chosen, and the reported items with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// What was chosen, in words; several, if groups have settings of their own.
    pub chosen: Vec<String>,
    /// The setting, or that of most groups.
    pub setting: Setting,
    /// The reported items.
    pub items: Vec<Item>,
}

/// Chooses among trials of one way; `None` if nothing can be chosen.
pub fn choose(trials: &[&Trial], schema: &Schema, rule: Rule) -> Option<Choice> {
    let with = |place: usize| Choice {
        chosen: vec![trials[place].setting.choice()],
        setting: trials[place].setting.clone(),
        items: trials[place].reported.clone(),
    };
    let tried = |items: &dyn Fn(&Trial) -> Vec<Item>| -> Vec<Tried> {
        let tried = trials.iter().map(|trial| Tried {
            name: trial.setting.choice(),
            items: items(trial),
        });
        tried.collect()
    };
    let reported = || tried(&|trial| trial.reported.clone());
    match rule {
        Rule::Report => best(&reported(), schema, |_| true).map(with),
        Rule::Validation if trials.iter().all(|trial| trial.choosing.is_some()) => {
            let choosing = tried(&|trial| trial.choosing.clone().unwrap_or_default());
            best(&choosing, schema, |_| true).map(with)
        }
        Rule::Validation => {
            let (items, choices) = leave_a_group_out(&reported(), schema)?;
            let mut counts: Vec<(String, usize)> = Vec::new();
            for choice in choices {
                match counts.iter_mut().find(|(name, _)| *name == choice.setting) {
                    Some((_, count)) => *count += 1,
                    None => counts.push((choice.setting, 1)),
                }
            }
            counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            let most = (trials.iter()).find(|trial| trial.setting.choice() == counts[0].0)?;
            Some(Choice {
                chosen: counts.into_iter().map(|(name, _)| name).collect(),
                setting: most.setting.clone(),
                items,
            })
        }
    }
}

/// The trials at the fixed timestep; all of a way that has no timestep.
pub(super) fn at_fixed_timestep<'t>(trials: &[&'t Trial]) -> Vec<&'t Trial> {
    let fixed = trials.iter().filter(|trial| {
        let timestep = trial.setting.timestep;
        timestep.is_none_or(|timestep| timestep == FIXED_TIMESTEP)
    });
    fixed.copied().collect()
}

/// The same setting of several models as one: each item's tallies are the mean over the models.
///
/// # Errors
/// If the models were asked about different items.
pub fn mean_over_models(trials: &[Trial]) -> Result<Trial, EvalError> {
    let parts: Vec<&[Item]> = trials.iter().map(|trial| &trial.reported[..]).collect();
    let choosing: Option<Vec<&[Item]>> = trials
        .iter()
        .map(|trial| trial.choosing.as_deref())
        .collect();
    Ok(Trial {
        setting: trials[0].setting.clone(),
        choosing: choosing.map(|parts| mean_items(&parts)).transpose()?,
        reported: mean_items(&parts)?,
    })
}

fn mean_items(parts: &[&[Item]]) -> Result<Vec<Item>, EvalError> {
    let mut items = parts[0].to_vec();
    for (place, item) in items.iter_mut().enumerate() {
        for part in &parts[1..] {
            let other = part.get(place).filter(|other| other.id == item.id);
            let other = other.ok_or_else(|| {
                let words = format!("the models were asked about other items than `{}`", item.id);
                EvalError::Incomparable(words)
            })?;
            let sums = item.tallies.iter_mut().zip(&other.tallies);
            sums.for_each(|(sum, tally)| *sum += tally);
        }
        let count = parts.len() as f64;
        item.tallies.iter_mut().for_each(|sum| *sum /= count);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::super::Way;
    use super::*;
    use crate::eval::{Figure, Formula};

    fn items(shares: &[f64]) -> Vec<Item> {
        let item = |(place, share): (usize, &f64)| Item {
            id: place.to_string(),
            category: String::new(),
            units: vec![place.to_string()],
            tallies: vec![*share, 1.0],
        };
        shares.iter().enumerate().map(item).collect()
    }

    fn trial(timestep: usize, choosing: Option<&[f64]>, reported: &[f64]) -> Trial {
        Trial {
            setting: Setting {
                way: Way::Noisy { draws: 8 },
                timestep: Some(timestep),
                tap: "us6".to_owned(),
            },
            choosing: choosing.map(items),
            reported: items(reported),
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

    /// By hand: on the validation part timestep 100 is better, on the reported one 200.
    #[test]
    fn what_is_reported_does_not_choose() {
        let all = [
            trial(100, Some(&[0.9]), &[0.2, 0.2]),
            trial(200, Some(&[0.1]), &[0.4, 0.6]),
        ];
        let all: Vec<&Trial> = all.iter().collect();
        let chosen = choose(&all, &schema(), Rule::Validation).unwrap();
        assert_eq!(chosen.chosen, ["us6, t 100"]);
        assert_eq!(chosen.items, items(&[0.2, 0.2]));
        let chosen = choose(&all, &schema(), Rule::Report).unwrap();
        assert_eq!(chosen.chosen, ["us6, t 200"]);
        assert!(at_fixed_timestep(&all).is_empty());
    }

    /// Five items, each of its own unit, so each is a fifth. By hand: without the last, 100 is
    /// better (2.0 to 1.2); without any other 200 (at least 2.9 to 1.5).
    #[test]
    fn without_a_part_for_choosing_others_choose() {
        let all = [
            trial(100, None, &[0.5, 0.5, 0.5, 0.5, 0.0]),
            trial(200, None, &[0.3, 0.3, 0.3, 0.3, 2.0]),
        ];
        let all: Vec<&Trial> = all.iter().collect();
        let chosen = choose(&all, &schema(), Rule::Validation).unwrap();
        assert_eq!(chosen.chosen, ["us6, t 200", "us6, t 100"]);
        let shares: Vec<f64> = chosen.items.iter().map(|item| item.tallies[0]).collect();
        assert_eq!(shares.iter().sum::<f64>(), 0.3 * 4.0);
    }

    #[test]
    fn models_are_averaged_item_by_item() {
        let (a, b) = (
            trial(1, Some(&[1.0]), &[0.0, 0.5]),
            trial(1, Some(&[0.0]), &[1.0, 0.5]),
        );
        let mean = mean_over_models(&[a.clone(), b]).unwrap();
        assert_eq!(mean.reported, items(&[0.5, 0.5]));
        assert_eq!(mean.choosing, Some(items(&[0.5])));
        let other = trial(1, Some(&[1.0]), &[0.0]);
        assert!(mean_over_models(&[a, other]).is_err());
    }
}
