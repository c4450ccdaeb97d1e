//! What is to be extracted, and how.

use crate::graph::Tensor;

/// The timestep that a student runs at when its file does not say it (arXiv 2412.03439's code).
pub const DEFAULT_TIMESTEP: f64 = 261.0;

/// How features are made from a picture.
#[derive(Clone, Debug, PartialEq)]
pub enum Mode {
    /// One pass over the clean latent, at this timestep, else at the one that the file holds, else
    /// at [`DEFAULT_TIMESTEP`].
    Clean {
        /// The timestep to use instead of the file's.
        timestep: Option<f64>,
    },
    /// A baseline: the base on the clean latent.
    NaiveClean {
        /// The timestep.
        timestep: f64,
    },
    /// A baseline: the base on a noisy latent at a timestep of 0 to 999, the mean over all draws
    /// (DIFT, arXiv 2306.03881).
    Noisy {
        /// The timestep.
        timestep: usize,
        /// The draws.
        noise: Noise,
    },
    /// The student's features through its projection heads: they approximate the base's features
    /// at this timestep, without noise.
    Projected {
        /// The timestep.
        timestep: f64,
    },
}

/// Noise for the latent.
#[derive(Clone, Debug, PartialEq)]
pub enum Noise {
    /// `count` draws; each depends on the seed, its index and the latent's size alone.
    Drawn {
        /// The seed.
        seed: u64,
        /// How many are averaged.
        count: usize,
    },
    /// Given draws: one image each.
    Given(Tensor<f32>),
}

/// Which U-Net of a model is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The fine-tuned one, or the only one there is.
    Student,
    /// The one that it was made from.
    Teacher,
}

impl Role {
    /// What runs, in a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::Student => "its own U-Net",
            Self::Teacher => "its teacher",
        }
    }
}

/// Where the latent comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latents {
    /// The mean of the auto-encoder's distribution: no randomness.
    Mean,
    /// A sample, the same for every image of one size.
    Sample {
        /// The seed.
        seed: u64,
    },
}

/// What to extract.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Taps: a list as in [`TapGroup::find_all`](crate::features::TapGroup::find_all); `None` for the model's
    /// [own](super::Model::default_tap).
    pub taps: Option<String>,
    /// How.
    pub mode: Mode,
    /// Which U-Net; `None` for the mode's own: the student for [`Mode::Clean`] and
    /// [`Mode::Projected`], the teacher (if there is one) for the baselines.
    pub role: Option<Role>,
    /// Mean or sample.
    pub latents: Latents,
}

impl Default for Request {
    /// The model's own tap in one clean pass.
    fn default() -> Self {
        Self {
            taps: None,
            mode: Mode::Clean { timestep: None },
            role: None,
            latents: Latents::Mean,
        }
    }
}
