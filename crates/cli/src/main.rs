//! The command line: arguments in, library calls, files and words out. No arithmetic on tensors.

mod arguments;
mod example;
mod extract;
mod failure;
mod match_points;
mod picture;
mod source;

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
    }
}
