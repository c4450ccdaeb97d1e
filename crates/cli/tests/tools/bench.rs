use std::io::Write;
use std::process::{Output, Stdio};

use serde_json::Value;

use super::{cleandift, golden, json, stderr, stdout};

/// A bench of a small golden model at 64 x 64 pixels.
fn bench(arguments: &[&str]) -> Output {
    let mut command = cleandift();
    command.arg("bench").arg("--model").arg(golden("tiny-sd21"));
    command.args(["--size", "64", "--runs", "2"]);
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    output
}

fn stage<'r>(report: &'r Value, name: &str) -> &'r Value {
    let mut stages = report["stages"].as_array().unwrap().iter();
    let found = stages.find(|stage| stage["name"] == name);
    found.unwrap_or_else(|| panic!("no stage `{name}`"))
}

fn sum(rows: &Value, key: &str) -> u64 {
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| row[key].as_u64().unwrap()).sum()
}

#[test]
fn counts_are_those_of_inspect_in_every_table() {
    let report = json(&bench(&["--taps", "us3", "--images", "3", "--json"]));
    let inspected = cleandift()
        .args([
            "models", "inspect", "--json", "--taps", "us3", "--size", "64",
        ])
        .arg(golden("tiny-sd21"))
        .output()
        .unwrap();
    let inspected = json(&inspected);
    let counted = |index: usize| &inspected["cost"]["stages"][index]["multiply_adds"];
    let [encoder, unet, condition] =
        ["encoder", "U-Net", "condition"].map(|name| stage(&report, name));
    let multiply_adds = |stage: &Value| stage["multiply_adds"].as_u64().unwrap();
    assert_eq!(
        Some(multiply_adds(encoder)),
        counted(0).as_u64().map(|n| 3 * n)
    );
    let whole = multiply_adds(unet) / 3 + multiply_adds(condition);
    assert_eq!(Some(whole), counted(1).as_u64());
    for stage in [encoder, unet, condition] {
        assert_eq!(stage["runs"].as_array().unwrap().len(), 2);
        for table in ["kinds", "layers"] {
            let total = sum(&stage[table], "multiply_adds");
            assert_eq!(total, multiply_adds(stage), "{table} of {}", stage["name"]);
            assert_eq!(
                sum(&stage[table], "bytes"),
                stage["bytes"].as_u64().unwrap()
            );
        }
    }
    assert_eq!(report["images"], 3);
    assert_eq!(report["taps"], serde_json::json!(["us3"]));
    let limits = report["limits"].as_object().unwrap();
    assert!(limits.values().all(|limit| limit.as_f64().unwrap() > 0.0));
    assert!(report["peak_bytes"].as_u64().unwrap() > 0);
}

#[test]
fn the_text_encoder_is_run_for_a_prompt_only() {
    let names = |output: &Output| -> Vec<String> {
        let report = json(output);
        let stages = report["stages"].as_array().unwrap().iter();
        stages
            .map(|stage| stage["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let without = ["condition", "encoder", "U-Net", "match"];
    assert_eq!(names(&bench(&["--json"])), without);
    let with = names(&bench(&["--json", "--prompt", "a dog"]));
    assert_eq!(with[0], "text encoder");
    assert_eq!(with[1..], without);
}

#[test]
fn people_see_types_of_layers_or_each_layer() {
    let (types, layers) = (bench(&[]), bench(&["--layers"]));
    for expected in [
        "GFLOP/s",
        "of peak",
        "U-Net",
        "match",
        "linear",
        "1 picture of 64x64",
    ] {
        assert!(stdout(&types).contains(expected), "`{expected}` is missing");
    }
    let layer = "down_blocks.0.resnets.0.conv1";
    assert!(!stdout(&types).contains(layer));
    assert!(stdout(&layers).contains(layer));
    assert_eq!(stderr(&layers), "");
}

#[test]
fn a_line_in_is_a_run_and_a_line_out() {
    let mut command = cleandift();
    command.args(["bench", "--size", "64", "--interactive", "--threads", "1"]);
    command.args(["--model", "random"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = command.spawn().unwrap();
    process.stdin.take().unwrap().write_all(b"\n\n\n").unwrap();
    let output = process.wait_with_output().unwrap();
    let lines: Vec<Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [ready, runs @ .., report] = lines.as_slice() else {
        panic!("{} lines", lines.len())
    };
    // The built-in model: blocks of four pixels, 144 channels at a quarter of the latent's side.
    let shapes = serde_json::json!({"encoder": [48, 16, 16], "unet": [144, 4, 4]});
    assert_eq!(ready, &shapes);
    let seconds: Vec<&Value> = runs.iter().map(|run| &run["unet"]).collect();
    let reported = stage(report, "U-Net")["runs"].as_array().unwrap();
    assert_eq!(seconds, reported.iter().collect::<Vec<_>>());
    assert_eq!((seconds.len(), &report["threads"]), (3, &1.into()));
}

#[test]
fn what_is_wrong_is_said() {
    let run = |arguments: &[&str]| {
        let output = cleandift().arg("bench").args(arguments).output().unwrap();
        (output.status.code(), stderr(&output).to_owned())
    };
    let (code, error) = run(&["--random-weights", "sd21", "--model", "x"]);
    assert_eq!(code, Some(2), "{error}");
    let (code, error) = run(&["--model", "random", "--taps", "us99"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("us99"), "{error}");
    let (code, error) = run(&["--model", "random", "--size", "native", "--images", "2"]);
    assert_eq!(code, Some(1));
    assert!(
        error.contains("--size native") && error.contains("give one size"),
        "{error}"
    );
}
