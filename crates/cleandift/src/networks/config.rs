//! Reads the `config.json` of each part of a model, and refuses what is not supported.

mod codec;
mod text;
mod unet;

use serde::Deserialize;
use serde_json::Value;

pub use codec::{CodecConfig, LinearPatchesConfig, PixelUnshuffleConfig, VaeConfig};
pub use text::{ClipActivation, ClipConfig, TextConfig};
pub use unet::UnetConfig;

/// A config that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the JSON of such a config.
    #[error("{part} config: {reason}")]
    Invalid {
        /// Which part of the model.
        part: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// A value that no network here implements.
    #[error("{part} config: `{key}` is {found}, supported is {supported}")]
    Unsupported {
        /// Which part of the model.
        part: &'static str,
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// What would be.
        supported: String,
    },
}

/// More channels, classes, tokens or cells than any such network has; what is larger would overflow.
const MOST: usize = 1 << 20;
/// More layers than any such network has.
const MOST_LAYERS: usize = 256;

/// One part's config as JSON, with checks that name what was found.
struct Checked<'c> {
    part: &'static str,
    json: &'c Value,
}

impl Checked<'_> {
    /// Fails unless the key is absent (or null), or has the only value that is implemented.
    fn only(&self, key: &'static str, supported: Value) -> Result<(), ConfigError> {
        match self.json.get(key) {
            None | Some(Value::Null) => Ok(()),
            Some(found) if same(found, &supported) => Ok(()),
            Some(found) => Err(self.unsupported(key, found.to_string(), supported.to_string())),
        }
    }

    fn unsupported(&self, key: &'static str, found: String, supported: String) -> ConfigError {
        ConfigError::Unsupported {
            part: self.part,
            key,
            found,
            supported,
        }
    }

    fn parse<T: for<'de> Deserialize<'de>>(&self) -> Result<T, ConfigError> {
        T::deserialize(self.json).map_err(|error| self.invalid(error.to_string()))
    }

    /// Fails if one of the numbers is 0 or greater than `most`.
    fn sizes<const N: usize>(
        &self,
        most: usize,
        sizes: [(&str, usize); N],
    ) -> Result<(), ConfigError> {
        for (key, size) in sizes {
            self.require((1..=most).contains(&size), || {
                format!("`{key}` is {size}, expected 1 to {most}")
            })?;
        }
        Ok(())
    }

    fn invalid(&self, reason: String) -> ConfigError {
        ConfigError::Invalid {
            part: self.part,
            reason,
        }
    }

    fn require(&self, holds: bool, reason: impl FnOnce() -> String) -> Result<(), ConfigError> {
        if holds {
            Ok(())
        } else {
            Err(self.invalid(reason()))
        }
    }
}

/// Equal, with `1` and `1.0` the same.
fn same(found: &Value, supported: &Value) -> bool {
    found == supported || (found.is_number() && found.as_f64() == supported.as_f64())
}

/// Groups of group norms where a config does not say.
fn default_groups() -> usize {
    32
}
