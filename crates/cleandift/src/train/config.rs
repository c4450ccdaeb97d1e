//! Configs of training: TOML files whose keys are all known and all have a meaning of their own.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use toml::Table;

use super::data::{Augmentation, Batch, Connection, DataError, Dataset, Settings, fixed};
use crate::image::Extent;

/// A config that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, or a value of another kind than its key has.
    #[error("{name}: {reason}")]
    Invalid {
        /// The file.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// A key that means nothing.
    #[error("{name}: the key `{key}` is unknown{}", nearest.as_ref().map_or(String::new(),
        |nearest| format!("; did you mean `{nearest}`?")))]
    UnknownKey {
        /// The file, or the override.
        name: String,
        /// The key, with its tables.
        key: String,
        /// The known key that it is most like.
        nearest: Option<String>,
    },
    /// A value that makes no sense.
    #[error("`{key}` {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// What to learn from: `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// Folders, `.tar` shards or lists of pictures to train on; `*` in a file's name stands for any letters.
    pub train: Vec<PathBuf>,
    /// Of pictures to measure the validation loss on.
    pub validation: Vec<PathBuf>,
    /// Without those, the share of the pictures to train on that are kept for it instead: 0 to 1.
    pub validation_share: f64,
    /// How many of those are measured, at most.
    pub validation_pictures: usize,
    /// Side of the square that a picture is scaled to, in pixels.
    pub size: usize,
    /// The least and the greatest share of a picture's area that a random crop has; without, the
    /// largest centred square.
    pub crop: Option<[f64; 2]>,
    /// Whether every other picture, by chance, is mirrored.
    pub flip: bool,
    /// Pictures in a pass.
    pub batch: usize,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            train: Vec::new(),
            validation: Vec::new(),
            validation_share: 0.0,
            validation_pictures: 256,
            size: 64,
            crop: None,
            flip: false,
            batch: 16,
        }
    }
}

/// The error of a value that makes no sense, unless `holds`.
pub(super) fn demand(
    holds: bool,
    key: &'static str,
    reason: impl Into<String>,
) -> Result<(), ConfigError> {
    match holds {
        true => Ok(()),
        false => Err(ConfigError::Value {
            key,
            reason: reason.into(),
        }),
    }
}

pub(super) fn demand_positive(value: usize, key: &'static str) -> Result<(), ConfigError> {
    demand(value > 0, key, "is 0, expected 1 or more")
}

impl DataConfig {
    /// Checks what no type can say.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        demand_positive(self.batch, "data.batch")?;
        demand_positive(self.size, "data.size")?;
        let share = self.validation_share;
        let words = format!("is {share}, expected a share from 0 to less than 1");
        demand((0.0..1.0).contains(&share), "data.validation_share", words)?;
        let Some([least, greatest]) = self.crop else {
            return Ok(());
        };
        let words = format!(
            "is [{least}, {greatest}], expected two shares of the picture, the smaller one first"
        );
        let shares = 0.0 < least && least <= greatest && greatest <= 1.0;
        demand(shares, "data.crop", words)
    }

    /// Pictures to train on, and to validate with.
    ///
    /// # Errors
    /// If a source is missing or holds no picture, or if all pictures are kept for validation, or none
    /// although some should be.
    pub fn open(
        &self,
        seed: u64,
        connection: Connection<'_>,
    ) -> Result<(Dataset, Dataset), DataError> {
        let training = Dataset::open_with(&self.train, connection)?;
        if !self.validation.is_empty() {
            return Ok((training, Dataset::open_with(&self.validation, connection)?));
        }
        let total = training.len();
        let (training, validation) = training.split(self.validation_share, seed);
        if training.is_empty() {
            return Err(DataError::NothingLeft { total });
        }
        if validation.is_empty() && self.validation_share > 0.0 {
            return Err(DataError::NothingToValidate { total });
        }
        Ok((training, validation))
    }

    /// The square that pictures are scaled to.
    pub fn canvas(&self) -> Extent {
        Extent::new(self.size, self.size)
    }

    /// Batches to train on, from sample number `first` on.
    pub fn batches(&self, seed: u64, first: u64) -> Settings {
        Settings {
            batch: self.batch,
            first,
            seed,
            augmentation: Augmentation {
                size: self.canvas(),
                crop: self.crop.map(|[least, greatest]| (least, greatest)),
                flip: self.flip,
            },
        }
    }

    /// Pictures to validate with, in batches as for training.
    pub fn validation_batches(&self, held_out: &Dataset) -> Vec<Batch> {
        let pictures = self.validation_pictures;
        fixed(held_out, pictures, self.batch, self.canvas()).collect()
    }
}

/// How far a run goes, and what it keeps: `[run]`. These may differ when a run is resumed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RunConfig {
    /// The steps of the whole run; without, it goes on until it is stopped.
    pub steps: Option<u64>,
    /// Steps between two saved states.
    pub save_every: u64,
    /// How many of the last states are kept.
    pub keep: usize,
    /// Steps between two measurements of the validation loss; 0: never.
    pub validate_every: u64,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            steps: None,
            save_every: 200,
            keep: 2,
            validate_every: 200,
        }
    }
}

/// Whether a key may have another value when a run is resumed: how far it goes, how fast, and how
/// the rate falls at its end.
pub fn may_differ(key: &str) -> bool {
    let free = ["run.", "export."]
        .iter()
        .any(|table| key.starts_with(table));
    let keys = [
        "optimiser.rate",
        "schedule.decay",
        "schedule.fall",
        "cache.folder",
    ];
    free || keys.contains(&key)
}

/// Reads a config called `name` from TOML, with `KEY=VALUE` overrides (`optimiser.rate=1e-4`).
///
/// # Errors
/// What is no TOML, and unknown keys: the known one that is most alike is named.
pub fn read<C>(name: &str, text: &str, overrides: &[String]) -> Result<C, ConfigError>
where
    C: Default + Serialize + DeserializeOwned,
{
    let invalid = |name: &str, reason: String| ConfigError::Invalid {
        name: name.to_owned(),
        reason,
    };
    let mut table: Table =
        toml::from_str(text).map_err(|error| invalid(name, error.to_string()))?;
    let known = to_json(&C::default());
    check_keys(name, &table, &known)?;
    for given in overrides {
        let (key, value) = given
            .split_once('=')
            .ok_or_else(|| invalid(given, "an override is `table.key=value`".to_owned()))?;
        let parsed = toml::from_str::<Table>(&format!("value = {value}"));
        let value = match parsed {
            Ok(mut table) => table.remove("value").expect("it was just written"),
            Err(_) => toml::Value::String(value.to_owned()),
        };
        set(&mut table, key, value).map_err(|reason| invalid(given, reason))?;
        check_keys(given, &table, &known)?;
    }
    let value = toml::Value::Table(table);
    C::deserialize(value).map_err(|error| invalid(name, error.to_string()))
}

/// A config as JSON, with every key: what is kept beside a run's states.
pub fn to_json(config: &impl Serialize) -> Value {
    serde_json::to_value(config).expect("a config is JSON")
}

/// Puts a value under a dotted key.
fn set(table: &mut Table, key: &str, value: toml::Value) -> Result<(), String> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((outer, inner)) => {
            let entry = table.entry(outer).or_insert_with(|| Table::new().into());
            let entry = entry
                .as_table_mut()
                .ok_or_else(|| format!("`{outer}` is no table"))?;
            set(entry, inner, value)
        }
    }
}

/// Fails if a key of `table`, or of a table in it, is not among those of `known`.
fn check_keys(name: &str, table: &Table, known: &Value) -> Result<(), ConfigError> {
    let (mut all, mut given) = (Vec::new(), Vec::new());
    json_keys("", known, &mut all);
    toml_keys("", table, known, &mut given);
    let Some(key) = given.into_iter().find(|key| !all.contains(key)) else {
        return Ok(());
    };
    let likeness = |known: &&String| (1000.0 * strsim::jaro_winkler(&key, known)) as u32;
    let nearest = all.iter().max_by_key(likeness);
    Err(ConfigError::UnknownKey {
        name: name.to_owned(),
        nearest: nearest.filter(|known| likeness(known) > 700).cloned(),
        key,
    })
}

fn dotted(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        _ => format!("{path}.{key}"),
    }
}

fn json_keys(path: &str, value: &Value, keys: &mut Vec<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let key = dotted(path, key);
        json_keys(&key, value, keys);
        keys.push(key);
    }
}

fn toml_keys(path: &str, table: &Table, known: &Value, keys: &mut Vec<String>) {
    for (key, value) in table {
        let inner = &known[key];
        let key = dotted(path, key);
        // What is no table where one may be is told by its kind, later.
        if let (Some(table), true) = (value.as_table(), inner.is_object()) {
            toml_keys(&key, table, inner, keys);
        }
        keys.push(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Small {
        seed: u64,
        data: DataConfig,
        run: RunConfig,
    }

    fn small(text: &str, overrides: &[&str]) -> Result<Small, ConfigError> {
        let overrides: Vec<String> = overrides.iter().map(|&o| o.to_owned()).collect();
        read("small.toml", text, &overrides)
    }

    #[test]
    fn values_come_from_the_file_then_from_overrides() {
        let text = "seed = 3\n[data]\ntrain = ['a', 'b']\nbatch = 4\n";
        let overrides = ["data.batch=8", "run.steps=10", "data.train=[\"c d\"]"];
        let config = small(text, &overrides).unwrap();
        assert_eq!((config.seed, config.data.batch), (3, 8));
        assert_eq!(config.data.train, [PathBuf::from("c d")]);
        assert_eq!(config.run.steps, Some(10));
        assert_eq!(config.data.size, DataConfig::default().size);
        let json = to_json(&config);
        assert_eq!(json["run"]["steps"], 10);
        assert_eq!(json["data"]["crop"], Value::Null);
    }

    #[test]
    fn unknown_keys_are_told_with_the_nearest_known() {
        let words = |result: Result<Small, ConfigError>| result.unwrap_err().to_string();
        let found = words(small("[data]\nbacth = 4\n", &[]));
        assert!(
            found.contains("small.toml: the key `data.bacth` is unknown"),
            "{found}"
        );
        assert!(found.contains("`data.batch`"), "{found}");
        let found = words(small("", &["run.save_evry=4"]));
        assert!(
            found.contains("`run.save_evry`") && found.contains("`run.save_every`"),
            "{found}"
        );
        let found = words(small("zzz = 1\n", &[]));
        assert!(found.contains("`zzz` is unknown"), "{found}");
        let found = words(small("", &["data.batch"]));
        assert!(found.contains("table.key=value"), "{found}");
        let found = words(small("[data]\nbatch = 'many'\n", &[]));
        assert!(
            found.contains("small.toml") && found.contains("many"),
            "{found}"
        );
        assert!(words(small("[data", &[])).contains("small.toml"));
        assert!(words(small("", &["seed.more=1"])).contains("seed"));
    }
}
