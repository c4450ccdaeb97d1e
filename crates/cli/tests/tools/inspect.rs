use std::path::Path;
use std::process::Output;

use cleandift::checkpoint::{Dtype, TensorData, write_safetensors};
use cleandift::graph::Graph;
use cleandift::networks::config::{CodecConfig, UnetConfig};
use cleandift::networks::unet;
use serde_json::json;

use super::{cleandift, golden, json, stderr, stdout, words};

fn inspect(model: &Path, arguments: &[&str]) -> Output {
    let mut command = cleandift();
    command.args(["models", "inspect"]).arg(model);
    command.args(arguments).output().unwrap()
}

/// Stable Diffusion 2.1's U-Net.
fn sd21() -> Graph {
    let config = json!({
        "attention_head_dim": [5, 10, 20, 20], "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 1024, "in_channels": 4, "out_channels": 4, "sample_size": 96,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D",
            "CrossAttnUpBlock2D"],
        "use_linear_projection": true,
    });
    unet::graph(&UnetConfig::from_json(&config).unwrap(), 8, 8, 77)
}

/// Encoder and decoder of Stable Diffusion's VAE.
fn vae() -> [Graph; 2] {
    let config = json!({
        "block_out_channels": [128, 256, 512, 512], "latent_channels": 4, "layers_per_block": 2,
    });
    let config = CodecConfig::from_json(&config).unwrap();
    [config.encoder(8, 8), config.decoder(1, 1)]
}

/// A safetensors file of bf16 zeros in full size that takes no room on the disk.
fn write_hollow(path: &Path, graphs: &[Graph]) {
    let mut end = 0;
    let parameters = graphs.iter().flat_map(Graph::parameters);
    let entries: Vec<String> = parameters
        .map(|parameter| {
            let start = end;
            end += 2 * parameter.size();
            let (name, shape) = (&parameter.name, &parameter.shape);
            let offsets = [start, end];
            let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": offsets});
            format!("{}:{entry}", json!(name))
        })
        .collect();
    let mut header = format!("{{{}}}", entries.join(",")).into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let bytes = [&(header.len() as u64).to_le_bytes()[..], &header].concat();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, &bytes).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len((bytes.len() + end) as u64).unwrap();
}

#[test]
fn full_size_is_recognised_and_costs_what_the_layer_tables_say() {
    let folder = tempfile::tempdir().unwrap();
    let weights = "diffusion_pytorch_model.safetensors";
    write_hollow(&folder.path().join("unet").join(weights), &[sd21()]);
    write_hollow(&folder.path().join("vae").join(weights), &vae());
    let output = inspect(folder.path(), &["--size", "512"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let recognised = words(&output, "recognised").join(" ");
    assert_eq!(recognised, "Stable Diffusion 2.1, full size");
    // The layer tables' figures that tests/count.rs of the library has, too.
    let rows = [
        ("conv 3x3, stride 1", ["503.6", "57.6", "89.7", "140.7"]),
        ("conv 3x3, stride 2", ["29.0", "2.8", "2.8", "2.8"]),
        ("conv 3x3 after nearest 2x", ["-", "3.8", "18.9", "34.0"]),
        ("conv 1x1", ["4.3", "1.1", "3.4", "7.3"]),
        ("linear", ["4.3", "52.4", "77.6", "111.2"]),
        ("self-attention QK + AV", ["17.2", "24.5", "25.0", "39.8"]),
        ("cross-attention QK + AV", ["-", "0.7", "0.9", "1.4"]),
    ];
    for (kind, expected) in rows {
        let found = words(&output, kind);
        assert_eq!(found.len(), expected.len(), "{kind}");
        for (found, expected) in found.into_iter().zip(expected) {
            // The tables were summed from rounded figures: the last digit may differ by one.
            let numbers = found.parse::<f64>().ok().zip(expected.parse::<f64>().ok());
            let near = numbers.is_some_and(|(found, expected)| (found - expected).abs() < 0.11);
            assert!(near || found == expected, "{kind}: {found}, {expected}");
        }
    }
    let parameters = words(&output, "parameters read").join(" ");
    assert!(parameters.starts_with("34.2 M"), "{parameters}");
    // There is no text encoder: prompt embeddings can be given instead.
    assert!(stdout(&output).contains("note: "));
    assert!(stdout(&output).contains("has no text encoder"));
    assert!(stdout(&output).ends_with("\nusable\n"));
}

#[test]
fn without_a_base_a_unet_file_is_counted_and_called_lacking() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cleandift_unet.safetensors");
    write_hollow(&file, &[sd21()]);
    let output = inspect(&file, &["--taps", "us6", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("has no VAE and no text encoder: give"));
    let report = json(&output);
    assert_eq!(report["kind"], "CleanDIFT `_unet` file");
    assert_eq!(report["known_model"], "Stable Diffusion 2.1");
    let [unet] = report["parts"].as_array().unwrap().as_slice() else {
        panic!("{}", report["parts"]);
    };
    assert_eq!(unet["fitting"], 686);
    assert_eq!(unet["usable"], true);
    // Published figures.
    assert_eq!(unet["parameters"], 865_910_724);
    assert_eq!(unet["storage"], json!({"BF16": 686}));
    let cost = &report["cost"];
    assert_eq!(
        (&cost["width"], &cost["height"]),
        (&json!(768), &json!(768))
    );
    let [stage] = cost["stages"].as_array().unwrap().as_slice() else {
        panic!("{cost}");
    };
    assert_eq!(stage["name"], "U-Net to us6");
    let convolutions = stage["layers"][0]["multiply_adds"].as_f64().unwrap();
    assert!((convolutions / 1e9 - 201.8).abs() < 0.06);
    assert_eq!(stage["memory_bytes"], serde_json::Value::Null);
    assert_eq!(stage["nodes"], serde_json::Value::Null);
}

/// A copy of the golden model, to be spoiled.
fn copy_of_tiny() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for part in ["unet", "vae", "text_encoder", "tokenizer"] {
        std::fs::create_dir(folder.path().join(part)).unwrap();
        for file in std::fs::read_dir(golden("tiny-sd21").join(part)).unwrap() {
            let file = file.unwrap();
            let copy = folder.path().join(part).join(file.file_name());
            std::fs::copy(file.path(), copy).unwrap();
        }
    }
    folder
}

#[test]
fn what_does_not_fit_is_listed() {
    let folder = copy_of_tiny();
    let tensor = |name, shape| TensorData {
        name,
        shape,
        values: &[0.0; 12][..],
        dtype: Dtype::F32,
    };
    let tensors = [
        tensor("conv_in.weight", &[12]),
        tensor("conv_in.extra", &[3, 4]),
    ];
    let file = folder
        .path()
        .join("unet/diffusion_pytorch_model.safetensors");
    write_safetensors(&file, &tensors, &Default::default()).unwrap();

    let output = inspect(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    for expected in [
        "U-Net: 685 missing",
        "  … and 675 more: --json lists all",
        "U-Net: 1 of another shape",
        "conv_in.weight is [12], the config expects [16, 4, 3, 3]",
        "U-Net: 1 unused\n  conv_in.extra",
        "conv 3x3, stride 1",
        "NOT USABLE",
    ] {
        assert!(text.contains(expected), "`{expected}` is not in:\n{text}");
    }
    assert!(stderr(&output).starts_with("error: the weights do not fit the U-Net: 685 missing"));
    let report = json(&inspect(folder.path(), &["--json"]));
    assert_eq!(report["parts"][0]["missing"].as_array().unwrap().len(), 685);
    assert_eq!(report["parts"][1]["usable"], true);
}

#[test]
fn a_config_that_is_not_supported_is_named_and_the_other_parts_are_checked() {
    let folder = copy_of_tiny();
    let file = folder.path().join("unet/config.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["layers_per_block"] = json!(3);
    std::fs::write(&file, config.to_string()).unwrap();
    let output = inspect(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let error = "U-Net config: `layers_per_block` is 3, supported is 2";
    assert!(stderr(&output).contains(error));
    assert!(stdout(&output).contains(&format!("U-Net: {error}")));
    assert_eq!(words(&output, "VAE")[0], "yes");
}

#[test]
fn nodes_are_counted_when_asked_for() {
    let model = golden("tiny-sd21");
    assert_eq!(inspect(&model, &[]).stderr, b"");
    assert!(!stdout(&inspect(&model, &[])).contains("mid_block.resnets.0.conv1"));
    let output = inspect(&model, &["--nodes", "--taps", "mid", "--size", "64"]);
    assert!(output.status.success());
    // 4 channels of an 8x8 latent to 16, 3x3: 64 * 16 * 4 * 9 multiply-adds.
    let conv_in = words(&output, "conv_in ");
    assert_eq!(conv_in[conv_in.len() - 3..], ["0.0", "592", "1024"]);
    let report = json(&inspect(
        &model,
        &["--nodes", "--taps", "mid", "--size", "64", "--json"],
    ));
    let stage = &report["cost"]["stages"][1];
    let nodes = stage["nodes"].as_array().unwrap();
    let conv_in = nodes.iter().find(|node| node["name"] == "conv_in").unwrap();
    assert_eq!(conv_in["multiply_adds"], 64 * 16 * 4 * 9);
    let sum: u64 = nodes
        .iter()
        .map(|node| node["multiply_adds"].as_u64().unwrap())
        .sum();
    assert_eq!(stage["multiply_adds"], sum);
}

#[test]
fn wrong_wishes_are_refused() {
    let model = golden("tiny-sd21");
    for (arguments, expected) in [
        (
            ["--taps", "us66"],
            "there is no tap `us66`; did you mean `us6`?",
        ),
        (
            ["--size", "native"],
            "there is no picture here; give a size such as 192",
        ),
        (["--size", "100"], "not a multiple of 8; nearest: 96 or 104"),
    ] {
        let output = inspect(&model, &arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
    let output = inspect(&model.join("nothing"), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no such file or folder"));
}
