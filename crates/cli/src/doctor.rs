//! `cleandift doctor`: what this machine offers, whether the arithmetic is right on it, and where
//! models come from. No socket is opened.

use std::fmt;
use std::path::PathBuf;

use clap::Args;
use cleandift::engine::cpu::{KERNELS_VARIABLE, Processor};
use cleandift::extractor::SelfTest;
use cleandift::hub::{Hub, HubError, Settings};
use cleandift_kernels::Kernels;
use serde::Serialize;

use crate::failure::{Ending, Failure};
use crate::machine;
use crate::table::{Table, bytes};

/// What `doctor` can be asked.
#[derive(Args)]
pub struct DoctorArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What the machine offers.
#[derive(Serialize)]
struct Machine {
    processor: String,
    instructions: Vec<&'static str>,
    /// The kernels in use; `None` if the variable asks for others than there are.
    kernels: Option<&'static str>,
    kernels_here: Vec<&'static str>,
    kernels_elsewhere: Vec<&'static str>,
    /// The value of [`KERNELS_VARIABLE`].
    kernels_variable: Option<String>,
    threads: Option<usize>,
    memory_bytes: u64,
    memory_available_bytes: u64,
}

/// A folder that is written to.
#[derive(Serialize)]
struct Folder {
    path: String,
    /// Why it cannot be written to, if so.
    refusal: Option<String>,
    free_bytes: Option<u64>,
}

/// Where models come from, as Hugging Face's variables say.
#[derive(Serialize)]
struct Models {
    hub: String,
    offline: bool,
    /// Where the token comes from, if there is one.
    token: Option<String>,
    proxy: Option<String>,
    cache: Folder,
    /// What is in the cache.
    repositories: usize,
    bytes: u64,
}

/// One comparison with double precision.
#[derive(Serialize)]
struct Comparison {
    kernels: &'static str,
    what: String,
    error: f64,
    limit: f64,
    passed: bool,
}

#[derive(Serialize)]
struct Report {
    version: &'static str,
    machine: Machine,
    /// The current one, where results go unless told otherwise.
    folder: Folder,
    /// `None` if the settings cannot be used.
    models: Option<Models>,
    /// Each kernel of each instruction set.
    kernels: Vec<Comparison>,
    /// The latent and each tap of the built-in random model, on each instruction set.
    model: Vec<Comparison>,
    /// What is wrong, in words; empty if all is well.
    problems: Vec<String>,
}

/// Looks, tests, prints.
pub fn run(arguments: &DoctorArguments) -> Result<Ending, Failure> {
    let chosen = Processor::from_env(0);
    let machine = machine(chosen.as_ref().ok());
    let folder = folder(std::env::current_dir().unwrap_or_else(|_| ".".into()));
    let models = Settings::from_env().map(models);
    let kernels = kernel_comparisons();
    let model = model_comparisons()?;
    let failed = kernels.iter().chain(&model).filter(|check| !check.passed);
    let mut problems: Vec<String> = failed
        .map(|check| {
            let Comparison {
                kernels,
                what,
                error,
                limit,
                ..
            } = check;
            format!("{kernels}: `{what}` is off by {error:.1e}, at most {limit:.0e} is rounding")
        })
        .collect();
    problems.extend(chosen.err().map(|error| error.to_string()));
    let cache = models.as_ref().ok().map(|models| &models.cache);
    for folder in std::iter::once(&folder).chain(cache) {
        if let Some(refusal) = &folder.refusal {
            let path = &folder.path;
            problems.push(format!("the folder {path} cannot be written to: {refusal}"));
        }
    }
    let models: Option<Models> = models
        .map_err(|error: HubError| problems.push(error.to_string()))
        .ok();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        machine,
        folder,
        models,
        kernels,
        model,
        problems,
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    match report.problems.as_slice() {
        [] => Ok(Ending::Complete),
        problems => Err(Failure::new(problems.join("; "))),
    }
}

fn machine(chosen: Option<&Processor>) -> Machine {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let here: Vec<_> = Kernels::all().iter().map(|table| table.name()).collect();
    Machine {
        processor: machine::processor(),
        instructions: machine::instructions(),
        kernels_elsewhere: Kernels::known()
            .filter(|name| !here.contains(name))
            .collect(),
        kernels_here: here,
        kernels_variable: std::env::var(KERNELS_VARIABLE).ok(),
        threads: chosen.map(Processor::threads),
        kernels: chosen.map(|processor| processor.kernels().name()),
        memory_bytes: system.total_memory(),
        memory_available_bytes: system.available_memory(),
    }
}

fn models(settings: Settings) -> Models {
    let hub = Hub::new(settings);
    let repositories = hub.repositories();
    let settings = hub.settings();
    Models {
        hub: settings.endpoint.clone(),
        offline: settings.offline,
        token: settings.token.as_ref().map(|token| token.origin.clone()),
        proxy: settings.proxy(),
        cache: folder(settings.cache.clone()),
        repositories: repositories.len(),
        bytes: repositories.iter().map(|(_, bytes)| bytes).sum(),
    }
}

/// A folder that is there, or can be made.
fn folder(path: PathBuf) -> Folder {
    let present = path.ancestors().find(|folder| folder.exists());
    let present = present.unwrap_or(&path);
    let refusal = tempfile::tempfile_in(present).err();
    Folder {
        free_bytes: machine::free_disk(present),
        refusal: refusal.map(|error| error.to_string()),
        path: path.display().to_string(),
    }
}

fn kernel_comparisons() -> Vec<Comparison> {
    let of_table = |table: &'static Kernels| {
        let checks = table.self_test().into_iter();
        checks.map(|check| Comparison {
            kernels: table.name(),
            what: check.kernel.to_owned(),
            error: check.error,
            limit: check.limit,
            passed: check.passed(),
        })
    };
    Kernels::all().into_iter().flat_map(of_table).collect()
}

fn model_comparisons() -> Result<Vec<Comparison>, Failure> {
    let test = SelfTest::new(&Processor::new(Kernels::best(), 0)?)?;
    let mut comparisons = Vec::new();
    for table in Kernels::all() {
        let checks = test.run(&Processor::new(table, 0)?)?;
        comparisons.extend(checks.into_iter().map(|check| Comparison {
            kernels: table.name(),
            passed: check.passed(),
            what: check.tap,
            error: check.error,
            limit: check.limit,
        }));
    }
    Ok(comparisons)
}

fn print(report: &Report) {
    let Machine {
        processor,
        instructions,
        kernels,
        kernels_here,
        kernels_elsewhere,
        kernels_variable,
        threads,
        memory_bytes,
        memory_available_bytes,
    } = &report.machine;
    let listed = |names: &[&str]| match names {
        [] => "none".to_owned(),
        names => names.join(" "),
    };
    println!("cleandift {}\n\nmachine", report.version);
    let mut table = Table::new(2, ["processor", processor]);
    table.row(["instructions", &listed(instructions)]);
    table.row(["kernels", kernels.unwrap_or("none")]);
    table.row(["  also here", &listed(&others(kernels_here, *kernels))]);
    table.row(["  not on this machine", &listed(kernels_elsewhere)]);
    let variable = kernels_variable.as_deref().unwrap_or("not set");
    table.row([KERNELS_VARIABLE, variable]);
    let threads = threads.map_or("none".to_owned(), |threads| threads.to_string());
    table.row(["threads", &threads]);
    let memory = format!(
        "{}, {} available",
        bytes(*memory_bytes),
        bytes(*memory_available_bytes)
    );
    table.row(["memory", &memory]);
    table.row(["this folder", &report.folder.to_string()]);
    if let Some(models) = &report.models {
        table.row(["hub", &models.hub]);
        if models.offline {
            table.row(["", "offline: only the cache is used (HF_HUB_OFFLINE)"]);
        }
        let token = models.token.as_ref();
        let token = token.map_or("none".to_owned(), |origin| format!("from {origin}"));
        table.row(["  token", &token]);
        table.row(["  proxy", models.proxy.as_deref().unwrap_or("none")]);
        table.row(["model cache", &models.cache.path]);
        let held = format!(
            "{} repositories, {}",
            models.repositories,
            bytes(models.bytes)
        );
        table.row(["", &held]);
        table.row(["", &models.cache.to_string()]);
    }
    print!("{table}");

    println!("\nkernels against double precision: relative errors");
    print!("{}", comparison_table("kernel", &report.kernels));
    println!("\nbuilt-in random model against double precision: relative errors");
    print!("{}", comparison_table("tap", &report.model));
    match report.problems.len() {
        0 => println!("\nall is well"),
        1 => println!("\n1 problem"),
        count => println!("\n{count} problems"),
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let writable = match self.refusal {
            None => "writable",
            Some(_) => "NOT WRITABLE",
        };
        let free = self.free_bytes.map(bytes);
        let free = free.unwrap_or_else(|| "an unknown number of bytes".to_owned());
        write!(f, "{writable}, {free} free")
    }
}

fn others(here: &[&'static str], chosen: Option<&'static str>) -> Vec<&'static str> {
    let here = here.iter().copied();
    here.filter(|name| chosen != Some(name)).collect()
}

/// A row for each kernel or tap, a column for each instruction set.
fn comparison_table(title: &str, comparisons: &[Comparison]) -> Table {
    let mut sets: Vec<&str> = comparisons.iter().map(|check| check.kernels).collect();
    sets.dedup();
    let titles = [&[title][..], &sets, &["at most"]].concat();
    let mut table = Table::new(1, titles);
    let first = comparisons.iter().filter(|check| check.kernels == sets[0]);
    for Comparison { what, limit, .. } in first {
        let of_row = comparisons.iter().filter(|check| check.what == *what);
        let cells = of_row.map(|check| match check.passed {
            true => format!("{:.1e}", check.error),
            false => format!("FAILED {:.1e}", check.error),
        });
        let limit = format!("{limit:.0e}");
        table.row(std::iter::once(what.clone()).chain(cells).chain([limit]));
    }
    table
}
