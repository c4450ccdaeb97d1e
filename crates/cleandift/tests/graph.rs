//! The readers of a graph, on the U-Net: what pruning and hoisting leave must compute the same.

mod common;

use cleandift::graph::{
    Graph, Hoisted, Named, Shape, Tensor, check, count, hoist, prune, reference,
};
use cleandift::networks::config::{CodecConfig, TextConfig, UnetConfig, VaeConfig};
use cleandift::networks::unet::{self, LATENT, TEXT, TIMESTEP};
use common::{model, relative_error};
use serde_json::{Value, json};

fn wave(shape: Shape, frequency: f64) -> Tensor<f64> {
    Tensor::new(
        1,
        shape,
        (0..shape.size())
            .map(|i| (i as f64 * frequency).sin())
            .collect(),
    )
}

fn find<'o>(outputs: &'o [Named<f64>], name: &str) -> &'o [f64] {
    &outputs
        .iter()
        .find(|(found, _)| found == name)
        .unwrap()
        .1
        .data
}

#[test]
fn pruned_and_hoisted_graphs_compute_the_same() {
    let model = model("tiny-sd21").unet;
    let whole = unet::graph(&model.config, 8, 16, 5);
    let latent = wave(Shape::map(8, 16, 4), 0.37);
    let text = wave(Shape::tokens(5, 32), 0.71);
    let timestep = Tensor::new(1, Shape::vector(1), vec![261.0]);
    let inputs = [(LATENT, &latent), (TIMESTEP, &timestep), (TEXT, &text)];
    let everything = reference::run(&whole, &model.weights, &inputs).unwrap();

    let taps = ["up_blocks.1.upsamplers.0", "mid_block"];
    let pruned = prune(&whole, &taps).unwrap();
    assert!(pruned.nodes().len() < whole.nodes().len());
    let Hoisted { condition, main } = hoist(&pruned);
    assert!(
        main.nodes()
            .iter()
            .all(|node| !node.shared || node.inputs.is_empty())
    );

    let conditions = reference::run(&condition, &model.weights, &inputs[1..]).unwrap();
    let mut inputs = vec![(LATENT, &latent)];
    inputs.extend(
        conditions
            .iter()
            .map(|(name, value)| (name.as_str(), value)),
    );
    let outputs = reference::run(&main, &model.weights, &inputs).unwrap();
    assert_eq!(outputs.len(), taps.len());
    for tap in taps {
        let error = relative_error(find(&outputs, tap), find(&everything, tap));
        assert!(error == 0.0, "{tap}: {error:e}");
    }
}

#[test]
fn a_tap_needs_nothing_behind_it() {
    let model = model("tiny-sd21").unet;
    let whole = unet::graph(&model.config, 8, 8, 5);
    let cost = |graph: &Graph| (count(graph).multiply_adds(), graph.parameters().len());
    let costs = [
        "mid_block",
        "up_blocks.0.upsamplers.0",
        "up_blocks.3.attentions.0",
        "sample",
    ]
    .map(|tap| cost(&prune(&whole, &[tap]).unwrap()));
    assert!(
        costs.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1),
        "{costs:?}"
    );
    assert_eq!(costs[3], cost(&whole));
    assert!(prune(&whole, &["up_blocks.9"]).is_err());
}

#[test]
fn the_report_names_what_is_wrong() {
    let model = model("tiny-sd21").unet;
    let wider = UnetConfig {
        cross_attention_dim: 48,
        ..model.config.clone()
    };
    let graph = unet::graph(&wider, 8, 8, 5);
    let report = check(&[&graph], &model.weights);
    assert!(!report.is_usable() && report.missing.is_empty() && report.unused.is_empty());
    // Keys and values of the prompt: one pair for each of the seven transformers on the way down
    // and in the middle, and of the nine on the way up.
    assert_eq!(report.misshaped.len(), 2 * (6 + 1 + 9));
    assert_eq!(report.misshaped[0].expected[1], 48);
    assert_eq!(report.misshaped[0].found[1], 32);
}

fn sd15() -> Value {
    json!({
        "_class_name": "UNet2DConditionModel", "act_fn": "silu", "attention_head_dim": 8,
        "block_out_channels": [320, 640, 1280, 1280], "cross_attention_dim": 768,
        "in_channels": 4, "out_channels": 4, "sample_size": 64, "mid_block_scale_factor": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D",
            "CrossAttnUpBlock2D"],
    })
}

#[test]
fn configs_have_the_defaults_of_diffusers() {
    let config = UnetConfig::from_json(&sd15()).unwrap();
    assert_eq!(
        (config.groups, config.epsilon, config.linear_projection),
        (32, 1e-5, false)
    );
    assert_eq!(config.heads, [Some(8), Some(8), Some(8), None]);
    let vae = json!({"block_out_channels": [128, 256, 512, 512], "latent_channels": 4,
        "layers_per_block": 2});
    let VaeConfig {
        scaling_factor,
        quant,
        post_quant,
        ..
    } = VaeConfig::from_json(&vae).unwrap();
    assert_eq!((scaling_factor, quant, post_quant), (0.18215, true, true));
}

#[test]
fn configs_that_are_not_supported_say_why() {
    for (key, value) in [
        ("act_fn", json!("gelu")),
        ("layers_per_block", json!(3)),
        ("block_out_channels", json!([320, 640, 1280])),
        (
            "down_block_types",
            json!(["DownBlock2D", "DownBlock2D", "DownBlock2D", "Strange"]),
        ),
        (
            "up_block_types",
            json!(["UpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"]),
        ),
        ("attention_head_dim", json!([5, 10])),
        ("attention_head_dim", json!(0)),
        ("attention_head_dim", json!(7)),
        ("norm_num_groups", json!(0)),
        ("class_embed_type", json!("timestep")),
        ("addition_embed_type", json!("text_time")),
        ("transformer_layers_per_block", json!([0, 2, 10])),
        ("_class_name", json!("UNet2DModel")),
        ("in_channels", json!("four")),
    ] {
        let mut config = sd15();
        config[key] = value;
        let error = UnetConfig::from_json(&config).unwrap_err().to_string();
        assert!(error.starts_with("U-Net config: "), "{key}: {error}");
    }
    let codec = json!({"_class_name": "PixelUnshuffle", "factor": 4, "shift": [0.0, 1.0],
        "scale": [1.0]});
    assert!(
        CodecConfig::from_json(&codec)
            .unwrap_err()
            .to_string()
            .contains("48")
    );
    let text = json!({"vocab_size": 10, "hidden_size": 30, "intermediate_size": 60,
        "num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 77,
        "hidden_act": "gelu", "layer_norm_eps": 1e-5});
    assert!(
        TextConfig::from_json(&text)
            .unwrap_err()
            .to_string()
            .contains("4 heads")
    );
}
