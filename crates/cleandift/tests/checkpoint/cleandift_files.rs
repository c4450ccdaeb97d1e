//! The two files that CleanDIFT publishes, built from small tensors and from the golden folders.

use std::path::{Path, PathBuf};

use cleandift::checkpoint::{Checkpoint, CheckpointError, ConfigOrigin, Dtype, Kind};
use cleandift::graph::Parameters;

use super::{Tensor, all, assert_message, golden, tensor, write, write_text};

const STUDENT: &str = "unet_feature_extractor_cleandift.";
const TEACHER: &str = "unet_feature_extractor_base.";
const UNET_CONFIG: &str = r#"{"block_out_channels": [2, 4], "cross_attention_dim": 6}"#;
const TO_K: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight";

fn unet() -> Vec<Tensor> {
    vec![
        tensor("conv_in.weight", &[2, 4, 3, 3]),
        tensor(TO_K, &[2, 6]),
    ]
}

fn prefixed(prefix: &str, tensors: &[Tensor]) -> Vec<Tensor> {
    let rename =
        |(name, shape, values): &Tensor| (format!("{prefix}{name}"), shape.clone(), values.clone());
    tensors.iter().map(rename).collect()
}

/// All that a full file has, of small tensors.
fn full() -> Vec<Tensor> {
    let mut tensors = prefixed(STUDENT, &unet());
    tensors.extend(prefixed(TEACHER, &unet()[..1]));
    tensors.extend([
        ("timestep".to_string(), vec![], vec![261.0]),
        tensor("ae.ae.quant_conv.bias", &[8]),
        tensor("adapters.mid.layers.0.up_proj.weight", &[4, 2]),
        tensor("mapping.in_norm.scale", &[4]),
        tensor("time_emb.weight", &[2, 1]),
        tensor("time_in_proj.weight", &[4, 4]),
    ]);
    tensors
}

/// A base with configs for UNet and VAE, and a UNet of its own.
fn base() -> tempfile::TempDir {
    let base = tempfile::tempdir().unwrap();
    write_text(&base.path().join("unet/config.json"), UNET_CONFIG);
    let weights = base.path().join("unet/diffusion_pytorch_model.safetensors");
    write(&weights, Dtype::F32, &unet()[..1]);
    write_text(
        &base.path().join("vae/config.json"),
        r#"{"_class_name": "PixelUnshuffle"}"#,
    );
    base
}

fn file(folder: &Path, name: &str, dtype: Dtype, tensors: &[Tensor]) -> PathBuf {
    let path = folder.join(name);
    write(&path, dtype, tensors);
    path
}

#[test]
fn a_unet_file_takes_the_rest_from_the_base() {
    let base = base();
    let folder = tempfile::tempdir().unwrap();
    let path = file(
        folder.path(),
        "cleandift_unet.safetensors",
        Dtype::BF16,
        &unet(),
    );
    let checkpoint = Checkpoint::open(&path, Some(base.path())).unwrap();
    assert_eq!(checkpoint.kind(), Kind::UnetFile);
    assert_eq!(checkpoint.unet().weights.len(), 2);
    assert_eq!(
        checkpoint.unet().weights.dtype("conv_in.weight"),
        Some(Dtype::BF16)
    );
    let config = base.path().join("unet/config.json");
    assert_eq!(checkpoint.unet().config_origin, ConfigOrigin::File(config));
    assert_eq!(
        checkpoint.teacher().unwrap().weights.names(),
        ["conv_in.weight"]
    );
    assert_eq!(checkpoint.timestep(), None);
    assert!(checkpoint.heads().is_none());
    assert!(checkpoint.vae().is_ok());
    let error = checkpoint.text_encoder().unwrap_err();
    assert_message(
        error,
        &["cleandift_unet.safetensors has no text encoder, nor has"],
    );
}

#[test]
fn a_unet_file_of_unknown_size_needs_a_base() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "student.safetensors", Dtype::F32, &unet());
    let error = Checkpoint::open(&path, None).unwrap_err();
    let shape = "`conv_in.weight` is [2, 4, 3, 3], not [320, 4, 3, 3]";
    assert_message(
        error,
        &[
            "student.safetensors",
            "the UNet has no config.json",
            shape,
            "--base DIR",
        ],
    );
}

#[test]
fn a_base_of_another_width_is_refused() {
    let base = base();
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = unet();
    tensors[1] = tensor(TO_K, &[2, 8]);
    let path = file(folder.path(), "student.safetensors", Dtype::F32, &tensors);
    let error = Checkpoint::open(&path, Some(base.path())).unwrap_err();
    assert_message(
        error,
        &[
            TO_K,
            "[2, 8]",
            "6 along axis 1 (`cross_attention_dim`)",
            "another model",
        ],
    );
    tensors[0] = tensor("conv_in.weight", &[3, 4, 3, 3]);
    let path = file(folder.path(), "student.safetensors", Dtype::F32, &tensors);
    let error = Checkpoint::open(&path, Some(base.path())).unwrap_err();
    assert_message(
        error,
        &["`conv_in.weight` is [3, 4, 3, 3]", "block_out_channels"],
    );
}

#[test]
fn a_full_file_has_all_but_the_text_encoder() {
    let base = base();
    let folder = tempfile::tempdir().unwrap();
    // bf16 has no 261: halfway between 260 and 262, it becomes the even one.
    for (dtype, timestep) in [
        (Dtype::F32, 261.0),
        (Dtype::F16, 261.0),
        (Dtype::BF16, 260.0),
    ] {
        let path = file(folder.path(), "full.safetensors", dtype, &full());
        let checkpoint = Checkpoint::open(&path, Some(base.path())).unwrap();
        assert_eq!(checkpoint.kind(), Kind::FullFile);
        assert_eq!(checkpoint.timestep(), Some(timestep));
        assert_eq!(checkpoint.unet().weights.names(), ["conv_in.weight", TO_K]);
        assert_eq!(
            checkpoint.teacher().unwrap().weights.names(),
            ["conv_in.weight"]
        );
        assert_eq!(
            checkpoint.teacher().unwrap().weights.files(),
            std::slice::from_ref(&path)
        );
        assert_eq!(
            checkpoint.vae().unwrap().weights.names(),
            ["quant_conv.bias"]
        );
        let heads = [
            "adapters.mid.layers.0.up_proj.weight",
            "mapping.in_norm.scale",
            "time_emb.weight",
            "time_in_proj.weight",
        ];
        assert_eq!(checkpoint.heads().unwrap().names(), heads);
        assert_eq!(checkpoint.files(), [path]);
        assert!(matches!(
            checkpoint.tokenizer(),
            Err(CheckpointError::Lacking { .. })
        ));
    }
}

#[test]
fn a_full_file_with_a_part_missing() {
    let folder = tempfile::tempdir().unwrap();
    for missing in [
        TEACHER,
        "timestep",
        "ae.ae.",
        "adapters.",
        "mapping.",
        "time_emb.weight",
    ] {
        let mut tensors = full();
        tensors.retain(|(name, ..)| !name.starts_with(missing));
        let path = file(folder.path(), "full.safetensors", Dtype::F32, &tensors);
        let error = Checkpoint::open(&path, None).unwrap_err();
        assert_message(
            error,
            &["full.safetensors", &format!("nothing is named {missing}")],
        );
    }
    let mut tensors = full();
    let timestep = tensors
        .iter_mut()
        .find(|(name, ..)| name == "timestep")
        .unwrap();
    *timestep = ("timestep".into(), vec![2], vec![261.0, 261.0]);
    let path = file(folder.path(), "full.safetensors", Dtype::F32, &tensors);
    let error = Checkpoint::open(&path, Some(base().path())).unwrap_err();
    assert_message(error, &["`timestep` is [2], expected one number"]);
}

#[test]
fn other_layouts_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let probe = [tensor("weight", &[256, 2, 1, 1]), tensor("bias", &[256])];
    let path = file(folder.path(), "probe.safetensors", Dtype::F32, &probe);
    let error = Checkpoint::open(&path, None).unwrap_err();
    assert_message(
        error,
        &[
            "probe.safetensors: neither a UNet",
            "2 tensors begin with `bias`",
        ],
    );
    let path = file(folder.path(), "empty.safetensors", Dtype::F32, &[]);
    assert_message(
        Checkpoint::open(&path, None).unwrap_err(),
        &["it has no tensors"],
    );
}

/// A full file made of a golden folder: every part comes out as it went in.
#[test]
fn golden_folders_as_cleandift_files() {
    let Some(golden) = golden() else { return };
    for name in ["tiny-sd15", "tiny-sd21"] {
        let base = golden.join(name);
        let plain = Checkpoint::open(&base, None).unwrap();
        let unet = all(&plain.unet().weights);
        let vae = all(&plain.vae().unwrap().weights);
        let mut tensors = full();
        tensors.retain(|(name, ..)| !name.starts_with("unet_") && !name.starts_with("ae."));
        tensors.extend(prefixed(STUDENT, &unet));
        tensors.extend(prefixed(TEACHER, &unet));
        tensors.extend(prefixed("ae.ae.", &vae));

        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "full.safetensors", Dtype::F16, &tensors);
        let checkpoint = Checkpoint::open(&path, Some(&base)).unwrap();
        assert_eq!(all(&checkpoint.unet().weights), unet);
        assert_eq!(all(&checkpoint.teacher().unwrap().weights), unet);
        assert_eq!(all(&checkpoint.vae().unwrap().weights), vae);
        assert_eq!(checkpoint.unet().config, plain.unet().config);
        assert_eq!(checkpoint.text_encoder().unwrap().weights.len(), 52);
        assert_eq!(checkpoint.tokenizer().unwrap(), base.join("tokenizer"));

        let path = file(folder.path(), "unet.safetensors", Dtype::F16, &unet);
        let checkpoint = Checkpoint::open(&path, Some(&base)).unwrap();
        assert_eq!(all(&checkpoint.unet().weights), unet);
    }
    // The other family's folder is noticed by the width of its prompt embeddings, 24 and 32.
    let folder = tempfile::tempdir().unwrap();
    let plain = Checkpoint::open(&golden.join("tiny-sd15"), None).unwrap();
    let tensors = all(&plain.unet().weights);
    let path = file(folder.path(), "unet.safetensors", Dtype::F16, &tensors);
    let error = Checkpoint::open(&path, Some(&golden.join("tiny-sd21"))).unwrap_err();
    assert_message(error, &["[16, 24]", "32 along axis 1"]);
}
