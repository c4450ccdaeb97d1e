//! The report as a person reads it.

use super::cost::{Cost, Stage};
use super::{PartSummary, Report};
use crate::table::{Table, bytes, millions};

/// Names of one kind that are listed; JSON has all.
const LISTED: usize = 10;

/// Prints the whole report.
pub fn report(report: &Report, nodes: bool) {
    println!("{}", report.model);
    let mut table = Table::new(2, ["layout", report.kind]);
    if let Some(base) = &report.base {
        table.row(["base", base]);
    }
    let known = match report.known_model {
        Some(known) => format!("{known}, full size"),
        None => "no: another network than Stable Diffusion 1.5's and 2.1's".to_owned(),
    };
    table.row(["recognised", &known]);
    if let Some(timestep) = report.timestep {
        table.row(["timestep".to_owned(), timestep.to_string()]);
    }
    if !report.heads.is_empty() {
        table.row(["heads", &report.heads.join(" ")]);
    }
    println!("{table}");

    println!("{}", parts(report));
    report.parts.iter().for_each(misfits);
    if let Some(cost) = &report.cost {
        stages(cost);
        if nodes {
            cost.stages.iter().for_each(each_node);
        }
    }
    if report.lacking != report.unusable {
        report
            .lacking
            .iter()
            .for_each(|lacking| println!("note: {lacking}"));
    }
    match &report.unusable {
        None => println!("usable"),
        Some(_) => println!("NOT USABLE"),
    }
}

fn parts(report: &Report) -> Table {
    let titles = [
        "part",
        "fits",
        "stored as",
        "config", // words
    ];
    let mut table = Table::new(titles.len(), titles);
    for part in &report.parts {
        let storage: Vec<&str> = part.storage.keys().map(String::as_str).collect();
        let stored = match part.tensors {
            0 => "-".to_owned(),
            count => format!(
                "{count} tensors, {} parameters, {} {}",
                millions(part.parameters),
                bytes(part.bytes),
                storage.join(" and "),
            ),
        };
        let fits = match (part.usable, part.unused.is_empty()) {
            (true, true) => "yes",
            (true, false) => "yes, some unused",
            (false, _) => "NO",
        };
        let config = part.config.as_deref().unwrap_or("-");
        let inside = config
            .strip_prefix(&report.model)
            .and_then(|rest| rest.strip_prefix(['/', '\\']));
        table.row([part.part, fits, &stored, inside.unwrap_or(config)]);
    }
    table
}

/// What does not fit in a part, unless everything does.
fn misfits(part: &PartSummary) {
    let misshaped = part.misshaped.iter().map(|wrong| {
        format!(
            "{} is {:?}, the config expects {:?}",
            wrong.name, wrong.found, wrong.expected
        )
    });
    let lists = [
        ("missing", part.missing.clone()),
        ("of another shape", misshaped.collect()),
        ("unused", part.unused.clone()),
    ];
    if let Some(error) = &part.error {
        println!("{}: {error}\n", part.part);
    }
    for (what, names) in lists {
        if names.is_empty() {
            continue;
        }
        println!("{}: {} {what}", part.part, names.len());
        names
            .iter()
            .take(LISTED)
            .for_each(|name| println!("  {name}"));
        if names.len() > LISTED {
            println!("  … and {} more: --json lists all", names.len() - LISTED);
        }
        println!();
    }
}

fn stages(cost: &Cost) {
    let unit = Unit::of(cost);
    println!(
        "one picture of {}x{}: multiply-adds in {}",
        cost.width, cost.height, unit.name
    );
    let names = cost.stages.iter().map(|stage| stage.name.as_str());
    let mut table = Table::new(1, std::iter::once("layer type").chain(names));
    let mut row = |title: &str, cell: &dyn Fn(&Stage) -> String| {
        let cells = cost.stages.iter().map(cell);
        table.row(std::iter::once(title.to_owned()).chain(cells));
    };
    let kinds = cost.stages.first().map_or(&[][..], |stage| &stage.layers);
    for (place, layer) in kinds.iter().enumerate() {
        row(&layer.kind, &|stage| {
            unit.show(stage.layers[place].multiply_adds)
        });
    }
    row("sum", &|stage| unit.show(stage.multiply_adds));
    row("parameters read", &|stage| millions(stage.parameters));
    if cost.stages.iter().any(|stage| stage.memory_bytes.is_some()) {
        row("memory, VAE and text included", &|stage| {
            stage.memory_bytes.map_or("".to_owned(), bytes)
        });
    }
    println!("{table}");
}

/// Published tables count in 10^9, with one decimal; small models vanish there.
struct Unit {
    name: &'static str,
    size: f64,
}

impl Unit {
    fn of(cost: &Cost) -> Self {
        let all = cost.stages.iter().map(|stage| stage.multiply_adds);
        match all.max().unwrap_or(0) {
            0..10_000_000_000 => Self {
                name: "10^6 (MMAC)",
                size: 1e6,
            },
            _ => Self {
                name: "10^9 (GMAC)",
                size: 1e9,
            },
        }
    }

    fn show(&self, multiply_adds: u64) -> String {
        match multiply_adds {
            0 => "-".to_owned(),
            count => format!("{:.1}", count as f64 / self.size),
        }
    }
}

fn each_node(stage: &Stage) {
    let titles = [&stage.name, "type", "10^6 MAC", "parameters", "values"];
    let mut table = Table::new(2, titles);
    for node in &stage.nodes {
        table.row([
            node.name.clone(),
            node.kind.clone(),
            format!("{:.1}", node.multiply_adds as f64 / 1e6),
            node.parameters.to_string(),
            node.values.to_string(),
        ]);
    }
    println!("{table}");
}
