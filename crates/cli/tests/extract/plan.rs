//! What is said before any work is done.

use std::fs;

use serde_json::Value;

use super::{RANDOM, binary, contents, extract, pictures, stderr};

#[test]
fn wrong_arguments_are_told_before_any_work() {
    let folder = pictures(1);
    let here = folder.path();
    fs::write(here.join("file"), "").unwrap();
    fs::create_dir(here.join("empty")).unwrap();
    for (arguments, code, words) in [
        (&["nothere.png", "-o", "out"][..], 1, "no such file"),
        (&["empty", "-o", "out"], 1, "no pictures"),
        (&["in", "-o", "file"], 1, "file"),
        (
            &["in", "-o", "out", "--taps", "us66"],
            1,
            "did you mean `us6`",
        ),
        (
            &["in", "-o", "out", "--format", "npy", "--dtype", "bf16"],
            1,
            "bf16",
        ),
        (&["in", "-o", "out", "--shard", "2/2"], 2, "I/N"),
        (&["in", "-o", "out", "--noise", "1000"], 2, "0 to 999"),
        (&["in", "-o", "out", "--timestep", "-1"], 2, "0 to 999"),
        (
            &["in", "-o", "out", "--threads", "100000"],
            2,
            "this machine",
        ),
        (
            &["in", "-o", "out", "--noise", "5", "--timestep", "5"],
            2,
            "cannot be used",
        ),
        (&["in", "-o", "out", "--ensemble", "5"], 2, "--noise"),
        (&["in", "-o", "out", "--at-timestep", "5"], 1, "heads"),
        (&["in", "-o", "out", "--teacher"], 1, "--base"),
        (&["in", "-o", "out", "--model", "nothere"], 1, "nothere"),
        (&["in", "-o", "out", "--prompt", "dog"], 1, "classes"),
    ] {
        let output = extract(arguments, here);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert!(!here.join("out").exists() || contents(&here.join("out")).len() <= 1);
    }
    let odd = ["extract", "in", "-o", "out", "--size", "62x64"];
    let output = binary()
        .args(odd)
        .args(RANDOM)
        .current_dir(here)
        .output()
        .unwrap();
    assert!(stderr(&output).contains("60 or 64"), "{}", stderr(&output));
}

#[test]
fn a_dry_run_does_nothing() {
    let folder = pictures(2);
    let output = extract(&["in", "-o", "out", "--dry-run", "--json"], folder.path());
    assert!(output.status.success(), "{}", stderr(&output));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["left"], 2);
    assert!(plan["memory_bytes"].as_u64().unwrap() > 10 << 20);
    assert!(!folder.path().join("out").exists());
}

/// What is planned is what is written, but for the headers: joined taps are as fine as the finest, means
/// have no cells, and what goes along is counted.
#[test]
fn the_disk_that_is_planned_is_the_disk_that_is_taken() {
    let folder = pictures(1);
    let also = ["--also", "latents", "--also", "prompt_embeds"];
    let cases: [&[&str]; 3] = [
        &["--taps", "us2+us9,us3", "--dtype", "f16"],
        &["--taps", "us2+us9", "--pool", "mean"],
        &["--taps", "us3", also[0], also[1], also[2], also[3]],
    ];
    for (place, case) in cases.into_iter().enumerate() {
        let out = format!("out{place}");
        let run = |more: &[&str]| {
            let arguments = [&["in", "-o", &out], case, more].concat();
            let output = extract(&arguments, folder.path());
            assert!(output.status.success(), "{}", stderr(&output));
            output
        };
        let plan: Value = serde_json::from_slice(&run(&["--dry-run", "--json"]).stdout).unwrap();
        let planned = plan["disk_bytes"].as_u64().unwrap();
        run(&[]);
        let file = folder.path().join(out).join("p000.safetensors");
        let taken = fs::metadata(file).unwrap().len();
        // A header of 2048 bytes is planned for.
        assert!(
            planned.abs_diff(taken) < 2048,
            "{case:?}: {planned}, {taken}"
        );
    }
}
