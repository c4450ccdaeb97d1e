//! Full-size models without a config, as files with holes in them: names and shapes are real, the
//! data is never written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cleandift::checkpoint::{Checkpoint, ConfigOrigin, Kind};
use cleandift::graph::Parameters;

use super::{assert_message, golden};

type Shapes = BTreeMap<String, Vec<usize>>;

/// The sections of a layout file (`# unet 686`, then `name<TAB>320x4x3x3`).
fn layout(path: &Path) -> BTreeMap<String, Shapes> {
    let mut sections = BTreeMap::new();
    let mut section = String::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        if let Some(title) = line.strip_prefix("# ") {
            if !title.starts_with("also:") {
                section = title.split(' ').next().unwrap().to_string();
            }
            continue;
        }
        let (name, shape) = line.split_once('\t').unwrap();
        let shape = shape.split('x').filter(|length| !length.is_empty());
        let shape = shape.map(|length| length.parse().unwrap()).collect();
        let shapes: &mut Shapes = sections.entry(section.clone()).or_default();
        shapes.insert(name.into(), shape);
    }
    sections
}

/// A safetensors file of bf16 zeros that take no room on the disk.
fn write_hollow(path: &Path, shapes: &Shapes) {
    let mut end = 0;
    let entry = |(name, shape): (&String, &Vec<usize>)| {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        let entry = format!(
            r#""{name}":{{"dtype":"BF16","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        );
        entry.replace(", ", ",")
    };
    let entries: Vec<_> = shapes.iter().map(entry).collect();
    let mut header = format!("{{{}}}", entries.join(",")).into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let bytes = [&(header.len() as u64).to_le_bytes()[..], &header].concat();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, &bytes).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len((bytes.len() + end) as u64).unwrap();
}

fn prefixed(prefix: &str, shapes: &Shapes) -> Shapes {
    shapes
        .iter()
        .map(|(name, shape)| (format!("{prefix}{name}"), shape.clone()))
        .collect()
}

/// What distinguishes the two models, from the published files.
struct Model {
    layout: &'static str,
    name: &'static str,
    /// Bytes of the published `_unet` file.
    unet_bytes: u64,
    unet_parameters: u64,
    text_parameters: u64,
    cross_attention_dim: u64,
    heads: serde_json::Value,
    activation: &'static str,
    layers: u64,
}

fn models() -> [Model; 2] {
    [
        Model {
            layout: "layouts/full-sd15.txt",
            name: "Stable Diffusion 1.5",
            unet_bytes: 1_719_125_960,
            unet_parameters: 859_520_964,
            text_parameters: 123_060_480,
            cross_attention_dim: 768,
            heads: 8.into(),
            activation: "quick_gelu",
            layers: 12,
        },
        Model {
            layout: "layouts/full-sd21.txt",
            name: "Stable Diffusion 2.1",
            unet_bytes: 1_731_905_392,
            unet_parameters: 865_910_724,
            text_parameters: 340_387_840,
            cross_attention_dim: 1024,
            heads: vec![5, 10, 20, 20].into(),
            activation: "gelu",
            layers: 23,
        },
    ]
}

#[test]
fn published_unet_files_need_no_config() {
    let Some(golden) = golden() else { return };
    for model in models() {
        let shapes = &layout(&golden.join(model.layout))["unet"];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cleandift_unet.safetensors");
        write_hollow(&path, shapes);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), model.unet_bytes);

        let checkpoint = Checkpoint::open(&path, None).unwrap();
        let unet = checkpoint.unet();
        assert_eq!(checkpoint.kind(), Kind::UnetFile);
        assert_eq!(unet.config_origin, ConfigOrigin::Shapes(model.name));
        assert_eq!(
            unet.config["cross_attention_dim"],
            model.cross_attention_dim
        );
        assert_eq!(unet.config["attention_head_dim"], model.heads);
        assert_eq!(unet.weights.len(), 686);
        assert_eq!(unet.weights.parameter_count(), model.unet_parameters);
        assert_eq!(unet.weights.bytes(), 2 * model.unet_parameters);
        for (name, shape) in shapes {
            assert_eq!(unet.weights.shape(name), Some(&shape[..]), "{name}");
        }
        assert_message(
            checkpoint.vae().unwrap_err(),
            &["has no VAE and no text encoder"],
        );
    }
}

#[test]
fn folders_without_configs() {
    let Some(golden) = golden() else { return };
    for model in models() {
        let layout = layout(&golden.join(model.layout));
        let folder = tempfile::tempdir().unwrap();
        for (part, file) in [
            ("unet", "diffusion_pytorch_model"),
            ("vae", "diffusion_pytorch_model"),
            ("text_encoder", "model"),
        ] {
            let path = PathBuf::from(part).join(format!("{file}.safetensors"));
            write_hollow(&folder.path().join(path), &layout[part]);
        }
        let checkpoint = Checkpoint::open(folder.path(), None).unwrap();
        let vae = checkpoint.vae().unwrap();
        assert_eq!(
            vae.config["block_out_channels"],
            serde_json::json!([128, 256, 512, 512])
        );
        assert_eq!(vae.weights.parameter_count(), 83_653_863);
        let text_encoder = checkpoint.text_encoder().unwrap();
        assert_eq!(text_encoder.config_origin, ConfigOrigin::Shapes(model.name));
        assert_eq!(text_encoder.config["hidden_act"], model.activation);
        assert_eq!(text_encoder.config["num_hidden_layers"], model.layers);
        assert_eq!(
            text_encoder.weights.parameter_count(),
            model.text_parameters
        );
        assert_message(checkpoint.tokenizer().unwrap_err(), &["has no tokenizer"]);
    }
}

#[test]
fn published_full_files_need_no_config() {
    let Some(golden) = golden() else { return };
    // Bytes of the published SD 2.1 file; SD 1.5's as its names and shapes predict it.
    for (model, bytes) in models().into_iter().zip([3_855_741_120, 3_881_299_968]) {
        let layout = layout(&golden.join(model.layout));
        let mut shapes = layout["cleandift_full"].clone();
        shapes.extend(prefixed("ae.ae.", &layout["vae"]));
        shapes.extend(prefixed("unet_feature_extractor_base.", &layout["unet"]));
        shapes.extend(prefixed(
            "unet_feature_extractor_cleandift.",
            &layout["unet"],
        ));
        assert_eq!(shapes.len(), 1730);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cleandift_full.safetensors");
        write_hollow(&path, &shapes);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);

        let checkpoint = Checkpoint::open(&path, None).unwrap();
        assert_eq!(checkpoint.kind(), Kind::FullFile);
        assert_eq!(
            checkpoint.unet().config["cross_attention_dim"],
            model.cross_attention_dim
        );
        assert_eq!(checkpoint.unet().weights.len(), 686);
        assert_eq!(checkpoint.teacher().unwrap().weights.len(), 686);
        assert_eq!(checkpoint.vae().unwrap().weights.len(), 248);
        assert_eq!(checkpoint.heads().unwrap().len(), 1730 - 2 * 686 - 248 - 1);
        assert_eq!(checkpoint.timestep(), Some(0.0));
        assert_message(
            checkpoint.text_encoder().unwrap_err(),
            &["has no text encoder: give"],
        );
    }
}

#[test]
fn near_misses_are_not_recognised() {
    let Some(golden) = golden() else { return };
    let shapes = &layout(&golden.join("layouts/full-sd15.txt"))["unet"];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("unet.safetensors");
    let mut inpainting = shapes.clone();
    inpainting.insert("conv_in.weight".into(), vec![320, 9, 3, 3]);
    write_hollow(&path, &inpainting);
    let error = Checkpoint::open(&path, None).unwrap_err();
    assert_message(
        error,
        &["`conv_in.weight` is [320, 9, 3, 3], not [320, 4, 3, 3]"],
    );

    let mut deeper = shapes.clone();
    let second = "down_blocks.0.attentions.0.transformer_blocks.1.norm1.weight";
    deeper.insert(second.into(), vec![320]);
    write_hollow(&path, &deeper);
    let error = Checkpoint::open(&path, None).unwrap_err();
    assert_message(error, &[&format!("there is a `{second}`")]);
}
