//! Stable Diffusion's U-Net (diffusers' `UNet2DConditionModel`), layer by layer.

use super::config::UnetConfig;
use super::resnet::{ResnetStyle, norm_silu, resnet, upsampler};
use crate::graph::{Builder, Graph, Operation, Padding, Shape, Value};

/// Name of the graph's latent input, `[h, w, in_channels]`.
pub const LATENT: &str = "latent";
/// Name of the timestep input, one number, the same for all images of a batch.
pub const TIMESTEP: &str = "timestep";
/// Name of the text embeddings' input, `[tokens, cross_attention_dim]`, shared likewise.
pub const TEXT: &str = "text";
/// Name of the last output: the predicted noise or velocity.
pub const SAMPLE: &str = "sample";

/// Epsilon of the group norms that open a transformer.
const TRANSFORMER_EPSILON: f64 = 1e-6;
/// Epsilon of the transformers' layer norms.
const LAYER_NORM_EPSILON: f64 = 1e-5;

/// The whole network for latents of `height` x `width`, timestep and text shared by the batch.
/// Every residual block, transformer, sampler and the middle block is an output under its module
/// path; [`SAMPLE`] is the last. Residual blocks, transformers and samplers are the graph's blocks.
pub fn graph(config: &UnetConfig, height: usize, width: usize, tokens: usize) -> Graph {
    let mut b = Builder::new();
    let latent = b.input(LATENT, Shape::map(height, width, config.in_channels));
    let timestep = b.shared_input(TIMESTEP, Shape::vector(1));
    let text = b.shared_input(TEXT, Shape::tokens(tokens, config.cross_attention_dim));
    build(&mut b, config, latent, timestep, text);
    b.finish()
}

/// Adds the network to a graph: see [`graph`].
pub fn build(b: &mut Builder, config: &UnetConfig, latent: Value, timestep: Value, text: Value) {
    let time = time_embedding(b, config, timestep);
    b.mark();
    let mut unet = Unet {
        b,
        config,
        time,
        text,
        style: ResnetStyle {
            groups: config.groups,
            epsilon: config.epsilon,
        },
    };
    let mut h = unet.b.convolution(latent, "conv_in", config.channels[0], 3);
    unet.b.mark();
    let mut skips = vec![h];
    for level in 0..config.channels.len() {
        h = unet.down_block(level, h, &mut skips);
    }
    h = unet.mid_block(h);
    for level in (0..config.channels.len()).rev() {
        h = unet.up_block(level, h, &mut skips);
    }
    let style = unet.style;
    h = norm_silu(b, h, "conv_norm_out", style);
    h = b.convolution(h, "conv_out", config.out_channels, 3);
    b.output(SAMPLE, h);
    b.mark();
}

/// `silu(linear_2(silu(linear_1(features(t)))))`: every residual block begins with this SiLU, so
/// it is taken once.
fn time_embedding(b: &mut Builder, config: &UnetConfig, timestep: Value) -> Value {
    let width = config.channels[0] * 4;
    let mut h = b.time_features(timestep, config.channels[0]);
    h = b.linear(h, "time_embedding.linear_1", width);
    h = b.silu(h);
    h = b.linear(h, "time_embedding.linear_2", width);
    b.silu(h)
}

struct Unet<'b> {
    b: &'b mut Builder,
    config: &'b UnetConfig,
    time: Value,
    text: Value,
    style: ResnetStyle,
}

impl Unet<'_> {
    fn down_block(&mut self, level: usize, mut h: Value, skips: &mut Vec<Value>) -> Value {
        let block = format!("down_blocks.{level}");
        let channels = self.config.channels[level];
        for layer in 0..2 {
            h = self.layer(&block, layer, h, channels, self.config.heads[level]);
            skips.push(h);
        }
        if level + 1 < self.config.channels.len() {
            let name = format!("{block}.downsamplers.0");
            let conv = format!("{name}.conv");
            h = self
                .b
                .strided_convolution(h, &conv, channels, 3, 2, Padding::Same);
            self.block_output(name, h);
            skips.push(h);
        }
        h
    }

    fn mid_block(&mut self, h: Value) -> Value {
        let channels = self.b.shape(h).channels;
        let h = self.layer("mid_block", 0, h, channels, Some(self.config.mid_heads));
        let h = self.resnet("mid_block.resnets.1", h, channels);
        self.b.output("mid_block", h);
        h
    }

    /// Three layers, each taking a skip; up-sampled to the size of the next skip, which is twice
    /// as large unless the latent's side is not divisible by eight (diffusers' rule).
    fn up_block(&mut self, level: usize, mut h: Value, skips: &mut Vec<Value>) -> Value {
        let levels = self.config.channels.len();
        let block = format!("up_blocks.{}", levels - 1 - level);
        let channels = self.config.channels[level];
        for layer in 0..3 {
            let skip = skips.pop().expect("each layer of an up block has a skip");
            h = self.b.concatenate(h, skip);
            h = self.layer(&block, layer, h, channels, self.config.heads[level]);
        }
        if let Some(&next) = skips.last() {
            let name = format!("{block}.upsamplers.0");
            let shape = self.b.shape(next);
            h = upsampler(self.b, h, &name, (shape.height, shape.width));
            self.block_output(name, h);
        }
        h
    }

    /// A residual block and, where the level has attention, a transformer.
    fn layer(
        &mut self,
        block: &str,
        layer: usize,
        h: Value,
        channels: usize,
        heads: Option<usize>,
    ) -> Value {
        let h = self.resnet(&format!("{block}.resnets.{layer}"), h, channels);
        match heads {
            Some(heads) => self.transformer(&format!("{block}.attentions.{layer}"), h, heads),
            None => h,
        }
    }

    fn resnet(&mut self, name: &str, x: Value, channels: usize) -> Value {
        let h = resnet(self.b, x, Some(self.time), name, channels, self.style);
        self.block_output(name, h);
        h
    }

    fn transformer(&mut self, name: &str, x: Value, heads: usize) -> Value {
        let norm = format!("{name}.norm");
        let h = self
            .b
            .group_norm(x, &norm, self.config.groups, TRANSFORMER_EPSILON);
        let h = self.project(&format!("{name}.proj_in"), h);
        let h = self.transformer_block(&format!("{name}.transformer_blocks.0"), h, heads);
        let h = self.project(&format!("{name}.proj_out"), h);
        let h = self.b.add(h, x);
        self.block_output(name, h);
        h
    }

    /// Names the result of a block, and ends it.
    fn block_output(&mut self, name: impl Into<String>, value: Value) {
        self.b.output(name, value);
        self.b.mark();
    }

    fn project(&mut self, name: &str, x: Value) -> Value {
        let channels = self.b.shape(x).channels;
        if self.config.linear_projection {
            self.b.linear(x, name, channels)
        } else {
            self.b.convolution(x, name, channels, 1)
        }
    }

    /// Self-attention, cross-attention, gated perceptron, each on a normed input and added.
    fn transformer_block(&mut self, name: &str, mut h: Value, heads: usize) -> Value {
        let y = self
            .b
            .layer_norm(h, &format!("{name}.norm1"), LAYER_NORM_EPSILON);
        let y = self.attention(&format!("{name}.attn1"), y, y, heads);
        h = self.b.add(y, h);
        let y = self
            .b
            .layer_norm(h, &format!("{name}.norm2"), LAYER_NORM_EPSILON);
        let y = self.attention(&format!("{name}.attn2"), y, self.text, heads);
        h = self.b.add(y, h);
        let y = self
            .b
            .layer_norm(h, &format!("{name}.norm3"), LAYER_NORM_EPSILON);
        let channels = self.b.shape(y).channels;
        let y = self
            .b
            .linear(y, &format!("{name}.ff.net.0.proj"), 8 * channels);
        let y = self.b.gated(y, Operation::GatedGelu);
        let y = self.b.linear(y, &format!("{name}.ff.net.2"), channels);
        self.b.add(y, h)
    }

    fn attention(&mut self, name: &str, x: Value, source: Value, heads: usize) -> Value {
        let channels = self.b.shape(x).channels;
        let query = self.b.projection(x, &format!("{name}.to_q"), channels);
        let key = self.b.projection(source, &format!("{name}.to_k"), channels);
        let value = self.b.projection(source, &format!("{name}.to_v"), channels);
        let h = self.b.attention([query, key, value], name, heads, false);
        self.b.linear(h, &format!("{name}.to_out.0"), channels)
    }
}
