//! The command line: arguments in, library calls, files and words out. No arithmetic on tensors.

mod arguments;
mod failure;
mod source;

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
}
#[derive(clap::Args)]
struct Both {
    #[command(flatten)]
    a: arguments::ModelArguments,
    #[command(flatten)]
    b: arguments::FeatureArguments,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let Command::None(both) = cli.command;
    let _ = both.b.request().and_then(|r| both.a.extractor(r));
    ExitCode::SUCCESS
}
