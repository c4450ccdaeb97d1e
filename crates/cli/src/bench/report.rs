//! What was measured, in plain data.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use cleandift::extractor::{Estimate, Extractor};
use cleandift::graph::{Count, LayerKind};
use serde::Serialize;

use super::limits::Medians;
use super::stage::{Stage, median};
use super::work::{GRID, Work};
use crate::machine;

/// Everything.
#[derive(Serialize)]
pub struct Report {
    version: &'static str,
    /// Seconds since 1970, UTC.
    unix_seconds: u64,
    pub machine: Machine,
    pub model: String,
    pub taps: Vec<String>,
    pub width: usize,
    pub height: usize,
    /// Pictures in one pass.
    pub images: usize,
    pub threads: usize,
    /// The instruction set in use.
    pub kernels: &'static str,
    /// What products are computed with.
    pub arithmetic: &'static str,
    /// Whether weights are kept in half precision where that is exact.
    pub low_memory: bool,
    pub limits: Medians,
    /// Points of the stage "match".
    pub points: usize,
    /// In the order of their work.
    pub stages: Vec<StageReport>,
    /// Encoder and U-Net of one pass, the medians' sum.
    pub seconds: f64,
    /// The most memory of the process.
    pub peak_bytes: Option<u64>,
}

/// Where it was measured.
#[derive(Serialize)]
pub struct Machine {
    pub processor: String,
    pub instructions: Vec<&'static str>,
    /// Cores, if the system tells, and threads that they offer.
    pub cores: Option<usize>,
    pub hardware_threads: Option<usize>,
    pub system: Option<String>,
}

/// One stage of a pass.
#[derive(Serialize)]
pub struct StageReport {
    pub name: &'static str,
    /// Seconds of the first run: weights are read and packed, programs compiled.
    pub first: f64,
    /// Seconds of the later runs.
    pub runs: Vec<f64>,
    pub median: f64,
    pub min: f64,
    pub max: f64,
    #[serde(flatten)]
    pub cost: Cost,
    /// By type of layer, the types that the stage has.
    pub kinds: Vec<LayerReport>,
    /// Every node that took time.
    pub layers: Vec<LayerReport>,
}

/// What was computed in some seconds, and how that compares with the limits.
#[derive(Clone, Copy, Serialize)]
pub struct Cost {
    /// A convolution counts as if it was computed directly, whatever the algorithm.
    pub multiply_adds: u64,
    /// 10^9 operations a second, two for each multiply-add.
    pub gflops: f64,
    /// Of all threads' peak: more than 1 if an algorithm saves multiplications.
    pub share_of_peak: f64,
    /// Bytes of parameters read once and of results written once, as f32: the least that moves.
    pub bytes: u64,
    /// These bytes over the time, of the bandwidth.
    pub share_of_bandwidth: f64,
}

/// One layer, or all of one type.
#[derive(Serialize)]
pub struct LayerReport {
    /// The node's place in the network; absent for a type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub kind: String,
    /// The median; for a type, the sum of its nodes' medians.
    pub seconds: f64,
    #[serde(flatten)]
    pub cost: Cost,
}

impl Report {
    /// Puts together what `work` has measured.
    pub fn new(model: String, extractor: &Extractor, work: Work, limits: Medians) -> Self {
        let images = work.images();
        let Estimate {
            encoder,
            condition,
            unet,
            text,
            ..
        } = &work.estimate;
        let nothing = Count::default();
        let text = text.as_ref().unwrap_or(&nothing);
        let stages = [
            ("text encoder", &work.text, text, 1),
            ("condition", &work.conditioning, condition, 1),
            ("encoder", &work.encoder, encoder, images),
            ("U-Net", &work.unet, unet, images),
            ("match", &work.matching, &nothing, 1),
        ];
        let stages: Vec<StageReport> = stages
            .into_iter()
            .filter_map(|(name, stage, count, images)| {
                StageReport::new(name, stage, count, images, limits)
            })
            .collect();
        let passes = |stage: &&StageReport| matches!(stage.name, "encoder" | "U-Net");
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            unix_seconds: now.map_or(0, |since| since.as_secs()),
            machine: Machine::at_hand(),
            model,
            taps: extractor
                .groups()
                .iter()
                .map(|group| group.name().to_owned())
                .collect(),
            width: work.canvas.width,
            height: work.canvas.height,
            images,
            threads: extractor.processor().threads(),
            kernels: extractor.processor().kernels().name(),
            arithmetic: extractor.processor().precision().arithmetic.name(),
            low_memory: extractor.processor().precision().half_weights,
            limits,
            points: GRID * GRID,
            seconds: stages.iter().filter(passes).map(|stage| stage.median).sum(),
            stages,
            peak_bytes: machine::peak_memory(),
        }
    }
}

impl Machine {
    fn at_hand() -> Self {
        let threads = std::thread::available_parallelism();
        Self {
            processor: machine::processor(),
            instructions: machine::instructions(),
            cores: sysinfo::System::physical_core_count(),
            hardware_threads: threads.ok().map(usize::from),
            system: sysinfo::System::long_os_version(),
        }
    }
}

impl StageReport {
    /// `None` if the stage was left out.
    fn new(
        name: &'static str,
        stage: &Stage,
        count: &Count,
        images: usize,
        limits: Medians,
    ) -> Option<Self> {
        let first = stage.first()?;
        let runs = stage.later();
        let seconds = median(&runs);
        let layers = layers(stage, count, images, limits);
        let bytes = layers.iter().map(|layer| layer.cost.bytes).sum();
        let multiply_adds = images as u64 * count.multiply_adds();
        Some(Self {
            name,
            first,
            median: seconds,
            min: runs.iter().copied().reduce(f64::min).unwrap_or(0.0),
            max: runs.iter().copied().reduce(f64::max).unwrap_or(0.0),
            runs,
            cost: Cost::new(multiply_adds, bytes, seconds, limits),
            kinds: kinds(count, &layers, limits),
            layers,
        })
    }
}

fn layers(stage: &Stage, count: &Count, images: usize, limits: Medians) -> Vec<LayerReport> {
    let nodes = count.nodes.iter().enumerate();
    let layer = |(index, node): (usize, &cleandift::graph::NodeCount)| {
        let seconds = stage.node(index);
        let images = images as u64;
        let bytes = (node.parameters + images * node.values) * size_of::<f32>() as u64;
        LayerReport {
            name: Some(node.name.clone()),
            kind: node.kind.to_string(),
            seconds,
            cost: Cost::new(images * node.multiply_adds, bytes, seconds, limits),
        }
    };
    let took_time = |layer: &LayerReport| layer.seconds > 0.0 || layer.cost.multiply_adds > 0;
    nodes.map(layer).filter(took_time).collect()
}

/// The layers summed by type, in the order of the types.
fn kinds(count: &Count, layers: &[LayerReport], limits: Medians) -> Vec<LayerReport> {
    let kinds: BTreeMap<LayerKind, String> = count
        .nodes
        .iter()
        .map(|node| (node.kind, node.kind.to_string()))
        .collect();
    let kinds = kinds.into_values().map(|kind| {
        let of_kind = || layers.iter().filter(|layer| layer.kind == kind);
        let seconds = of_kind().map(|layer| layer.seconds).sum();
        let multiply_adds = of_kind().map(|layer| layer.cost.multiply_adds).sum();
        let bytes = of_kind().map(|layer| layer.cost.bytes).sum();
        LayerReport {
            name: None,
            kind,
            seconds,
            cost: Cost::new(multiply_adds, bytes, seconds, limits),
        }
    });
    kinds.filter(|kind| kind.seconds > 0.0).collect()
}

impl Cost {
    fn new(multiply_adds: u64, bytes: u64, seconds: f64, limits: Medians) -> Self {
        let per_second = |amount: f64| match seconds > 0.0 {
            true => amount / seconds / 1e9,
            false => 0.0,
        };
        let gflops = per_second(2.0 * multiply_adds as f64);
        Self {
            multiply_adds,
            gflops,
            share_of_peak: gflops / limits.all_threads_gflops,
            bytes,
            share_of_bandwidth: per_second(bytes as f64) / limits.read_gigabytes,
        }
    }
}
