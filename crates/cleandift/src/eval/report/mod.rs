//! What an evaluation found, as data and for people: `report.json`, `report.md` and plots.

mod markdown;
mod plot;
mod published;

pub use markdown::markdown;
pub(crate) use markdown::settings;
pub use plot::{Anchor, Bars, Drawing, INK, Lines, Series, Shape};
pub use published::{Published, published};

use serde::{Deserialize, Serialize};

use super::statistics::{FEWEST_UNITS, Interval, RESAMPLES, Units, intervals};
use super::{Item, Schema, Settings, Task};

/// The seed of all intervals.
const SEED: u64 = 0;

/// The candidates of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version of this program.
    pub cleandift: String,
    /// The task's name.
    pub task: String,
    /// Its settings: data, split, protocol.
    pub settings: Settings,
    /// What was counted.
    pub schema: Schema,
    /// The candidates.
    pub rows: Vec<Row>,
}

/// A candidate's results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it is called, unique in the report.
    pub name: String,
    /// Rows that differ in their seed only share this.
    pub group: String,
    /// How its features were made.
    pub settings: Settings,
    /// The file with its items, beside the report.
    pub items: String,
    /// How many there are.
    pub count: usize,
    /// How many independent units they have.
    pub units: usize,
    /// Seconds that the last run took; a resumed one counts its own part only.
    pub seconds: f64,
    /// The schema's figures, with intervals of 95 %.
    pub figures: Vec<Interval>,
    /// The first figure of each category, if there are several.
    pub categories: Vec<Category>,
}

/// A category's share of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Category {
    /// Its name.
    pub name: String,
    /// How many items it has.
    pub count: usize,
    /// The first figure, with its interval.
    pub figure: Interval,
}

impl Report {
    /// A report without candidates.
    pub fn new(task: &dyn Task) -> Self {
        Self {
            cleandift: env!("CARGO_PKG_VERSION").to_owned(),
            task: task.name().to_owned(),
            settings: task.settings(),
            schema: task.schema().clone(),
            rows: Vec::new(),
        }
    }

    /// Why the figures describe these data and no more, if so.
    pub fn descriptive(&self) -> Option<String> {
        let fewest = self.rows.iter().map(|row| row.units).min()?;
        let few = || {
            (fewest < FEWEST_UNITS)
                .then(|| format!("there are {fewest} independent units, fewer than {FEWEST_UNITS}"))
        };
        self.schema.descriptive.clone().or_else(few)
    }
}

impl Row {
    /// The results of a candidate from its items.
    pub fn new(name: &str, settings: Settings, items: &[Item], schema: &Schema) -> Self {
        let mut names: Vec<&str> = items.iter().map(|item| item.category.as_str()).collect();
        names.sort();
        names.dedup();
        let category = |name: &&str| {
            let items = items.iter().filter(|item| item.category == **name);
            let items: Vec<Item> = items.cloned().collect();
            Category {
                name: (*name).to_owned(),
                count: items.len(),
                figure: intervals(&items, &schema.figures[..1], RESAMPLES, SEED)[0],
            }
        };
        let several = names.len() > 1;
        Self {
            name: name.to_owned(),
            group: name.to_owned(),
            settings,
            items: String::new(),
            count: items.len(),
            units: Units::of(items).count(),
            seconds: 0.0,
            figures: intervals(items, &schema.figures, RESAMPLES, SEED),
            categories: if several {
                names.iter().map(category).collect()
            } else {
                Vec::new()
            },
        }
    }
}
