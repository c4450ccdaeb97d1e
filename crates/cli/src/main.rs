//! The command line: arguments in, library calls, files and words out. No arithmetic on tensors.

mod arguments;
mod bench;
mod cache;
mod convert;
mod doctor;
mod embedded;
mod eval;
mod example;
mod extract;
mod failure;
mod hub;
mod inspect;
mod logging;
mod machine;
mod manual;
mod match_points;
mod metrics;
mod output;
mod picture;
mod pretrain;
mod reconstruct;
mod sample;
mod source;
mod stop;
mod table;
mod train;
mod training;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use failure::{Ending, Failure};

/// Noise-free diffusion features: one pass over the clean image, no timestep to choose.
#[derive(Parser)]
#[command(name = "cleandift", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Tell on standard error what is done
    #[arg(long, value_name = "LEVEL", global = true)]
    log: Option<logging::Level>,
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
    /// List, fetch and inspect models
    Models {
        #[command(subcommand)]
        command: Models,
    },
    /// Send a picture through the latent and back, to see what the latent keeps
    Reconstruct(reconstruct::ReconstructArguments),
    Sample(sample::SampleArguments),
    /// Train a small diffusion model from nothing
    Pretrain(training::TrainingArguments),
    /// Turn a Stable Diffusion into a CleanDIFT: features without noise
    Train(training::TrainingArguments),
    Bench(bench::BenchArguments),
    /// Show what this machine offers, and test the arithmetic on it
    Doctor(doctor::DoctorArguments),
    /// Print completions for a shell
    Completions(manual::CompletionArguments),
    /// Write man pages
    Man(manual::ManArguments),
}

#[derive(Subcommand)]
enum Models {
    /// List the models that have short names, and those in the cache
    List(hub::ListArguments),
    /// Fetch models, or bring them up to date, and print where they lie
    Pull(hub::PullArguments),
    /// Show what a model's files hold, whether they fit, and what running it costs
    Inspect(inspect::InspectArguments),
    /// Write a model in another layout or storage type
    Convert(convert::ConvertArguments),
    /// Read every weight of a model: do all parts fit, are all values finite, what is its hash
    Verify(verify::VerifyArguments),
}

/// How a program ends in a shell that a closed pipe has ended.
const BROKEN_PIPE: i32 = 128 + 13;

fn main() -> ExitCode {
    end_plainly_without_standard_output();
    let cli = Cli::parse();
    if let Some(level) = cli.log {
        logging::start(level);
    }
    match run(cli.command) {
        Ok(ending) => ending.into(),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Words for standard output that find no reader (`| head`) end the program quietly, and those that
/// cannot be written (a full disk) with an error, where `println!` would tell of a panic.
fn end_plainly_without_standard_output() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let words = panic.payload().downcast_ref::<String>();
        match words.and_then(|words| words.strip_prefix("failed printing to stdout: ")) {
            Some(reason) if reason.contains("pipe") => std::process::exit(BROKEN_PIPE),
            Some(reason) => {
                eprintln!("error: standard output cannot be written: {reason}");
                std::process::exit(1);
            }
            None => usual(panic),
        }
    }));
}

fn run(command: Command) -> Result<Ending, Failure> {
    match command {
        Command::Extract(arguments) => extract::run(&arguments),
        Command::Match(arguments) => match_points::run(&arguments),
        Command::Eval { command } => eval::run(&command),
        Command::Sweep(arguments) => eval::sweep::run(&arguments),
        Command::Variance(arguments) => eval::variance::run(&arguments),
        Command::Models { command } => match command {
            Models::List(arguments) => hub::list(&arguments),
            Models::Pull(arguments) => hub::pull(&arguments),
            Models::Inspect(arguments) => inspect::run(&arguments),
            Models::Convert(arguments) => convert::run(&arguments),
            Models::Verify(arguments) => verify::run(&arguments),
        },
        Command::Reconstruct(arguments) => reconstruct::run(&arguments),
        Command::Sample(arguments) => sample::run(&arguments),
        Command::Pretrain(arguments) => pretrain::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Completions(arguments) => manual::completions(&arguments, Cli::command()),
        Command::Man(arguments) => manual::man(&arguments, Cli::command()),
    }
}
