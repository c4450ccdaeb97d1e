//! A model folder of one's own: a fixed codec and a class table (docs/model-folders.md).

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cleandift::checkpoint::{Checkpoint, Dtype, Kind, TensorData, Weights, write_safetensors};
use cleandift::extractor::{Model, Request, TextModel};
use cleandift::graph::Parameters;
use cleandift::image::{Extent, Picture, Pixels};
use cleandift_kernels::Kernels;
use common::{extractor, golden};
use serde_json::{Value, json};

fn write_part(folder: &Path, config: &Value, weights: Option<(&str, &Weights)>) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let Some((file, weights)) = weights else {
        return;
    };
    let values: Vec<_> = weights
        .names()
        .iter()
        .map(|name| weights.read(name).unwrap())
        .collect();
    let tensors: Vec<TensorData> = (weights.names().into_iter().zip(&values))
        .map(|(name, values)| {
            let shape = weights.shape(name).unwrap();
            TensorData {
                name,
                shape,
                values,
                dtype: Dtype::F32,
            }
        })
        .collect();
    write_safetensors(&folder.join(file), &tensors, &BTreeMap::new()).unwrap();
}

#[test]
fn a_folder_with_a_fixed_codec_and_a_class_table_works() {
    let random = Model::random(3);
    let TextModel::ClassTable(table) = random.text.clone().unwrap() else {
        panic!("the random model has a class table")
    };
    let folder = tempfile::tempdir().unwrap();
    let part = |name: &str| folder.path().join(name);
    let unet = json!({
        "_class_name": "UNet2DConditionModel", "block_out_channels": [48, 96, 128, 144],
        "attention_head_dim": [3, 6, 8, 9], "norm_num_groups": 16, "cross_attention_dim": 128,
        "in_channels": 48, "out_channels": 48, "sample_size": 32, "use_linear_projection": true,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D",
            "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D",
            "CrossAttnUpBlock2D"],
    });
    let weights = ("diffusion_pytorch_model.safetensors", &random.unet.weights);
    write_part(&part("unet"), &unet, Some(weights));
    let codec = json!({"_class_name": "PixelUnshuffle", "factor": 4, "shift": [0.0],
        "scale": [2.0]});
    write_part(&part("vae"), &codec, None);
    let text = json!({"_class_name": "ClassTable", "classes": ["red fox"]});
    write_part(
        &part("text_encoder"),
        &text,
        Some(("model.safetensors", &table.weights)),
    );

    let checkpoint = Checkpoint::open(folder.path(), None).unwrap();
    let opened = Model::open(&checkpoint).unwrap();
    assert_eq!(opened.unet.config, random.unet.config);
    // The same model in one file, on the disk and in memory.
    let bundle = folder.path().join("bundle.safetensors");
    checkpoint
        .write(&bundle, Kind::Bundle, Some(Dtype::F32))
        .unwrap();
    let packed = Checkpoint::open(&bundle, None).unwrap();
    assert_eq!(packed.kind(), Kind::Bundle);
    let in_memory = Checkpoint::from_bytes("tiny", fs::read(&bundle).unwrap()).unwrap();
    assert_eq!(
        in_memory.sha256().unwrap().combined,
        packed.sha256().unwrap().combined
    );
    let with_base = Checkpoint::open(&bundle, Some(&bundle)).unwrap();
    assert!(with_base.teacher().is_some() && in_memory.teacher().is_none());
    let [packed, in_memory] = [packed, in_memory].map(|found| Model::open(&found).unwrap());
    let rgb = (0..52 * 44 * 3).map(|i| (i * 31 % 256) as u8).collect();
    let pixels = Pixels::from(&Picture::from_rgb(Extent::new(52, 44), rgb).unwrap());
    let all = [random, opened, packed, in_memory].map(|model| {
        let prompt = match &model.text {
            Ok(TextModel::ClassTable(table)) if table.classes.is_empty() => "0",
            _ => "Red fox",
        };
        let extractor = extractor(model, Request::default(), Kernels::best(), 1);
        assert_eq!(extractor.multiple().get(), 4);
        assert_eq!(extractor.default_size(), Extent::new(128, 128));
        assert_eq!(extractor.matching_size(), Extent::new(160, 160));
        let prompt = extractor.text_encoder().unwrap().encode(prompt).unwrap();
        let condition = extractor.condition(prompt).unwrap();
        extractor.extract(&[&pixels], &condition).unwrap()
    });
    let [first, others @ ..] = &all;
    assert!(others.iter().all(|other| other == first));
    // A canvas of 13 x 11 cells: the second level has 7 x 6, the third, of the model's own tap, 4 x 3.
    assert_eq!(first[0].maps[0].0, "us3");
    assert_eq!(first[0].maps[0].1.extent(), Extent::new(4, 3));
}

#[test]
fn a_bundle_is_refused_where_it_cannot_be_made_or_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle.safetensors");
    let checkpoint = Checkpoint::open(&golden("tiny-sd15"), None).unwrap();
    let error = checkpoint
        .write(&path, Kind::Bundle, Some(Dtype::F16))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`CLIPTextModel`, which a model in one file has no place for"),
        "{error}"
    );
    let metadata = BTreeMap::from([("unet/config.json".to_owned(), "{".to_owned())]);
    write_safetensors(&path, &[], &metadata).unwrap();
    let error = Checkpoint::open(&path, None).unwrap_err().to_string();
    assert!(
        error.contains("`unet/config.json` of the metadata"),
        "{error}"
    );
    assert!(Checkpoint::from_bytes("tiny", b"no model".to_vec()).is_err());
}
