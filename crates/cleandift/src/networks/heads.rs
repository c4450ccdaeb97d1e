//! CleanDIFT's projection heads: from the student's tap to the teacher's tap at a timestep
//! (arXiv 2412.03439, section 3.2; layers as in the published checkpoints).

use crate::graph::{Builder, Graph, Operation, Parameter, Parameters, Shape, Value};

/// Name of the timestep input, one number, shared by the batch.
pub const TIMESTEP: &str = "timestep";

/// The key under which a file's metadata says how its heads are conditioned, where its tensors
/// cannot: [`FILM_INTENDED`].
pub const HEADS_NORM: &str = "heads_norm";

/// The value of [`HEADS_NORM`] for [`HeadNorm::FilmIntended`].
pub const FILM_INTENDED: &str = "film-intended";

/// Name of the frequencies of the timestep's Fourier features: drawn once, never trained.
pub const FREQUENCIES: &str = "time_emb.weight";

/// The last timestep: the condition sees `t / 999`.
const LAST_TIMESTEP: f64 = 999.0;
const EPSILON: f64 = 1e-6;

/// How a head's block is conditioned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNorm {
    /// Root-mean-square norm whose scale is `linear(condition) + 1`: the published checkpoints.
    AdaRms,
    /// `scale * x + scale`, no norm: the published FiLM code, whose shift is the scale by a slip.
    Film,
    /// `scale * x + shift`, no norm: FiLM as the paper means it. Its tensors look the same.
    FilmIntended,
}

/// What new heads are made like, apart from the taps that they are for.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadsDesign {
    /// How their blocks are conditioned.
    pub norm: HeadNorm,
    /// Whether their blocks are SwiGLU perceptrons; else a SiLU follows the first map.
    pub gated: bool,
    /// Blocks of each head.
    pub depth: usize,
    /// Inner width of a block, as a multiple of the tap's channels.
    pub expansion: f64,
    /// Width of the condition: an even number.
    pub width: usize,
}

impl Default for HeadsDesign {
    /// Those of the published checkpoints.
    fn default() -> Self {
        Self {
            norm: HeadNorm::AdaRms,
            gated: true,
            depth: 3,
            expansion: 1.0,
            width: 256,
        }
    }
}

/// Blocks of the mapping network, and their inner width as a multiple of the condition's.
const MAPPING_DEPTH: usize = 2;
const MAPPING_EXPANSION: usize = 3;

/// The shapes of the heads of one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadsConfig {
    /// Width of the condition.
    width: usize,
    /// Inner width of the mapping network's blocks.
    mapping_inner: usize,
    /// Blocks of the mapping network.
    mapping_depth: usize,
    norm: HeadNorm,
    /// Heads by tap.
    heads: Vec<HeadShape>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct HeadShape {
    tap: String,
    channels: usize,
    inner: usize,
    gated: bool,
    depth: usize,
}

/// Heads whose tensors do not fit together.
#[derive(Debug, thiserror::Error)]
#[error("projection heads: `{name}` {problem}")]
pub struct HeadsError {
    name: String,
    problem: String,
}

impl HeadsConfig {
    /// New heads for taps with their channels.
    pub fn new(design: &HeadsDesign, taps: &[(&str, usize)]) -> Self {
        let heads = taps.iter().map(|&(tap, channels)| HeadShape {
            tap: tap.to_owned(),
            channels,
            inner: (channels as f64 * design.expansion) as usize,
            gated: design.gated,
            depth: design.depth,
        });
        Self {
            width: design.width,
            mapping_inner: MAPPING_EXPANSION * design.width,
            mapping_depth: MAPPING_DEPTH,
            norm: design.norm,
            heads: heads.collect(),
        }
    }

    /// Reads widths and depths off the tensors `adapters.*`, `mapping.*`, `time_*`.
    pub fn from_weights(weights: &dyn Parameters) -> Result<Self, HeadsError> {
        let matrix = |name: &str| match weights.shape(name) {
            Some(&[rows, columns]) => Ok((rows, columns)),
            Some(shape) => Err(error(
                name,
                format!("has the shape {shape:?}, expected a matrix"),
            )),
            None => Err(error(name, "is missing".to_owned())),
        };
        let (width, _) = matrix("time_in_proj.weight")?;
        let (_, mapping_inner) = matrix("mapping.blocks.0.down_proj.weight")?;
        let mapping_depth = depth(weights, |i| format!("mapping.blocks.{i}.down_proj.weight"));
        let mut taps: Vec<&str> = weights
            .names()
            .iter()
            .filter_map(|name| name.strip_prefix("adapters.")?.split('.').next())
            .collect();
        taps.sort_unstable();
        taps.dedup();
        let mut norm = HeadNorm::AdaRms;
        let mut heads = Vec::new();
        for tap in taps {
            let part = |part: &str| format!("adapters.{tap}.layers.0.{part}.weight");
            let (channels, inner) = matrix(&part("down_proj"))?;
            let (up, _) = matrix(&part("up_proj"))?;
            let (scales, _) = matrix(&part("norm.linear"))?;
            if scales == 2 * channels {
                norm = HeadNorm::Film;
            }
            heads.push(HeadShape {
                tap: tap.to_owned(),
                channels,
                inner,
                gated: up == 2 * inner,
                depth: depth(weights, |i| {
                    format!("adapters.{tap}.layers.{i}.down_proj.weight")
                }),
            });
        }
        Ok(Self {
            width,
            mapping_inner,
            mapping_depth,
            norm,
            heads,
        })
    }

    /// The same heads with FiLM as the paper means it, if they are FiLM: their tensors cannot say.
    pub fn film_intended(mut self) -> Self {
        if self.norm == HeadNorm::Film {
            self.norm = HeadNorm::FilmIntended;
        }
        self
    }

    /// How the heads are conditioned.
    pub fn norm(&self) -> HeadNorm {
        self.norm
    }

    /// All parameters, the buffer [`FREQUENCIES`] among them.
    pub fn parameters(&self) -> Vec<Parameter> {
        let heads = self.heads.iter();
        let taps: Vec<(&str, Shape)> = heads
            .map(|head| (head.tap.as_str(), Shape::vector(head.channels)))
            .collect();
        let graph = self.graph(&taps).expect("each of these taps has its head");
        graph.parameters().into_iter().cloned().collect()
    }

    /// The taps that have a head.
    pub fn taps(&self) -> impl Iterator<Item = &str> {
        self.heads.iter().map(|head| head.tap.as_str())
    }

    /// The mapping network and the head of each of `taps`, for maps of the given shapes: inputs
    /// `TAP` per image, [`TIMESTEP`] shared; outputs under the taps' names. `None` if a tap has
    /// no head or another number of channels.
    pub fn graph(&self, taps: &[(&str, Shape)]) -> Option<Graph> {
        let mut b = Builder::new();
        let timestep = b.shared_input(TIMESTEP, Shape::vector(1));
        let condition = self.mapping(&mut b, timestep);
        for (tap, shape) in taps {
            let x = b.input(tap, *shape);
            let y = self.project(&mut b, tap, x, condition)?;
            b.output(*tap, y);
        }
        Some(b.finish())
    }

    /// Adds the head of `tap` to a graph, for a map `x` and a condition. `None` if the tap has no
    /// head, or `x` another number of channels.
    pub(super) fn project(
        &self,
        b: &mut Builder,
        tap: &str,
        x: Value,
        condition: Value,
    ) -> Option<Value> {
        let head = self.heads.iter().find(|head| head.tap == tap)?;
        (head.channels == b.shape(x).channels).then(|| self.head(b, head, x, condition))
    }

    /// The condition `[width]` of a timestep.
    pub(super) fn mapping(&self, b: &mut Builder, timestep: Value) -> Value {
        let u = b.affine(timestep, &[1.0 / LAST_TIMESTEP], &[0.0]);
        let h = b.fourier_features(u, FREQUENCIES, self.width / 2);
        let h = b.projection(h, "time_in_proj", self.width);
        let mut h = self.scaled_norm(b, h, "mapping.in_norm");
        for block in 0..self.mapping_depth {
            let name = format!("mapping.blocks.{block}");
            let y = self.scaled_norm(b, h, &format!("{name}.norm"));
            let y = b.projection(y, &format!("{name}.up_proj"), 2 * self.mapping_inner);
            let y = b.gated(y, Operation::GatedSilu);
            let y = b.projection(y, &format!("{name}.down_proj"), self.width);
            h = b.add(h, y);
        }
        self.scaled_norm(b, h, "mapping.out_norm")
    }

    fn scaled_norm(&self, b: &mut Builder, x: Value, name: &str) -> Value {
        let stored = [self.width];
        let scale = b.constant(&format!("{name}.scale"), &stored, Shape::vector(self.width));
        b.rms_norm(x, scale, name, EPSILON)
    }

    fn head(&self, b: &mut Builder, head: &HeadShape, mut x: Value, condition: Value) -> Value {
        for layer in 0..head.depth {
            let name = format!("adapters.{}.layers.{layer}", head.tap);
            let norm = format!("{name}.norm");
            let linear = format!("{norm}.linear");
            let y = match self.norm {
                HeadNorm::AdaRms => {
                    let scale = b.projection(condition, &linear, head.channels);
                    let scale = b.affine(scale, &[1.0], &[1.0]);
                    b.rms_norm(x, scale, &norm, EPSILON)
                }
                HeadNorm::Film | HeadNorm::FilmIntended => {
                    let both = b.projection(condition, &linear, 2 * head.channels);
                    let scale = b.slice(both, 0, head.channels);
                    let shift = match self.norm {
                        HeadNorm::FilmIntended => b.slice(both, head.channels, head.channels),
                        _ => scale,
                    };
                    let y = b.multiply(x, scale);
                    b.add(y, shift)
                }
            };
            let up = format!("{name}.up_proj");
            let y = if head.gated {
                let y = b.projection(y, &up, 2 * head.inner);
                b.gated(y, Operation::GatedSilu)
            } else {
                let y = b.projection(y, &up, head.inner);
                b.silu(y)
            };
            let y = b.projection(y, &format!("{name}.down_proj"), head.channels);
            x = b.add(y, x);
        }
        x
    }
}

fn depth(weights: &dyn Parameters, name: impl Fn(usize) -> String) -> usize {
    (0..)
        .take_while(|&i| weights.shape(&name(i)).is_some())
        .count()
}

fn error(name: &str, problem: String) -> HeadsError {
    HeadsError {
        name: name.to_owned(),
        problem,
    }
}
