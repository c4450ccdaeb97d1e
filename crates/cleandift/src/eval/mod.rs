//! What features are worth: the evaluations of the CleanDIFT paper (arXiv 2412.03439) and of the
//! papers it compares with, from a data set's files to figures with their intervals.
//!
//! A [`Task`] knows its data set, its protocol and what it reports. It evaluates a [`Candidate`]:
//! a [`Source`] of features, or a floor that needs none. What comes back is one [`Item`] per
//! question asked (a pair of pictures, a depth map, a classified picture): tallies, the units
//! that are independent, and nothing derived. Every [`Figure`] is a formula over sums of tallies,
//! so that intervals, comparisons and reports can compute it anew from any resample of items.
//!
//! ```text
//! data set ─datasets─▶ Task ─evaluate(Candidate)─▶ Items ─Schema─▶ figures ─statistics─▶ intervals ─report─▶ files
//!                               ▲
//!           pictures ─Source (model, pixels, files)─ Cache
//! ```

mod cache;
pub mod claim;
pub mod classification;
mod components;
pub mod correspondence;
pub mod datasets;
pub mod dense;
pub mod depth;
mod digest;
mod error;
mod figure;
pub mod homography;
mod journal;
mod kept_probe;
pub mod metrics;
mod per_pixel;
pub mod probes;
mod probing;
pub mod protocols;
pub mod report;
pub mod segmentation;
pub mod source;
pub mod statistics;
pub mod sweep;
pub mod variance;
pub mod video;

pub use cache::{Cache, Storage};
pub use components::{Components, Products};
pub use error::EvalError;
pub use figure::{Figure, Formula, Item, Scale, Schema, Sums};
pub use journal::Journal;
pub use probing::Probing;
pub use source::{Image, Origin, Seen, Source, Stack};

use serde_json::{Map, Value};

/// Settings by name, as reports show them.
pub type Settings = Map<String, Value>;

/// An evaluation on one data set by one protocol.
pub trait Task {
    /// What the command calls it, e.g. `pf-willow`.
    fn name(&self) -> &str;

    /// The data set, the split and the protocol's choices: two results can be compared only if
    /// these are equal.
    fn settings(&self) -> Settings;

    /// What is counted and which figures follow.
    fn schema(&self) -> &Schema;

    /// The pictures that one candidate needs features of, each once, in the order of need.
    fn images(&self) -> Vec<Image>;

    /// Names of the floors that this task computes itself, without features: same position, mean
    /// depth map, class per position. Pixels and colours are sources, not floors of a task.
    fn floors(&self) -> &'static [&'static str] {
        &[]
    }

    /// Evaluates a candidate. Items that the journal holds are not computed again.
    ///
    /// # Errors
    /// If a picture or the data set's files cannot be read, features cannot be made, or
    /// [`Run::watch`] asks to stop ([`EvalError::Stopped`]); what the journal holds stays.
    fn evaluate(&self, candidate: &mut Candidate, run: &mut Run) -> Result<Vec<Item>, EvalError>;

    /// Items as pictures with marks, for a person to look at, in the order asked for; none if the
    /// task has no pictures to show.
    ///
    /// # Errors
    /// As [`Task::evaluate`].
    fn cases(&self, _ids: &[&str], _candidate: &mut Candidate) -> Result<Vec<Case>, EvalError> {
        Ok(Vec::new())
    }
}

/// An item as pictures with marks.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Pictures to be set side by side, each with marks in its pixels.
    pub panels: Vec<(crate::image::Picture, Vec<Mark>)>,
}

impl Case {
    /// Pictures without marks.
    fn of_pictures(pictures: impl IntoIterator<Item = crate::image::Picture>) -> Self {
        let panels = pictures.into_iter().map(|picture| (picture, Vec::new()));
        Self {
            panels: panels.collect(),
        }
    }
}

/// A point on a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// Where, in pixels.
    pub point: [f64; 2],
    /// What it means.
    pub kind: MarkKind,
    /// Where it should be.
    pub truth: Option<[f64; 2]>,
}

/// What a mark means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkKind {
    /// What was asked for.
    Asked,
    /// Found, and right.
    Right,
    /// Found, and wrong.
    Wrong,
}

/// What is evaluated.
pub enum Candidate<'a> {
    /// One of [`Task::floors`].
    Floor(&'static str),
    /// Features of these taps, as the source names them.
    Features {
        /// Where they come from.
        source: &'a mut dyn Source,
        /// Which maps of [`Seen`] are used.
        taps: Vec<String>,
    },
}

/// What a task reports to and writes into while it evaluates one candidate.
pub struct Run<'a> {
    /// The items that are done.
    pub journal: Journal,
    /// Called after each item and each picture that was made ready; `false` stops the run.
    pub watch: &'a mut dyn FnMut(Progress) -> bool,
}

impl Run<'_> {
    /// Reports progress.
    ///
    /// # Errors
    /// [`EvalError::Stopped`] if the run should end here.
    pub fn report(&mut self, progress: Progress) -> Result<(), EvalError> {
        if (self.watch)(progress) {
            Ok(())
        } else {
            Err(EvalError::Stopped)
        }
    }
}

/// How far an evaluation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Items done, those of the journal included.
    pub done: usize,
    /// Items in all; 0 while features are gathered or a probe is trained.
    pub total: usize,
}

impl Progress {
    /// No item is done, and none can be yet.
    const PREPARING: Self = Self { done: 0, total: 0 };
}
