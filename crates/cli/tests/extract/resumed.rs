//! Runs that are killed and go on, and results of other runs: nothing lost, nothing torn, nothing mixed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cleandift::checkpoint::Weights;
use cleandift::graph::Parameters;

use super::{RANDOM, binary, contents, extract, pictures, report, stderr};

#[test]
fn a_killed_run_is_resumed() {
    let folder = pictures(60);
    let here = folder.path();
    let arguments = ["extract", "in", "-o", "out", "--size", "64"];
    let mut run = binary()
        .args(arguments)
        .args(RANDOM)
        .current_dir(here)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let outputs = |folder: &Path| {
        let found = fs::read_dir(folder).into_iter().flatten().flatten();
        found
            .filter(|entry| entry.path().extension().is_some_and(|e| e == "safetensors"))
            .count()
    };
    while outputs(&here.join("out")) < 5 && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(2));
    }
    run.kill().unwrap();
    run.wait().unwrap();
    let before = contents(&here.join("out"));
    for (path, bytes) in before
        .iter()
        .filter(|(path, _)| path.extension().unwrap() == "safetensors")
    {
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert!(bytes.len() > 8 + length, "{}", path.display());
    }
    let output = extract(&["in", "-o", "out"], here);
    assert!(output.status.success(), "{}", stderr(&output));
    let report = report(&here.join("out"));
    let [done, skipped] = ["done", "skipped"].map(|key| report[key].as_u64().unwrap());
    assert_eq!(done + skipped, 60);
    assert!(skipped >= 5);
    let again = extract(&["in", "-o", "fresh"], here);
    assert!(again.status.success());
    assert!(contents(&here.join("out")) == contents(&here.join("fresh")));
}

/// `CLEANDIFT_KILLS` sets how many times; a few with every run of the tests.
#[test]
fn runs_that_are_killed_leave_nothing_torn_and_lose_nothing() {
    let folder = pictures(8);
    let (here, out) = (folder.path(), folder.path().join("out"));
    let begun = Instant::now();
    assert!(extract(&["in", "-o", "whole"], here).status.success());
    let whole = begun.elapsed();
    let expected = contents(&here.join("whole"));
    let kills = std::env::var("CLEANDIFT_KILLS").map_or(10, |text| text.parse().unwrap());
    let mut known = BTreeMap::new();
    for kill in 0..kills {
        if known.len() == expected.len() {
            fs::remove_dir_all(&out).unwrap();
            known.clear();
        }
        let mut run = binary();
        run.args([
            "extract",
            "in",
            "-o",
            "out",
            "--size",
            "64",
            "--threads",
            "1",
        ]);
        run.args(RANDOM).current_dir(here).stderr(Stdio::null());
        let mut run = run.spawn().unwrap();
        // The golden ratio's multiples fill the time evenly.
        let share = (f64::from(kill) * 0.618_034).fract();
        std::thread::sleep(whole.mul_f64(share));
        run.kill().unwrap();
        run.wait().unwrap();
        let mut found = contents(&out);
        found.retain(|path, _| expected.contains_key(path));
        for (path, bytes) in &found {
            assert!(
                *bytes == expected[path],
                "kill {kill}: {} is torn",
                path.display()
            );
        }
        let lost = known.keys().find(|path| !found.contains_key(*path));
        assert!(lost.is_none(), "kill {kill}: {lost:?} is lost");
        known = found;
    }
}

#[test]
fn other_settings_need_another_folder() {
    let folder = pictures(2);
    let here = folder.path();
    assert!(extract(&["in", "-o", "out"], here).status.success());
    let output = extract(&["in", "-o", "out", "--taps", "us6"], here);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("`taps`"), "{}", stderr(&output));
    let output = extract(&["in", "-o", "out", "--taps", "us6", "--overwrite"], here);
    assert!(output.status.success(), "{}", stderr(&output));
    let weights = Weights::open(&here.join("out/p000.safetensors")).unwrap();
    assert_eq!(weights.names(), ["us6"]);
}

/// Features are replaced together, or not at all: what a run that is broken off leaves is never taken
/// for something that it is not.
#[test]
fn features_of_other_settings_do_not_stay() {
    let folder = pictures(2);
    let here = folder.path();
    let names = || -> Vec<PathBuf> {
        let files = contents(&here.join("out")).into_keys();
        files
            .filter(|file| file != Path::new("manifest.json"))
            .collect()
    };
    assert!(extract(&["in", "-o", "out"], here).status.success());
    let other = ["-o", "out", "--taps", "us6", "--overwrite"];
    let output = extract(&[&["in/p001.png"][..], &other].concat(), here);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("p000.safetensors: was made with other settings"));
    assert_eq!(names().len(), 2);
    let half = extract(&[&["in", "--shard", "0/2"][..], &other].concat(), here);
    assert!(half.status.success(), "{}", stderr(&half));
    assert_eq!(names(), [Path::new("p000.safetensors")]);
    let rest = extract(&["in", "-o", "out", "--taps", "us6"], here);
    assert!(
        stderr(&rest).contains("1 done, 1 skipped"),
        "{}",
        stderr(&rest)
    );
}

/// In every format, also of the two that have no place for what a picture was.
#[test]
fn another_picture_of_the_same_name_is_not_skipped() {
    for (format, ending) in [
        ("safetensors", "safetensors"),
        ("npy", "us3.npy"),
        ("npz", "npz"),
    ] {
        let folder = pictures(2);
        let here = folder.path();
        let file = here.join("out/p001").with_extension(ending);
        let again = |expected: &str| {
            let output = extract(&["in", "-o", "out", "--format", format], here);
            let said = stderr(&output);
            assert!(said.contains(expected), "{format}: {said}");
            fs::read(&file).unwrap()
        };
        let before = again("2 done, 0 skipped");
        again("0 done, 2 skipped");
        fs::copy(here.join("in/p000.png"), here.join("in/p001.png")).unwrap();
        let changed = again("1 done, 1 skipped");
        assert!(changed != before, "{format}");
        // As a full disk or a bad copy leaves it.
        fs::write(&file, &changed[..changed.len() / 2]).unwrap();
        assert!(again("1 done, 1 skipped") == changed, "{format}");
    }
}

/// A name need not be text.
#[cfg(target_os = "linux")]
/// The hash of the weights is kept where the environment says, and nothing depends on it.
#[test]
fn hashes_of_weights_are_kept() {
    let folder = pictures(1);
    let here = folder.path();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let model = here.join("model");
    copy(&crates.join("cleandift/tests/golden/tiny-sd21"), &model);
    let cache = here.join("cache");
    let run = |out: &str| {
        let output = binary()
            .args([
                "extract", "in", "--size", "64", "--model", "model", "-o", out,
            ])
            .env("XDG_CACHE_HOME", &cache)
            .current_dir(here)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        contents(&here.join(out))
    };
    let first = run("first");
    let kept = contents(&cache.join("cleandift/hashes"));
    assert_eq!(kept.len(), 3, "U-Net, auto-encoder, text encoder");
    let again = run("again");
    assert_eq!(first, again);
    for name in kept.keys() {
        fs::write(cache.join("cleandift/hashes").join(name), "broken").unwrap();
    }
    assert_eq!(first, run("broken"));
    assert_eq!(kept, contents(&cache.join("cleandift/hashes")));
}

/// Copies a folder, whose files then look an hour old.
fn copy(from: &Path, to: &Path) {
    for (name, bytes) in contents(from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        let hour = Duration::from_secs(3600);
        file.set_modified(std::time::SystemTime::now() - hour)
            .unwrap();
    }
}
