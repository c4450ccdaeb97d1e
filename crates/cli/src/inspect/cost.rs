//! What it costs to run a model: multiply-adds by type of layer, parameters, memory.

use std::num::NonZeroUsize;

use cleandift::checkpoint::Checkpoint;
use cleandift::engine::cpu::Processor;
use cleandift::extractor::{Extractor, Model, Prompts, Request};
use cleandift::features::Tap;
use cleandift::graph::{self, Graph, LayerKind, Parameters, prune};
use cleandift::image::{Extent, Size};
use cleandift::networks::config::{CodecConfig, TextConfig, UnetConfig};
use cleandift::networks::{codec, unet};
use serde::Serialize;

use crate::failure::Failure;

/// The types of layer in the order of the table.
const KINDS: [LayerKind; 8] = [
    LayerKind::Convolution3x3,
    LayerKind::StridedConvolution,
    LayerKind::UpsampledConvolution,
    LayerKind::Convolution1x1,
    LayerKind::Linear,
    LayerKind::SelfAttention,
    LayerKind::CrossAttention,
    LayerKind::Conditioning,
];

/// Pixels per latent cell and tokens per prompt in Stable Diffusion, where the part that says it
/// is lacking.
const FACTOR: usize = 8;
const TOKENS: usize = 77;

/// What one picture costs.
#[derive(Serialize)]
pub struct Cost {
    /// The canvas.
    pub width: usize,
    /// The canvas.
    pub height: usize,
    /// The VAE's encoder if there is one, then the U-Net to each tap.
    pub stages: Vec<Stage>,
}

/// A network, or a part of it.
#[derive(Serialize)]
pub struct Stage {
    /// What to call it.
    pub name: String,
    /// Multiply-adds by type of layer, in the same order for each stage.
    pub layers: Vec<Layer>,
    /// All multiply-adds.
    pub multiply_adds: u64,
    /// Parameters that are read.
    pub parameters: u64,
    /// The most memory of a whole extraction of this tap, if the model can be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Each node that costs something.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Node>,
}

/// One type of layer.
#[derive(Serialize)]
pub struct Layer {
    /// Its name.
    pub kind: String,
    /// Its multiply-adds.
    pub multiply_adds: u64,
}

/// One node.
#[derive(Serialize)]
pub struct Node {
    /// Its place in the network.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// Its multiply-adds.
    pub multiply_adds: u64,
    /// Parameters it reads.
    pub parameters: u64,
    /// Values it writes.
    pub values: u64,
}

impl Cost {
    /// Leaves the nodes out.
    pub fn forget_nodes(&mut self) {
        self.stages.iter_mut().for_each(|stage| stage.nodes.clear());
    }
}

/// Counts from the configs alone; the memory needs a model that can be used.
pub fn count(
    checkpoint: &Checkpoint,
    model: Option<&Model>,
    taps: &str,
    size: Option<Size>,
) -> Result<Cost, Failure> {
    let config = UnetConfig::from_json(&checkpoint.unet().config)?;
    let codec = checkpoint.vae().ok();
    let codec = codec.and_then(|vae| CodecConfig::from_json(&vae.config).ok());
    let factor = codec.as_ref().map_or(FACTOR, CodecConfig::factor);
    let canvas = canvas(size, factor, config.sample_size)?;
    let (rows, columns) = (canvas.height / factor, canvas.width / factor);
    let graph = unet::graph(&config, rows, columns, tokens(checkpoint));

    let mut stages = Vec::new();
    if let Some(codec) = codec {
        let encoder = codec.encoder(canvas.height, canvas.width);
        stages.push(stage("VAE encoder", &encoder, codec::LATENTS)?);
    }
    for tap in Tap::find_all(taps, &graph)? {
        let name = format!("U-Net to {}", tap.name());
        let mut stage = stage(&name, &graph, tap.module())?;
        stage.memory_bytes = model
            .map(|model| memory(model, tap.name(), canvas))
            .transpose()?;
        stages.push(stage);
    }
    Ok(Cost {
        width: canvas.width,
        height: canvas.height,
        stages,
    })
}

fn canvas(size: Option<Size>, factor: usize, sample_size: usize) -> Result<Extent, Failure> {
    let side = factor * sample_size;
    let multiple = NonZeroUsize::new(factor).expect("a codec's factor is positive");
    match size.unwrap_or(Extent::new(side, side).into()) {
        size @ Size::Exact(extent) => Ok(size.canvas(extent, multiple)?),
        size => Err(Failure::new(format!(
            "--size {size}: there is no picture here; give a size such as {side}"
        ))),
    }
}

fn tokens(checkpoint: &Checkpoint) -> usize {
    let Ok(part) = checkpoint.text_encoder() else {
        return TOKENS;
    };
    match TextConfig::from_json(&part.config) {
        Ok(TextConfig::Clip(config)) => config.max_position_embeddings,
        Ok(TextConfig::ClassTable { .. }) => match part.weights.shape("table") {
            Some(&[_, tokens, _]) => tokens,
            _ => TOKENS,
        },
        Err(_) => TOKENS,
    }
}

fn stage(name: &str, graph: &Graph, output: &str) -> Result<Stage, Failure> {
    let count = graph::count(&prune(graph, &[output])?);
    let layers = KINDS.map(|kind| Layer {
        kind: kind.to_string(),
        multiply_adds: count.multiply_adds_of(kind),
    });
    let nodes = count.nodes.iter();
    let nodes = nodes.filter(|node| node.multiply_adds + node.parameters > 0);
    Ok(Stage {
        name: name.to_owned(),
        layers: layers.into(),
        multiply_adds: count.multiply_adds(),
        parameters: count.parameters(),
        memory_bytes: None,
        nodes: nodes
            .map(|node| Node {
                name: node.name.clone(),
                kind: node.kind.to_string(),
                multiply_adds: node.multiply_adds,
                parameters: node.parameters,
                values: node.values,
            })
            .collect(),
    })
}

fn memory(model: &Model, tap: &str, canvas: Extent) -> Result<u64, Failure> {
    let request = Request {
        taps: Some(tap.to_owned()),
        ..Request::default()
    };
    let extractor = Extractor::new(model.clone(), request, Processor::from_env(0)?)?;
    Ok(extractor.estimate(canvas, 1, Prompts::One)?.peak_bytes as u64)
}
