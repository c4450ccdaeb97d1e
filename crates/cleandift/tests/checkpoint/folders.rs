//! Diffusers folders in all their forms.

use std::path::Path;

use cleandift::checkpoint::{Checkpoint, CheckpointError, ConfigOrigin, Dtype, Kind, Weights};
use cleandift::graph::Parameters;

use super::{Tensor, all, assert_message, golden, tensor, write, write_text};

const UNET: &str = "unet/diffusion_pytorch_model";
const UNET_CONFIG: &str = r#"{"_class_name": "UNet2DConditionModel", "in_channels": 4}"#;

fn unet_tensors() -> Vec<Tensor> {
    vec![
        tensor("conv_in.weight", &[2, 4, 3, 3]),
        tensor("conv_in.bias", &[2]),
        tensor("conv_out.bias", &[4]),
    ]
}

/// A folder with a UNet's config only.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_text(&folder.path().join("unet/config.json"), UNET_CONFIG);
    folder
}

/// Writes tensors in shards of one tensor each, named as diffusers and transformers do.
fn write_shards(stem: &Path, index_suffix: &str, variant: &str, dtype: Dtype, tensors: &[Tensor]) {
    let stem_name = stem.file_name().unwrap().to_str().unwrap();
    let mut entries = Vec::new();
    for (number, tensor) in tensors.iter().enumerate() {
        let shard = format!(
            "{stem_name}{variant}-{:05}-of-{:05}.safetensors",
            number + 1,
            tensors.len()
        );
        write(
            &stem.with_file_name(&shard),
            dtype,
            std::slice::from_ref(tensor),
        );
        entries.push(format!(r#""{}": "{shard}""#, tensor.0));
    }
    let index = format!(
        r#"{{"metadata": {{}}, "weight_map": {{{}}}}}"#,
        entries.join(", ")
    );
    write_text(
        &stem.with_file_name(format!("{stem_name}{index_suffix}")),
        &index,
    );
}

fn sorted(mut tensors: Vec<Tensor>) -> Vec<Tensor> {
    tensors.sort_by(|one, other| one.0.cmp(&other.0));
    tensors
}

#[test]
fn every_name_for_weights_is_found() {
    type Writer = fn(&Path);
    let cases: [(&str, Writer); 5] = [
        ("plain", |stem| {
            write(
                &stem.with_extension("safetensors"),
                Dtype::F32,
                &unet_tensors(),
            );
        }),
        ("sharded", |stem| {
            write_shards(
                stem,
                ".safetensors.index.json",
                "",
                Dtype::F32,
                &unet_tensors(),
            );
        }),
        ("fp16", |stem| {
            write(
                &stem.with_extension("fp16.safetensors"),
                Dtype::F16,
                &unet_tensors(),
            );
        }),
        ("fp16, sharded", |stem| {
            let index = ".safetensors.index.fp16.json";
            write_shards(stem, index, ".fp16", Dtype::F16, &unet_tensors());
        }),
        ("fp16, sharded, newer index", |stem| {
            let index = ".fp16.safetensors.index.json";
            write_shards(stem, index, ".fp16", Dtype::F16, &unet_tensors());
        }),
    ];
    for (name, write_weights) in cases {
        let folder = folder();
        write_weights(&folder.path().join(UNET));
        let checkpoint = Checkpoint::open(folder.path(), None).unwrap();
        assert_eq!(checkpoint.kind(), Kind::Folder);
        let unet = checkpoint.unet();
        assert_eq!(all(&unet.weights), sorted(unet_tensors()), "{name}");
        assert_eq!(unet.config["in_channels"], 4);
        let config = folder.path().join("unet/config.json");
        assert_eq!(unet.config_origin, ConfigOrigin::File(config));
    }
}

#[test]
fn the_plain_file_is_preferred_to_the_variant() {
    let folder = folder();
    write(
        &folder.path().join(format!("{UNET}.safetensors")),
        Dtype::F32,
        &unet_tensors(),
    );
    write(
        &folder.path().join(format!("{UNET}.fp16.safetensors")),
        Dtype::F16,
        &unet_tensors(),
    );
    let checkpoint = Checkpoint::open(folder.path(), None).unwrap();
    assert_eq!(
        checkpoint.unet().weights.dtype("conv_in.bias"),
        Some(Dtype::F32)
    );
    assert_eq!(
        checkpoint.files(),
        [folder.path().join(format!("{UNET}.safetensors"))]
    );
}

#[test]
fn weights_that_are_not_there() {
    let folder = folder();
    let error = Checkpoint::open(folder.path(), None).unwrap_err();
    let looked_for = "looked for diffusion_pytorch_model.safetensors, ";
    assert_message(error, &["unet", looked_for, "found config.json"]);

    write_text(&folder.path().join(format!("{UNET}.bin")), "");
    let error = Checkpoint::open(folder.path(), None).unwrap_err();
    assert_message(error, &["diffusion_pytorch_model.bin", "an empty file"]);
}

#[test]
fn shards_that_are_not_as_the_index_says() {
    let index = format!("{UNET}.safetensors.index.json");
    let open = |text: &str| {
        let folder = folder();
        write(
            &folder.path().join("unet/one.safetensors"),
            Dtype::F32,
            &unet_tensors(),
        );
        write(
            &folder.path().join("outside.safetensors"),
            Dtype::F32,
            &unet_tensors(),
        );
        write_text(&folder.path().join(&index), text);
        Checkpoint::open(folder.path(), None).unwrap_err()
    };
    let error = open(r#"{"weight_map": {"conv_in.weight": "two.safetensors"}}"#);
    assert!(matches!(error, CheckpointError::NotFound { .. }), "{error}");
    assert_message(error, &["two.safetensors"]);
    let error = open(r#"{"weight_map": {"nothing": "one.safetensors"}}"#);
    assert_message(error, &[&index, "`nothing` in one.safetensors"]);
    let error = open(r#"{"weight_map": {"conv_in.weight": "../outside.safetensors"}}"#);
    assert_message(
        error,
        &["`../outside.safetensors` is not the name of a file beside"],
    );
    assert_message(open(r#"{"weight_map": {}}"#), &["`weight_map` is empty"]);
    assert_message(open(r#"{"weights": {}}"#), &["expected `weight_map`"]);
    assert_message(open("{"), &["not valid JSON"]);
}

/// Older text encoders list their int64 buffer in the index like a weight.
#[test]
fn an_index_may_list_integers() {
    use safetensors::tensor::{TensorView, serialize};
    let folder = folder();
    let unet = folder.path().join(format!("{UNET}.safetensors"));
    write(&unet, Dtype::F32, &unet_tensors());
    let text_encoder = folder.path().join("text_encoder");
    let ids = "text_model.embeddings.position_ids";
    let weight = "text_model.final_layer_norm.bias";
    let (ones, zeros) = ([1; 8], [0; 4]);
    let view = |dtype, bytes| TensorView::new(dtype, vec![1], bytes).unwrap();
    let tensors = [
        (ids, view(safetensors::Dtype::I64, &ones)),
        (weight, view(safetensors::Dtype::F32, &zeros)),
    ];
    write_text(&text_encoder.join("config.json"), "{}");
    let shard = "model-00001-of-00001.safetensors";
    std::fs::write(text_encoder.join(shard), serialize(tensors, None).unwrap()).unwrap();
    let index = format!(r#"{{"weight_map": {{"{ids}": "{shard}", "{weight}": "{shard}"}}}}"#);
    write_text(&text_encoder.join("model.safetensors.index.json"), &index);
    let checkpoint = Checkpoint::open(folder.path(), None).unwrap();
    assert_eq!(checkpoint.text_encoder().unwrap().weights.names(), [weight]);
}

#[test]
fn a_folder_without_a_unet() {
    let folder = tempfile::tempdir().unwrap();
    let error = Checkpoint::open(folder.path(), None).unwrap_err();
    assert_message(
        error,
        &["no UNet here", "`unet/config.json`", "the folder is empty"],
    );
    write_text(&folder.path().join("notes.txt"), "");
    let error = Checkpoint::open(folder.path(), None).unwrap_err();
    assert_message(error, &["found notes.txt"]);
    let error = Checkpoint::open(&folder.path().join("other"), None).unwrap_err();
    assert!(matches!(error, CheckpointError::NotFound { .. }), "{error}");
}

#[test]
fn the_unets_own_folder_will_do() {
    let folder = folder();
    write(
        &folder.path().join(format!("{UNET}.safetensors")),
        Dtype::F32,
        &unet_tensors(),
    );
    let checkpoint = Checkpoint::open(&folder.path().join("unet"), None).unwrap();
    assert_eq!(all(&checkpoint.unet().weights), sorted(unet_tensors()));
}

#[test]
fn declared_parts_without_a_network() {
    let folder = folder();
    write(
        &folder.path().join(format!("{UNET}.safetensors")),
        Dtype::F32,
        &unet_tensors(),
    );
    let vae = r#"{"_class_name": "PixelUnshuffle", "factor": 4}"#;
    write_text(&folder.path().join("vae/config.json"), vae);
    let text_encoder = r#"{"_class_name": "ClassTable"}"#;
    write_text(
        &folder.path().join("text_encoder/config.json"),
        text_encoder,
    );
    let table = [tensor("table", &[10, 8])];
    write(
        &folder.path().join("text_encoder/model.safetensors"),
        Dtype::F32,
        &table,
    );

    let checkpoint = Checkpoint::open(folder.path(), None).unwrap();
    assert!(checkpoint.vae().unwrap().weights.is_empty());
    assert_eq!(checkpoint.vae().unwrap().config["factor"], 4);
    assert_eq!(all(&checkpoint.text_encoder().unwrap().weights), table);
}

#[test]
fn old_attention_names_of_the_vae_become_new_ones() {
    let attention = "decoder.mid_block.attentions.0";
    let stored = |leaf: &str, shape: &[usize]| tensor(&format!("{attention}.{leaf}"), shape);
    let mut tensors = vec![
        tensor("quant_conv.weight", &[8, 8, 1, 1]),
        stored("group_norm.weight", &[6]),
    ];
    for old in ["query", "proj_attn"] {
        tensors.push(stored(&format!("{old}.weight"), &[6, 6, 1, 1]));
        tensors.push(stored(&format!("{old}.bias"), &[6]));
    }
    tensors.push(stored("key.weight", &[6, 6]));
    tensors.push(stored("to_v.weight", &[6, 6, 1, 1]));

    let folder = folder();
    write(
        &folder.path().join(format!("{UNET}.safetensors")),
        Dtype::F32,
        &unet_tensors(),
    );
    write_text(
        &folder.path().join("vae/config.json"),
        r#"{"_class_name": "AutoencoderKL"}"#,
    );
    let vae = folder
        .path()
        .join("vae/diffusion_pytorch_model.safetensors");
    write(&vae, Dtype::F32, &tensors);

    let checkpoint = Checkpoint::open(folder.path(), None).unwrap();
    let weights = &checkpoint.vae().unwrap().weights;
    let expected: [(&str, &[usize]); 8] = [
        ("group_norm.weight", &[6]),
        ("to_k.weight", &[6, 6]),
        ("to_out.0.bias", &[6]),
        ("to_out.0.weight", &[6, 6]),
        ("to_q.bias", &[6]),
        ("to_q.weight", &[6, 6]),
        ("to_v.weight", &[6, 6]),
        ("quant_conv.weight", &[8, 8, 1, 1]),
    ];
    assert_eq!(weights.len(), expected.len());
    for (name, shape) in &expected[..7] {
        assert_eq!(
            weights.shape(&format!("{attention}.{name}")),
            Some(*shape),
            "{name}"
        );
    }
    assert_eq!(weights.shape(expected[7].0), Some(expected[7].1));
    let renamed = weights
        .read(&format!("{attention}.to_out.0.weight"))
        .unwrap();
    assert_eq!(renamed, tensor("", &[36]).2);

    tensors.push(stored("to_q.bias", &[6]));
    write(&vae, Dtype::F32, &tensors);
    let error = Checkpoint::open(folder.path(), None).unwrap_err();
    assert_message(error, &["to_q.bias` is there twice", "query.bias`"]);
}

#[test]
fn the_text_encoders_prefix_may_be_missing() {
    let names = [
        "embeddings.token_embedding.weight",
        "encoder.layers.0.mlp.fc1.bias",
        "final_layer_norm.bias",
    ];
    for prefix in ["", "text_model."] {
        let mut tensors: Vec<_> = names
            .iter()
            .map(|name| tensor(&format!("{prefix}{name}"), &[3]))
            .collect();
        tensors.push(tensor(
            &format!("{prefix}embeddings.position_ids"),
            &[1, 77],
        ));
        let folder = folder();
        write(
            &folder.path().join(format!("{UNET}.safetensors")),
            Dtype::F32,
            &unet_tensors(),
        );
        write_text(&folder.path().join("text_encoder/config.json"), "{}");
        write(
            &folder.path().join("text_encoder/model.safetensors"),
            Dtype::F16,
            &tensors,
        );
        let checkpoint = Checkpoint::open(folder.path(), None).unwrap();
        let expected = names.map(|name| format!("text_model.{name}"));
        assert_eq!(checkpoint.text_encoder().unwrap().weights.names(), expected);
    }
}

#[test]
fn what_is_lacking_is_named_and_comes_from_the_base() {
    let folder = folder();
    write(
        &folder.path().join(format!("{UNET}.safetensors")),
        Dtype::F32,
        &unet_tensors(),
    );
    let checkpoint = Checkpoint::open(folder.path(), None).unwrap();
    let expected = "has no VAE and no text encoder: give a Stable Diffusion folder with --base DIR";
    assert_message(checkpoint.vae().unwrap_err(), &[expected]);
    assert_message(checkpoint.text_encoder().unwrap_err(), &[expected]);
    assert!(checkpoint.teacher().is_none());

    let base = self::folder();
    write(
        &base.path().join(format!("{UNET}.safetensors")),
        Dtype::F16,
        &unet_tensors(),
    );
    write_text(
        &base.path().join("vae/config.json"),
        r#"{"_class_name": "PixelUnshuffle"}"#,
    );
    write_text(
        &base.path().join("scheduler/scheduler_config.json"),
        r#"{"beta_start": 0.00085}"#,
    );
    let checkpoint = Checkpoint::open(folder.path(), Some(base.path())).unwrap();
    assert!(checkpoint.vae().is_ok());
    assert_eq!(checkpoint.scheduler().unwrap()["beta_start"], 0.00085);
    let teacher = checkpoint.teacher().unwrap();
    assert_eq!(teacher.weights.dtype("conv_in.bias"), Some(Dtype::F16));
    let error = checkpoint.text_encoder().unwrap_err();
    assert_message(
        error,
        &[
            "has no text encoder, nor has",
            base.path().to_str().unwrap(),
        ],
    );

    let file = folder.path().join(format!("{UNET}.safetensors"));
    let error = Checkpoint::open(folder.path(), Some(&file)).unwrap_err();
    assert_message(error, &["not a folder", "--base"]);
}

#[test]
fn hashes_tell_contents_not_places() {
    let write_to = |folder: &Path, file: &str, tensors: &[Tensor]| {
        write_text(&folder.join("unet/config.json"), UNET_CONFIG);
        write(&folder.join(file), Dtype::F32, tensors);
        Checkpoint::open(folder, None).unwrap().sha256().unwrap()
    };
    let tensors = [("conv_in.weight".to_string(), vec![1], vec![1.0])];
    let [one, two, three] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let first = write_to(one.path(), &format!("{UNET}.safetensors"), &tensors);
    let second = write_to(two.path(), &format!("{UNET}.fp16.safetensors"), &tensors);
    assert_eq!(first.combined, second.combined);
    assert_eq!(first.files.len(), 1);
    assert_eq!(
        first.files[0].path,
        one.path().join(format!("{UNET}.safetensors"))
    );
    // Python's hashlib over 72 as u64, the header
    // {"conv_in.weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} padded to 72, and 1.0f32;
    // combined: over "unet " + that + "\n".
    assert_eq!(first.files[0].sha256, FILE_HASH);
    assert_eq!(first.combined, COMBINED_HASH);

    let other = [("conv_in.weight".to_string(), vec![1], vec![-1.0])];
    let third = write_to(three.path(), &format!("{UNET}.safetensors"), &other);
    assert_ne!(first.combined, third.combined);
}

const FILE_HASH: &str = "0c27c57fc33ce15fba899d7822589019f95a598b5fccc1ba1250e2a3720214ee";
const COMBINED_HASH: &str = "89af3b730572bd6afe1e20094bcaa017feb537c1fd9c1de9fc169ff3cb16317d";

/// The oracle's folder in the forms that can be made of it by writing it anew.
#[test]
fn golden_folders_in_all_forms() {
    let Some(golden) = golden() else { return };
    // 686 and 248 tensors as in the full-size models; three layers of 16 in the text encoder and 4
    // beside, position_ids left out.
    for name in ["tiny-sd15", "tiny-sd21"] {
        let plain = Checkpoint::open(&golden.join(name), None).unwrap();
        let tensors = all(&plain.unet().weights);
        let vae = all(&plain.vae().unwrap().weights);
        let text_encoder = all(&plain.text_encoder().unwrap().weights);
        assert_eq!(
            (tensors.len(), vae.len(), text_encoder.len()),
            (686, 248, 52)
        );
        assert!(plain.tokenizer().unwrap().join("vocab.json").is_file());
        assert!(plain.scheduler().is_some());
        assert_eq!(plain.files().len(), 3);
        assert_eq!(plain.sha256().unwrap().files.len(), 3);

        let folder = folder();
        std::fs::copy(
            golden.join(name).join("unet/config.json"),
            folder.path().join("unet/config.json"),
        )
        .unwrap();
        let stem = folder.path().join(UNET);
        write_shards(
            &stem,
            ".safetensors.index.fp16.json",
            ".fp16",
            Dtype::F16,
            &tensors[..40],
        );
        let sharded = Checkpoint::open(folder.path(), Some(&golden.join(name))).unwrap();
        assert_eq!(all(&sharded.unet().weights), tensors[..40]);
        assert_eq!(all(&sharded.vae().unwrap().weights), vae);
        assert_eq!(all(&sharded.teacher().unwrap().weights), tensors);
    }
}

/// Values against another reader: the `safetensors` crate over the whole file, widened one by one.
#[test]
fn golden_values_as_another_reader_sees_them() {
    let Some(golden) = golden() else { return };
    let old_names = [
        ("query", "to_q"),
        ("key", "to_k"),
        ("value", "to_v"),
        ("proj_attn", "to_out.0"),
    ];
    for name in ["tiny-sd15", "tiny-sd21"] {
        let checkpoint = Checkpoint::open(&golden.join(name), None).unwrap();
        let parts: [(&str, &Weights); 3] = [
            (UNET, &checkpoint.unet().weights),
            (
                "vae/diffusion_pytorch_model",
                &checkpoint.vae().unwrap().weights,
            ),
            (
                "text_encoder/model",
                &checkpoint.text_encoder().unwrap().weights,
            ),
        ];
        for (file, weights) in parts {
            let bytes =
                std::fs::read(golden.join(name).join(format!("{file}.safetensors"))).unwrap();
            let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let mut seen = 0;
            for (stored, view) in theirs.tensors() {
                if view.dtype() != safetensors::Dtype::F16 {
                    assert!(stored.ends_with("position_ids"));
                    continue;
                }
                let old = old_names
                    .iter()
                    .find(|(old, _)| stored.contains(&format!(".{old}.")));
                let ours = match old {
                    Some((old, new)) if file.starts_with("vae") => stored.replace(old, new),
                    _ => stored,
                };
                let halves = view.data().chunks_exact(2).map(|pair| [pair[0], pair[1]]);
                let values: Vec<_> = halves
                    .map(|pair| half::f16::from_le_bytes(pair).to_f32())
                    .collect();
                assert_eq!(weights.shape(&ours), Some(view.shape()), "{ours}");
                assert_eq!(weights.read(&ours).unwrap(), values, "{ours}");
                assert_eq!(weights.first_non_finite(&ours).unwrap(), None);
                seen += 1;
            }
            assert_eq!(weights.len(), seen);
        }
    }
}
