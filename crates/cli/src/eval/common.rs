//! Arguments that all evaluations share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use cleandift::checkpoint::Dtype;
use cleandift::eval::Storage;
use cleandift::image::Size;

use crate::arguments::{ModeArguments, ModelArguments, parse_positive};
use crate::machine::GIB;

/// What is evaluated, and where the results go.
#[derive(Args, Clone, Debug)]
pub struct CommonArguments {
    /// The folder for the report, the items and kept features
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,

    #[command(flatten)]
    pub model: ModelArguments,

    /// Taps; several are joined. Default: the protocol's
    #[arg(long, value_name = "LIST")]
    pub taps: Option<String>,

    /// The canvas, as for extract; default: the protocol's, else what the model was trained at
    #[arg(long, value_name = "SIZE")]
    pub size: Option<Size>,

    #[command(flatten)]
    pub mode: ModeArguments,

    /// How many seeds to evaluate noisy features with; the report shows their spread
    #[arg(long, value_name = "N", default_value_t = 1, requires = "noise",
        value_parser = parse_positive)]
    pub seeds: usize,

    /// Also evaluate what needs no model: the task's own floors, pixels, colours, random weights
    #[arg(long, value_name = "WHICH", default_value = "all")]
    pub floors: Floors,

    /// Features kept on disk, in GiB at most; 0 keeps none
    #[arg(long, value_name = "GIB", default_value_t = 4.0, value_parser = parse_size)]
    pub cache: f64,

    /// How they are kept: f16 takes half the room, and the values used are rounded
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    pub cache_dtype: CacheType,

    /// Reduce each tap's channels to N components of sixteen pictures' features before they are
    /// kept; what that costs is seen with eval compare
    #[arg(long, value_name = "N", value_parser = parse_positive)]
    pub cache_components: Option<usize>,

    /// Features kept in memory, in GiB at most
    #[arg(long, value_name = "GIB", default_value_t = 1.0, value_parser = parse_size)]
    pub memory: f64,

    /// Forget the results in the folder
    #[arg(long)]
    pub overwrite: bool,

    /// Say what would be done, and what it needs, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Which floors are evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Floors {
    /// All that the task has.
    All,
    /// None.
    None,
    /// These only, without any model.
    Only,
}

/// How features are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CacheType {
    F32,
    F16,
}

impl From<CacheType> for Dtype {
    fn from(kind: CacheType) -> Self {
        match kind {
            CacheType::F32 => Dtype::F32,
            CacheType::F16 => Dtype::F16,
        }
    }
}

pub fn parse_size(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(size) if size >= 0.0 && size.is_finite() => Ok(size),
        _ => Err("expected a number of GiB, 0 or more".to_owned()),
    }
}

impl CommonArguments {
    /// Where features are kept from run to run, in a folder of this name; `None` if they are not.
    pub fn storage(&self, name: &str) -> Option<Storage> {
        (self.cache > 0.0).then(|| Storage {
            folder: self.output.join(name),
            dtype: self.cache_dtype.into(),
            limit: bytes_of(self.cache),
        })
    }
}

/// Bytes of a number of GiB.
pub fn bytes_of(gib: f64) -> u64 {
    (gib * GIB) as u64
}
