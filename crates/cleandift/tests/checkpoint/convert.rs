//! Models written in other layouts: the same bits come back.

use std::path::{Path, PathBuf};

use cleandift::checkpoint::{Checkpoint, ConvertError, Dtype, Kind};
use cleandift::graph::Parameters;

use super::{Tensor, all, assert_message, golden, tensor, write};

/// Everything that a model holds, and how it is stored.
fn contents(checkpoint: &Checkpoint) -> Vec<(Vec<Tensor>, Vec<Option<Dtype>>)> {
    let parts = [
        Some(checkpoint.unet()),
        checkpoint.vae().ok(),
        checkpoint.text_encoder().ok(),
    ];
    let of = |part: &cleandift::checkpoint::Part| {
        let weights = &part.weights;
        let names = weights.names().into_iter();
        (
            all(weights),
            names.map(|name| weights.dtype(name)).collect(),
        )
    };
    parts.into_iter().flatten().map(of).collect()
}

fn models() -> [PathBuf; 2] {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    ["tiny-sd15", "tiny-sd21"].map(|name| golden.join(name))
}

#[test]
fn a_folder_becomes_a_single_file_and_a_folder_again() {
    for model in models() {
        let folder = tempfile::tempdir().unwrap();
        let (single, back) = (
            folder.path().join("single.safetensors"),
            folder.path().join("back"),
        );
        let original = Checkpoint::open(&model, None).unwrap();
        original.write(&single, Kind::SingleFile, None).unwrap();
        let read = Checkpoint::open(&single, Some(&model)).unwrap();
        assert_eq!(read.kind(), Kind::SingleFile);
        assert_eq!(contents(&read), contents(&original));
        read.write(&back, Kind::Folder, None).unwrap();
        let back = Checkpoint::open(&back, None).unwrap();
        assert_eq!(contents(&back), contents(&original));
        assert_eq!(back.unet().config, original.unet().config);
        assert_eq!(back.scheduler(), original.scheduler());
        let names = |path: &Path| {
            let files = std::fs::read_dir(path).unwrap();
            let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(
            names(back.tokenizer().unwrap()),
            names(original.tokenizer().unwrap())
        );
        // Nothing temporary is left.
        assert_eq!(names(folder.path()), ["back", "single.safetensors"]);
    }
}

#[test]
fn names_of_a_single_file_are_the_original_ones() {
    let Some(golden) = golden() else { return };
    let layouts = golden.join("layouts");
    for model in models() {
        let family = model
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .replace("tiny", "full");
        let text = std::fs::read_to_string(layouts.join(format!("{family}.txt"))).unwrap();
        let lines = text
            .lines()
            .skip_while(|line| !line.starts_with("# single_file "));
        let known: Vec<_> = lines.filter_map(|line| line.split('\t').next()).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("single.safetensors");
        let original = Checkpoint::open(&model, None).unwrap();
        original.write(&path, Kind::SingleFile, None).unwrap();
        let written = cleandift::checkpoint::Weights::open(&path).unwrap();
        for name in written.names() {
            assert!(known.contains(&name), "{family}: `{name}`");
        }
    }
}

#[test]
fn storage_types_go_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for model in models() {
        let original = Checkpoint::open(&model, None).unwrap();
        original
            .write(&path("wide"), Kind::UnetFile, Some(Dtype::F32))
            .unwrap();
        let wide = Checkpoint::open(&path("wide"), Some(&model)).unwrap();
        assert_eq!(
            wide.unet().weights.dtype("conv_in.weight"),
            Some(Dtype::F32)
        );
        let stored = original.unet().weights.dtype("conv_in.weight");
        wide.write(&path("narrow"), Kind::UnetFile, stored).unwrap();
        let narrow = Checkpoint::open(&path("narrow"), Some(&model)).unwrap();
        assert_eq!(all(&narrow.unet().weights), all(&original.unet().weights));
    }
}

#[test]
fn a_full_file_is_written_as_it_was_read() {
    let [model, _] = models();
    let original = Checkpoint::open(&model, None).unwrap();
    let prefixed = |prefix: &str, tensors: Vec<Tensor>| {
        let rename = move |(name, shape, values)| (format!("{prefix}{name}"), shape, values);
        tensors.into_iter().map(rename).collect::<Vec<_>>()
    };
    let unet = all(&original.unet().weights);
    let mut tensors = prefixed("unet_feature_extractor_cleandift.", unet.clone());
    tensors.extend(prefixed("unet_feature_extractor_base.", unet));
    tensors.extend(prefixed("ae.ae.", all(&original.vae().unwrap().weights)));
    tensors.extend([
        ("timestep".to_owned(), vec![], vec![261.0]),
        tensor("adapters.mid.layers.0.up_proj.weight", &[4, 2]),
        tensor("mapping.in_norm.scale", &[4]),
        tensor("time_emb.weight", &[2, 1]),
        tensor("time_in_proj.weight", &[4, 4]),
    ]);
    let folder = tempfile::tempdir().unwrap();
    let (path, again) = (folder.path().join("full"), folder.path().join("again"));
    write(&path, Dtype::F32, &tensors);
    let full = Checkpoint::open(&path, Some(&model)).unwrap();
    full.write(&again, Kind::FullFile, None).unwrap();
    let open = |path: &Path| cleandift::checkpoint::Weights::open(path).unwrap();
    assert_eq!(all(&open(&again)), all(&open(&path)));

    // bf16 has no 261: the timestep stays as it is stored.
    full.write(&again, Kind::FullFile, Some(Dtype::BF16))
        .unwrap();
    let narrow = Checkpoint::open(&again, Some(&model)).unwrap();
    assert_eq!(narrow.timestep(), Some(261.0));
    assert_eq!(
        narrow.unet().weights.dtype("conv_in.weight"),
        Some(Dtype::BF16)
    );
    full.write(&again, Kind::UnetFile, None).unwrap();
    let unet = Checkpoint::open(&again, Some(&model)).unwrap();
    assert_eq!(all(&unet.unet().weights), all(&full.unet().weights));
}

#[test]
fn what_cannot_be_written_is_named() {
    let [model, _] = models();
    let folder = tempfile::tempdir().unwrap();
    let original = Checkpoint::open(&model, None).unwrap();
    let error = original.write(&folder.path().join("full"), Kind::FullFile, None);
    assert_message(
        error.unwrap_err(),
        &["has no teacher", "CleanDIFT `_full` file"],
    );
    let error = original
        .write(folder.path(), Kind::Folder, None)
        .unwrap_err();
    assert!(matches!(error, ConvertError::Exists { .. }), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
