//! The command line: arguments in, library calls, files and words out. No arithmetic on tensors.

mod arguments;
mod doctor;
mod failure;
mod inspect;
mod reconstruct;
mod source;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Noise-free diffusion features: one pass over the clean image, no timestep to choose.
#[derive(Parser)]
#[command(name = "cleandift", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Nothing yet
    None(Both),
    /// Look at models
    Models {
        #[command(subcommand)]
        command: Models,
    },
    /// Send a picture through the latent and back, to see what the latent keeps
    Reconstruct(reconstruct::ReconstructArguments),
    /// Show what this machine offers, and test the arithmetic on it
    Doctor(doctor::DoctorArguments),
}

#[derive(Subcommand)]
enum Models {
    /// Show what a model's files hold, whether they fit, and what running it costs
    Inspect(inspect::InspectArguments),
}

#[derive(clap::Args)]
struct Both {
    #[command(flatten)]
    a: arguments::ModelArguments,
    #[command(flatten)]
    b: arguments::FeatureArguments,
}

fn main() -> ExitCode {
    let ending = match Cli::parse().command {
        Command::None(both) => both
            .b
            .request()
            .and_then(|request| both.a.extractor(request))
            .map(|_| failure::Ending::Complete),
        Command::Models {
            command: Models::Inspect(arguments),
        } => inspect::run(&arguments),
        Command::Reconstruct(arguments) => reconstruct::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
    };
    ending.map_or_else(
        |failure| {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        },
        ExitCode::from,
    )
}
