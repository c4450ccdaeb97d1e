//! `cleandift eval`: what features are worth, measured by published protocols.

mod candidates;
mod choices;
mod claim;
mod common;
mod compare;
mod dense;
mod homography;
mod points;
mod run;
pub mod sweep;
pub mod variance;
mod write;

use clap::Subcommand;

use crate::failure::{Ending, Failure};

pub use common::CommonArguments;

/// The evaluations.
#[derive(Subcommand, Debug)]
pub enum Eval {
    #[command(flatten)]
    Task(Box<TaskCommand>),
    Compare(compare::CompareArguments),
    Claim(claim::ClaimArguments),
}

/// The tasks.
#[derive(Subcommand, Debug)]
pub enum TaskCommand {
    Spair(points::SpairArguments),
    PfPascal(points::PfPascalArguments),
    PfWillow(points::PfWillowArguments),
    Ap10k(points::Ap10kArguments),
    Cub(points::CubArguments),
    Keypoints(points::KeypointsArguments),
    Hpatches(homography::HpatchesArguments),
    Davis(dense::DavisArguments),
    Depth(dense::DepthArguments),
    Segmentation(dense::SegmentationArguments),
    Knn(dense::KnnArguments),
    Linear(dense::LinearArguments),
}

/// Runs the command.
pub fn run(command: &Eval) -> Result<Ending, Failure> {
    match command {
        Eval::Task(task) => {
            let (prepared, common) = task.prepare()?;
            run::run(prepared, common)
        }
        Eval::Compare(arguments) => compare::run(arguments),
        Eval::Claim(arguments) => claim::run(arguments),
    }
}

impl TaskCommand {
    /// The task with its data loaded, and how it is to be run.
    pub fn prepare(&self) -> Result<(run::Prepared, &CommonArguments), Failure> {
        Ok(match self {
            Self::Spair(arguments) => (arguments.prepare()?, &arguments.common),
            Self::PfPascal(arguments) => (arguments.prepare()?, &arguments.common),
            Self::PfWillow(arguments) => (arguments.prepare()?, &arguments.common),
            Self::Ap10k(arguments) => (arguments.prepare()?, &arguments.common),
            Self::Cub(arguments) => (arguments.prepare()?, &arguments.common),
            Self::Keypoints(arguments) => (arguments.prepare()?, &arguments.common),
            Self::Hpatches(arguments) => (arguments.prepare()?, &arguments.common),
            Self::Davis(arguments) => (arguments.prepare()?, &arguments.common),
            Self::Depth(arguments) => (arguments.prepare()?, &arguments.common),
            Self::Segmentation(arguments) => (arguments.prepare()?, &arguments.common),
            Self::Knn(arguments) => (arguments.prepare()?, &arguments.common),
            Self::Linear(arguments) => (arguments.prepare()?, &arguments.common),
        })
    }
}
