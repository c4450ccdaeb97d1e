//! Stable Diffusion's auto-encoder (diffusers' `AutoencoderKL`), layer by layer.

use super::config::VaeConfig;
use super::resnet::{ResnetStyle, norm_silu, resnet, upsampler};
use crate::graph::{Builder, Padding, Value};

/// Epsilon of all its group norms.
const EPSILON: f64 = 1e-6;

fn style(config: &VaeConfig) -> ResnetStyle {
    ResnetStyle {
        groups: config.groups,
        epsilon: EPSILON,
    }
}

/// From an image `[H, W, 3]` in [-1, 1] to the moments of the latent, `[h, w, 2 * latent]`: means,
/// then logarithms of the variances.
pub(super) fn encoder(b: &mut Builder, config: &VaeConfig, image: Value) -> Value {
    let style = style(config);
    let mut h = b.convolution(image, "encoder.conv_in", config.channels[0], 3);
    for (level, &channels) in config.channels.iter().enumerate() {
        let block = format!("encoder.down_blocks.{level}");
        for layer in 0..config.layers {
            h = resnet(
                b,
                h,
                None,
                &format!("{block}.resnets.{layer}"),
                channels,
                style,
            );
        }
        if level + 1 < config.channels.len() {
            let name = format!("{block}.downsamplers.0.conv");
            h = b.strided_convolution(h, &name, channels, 3, 2, Padding::RightBottom);
        }
    }
    h = mid_block(b, h, "encoder.mid_block", style);
    h = norm_silu(b, h, "encoder.conv_norm_out", style);
    h = b.convolution(h, "encoder.conv_out", 2 * config.latent_channels, 3);
    if config.quant {
        b.convolution(h, "quant_conv", 2 * config.latent_channels, 1)
    } else {
        h
    }
}

/// From an unscaled latent `[h, w, latent]` to an image `[H, W, 3]`, about in [-1, 1].
pub(super) fn decoder(b: &mut Builder, config: &VaeConfig, latent: Value) -> Value {
    let style = style(config);
    let mut h = latent;
    if config.post_quant {
        h = b.convolution(h, "post_quant_conv", config.latent_channels, 1);
    }
    let deepest = config.channels[config.channels.len() - 1];
    h = b.convolution(h, "decoder.conv_in", deepest, 3);
    h = mid_block(b, h, "decoder.mid_block", style);
    for (place, &channels) in config.channels.iter().rev().enumerate() {
        let block = format!("decoder.up_blocks.{place}");
        for layer in 0..=config.layers {
            h = resnet(
                b,
                h,
                None,
                &format!("{block}.resnets.{layer}"),
                channels,
                style,
            );
        }
        if place + 1 < config.channels.len() {
            let shape = b.shape(h);
            let twice = (2 * shape.height, 2 * shape.width);
            h = upsampler(b, h, &format!("{block}.upsamplers.0"), twice);
        }
    }
    h = norm_silu(b, h, "decoder.conv_norm_out", style);
    b.convolution(h, "decoder.conv_out", 3, 3)
}

/// Two residual blocks around an attention of one head over all pixels.
fn mid_block(b: &mut Builder, x: Value, name: &str, style: ResnetStyle) -> Value {
    let channels = b.shape(x).channels;
    let h = resnet(b, x, None, &format!("{name}.resnets.0"), channels, style);
    let attention = format!("{name}.attentions.0");
    let y = b.group_norm(
        h,
        &format!("{attention}.group_norm"),
        style.groups,
        style.epsilon,
    );
    let [query, key, value] =
        ["to_q", "to_k", "to_v"].map(|part| b.linear(y, &format!("{attention}.{part}"), channels));
    let y = b.attention([query, key, value], &attention, 1, false);
    let y = b.linear(y, &format!("{attention}.to_out.0"), channels);
    let h = b.add(y, h);
    resnet(b, h, None, &format!("{name}.resnets.1"), channels, style)
}
