//! The command line: arguments in, library calls, files and words out. No arithmetic on tensors.

mod arguments;
mod bench;
mod cache;
mod doctor;
mod embedded;
mod eval;
mod example;
mod extract;
mod failure;
mod inspect;
mod machine;
mod match_points;
mod metrics;
mod output;
mod pack;
mod picture;
mod pretrain;
mod reconstruct;
mod sample;
mod source;
mod stop;
mod table;
mod train;
mod training;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use failure::{Ending, Failure};

/// Noise-free diffusion features: one pass over the clean image, no timestep to choose.
#[derive(Parser)]
#[command(name = "cleandift", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Extract(extract::ExtractArguments),
    Match(match_points::MatchArguments),
    /// Measure what features are worth
    Eval {
        #[command(subcommand)]
        command: eval::Eval,
    },
    Sweep(Box<eval::sweep::SweepArguments>),
    Variance(eval::variance::VarianceArguments),
    /// Look at models
    Models {
        #[command(subcommand)]
        command: Models,
    },
    /// Send a picture through the latent and back, to see what the latent keeps
    Reconstruct(reconstruct::ReconstructArguments),
    Sample(sample::SampleArguments),
    Pretrain(pretrain::PretrainArguments),
    Train(train::TrainArguments),
    Bench(bench::BenchArguments),
    /// Show what this machine offers, and test the arithmetic on it
    Doctor(doctor::DoctorArguments),
}

#[derive(Subcommand)]
enum Models {
    /// Show what a model's files hold, whether they fit, and what running it costs
    Inspect(inspect::InspectArguments),
    /// Put a small model into one file
    Pack(pack::PackArguments),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(ending) => ending.into(),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<Ending, Failure> {
    match command {
        Command::Extract(arguments) => extract::run(&arguments),
        Command::Match(arguments) => match_points::run(&arguments),
        Command::Eval { command } => eval::run(&command),
        Command::Sweep(arguments) => eval::sweep::run(&arguments),
        Command::Variance(arguments) => eval::variance::run(&arguments),
        Command::Models {
            command: Models::Inspect(arguments),
        } => inspect::run(&arguments),
        Command::Models {
            command: Models::Pack(arguments),
        } => pack::run(&arguments),
        Command::Reconstruct(arguments) => reconstruct::run(&arguments),
        Command::Sample(arguments) => sample::run(&arguments),
        Command::Pretrain(arguments) => pretrain::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
    }
}
