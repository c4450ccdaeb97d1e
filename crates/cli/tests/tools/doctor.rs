use super::{cleandift, json, stderr, stdout};

#[test]
fn a_sound_machine_passes() {
    let output = cleandift().arg("doctor").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    for expected in [
        "memory",
        "threads",
        "portable",
        "attention",
        "attention_gradient",
        "us10",
        "all is well",
    ] {
        assert!(text.contains(expected), "`{expected}` is not in:\n{text}");
    }
    assert_eq!(stderr(&output), "");
}

#[test]
fn json_has_every_comparison() {
    let folder = tempfile::tempdir().unwrap();
    let output = cleandift()
        .args(["doctor", "--json"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let report = json(&output);
    assert_eq!(report["problems"], serde_json::json!([]));
    assert_eq!(report["folder"]["refusal"], serde_json::Value::Null);
    let sets = report["machine"]["kernels_here"].as_array().unwrap();
    assert_eq!(sets.last().unwrap(), "portable");
    assert_eq!(report["machine"]["kernels"], sets[0]);
    // Ten kernels, their gradients (of sums: adding up) and Adam; the latent and eleven taps.
    assert_eq!(report["kernels"].as_array().unwrap().len(), 21 * sets.len());
    assert_eq!(report["model"].as_array().unwrap().len(), 12 * sets.len());
    for check in report["model"].as_array().unwrap() {
        assert_eq!(check["passed"], true);
        assert!(check["error"].as_f64().unwrap() <= check["limit"].as_f64().unwrap());
    }
    assert!(report["machine"]["memory_bytes"].as_u64().unwrap() > 0);
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 0, "doctor leaves files behind");
}

#[test]
fn kernels_can_be_forced_and_unknown_ones_are_a_problem() {
    let with = |kernels: &str| {
        let mut command = cleandift();
        command
            .args(["doctor", "--json"])
            .env("CLEANDIFT_KERNELS", kernels);
        command.output().unwrap()
    };
    let output = with("portable");
    assert!(output.status.success());
    assert_eq!(json(&output)["machine"]["kernels"], "portable");

    let output = with("abacus");
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert!(error.starts_with("error: CLEANDIFT_KERNELS=abacus: this machine cannot run them"));
    assert_eq!(json(&output)["problems"].as_array().unwrap().len(), 1);
}
