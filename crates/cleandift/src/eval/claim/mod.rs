//! The claim of CleanDIFT (arXiv 2412.03439), tested: one pass over the clean picture is at least as
//! good as features of noisy pictures at the best timestep, averaged over draws of noise.
//!
//! A [`Suite`] says beforehand which tasks are asked. For each, every way to make features (a
//! [`Way`]) is tried at all its [`Setting`]s; which one counts is chosen where nothing is reported
//! ([`choose`]); then the ways are compared as all results are, and [`Findings`] say what came out.
//!
//! ```text
//! Suite ─open─▶ Contest ─evaluate each Setting─▶ Trials ─choose─▶ Choices ─compare, judge─▶ Findings ─page─▶ Markdown
//! ```

mod choose;
mod findings;
mod page;
mod suite;

pub use choose::{Choice, Rule, Trial, choose, mean_over_models};
pub use findings::{Answer, Findings, Floor, Judged, Score, Summary, WayScores, answer, judge_all};
pub use page::{About, page};
pub use suite::{Contest, Entry, Question, Suite};

use serde::{Deserialize, Serialize};

/// The timestep that is reported whatever comes out best: the one of the published models.
pub const FIXED_TIMESTEP: usize = 261;

/// A way to make features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The base on noisy latents, the mean over so many draws of noise.
    Noisy {
        /// How many.
        draws: usize,
    },
    /// The base on the clean latent, told a timestep all the same.
    Naive,
    /// CleanDIFT.
    Clean,
}

impl Way {
    /// What reports call it.
    pub fn name(self) -> String {
        match self {
            Self::Noisy { draws: 1 } => "noisy, 1 draw".to_owned(),
            Self::Noisy { draws } => format!("noisy, {draws} draws"),
            Self::Naive => "naive clean".to_owned(),
            Self::Clean => "CleanDIFT".to_owned(),
        }
    }
}

/// A way, and what is to be chosen about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// The way.
    pub way: Way,
    /// The timestep; CleanDIFT has none to choose.
    pub timestep: Option<usize>,
    /// The tap.
    pub tap: String,
}

impl Setting {
    /// What is chosen, in words: `us6, t 261`.
    pub fn choice(&self) -> String {
        match self.timestep {
            Some(timestep) => format!("{}, t {timestep}", self.tap),
            None => self.tap.clone(),
        }
    }

    /// All of it in words: `noisy, 8 draws, us6, t 261`.
    pub fn name(&self) -> String {
        format!("{}, {}", self.way.name(), self.choice())
    }
}
