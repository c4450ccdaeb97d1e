//! Models by name: which arguments are names, what is in the cache, and how a download looks.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use cleandift::hub::{Event, Hub, HubError, Located, Name, SHORT_NAMES, Settings};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::embedded;
use crate::failure::{Ending, Failure};
use crate::table::{Table, bytes};

/// What to fetch.
#[derive(Args)]
pub struct PullArguments {
    /// Short names (see `models list`), or org/repo[:file][@revision]
    #[arg(required = true, value_name = "NAME")]
    names: Vec<Name>,
}

/// How to list.
#[derive(Args)]
pub struct ListArguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Brings models up to date and prints where they lie.
pub fn pull(arguments: &PullArguments) -> Result<Ending, Failure> {
    let hub = Hub::new(Settings::from_env()?);
    for name in &arguments.names {
        let located = shown(|watch| hub.pull(name, watch))?;
        println!("{}", located.model.display());
        if let Some(base) = located.base {
            println!("{}", base.display());
        }
    }
    Ok(Ending::Complete)
}

/// The files behind `--model` and `--base`: paths, or names, which are fetched if need be.
pub fn locate(model: &Path, base: Option<&Path>) -> Result<Located, Failure> {
    let base = match base {
        Some(base) => Some(locate_one(base, false)?.model),
        None => None,
    };
    // A base that was given stands for the one that the name knows.
    let located = locate_one(model, base.is_none())?;
    Ok(Located {
        base: base.or(located.base),
        ..located
    })
}

/// A path if there is one; else, if it can be one, a name.
fn locate_one(argument: &Path, with_base: bool) -> Result<Located, Failure> {
    let name = argument.to_str().and_then(|text| text.parse::<Name>().ok());
    let Some(name) = name.filter(|_| !argument.exists() && !is_named_as_file(argument)) else {
        return Ok(Located {
            model: argument.to_path_buf(),
            base: None,
        });
    };
    let name = if with_base { name } else { name.alone() };
    let hub = Hub::new(Settings::from_env()?);
    // What has a short name is meant as one; all else may be a path with a mistake in it.
    let is_short = SHORT_NAMES
        .iter()
        .any(|short| argument == Path::new(short.name));
    shown(|watch| hub.locate(&name, watch)).map_err(|error| match is_short {
        true => error.into(),
        false => Failure::new(format!(
            "{}: no such file or folder here; as a name: {}",
            argument.display(),
            Failure::from(error)
        )),
    })
}

/// Whether the end of a path is that of a file of weights, which no repository is called:
/// `org/repo:file.safetensors` has its repository in front.
fn is_named_as_file(argument: &Path) -> bool {
    let ending = argument.extension().and_then(|ending| ending.to_str());
    let is_weights = ending.is_some_and(|ending| {
        ["safetensors", "ckpt", "bin", "pt", "pth"].contains(&ending.to_lowercase().as_str())
    });
    is_weights && !argument.to_string_lossy().contains(':')
}

/// What `models list` knows.
#[derive(Serialize)]
struct List {
    cache: PathBuf,
    names: Vec<Entry>,
    /// Models that are inside the program.
    inside: Vec<&'static str>,
    /// Everything of models that the cache holds, whoever put it there.
    repositories: Vec<Cached>,
}

#[derive(Serialize)]
struct Entry {
    name: &'static str,
    model: &'static str,
    source: &'static str,
    /// Where it lies, if all of it is in the cache.
    cached: Option<PathBuf>,
}

#[derive(Serialize)]
struct Cached {
    repository: String,
    bytes: u64,
}

/// Prints the short names, and what the cache holds.
pub fn list(arguments: &ListArguments) -> Result<Ending, Failure> {
    let hub = Hub::new(Settings::from_env()?);
    let names = SHORT_NAMES.iter().map(|short| Entry {
        name: short.name,
        model: short.words,
        source: short.sources[0],
        cached: hub.cached(&short.into()).map(|located| located.model),
    });
    let repositories = hub.repositories().into_iter();
    let list = List {
        cache: hub.settings().cache.clone(),
        names: names.collect(),
        inside: embedded::names().collect(),
        repositories: repositories
            .map(|(repository, bytes)| Cached { repository, bytes })
            .collect(),
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&list)?);
    } else {
        print(&list);
    }
    Ok(Ending::Complete)
}

fn print(list: &List) {
    let mut table = Table::new(4, ["name", "model", "source", "here"]);
    for entry in &list.names {
        let here = if entry.cached.is_some() { "yes" } else { "no" };
        table.row([entry.name, entry.model, entry.source, here]);
    }
    print!("{table}");
    if !list.inside.is_empty() {
        println!("\ninside the program: {}", list.inside.join(", "));
    }
    println!("\nin the cache {}", list.cache.display());
    let mut table = Table::new(1, ["repository", "size"]);
    for Cached {
        repository,
        bytes: size,
    } in &list.repositories
    {
        table.row([repository.clone(), bytes(*size)]);
    }
    match list.repositories.is_empty() {
        true => println!("  nothing yet"),
        false => print!("{table}"),
    }
}

type Watch<'w> = &'w mut dyn FnMut(Event<'_>) -> bool;

/// Does work that may download, and shows how it goes.
fn shown<T>(work: impl FnOnce(Watch<'_>) -> Result<T, HubError>) -> Result<T, HubError> {
    let mut display = Display::new();
    let result = work(&mut |event| {
        display.show(event);
        true
    });
    display.end_file();
    result
}

/// A download on standard error: a bar on a terminal, a line now and then elsewhere.
struct Display {
    terminal: bool,
    /// The file that comes, its bar, and where it began.
    file: String,
    bar: Option<ProgressBar>,
    begun: (Instant, u64),
    said: Instant,
    /// What was last told, so that it is told once.
    told: String,
}

/// Lines elsewhere than on a terminal come that often.
const INTERVAL: Duration = Duration::from_secs(10);

impl Display {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            terminal: std::io::stderr().is_terminal(),
            file: String::new(),
            bar: None,
            begun: (now, 0),
            said: now,
            told: String::new(),
        }
    }

    fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Received { file, bytes, total } => {
                if self.file != file {
                    self.begin_file(file, bytes, total);
                }
                self.advance(bytes, total);
            }
            Event::Waiting { file, reason } => self.tell(format!("{file}: {reason}: waiting")),
            Event::Passed { reason, .. } => self.tell(format!("{reason}; asking the next source")),
            _ => {}
        }
    }

    fn begin_file(&mut self, file: &str, present: u64, total: Option<u64>) {
        self.end_file();
        file.clone_into(&mut self.file);
        self.begun = (Instant::now(), present);
        self.said = Instant::now();
        if self.terminal {
            let style = "{msg}  {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
            let style = ProgressStyle::with_template(style).expect("the template is well formed");
            let bar = ProgressBar::new(total.unwrap_or(0)).with_style(style);
            self.bar = Some(bar.with_message(self.file.clone()).with_position(present));
        } else {
            let size = total.map_or("of unknown size".to_owned(), bytes);
            let from = match present {
                0 => String::new(),
                present => format!(", from {} on", bytes(present)),
            };
            eprintln!("fetching {file}, {size}{from}");
        }
    }

    fn advance(&mut self, received: u64, total: Option<u64>) {
        if let Some(bar) = &self.bar {
            bar.set_position(received);
        } else if self.said.elapsed() >= INTERVAL {
            self.said = Instant::now();
            let (begun, present) = self.begun;
            let rate = (received - present.min(received)) as f64 / begun.elapsed().as_secs_f64();
            let whole = total.map_or(String::new(), |total| format!(" of {}", bytes(total)));
            eprintln!(
                "{}: {}{whole}, {}/s",
                self.file,
                bytes(received),
                bytes(rate as u64)
            );
        }
    }

    fn tell(&mut self, line: String) {
        if self.told != line {
            match &self.bar {
                Some(bar) => bar.suspend(|| eprintln!("{line}")),
                None => eprintln!("{line}"),
            }
            self.told = line;
        }
    }

    fn end_file(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.file.clear();
    }
}
