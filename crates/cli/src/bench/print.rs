//! A report for people.

use super::report::{Cost, LayerReport, Report, StageReport};
use crate::table::{Table, bytes};

/// Prints the report; `layers` tells whether every layer is listed.
pub fn report(report: &Report, layers: bool) {
    head(report);
    let titles = [
        "seconds", "first", "median", "min", "max", "GMAC", "GFLOP/s", "of peak",
    ];
    let mut table = Table::new(1, titles);
    for stage in &report.stages {
        let times = [stage.first, stage.median, stage.min, stage.max];
        let times = times.into_iter().map(|time| format!("{time:.3}"));
        let cells = std::iter::once(stage.name.to_owned()).chain(times);
        table.row(cells.chain(cost(&stage.cost)));
    }
    print!("\n{table}");
    for stage in report.stages.iter().filter(|stage| !stage.kinds.is_empty()) {
        println!("\n{}, {:.1} ms", stage.name, 1e3 * stage.median);
        let listed = if layers { &stage.layers } else { &stage.kinds };
        print!("{}", layer_table(listed, stage));
    }
    println!(
        "\n{:.3} s for {} (encoder and U-Net); {} of memory at most",
        report.seconds,
        pictures(report.images),
        report
            .peak_bytes
            .map_or("an unknown amount".to_owned(), bytes),
    );
    println!(
        "convolutions count as direct ones: a share of the peak above 100 % is multiplications \
         saved; match: {} points",
        report.points
    );
}

fn head(report: &Report) {
    let machine = &report.machine;
    let number = |count: Option<usize>| count.map_or("?".to_owned(), |count| count.to_string());
    let mut table = Table::new(2, ["model", &report.model]);
    let taps = report.taps.join(", ");
    let work = format!(
        "{} of {}x{} a pass, taps {taps}",
        pictures(report.images),
        report.width,
        report.height
    );
    table.row(["work", &work]);
    let processor = format!(
        "{}, {} cores, {} threads",
        machine.processor,
        number(machine.cores),
        number(machine.hardware_threads)
    );
    table.row(["machine", &processor]);
    let engine = format!("{} on {} threads", report.kernels, report.threads);
    table.row(["kernels", &engine]);
    let limits = &report.limits;
    let peak = format!(
        "{:.0} GFLOP/s, {:.0} on one thread",
        limits.all_threads_gflops, limits.one_thread_gflops
    );
    table.row(["peak", &peak]);
    let bandwidth = format!("{:.1} GB/s read", limits.read_gigabytes);
    table.row(["memory", &bandwidth]);
    print!("{table}");
}

fn pictures(count: usize) -> String {
    match count {
        1 => "1 picture".to_owned(),
        _ => format!("{count} pictures"),
    }
}

fn layer_table(layers: &[LayerReport], stage: &StageReport) -> Table {
    let named = layers.iter().any(|layer| layer.name.is_some());
    let columns = [
        "type",
        "ms",
        "share",
        "GMAC",
        "GFLOP/s",
        "of peak",
        "of memory",
    ];
    let titles = named.then_some("layer").into_iter().chain(columns);
    let mut table = Table::new(1 + usize::from(named), titles);
    for layer in layers {
        let time = [
            layer.kind.clone(),
            format!("{:.2}", 1e3 * layer.seconds),
            percent(layer.seconds / stage.median),
        ];
        let cells = layer.name.clone().into_iter().chain(time);
        let memory = percent(layer.cost.share_of_bandwidth);
        table.row(cells.chain(cost(&layer.cost)).chain([memory]));
    }
    let inside: f64 = layers.iter().map(|layer| layer.seconds).sum();
    let outside = stage.median - inside;
    let rest = [
        "outside of layers".to_owned(),
        format!("{:.2}", 1e3 * outside),
        percent(outside / stage.median),
    ];
    table.row(named.then(String::new).into_iter().chain(rest));
    table
}

/// Multiply-adds, speed, share of the peak; nothing where nothing is counted.
fn cost(cost: &Cost) -> [String; 3] {
    if cost.multiply_adds == 0 {
        return Default::default();
    }
    [
        format!("{:.2}", cost.multiply_adds as f64 / 1e9),
        format!("{:.0}", cost.gflops),
        percent(cost.share_of_peak),
    ]
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}
