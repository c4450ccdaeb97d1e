//! The formats in which features are kept.

use std::fmt;
use std::str::FromStr;

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One `STEM.safetensors` per picture.
    Safetensors,
    /// One `STEM.TAP.npy` per picture and tensor.
    Npy,
    /// One `STEM.npz` per picture: npy arrays in a zip file, not compressed.
    Npz,
}

/// A name that is no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no format; there are safetensors, npy and npz")]
pub struct FormatError(String);

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::Npy => "npy",
            Self::Npz => "npz",
        })
    }
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self, FormatError> {
        [Self::Safetensors, Self::Npy, Self::Npz]
            .into_iter()
            .find(|format| format.to_string() == text)
            .ok_or_else(|| FormatError(text.to_owned()))
    }
}
