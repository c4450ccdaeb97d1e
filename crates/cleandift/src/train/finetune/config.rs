//! The config of `train`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Adaptation, Bins, Cache, Cached, Design, Export, Heads, HeadsOrigin, Lora, Text};
use crate::checkpoint::{Checkpoint, Dtype, Weights};
use crate::engine::cpu::Recompute;
use crate::extractor::HeadsModel;
use crate::graph::Distance;
use crate::networks::heads::{HeadNorm, HeadsDesign};
use crate::networks::schedule::TIMESTEPS;
use crate::train::TrainError;
use crate::train::config::{ConfigError, DataConfig, RunConfig, demand, demand_positive};
use crate::train::optimiser::OptimiserConfig;
use crate::train::rate::Schedule;

/// All of it. The defaults are those of the published trainer where it has them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FinetuneConfig {
    /// What first values, order, crops, timesteps and noise are drawn from.
    pub seed: u64,
    /// The model to begin with.
    pub model: ModelConfig,
    /// What of the student is trained.
    pub student: StudentConfig,
    /// Factors of low rank, with `student.train = "lora"`.
    pub lora: LoraConfig,
    /// Projection heads.
    pub heads: HeadsSettings,
    /// What is made small.
    pub objective: ObjectiveConfig,
    /// What to learn from.
    pub data: DataConfig,
    /// How gradients change parameters.
    pub optimiser: OptimiserConfig,
    /// The learning rate over the steps.
    pub schedule: Schedule,
    /// How far it goes, and what it keeps.
    pub run: RunConfig,
    /// What is kept on the disk between steps and runs.
    pub cache: CacheConfig,
    /// What is written in the end.
    pub export: ExportConfig,
}

/// What is kept on the disk between steps and runs: `[cache]`. Worth it where pictures come again
/// as they were: without random crops.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Where; it can be removed at any time.
    pub folder: Option<PathBuf>,
    /// `latents`, `prompts`, `teacher`. With the teacher's taps a picture has the same noise and
    /// timesteps each time.
    pub kinds: Vec<Cached>,
}

/// What is written in the end: `[export]`. It may differ when a run is resumed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExportConfig {
    /// `unet`, `full`, `folder`, `lora`.
    pub files: Vec<Export>,
    /// `f32`, `f16` or `bf16`.
    pub dtype: DtypeName,
}

impl Default for ExportConfig {
    fn default() -> Self {
        Self {
            files: vec![Export::Unet, Export::Full],
            dtype: DtypeName::F32,
        }
    }
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DtypeName {
    /// Single precision.
    F32,
    /// Half precision of IEEE.
    F16,
    /// Half precision with the range of single; as the published files have it.
    Bf16,
}

impl DtypeName {
    /// The type.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
            Self::Bf16 => Dtype::BF16,
        }
    }
}

/// The model to begin with: `[model]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// A Stable Diffusion, by its path or its name: the teacher, and what the student starts as.
    pub base: PathBuf,
    /// A `_unet` or `_full` file that the student starts as instead.
    pub student: Option<PathBuf>,
}

/// What of the student is trained: `[student]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StudentConfig {
    /// Of its U-Net: `full` (everything up to the last tap), `lora` or `none`.
    pub train: StudentTraining,
    /// The timestep that it starts at; without, that of `model.student`, else 261.
    pub timestep: Option<f64>,
    /// Whether its timestep is trained.
    pub learn_timestep: bool,
}

impl Default for StudentConfig {
    fn default() -> Self {
        Self {
            train: StudentTraining::Full,
            timestep: None,
            learn_timestep: true,
        }
    }
}

/// What of the student's U-Net is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StudentTraining {
    /// All parameters.
    Full,
    /// Factors of low rank.
    Lora,
    /// Nothing.
    None,
}

/// Factors of low rank: `[lora]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// The rank of the product that is added to a weight.
    pub rank: usize,
    /// The product is multiplied by `alpha / rank`; without, by 1.
    pub alpha: Option<f64>,
    /// The layers that have one: parts of module paths, such as `attn1`, `attn2.to_v`, `ff`.
    pub layers: Vec<String>,
}

impl Default for LoraConfig {
    /// Rank 64 on self-attention and perceptrons, as the paper has it for its larger models.
    fn default() -> Self {
        Self {
            rank: 64,
            alpha: None,
            layers: vec!["attn1".to_owned(), "ff".to_owned()],
        }
    }
}

/// Projection heads: `[heads]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeadsSettings {
    /// How they are conditioned: `adarms`, `film` (with the published code's slip),
    /// `film-intended`; or `none`: no heads.
    pub norm: NormName,
    /// Whether their blocks are gated (SwiGLU); else a SiLU follows the first map.
    pub gated: bool,
    /// Blocks of each head.
    pub depth: usize,
    /// Inner width of a block, as a multiple of the tap's channels.
    pub expansion: f64,
    /// Width of the condition that is made of the timestep; even.
    pub width: usize,
    /// A file with heads to begin with, such as a `_full` file; then only `norm` counts of the
    /// above.
    pub from: Option<PathBuf>,
    /// Whether they stay as they are.
    pub frozen: bool,
}

impl Default for HeadsSettings {
    fn default() -> Self {
        let HeadsDesign {
            gated,
            depth,
            expansion,
            width,
            ..
        } = HeadsDesign::default();
        Self {
            norm: NormName::Adarms,
            gated,
            depth,
            expansion,
            width,
            from: None,
            frozen: false,
        }
    }
}

/// A way to condition heads, or none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormName {
    /// [`HeadNorm::AdaRms`].
    Adarms,
    /// [`HeadNorm::Film`].
    Film,
    /// [`HeadNorm::FilmIntended`].
    FilmIntended,
    /// No heads.
    None,
}

impl NormName {
    fn norm(self) -> Option<HeadNorm> {
        match self {
            Self::Adarms => Some(HeadNorm::AdaRms),
            Self::Film => Some(HeadNorm::Film),
            Self::FilmIntended => Some(HeadNorm::FilmIntended),
            Self::None => None,
        }
    }
}

/// What is made small: `[objective]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectiveConfig {
    /// The taps that are compared: a list, or `all` for CleanDIFT's eleven.
    pub taps: String,
    /// `cosine`, `l2` or `l1`.
    pub distance: DistanceName,
    /// The teacher's timesteps per picture, one from each of as many bins.
    pub timesteps: usize,
    /// The first timestep that can be drawn.
    pub first: usize,
    /// The end of the last bin, which is not drawn itself.
    pub end: usize,
    /// `captions`, `none`, or `distilled`: captions for the teacher alone.
    pub text: Text,
    /// Whether values inside blocks are computed again on the way back: much less memory, a third
    /// more time.
    pub recompute: bool,
}

impl Default for ObjectiveConfig {
    fn default() -> Self {
        Self {
            taps: "all".to_owned(),
            distance: DistanceName::Cosine,
            timesteps: 3,
            first: 1,
            end: 999,
            text: Text::Captions,
            recompute: true,
        }
    }
}

/// What is measured between features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DistanceName {
    /// Minus the cosine of each cell's angle.
    Cosine,
    /// The mean square.
    L2,
    /// The mean magnitude.
    L1,
}

impl FinetuneConfig {
    /// Checks what no type can say.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        let given = !self.model.base.as_os_str().is_empty();
        let words = "is not given: a Stable Diffusion to begin with".to_owned();
        demand(given, "model.base", words)?;
        let ObjectiveConfig {
            timesteps,
            first,
            end,
            ..
        } = self.objective;
        demand_positive(timesteps, "objective.timesteps")?;
        let words = format!(
            "is {end}, expected a number from {} to {TIMESTEPS}",
            first + timesteps
        );
        demand(
            first + timesteps <= end && end <= TIMESTEPS,
            "objective.end",
            words,
        )?;
        self.data.check()?;
        self.optimiser.check()?;
        self.lora.check()?;
        let heads = &self.heads;
        demand_positive(heads.depth, "heads.depth")?;
        let words = format!("is {}, expected an even number", heads.width);
        let even = heads.width > 0 && heads.width.is_multiple_of(2);
        demand(even, "heads.width", words)?;
        let words = format!("is {}, expected a positive number", heads.expansion);
        demand(heads.expansion > 0.0, "heads.expansion", words)?;
        let words = "has kinds, but no `cache.folder` to keep them in".to_owned();
        let CacheConfig { folder, kinds } = &self.cache;
        demand(kinds.is_empty() || folder.is_some(), "cache.kinds", words)?;
        let exports = |export| self.export.files.contains(&export);
        let words = "has `full`, which needs projection heads (`heads.norm`)".to_owned();
        let whole = self.heads.norm != NormName::None;
        demand(whole || !exports(Export::Full), "export.files", words)?;
        let words = "has `lora`, which needs `student.train = \"lora\"`".to_owned();
        let adapted = self.student.train == StudentTraining::Lora;
        demand(adapted || !exports(Export::Lora), "export.files", words)?;
        let timestep = self.student.timestep.unwrap_or_default();
        let words = format!(
            "is {timestep}, expected a number from 0 to {}",
            TIMESTEPS - 1
        );
        let known = (0.0..TIMESTEPS as f64).contains(&timestep);
        demand(known, "student.timestep", words)
    }

    /// What is trained, towards what; nothing is cached ([`CacheConfig::of`]).
    ///
    /// # Errors
    /// If trained heads cannot be opened.
    pub fn design(&self) -> Result<Design, TrainError> {
        let objective = &self.objective;
        Ok(Design {
            taps: objective.taps.clone(),
            distance: match objective.distance {
                DistanceName::Cosine => Distance::Cosine,
                DistanceName::L2 => Distance::Squared,
                DistanceName::L1 => Distance::Absolute,
            },
            bins: Bins {
                count: objective.timesteps,
                first: objective.first,
                end: objective.end,
            },
            text: objective.text,
            heads: self.heads.open()?,
            unet: match self.student.train {
                StudentTraining::Full => Adaptation::Full,
                StudentTraining::Lora => Adaptation::Lora(self.lora.lora()),
                StudentTraining::None => Adaptation::None,
            },
            learn_timestep: self.student.learn_timestep,
            timestep: self.student.timestep,
            recompute: match objective.recompute {
                true => Recompute::Blocks,
                false => Recompute::Nothing,
            },
            cache: None,
            seed: self.seed,
        })
    }
}

impl CacheConfig {
    /// What is kept of the answers of a model's codec, text encoder and teacher, if anything is.
    ///
    /// # Errors
    /// If the model cannot be read.
    pub fn of(&self, model: &Checkpoint) -> Result<Option<Cache>, TrainError> {
        let Self { folder, kinds } = self;
        let Some(folder) = folder.clone().filter(|_| !kinds.is_empty()) else {
            return Ok(None);
        };
        Ok(Some(Cache {
            folder,
            kinds: kinds.clone(),
            model: format!("{} {}", model.sha256()?.combined, model.configs_sha256()),
        }))
    }
}

impl LoraConfig {
    fn check(&self) -> Result<(), ConfigError> {
        demand_positive(self.rank, "lora.rank")?;
        demand(!self.layers.is_empty(), "lora.layers", "is empty")?;
        let alpha = self.alpha.unwrap_or(1.0);
        let words = format!("is {alpha}, expected a positive number");
        demand(alpha.is_finite() && alpha > 0.0, "lora.alpha", words)
    }

    fn lora(&self) -> Lora {
        Lora {
            rank: self.rank,
            scale: self.alpha.map_or(1.0, |alpha| alpha / self.rank as f64),
            layers: self.layers.clone(),
        }
    }
}

impl HeadsSettings {
    fn open(&self) -> Result<Option<Heads>, TrainError> {
        let Some(norm) = self.norm.norm() else {
            return Ok(None);
        };
        let origin = match &self.from {
            Some(path) => HeadsOrigin::Trained(trained(path, norm)?),
            None => HeadsOrigin::New(HeadsDesign {
                norm,
                gated: self.gated,
                depth: self.depth,
                expansion: self.expansion,
                width: self.width,
            }),
        };
        Ok(Some(Heads {
            origin,
            frozen: self.frozen,
        }))
    }
}

/// The heads of a file that may hold more.
fn trained(path: &Path, norm: HeadNorm) -> Result<HeadsModel, TrainError> {
    let heads = HeadsModel::open(Weights::open(path)?.heads())?;
    match heads.config.norm() == norm {
        true => Ok(heads),
        false => Err(TrainError::HeadsNorm {
            path: path.to_owned(),
        }),
    }
}
