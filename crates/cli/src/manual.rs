//! What shells and `man` want to know of the command line, made from the same description as
//! `--help`.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::failure::{Ending, Failure};

/// Which shell.
#[derive(Args)]
pub struct CompletionArguments {
    /// The shell that is to complete commands and options
    shell: Shell,
}

/// Where to.
#[derive(Args)]
pub struct ManArguments {
    /// The folder for the pages, such as ~/.local/share/man/man1
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Prints a shell's completions.
pub fn completions(
    arguments: &CompletionArguments,
    mut command: Command,
) -> Result<Ending, Failure> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    print!("{}", String::from_utf8_lossy(&script));
    Ok(Ending::Complete)
}

/// Writes a page for the program and one for each of its commands.
pub fn man(arguments: &ManArguments, command: Command) -> Result<Ending, Failure> {
    let folder = &arguments.folder;
    let told = |error| Failure::new(format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(told)?;
    clap_mangen::generate_to(command, folder).map_err(told)?;
    Ok(Ending::Complete)
}
