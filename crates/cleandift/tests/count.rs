//! Multiply-adds and parameters of the full-size networks against figures worked out from the
//! published layer tables (in units of 10^9 multiply-adds, rounded to 0.1) and the published
//! numbers of parameters.

use cleandift::graph::{Count, Graph, LayerKind, count, prune};
use cleandift::networks::codec::LATENTS;
use cleandift::networks::config::{CodecConfig, UnetConfig};
use cleandift::networks::unet;
use serde_json::json;

fn sd15() -> UnetConfig {
    UnetConfig::from_json(&json!({
        "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 768, "in_channels": 4, "out_channels": 4, "sample_size": 64,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D",
            "CrossAttnUpBlock2D"],
    }))
    .unwrap()
}

fn sd21() -> UnetConfig {
    UnetConfig {
        heads: [Some(5), Some(10), Some(20), None],
        mid_heads: 20,
        cross_attention_dim: 1024,
        linear_projection: true,
        sample_size: 96,
        ..sd15()
    }
}

fn codec() -> CodecConfig {
    CodecConfig::from_json(&json!({
        "block_out_channels": [128, 256, 512, 512], "latent_channels": 4, "layers_per_block": 2,
    }))
    .unwrap()
}

fn unet_to(config: &UnetConfig, tap: &str, latent: usize) -> Count {
    let graph = unet::graph(config, latent, latent, 77);
    count(&prune(&graph, &[tap]).unwrap())
}

fn giga(count: &Count, kind: LayerKind) -> f64 {
    count.multiply_adds_of(kind) as f64 / 1e9
}

const US3: &str = "up_blocks.0.upsamplers.0";
const US6: &str = "up_blocks.1.upsamplers.0";
const US10: &str = "up_blocks.3.attentions.0";

use LayerKind::{
    Convolution1x1, Convolution3x3, CrossAttention, Linear, SelfAttention, StridedConvolution,
    UpsampledConvolution,
};

#[test]
fn multiply_adds_of_the_unet() {
    let rows = [
        (Convolution3x3, [57.6, 89.7, 140.7, 129.6, 201.8, 316.5]),
        (StridedConvolution, [2.8, 2.8, 2.8, 6.4, 6.4, 6.4]),
        (UpsampledConvolution, [3.8, 18.9, 34.0, 8.5, 42.5, 76.4]),
        (Convolution1x1, [1.1, 3.4, 7.3, 2.4, 7.6, 16.5]),
        (Linear, [52.4, 77.6, 111.2, 118.0, 174.6, 250.1]),
        (SelfAttention, [24.5, 25.0, 39.8, 124.1, 126.6, 201.4]),
        (CrossAttention, [0.7, 0.9, 1.4, 1.6, 2.0, 3.1]),
    ];
    let columns = [
        (64, US3),
        (64, US6),
        (64, US10),
        (96, US3),
        (96, US6),
        (96, US10),
    ];
    for (column, (latent, tap)) in columns.into_iter().enumerate() {
        let count = unet_to(&sd21(), tap, latent);
        for (kind, expected) in rows {
            let found = giga(&count, kind);
            assert!(
                (found - expected[column]).abs() < 0.06,
                "{tap} at {latent}: {kind} {found}"
            );
        }
    }
}

#[test]
fn multiply_adds_of_the_encoder() {
    let rows = [
        (Convolution3x3, [503.6, 1133.0]),
        (StridedConvolution, [29.0, 65.2]),
        (Convolution1x1, [4.3, 9.7]),
        (Linear, [4.3, 9.7]),
        (SelfAttention, [17.2, 87.0]),
    ];
    for (column, side) in [512, 768].into_iter().enumerate() {
        let count = count(&prune(&codec().encoder(side, side), &[LATENTS]).unwrap());
        for (kind, expected) in rows {
            let found = giga(&count, kind);
            assert!(
                (found - expected[column]).abs() < 0.06,
                "{side}: {kind} {found}"
            );
        }
    }
}

#[test]
fn projections_stored_as_convolutions_count_as_such() {
    let linear = unet_to(&sd21(), US6, 64);
    let stored = unet_to(&sd15(), US6, 64);
    let both = |count: &Count| giga(count, Linear) + giga(count, Convolution1x1);
    assert!((both(&linear) - both(&stored)).abs() < 1e-9);
    assert!(giga(&stored, Convolution1x1) > giga(&linear, Convolution1x1) + 5.0);
}

fn parameters(graph: &Graph) -> u64 {
    graph
        .parameters()
        .iter()
        .map(|parameter| parameter.size() as u64)
        .sum()
}

#[test]
fn parameters_of_the_whole_networks() {
    for (config, expected) in [(sd15(), 859_520_964), (sd21(), 865_910_724)] {
        let graph = unet::graph(&config, 64, 64, 77);
        assert_eq!(parameters(&graph), expected);
        assert_eq!(graph.parameters().len(), 686);
    }
    let encoder = parameters(&codec().encoder(64, 64));
    assert_eq!(encoder, 34_163_664);
    // The decoder alone is the whole without what the encoder has.
    let decoder = parameters(&codec().decoder(8, 8));
    assert_eq!(encoder + decoder, 83_653_863);
}

#[test]
fn parameters_read_to_a_tap() {
    // To us3: the sizes of conv_in, time_embedding, down_blocks, mid_block and up_blocks.0 in the
    // published files together.
    for (config, tap, millions) in [
        (sd15(), US3, 510.95),
        (sd21(), US3, 513.90),
        (sd15(), US6, 769.0),
        (sd21(), US6, 774.0),
        (sd15(), US10, 848.0),
        (sd21(), US10, 854.0),
    ] {
        let found = unet_to(&config, tap, 64).parameters() as f64 / 1e6;
        assert!((found - millions).abs() < 1.0, "{tap}: {found}");
    }
}
