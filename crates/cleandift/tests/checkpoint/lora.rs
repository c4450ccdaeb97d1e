//! LoRA files in all their spellings, against the formula.

use std::path::Path;

use cleandift::checkpoint::{Checkpoint, CheckpointError, Dtype, Lora};
use cleandift::graph::Parameters;

use super::{Tensor, assert_message, tensor, write, write_text};

const LAYER: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
const CONV: &str = "down_blocks.0.resnets.0.conv1";
const RANK: usize = 2;

/// A UNet of one linear layer [3, 5] and one convolution [3, 2, 3, 3].
fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_text(&folder.path().join("unet/config.json"), "{}");
    let tensors = [
        tensor("conv_in.weight", &[2, 4, 3, 3]),
        tensor(&format!("{LAYER}.weight"), &[3, 5]),
        tensor(&format!("{CONV}.weight"), &[3, 2, 3, 3]),
    ];
    let path = "unet/diffusion_pytorch_model.safetensors";
    write(&folder.path().join(path), Dtype::F16, &tensors);
    folder
}

/// Factors for both layers under the names that `spell` gives them.
fn factors(spell: impl Fn(&str, bool) -> String) -> Vec<Tensor> {
    vec![
        tensor(&spell(LAYER, false), &[RANK, 5]),
        tensor(&spell(LAYER, true), &[3, RANK]),
        tensor(&spell(CONV, false), &[RANK, 2, 3, 3]),
        tensor(&spell(CONV, true), &[3, RANK, 1, 1]),
    ]
}

/// `W + scale * up * down` in double precision.
fn expected(rows: usize, columns: usize, scale: f64) -> Vec<f32> {
    let values = |count| tensor("", &[count]).2;
    let (weights, down, up) = (
        values(rows * columns),
        values(RANK * columns),
        values(rows * RANK),
    );
    let value = |row: usize, column: usize| {
        let change: f64 = (0..RANK)
            .map(|r| f64::from(up[row * RANK + r]) * f64::from(down[r * columns + column]))
            .sum();
        (f64::from(weights[row * columns + column]) + scale * change) as f32
    };
    let indices = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    indices.map(|(row, column)| value(row, column)).collect()
}

fn open(lora: &[Tensor], scale: f32, config: Option<&str>) -> Result<Checkpoint, CheckpointError> {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let path = folder.path().join("style.safetensors");
    write(&path, Dtype::F32, lora);
    if let Some(config) = config {
        write_text(&folder.path().join("adapter_config.json"), config);
    }
    Checkpoint::open(model.path(), None)?.with_lora(Lora::open(&path, scale)?)
}

fn assert_merged(lora: &[Tensor], scale: f32, config: Option<&str>, factor: f64, what: &str) {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let path = folder.path().join("style.safetensors");
    write(&path, Dtype::F32, lora);
    if let Some(config) = config {
        write_text(&folder.path().join("adapter_config.json"), config);
    }
    let checkpoint = Checkpoint::open(model.path(), None).unwrap();
    let plain = checkpoint.sha256().unwrap().combined;
    let checkpoint = checkpoint
        .with_lora(Lora::open(&path, scale).unwrap())
        .unwrap();
    let weights = &checkpoint.unet().weights;
    for (layer, rows, columns) in [(LAYER, 3, 5), (CONV, 3, 18)] {
        let found = weights.read(&format!("{layer}.weight")).unwrap();
        let expected = expected(rows, columns, factor);
        for (found, expected) in found.iter().zip(&expected) {
            let close = (found - expected).abs() <= 1e-5 * expected.abs().max(1.0);
            assert!(close, "{what}, {layer}: {found}, not {expected}");
        }
    }
    assert_eq!(weights.dtype("conv_in.weight"), Some(Dtype::F16));
    assert_ne!(checkpoint.sha256().unwrap().combined, plain);
}

fn ab(up: bool) -> &'static str {
    if up { "B" } else { "A" }
}

fn down_up(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

#[test]
fn every_spelling_is_the_same_change() {
    type Spell = fn(&str, bool) -> String;
    let spellings: [(&str, Spell); 5] = [
        ("diffusers", |layer, up| {
            format!("unet.{layer}.lora_{}.weight", ab(up))
        }),
        ("peft", |layer, up| {
            format!("base_model.model.{layer}.lora_{}.weight", ab(up))
        }),
        ("peft, named", |layer, up| {
            format!("base_model.model.{layer}.lora_{}.default.weight", ab(up))
        }),
        ("diffusers, older", |layer, up| {
            format!("unet.{layer}.lora.{}.weight", down_up(up))
        }),
        ("kohya", |layer, up| {
            let layer = layer.replace('.', "_");
            format!("lora_unet_{layer}.lora_{}.weight", down_up(up))
        }),
    ];
    for (what, spell) in spellings {
        assert_merged(&factors(spell), 1.0, None, 1.0, what);
        assert_merged(&factors(spell), 0.25, None, 0.25, what);
    }
}

/// diffusers before 0.22 kept the factors of an attention's layers in its processor.
#[test]
fn attention_processors() {
    let block = LAYER.strip_suffix(".to_q").unwrap();
    let name = |factor| format!("{block}.processor.to_q_lora.{factor}.weight");
    let lora = [
        tensor(&name("down"), &[RANK, 5]),
        tensor(&name("up"), &[3, RANK]),
    ];
    let checkpoint = open(&lora, 1.0, None).unwrap();
    let found = checkpoint.unet().weights.read(&format!("{LAYER}.weight"));
    assert_eq!(found.unwrap(), expected(3, 5, 1.0));
}

#[test]
fn alpha_is_divided_by_the_rank() {
    let kohya = |layer: &str, up| {
        format!(
            "lora_unet_{}.lora_{}.weight",
            layer.replace('.', "_"),
            down_up(up)
        )
    };
    let mut lora = factors(kohya);
    for layer in [LAYER, CONV] {
        let name = format!("lora_unet_{}.alpha", layer.replace('.', "_"));
        lora.push((name, vec![], vec![3.0]));
    }
    assert_merged(&lora, 1.0, None, 3.0 / RANK as f64, "alpha stored");
    let peft = |layer: &str, up| format!("base_model.model.{layer}.lora_{}.weight", ab(up));
    let config = r#"{"lora_alpha": 8, "r": 2}"#;
    assert_merged(
        &factors(peft),
        0.5,
        Some(config),
        0.5 * 4.0,
        "alpha in the config",
    );
    let config = r#"{"lora_alpha": 8, "r": 2, "use_rslora": true}"#;
    let root = 8.0 / (RANK as f64).sqrt();
    assert_merged(&factors(peft), 1.0, Some(config), root, "rank-stabilised");
    // peft: `re.match(rf"(.*\.)?({key})$", layer)`.
    let config = r#"{"lora_alpha": 8, "r": 2, "alpha_pattern": {"to_q": 3, "resnets.0.conv1": 3}}"#;
    assert_merged(&factors(peft), 1.0, Some(config), 1.5, "ends of names");
    let config = r#"{"r": 2, "use_rslora": true,
        "alpha_pattern": {"attn1.to_q": 3, "to_q": 5, "conv1": 3, "onv1": 7}}"#;
    let root = 3.0 / (RANK as f64).sqrt();
    assert_merged(&factors(peft), 1.0, Some(config), root, "both");
    let config = r#"{"lora_alpha": 8, "alpha_pattern": {".*to_q": 3}}"#;
    let error = open(&factors(peft), 1.0, Some(config)).unwrap_err();
    assert_message(error, &["style.safetensors", "alpha_pattern", "to_q"]);
}

/// Settings of peft's that lie beside a file which is not peft's are another LoRA's.
#[test]
fn settings_of_another_lora_do_not_count() {
    let diffusers = |layer: &str, up| format!("unet.{layer}.lora_{}.weight", ab(up));
    let config = Some(r#"{"lora_alpha": 64, "r": 4}"#);
    assert_merged(&factors(diffusers), 1.0, config, 1.0, "not peft's");
}

#[test]
fn a_lora_of_something_else() {
    let a = |layer: &str, up| format!("unet.{layer}.lora_{}.weight", ab(up));
    let cases: [(Vec<Tensor>, &str); 5] = [
        (
            vec![
                tensor(&a("mid.to_q", false), &[2, 5]),
                tensor(&a("mid.to_q", true), &[3, 2]),
            ],
            "changes `mid.to_q`, which the model does not have",
        ),
        (
            vec![
                tensor(&a(LAYER, false), &[2, 6]),
                tensor(&a(LAYER, true), &[3, 2]),
            ],
            "its factors [3, 2] and [2, 6] do not fit",
        ),
        (vec![tensor(&a(LAYER, false), &[2, 5])], "has no partner"),
        (
            vec![tensor(&a(LAYER, true), &[3, 2])],
            "one factor without the other",
        ),
        (
            {
                let mut dora = factors(a);
                dora.push(tensor(&format!("unet.{LAYER}.lora_magnitude_vector"), &[3]));
                dora
            },
            "DoRA",
        ),
    ];
    for (lora, message) in cases {
        let error = open(&lora, 1.0, None).unwrap_err();
        assert_message(error, &["style.safetensors", message]);
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(Lora::open(Path::new(&folder.path().join("nowhere")), 1.0).is_err());
}
