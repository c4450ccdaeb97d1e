//! The residual block that the U-Net and the auto-encoder share.

use crate::graph::{Builder, Value};

/// What is the same for all residual blocks of a network.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResnetStyle {
    pub groups: usize,
    pub epsilon: f64,
}

/// `x + conv2(silu(norm2(conv1(silu(norm1(x))) + time)))`, with a 1x1 shortcut where the number of
/// channels changes. `time` is the activated time embedding.
pub(super) fn resnet(
    b: &mut Builder,
    x: Value,
    time: Option<Value>,
    name: &str,
    channels: usize,
    style: ResnetStyle,
) -> Value {
    let mut h = norm_silu(b, x, &format!("{name}.norm1"), style);
    h = b.convolution(h, &format!("{name}.conv1"), channels, 3);
    if let Some(time) = time {
        let bias = b.linear(time, &format!("{name}.time_emb_proj"), channels);
        h = b.add(h, bias);
    }
    h = norm_silu(b, h, &format!("{name}.norm2"), style);
    h = b.convolution(h, &format!("{name}.conv2"), channels, 3);
    let shortcut = if b.shape(x).channels == channels {
        x
    } else {
        b.convolution(x, &format!("{name}.conv_shortcut"), channels, 1)
    };
    b.add(h, shortcut)
}

/// Group norm, then SiLU.
pub(super) fn norm_silu(b: &mut Builder, x: Value, name: &str, style: ResnetStyle) -> Value {
    let h = b.group_norm(x, name, style.groups, style.epsilon);
    b.silu(h)
}

/// Twice as large (or as large as `extent`), then a 3x3 convolution.
pub(super) fn upsampler(
    b: &mut Builder,
    x: Value,
    name: &str,
    (height, width): (usize, usize),
) -> Value {
    let channels = b.shape(x).channels;
    let h = b.upsample(x, height, width);
    b.convolution(h, &format!("{name}.conv"), channels, 3)
}
