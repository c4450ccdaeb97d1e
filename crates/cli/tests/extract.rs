//! `cleandift extract`, end to end: the same bytes however it is run, nothing lost, nothing torn.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use cleandift::checkpoint::Weights;
use cleandift::graph::Parameters;
use serde_json::Value;
use tempfile::TempDir;

fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cleandift"))
}

/// A model that is always there.
const RANDOM: &[&str] = &["--model", "random"];

fn extract(arguments: &[&str], folder: &Path) -> Output {
    let small = ["--size", "64", "--threads", "1"];
    let model: &[&str] = match arguments.contains(&"--model") {
        true => &[],
        false => RANDOM,
    };
    binary()
        .arg("extract")
        .args(arguments)
        .args(small)
        .args(model)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A folder with `count` small pictures in `in/`, each of its own.
fn pictures(count: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    for index in 0..count {
        let picture = image::RgbImage::from_fn(40, 30, |x, y| {
            let wave = (x * 7 + y * 3) as usize * (index + 3);
            image::Rgb([
                (wave % 256) as u8,
                (wave / 7 % 256) as u8,
                (index * 40 % 256) as u8,
            ])
        });
        picture
            .save(folder.path().join(format!("in/p{index:03}.png")))
            .unwrap();
    }
    folder
}

/// Every file of a folder, if it is there, by its path; except reports.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inner) = folders.pop() {
        for entry in fs::read_dir(inner).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("report")
            {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn report(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("report.json")).unwrap()).unwrap()
}

#[test]
fn batches_threads_and_shards_give_the_same_bytes() {
    let folder = pictures(10);
    let here = folder.path();
    for (out, more) in [
        ("one", &["--batch-size", "1"][..]),
        ("three", &["--batch-size", "3", "--threads", "2"]),
        ("eight", &["--batch-size", "8"]),
    ] {
        let arguments = [
            "extract", "in", "-o", out, "--size", "64", "--taps", "us6,mid",
        ];
        let output = binary()
            .args(arguments)
            .args(more)
            .args(RANDOM)
            .current_dir(here)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let parts = ["0/2", "1/2"].map(|shard| {
        binary()
            .args([
                "extract", "in", "-o", "parts", "--size", "64", "--taps", "us6,mid",
            ])
            .args(["--shard", shard])
            .args(RANDOM)
            .current_dir(here)
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    });
    for mut part in parts {
        assert!(part.wait().unwrap().success());
    }
    let expected = contents(&here.join("one"));
    assert_eq!(expected.len(), 11, "ten outputs and the manifest");
    for out in ["three", "eight", "parts"] {
        assert!(contents(&here.join(out)) == expected, "{out}");
    }
    assert!(here.join("parts/report-0-of-2.json").exists());
}

#[test]
fn broken_pictures_are_named_and_end_nothing() {
    let folder = pictures(6);
    let here = folder.path();
    let whole = fs::read(here.join("in/p000.png")).unwrap();
    fs::write(here.join("in/torn.png"), &whole[..whole.len() / 2]).unwrap();
    fs::write(here.join("in/empty.jpg"), "").unwrap();
    fs::write(here.join("in/words.webp"), "no picture").unwrap();
    let output = extract(&["in", "-o", "out"], here);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let report = report(&here.join("out"));
    assert_eq!((&report["done"], &report["total"]), (&6.into(), &9.into()));
    let failed: Vec<&str> = report["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["path"].as_str().unwrap())
        .collect();
    assert_eq!(failed, ["in/empty.jpg", "in/torn.png", "in/words.webp"]);
    assert_eq!(contents(&here.join("out")).len(), 7);
}

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
#[test]
fn names_that_are_not_utf8_are_extracted_too() {
    use std::os::unix::ffi::OsStrExt;
    let folder = pictures(1);
    let here = folder.path();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.png");
    fs::copy(here.join("in/p000.png"), here.join("in").join(name)).unwrap();
    let output = extract(&["in", "-o", "out", "--json"], here);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("2 done"), "{said}");
}

#[test]
fn outputs_hold_what_was_asked_for() {
    let folder = pictures(1);
    let here = folder.path();
    let extra = [
        "--also",
        "latents,prompt_embeds",
        "--dtype",
        "f16",
        "--taps",
        "us6,us9",
    ];
    let output = extract(&[&["in/p000.png", "-o", "out"][..], &extra].concat(), here);
    assert!(output.status.success(), "{}", stderr(&output));
    let weights = Weights::open(&here.join("out/p000.safetensors")).unwrap();
    let shape = |name| weights.shape(name).unwrap().to_vec();
    // 16 x 16 cells of 48 values at factor 4; us6 has half of them a side, us9 all.
    assert_eq!(shape("latents"), [48, 16, 16]);
    assert_eq!(shape("prompt_embeds"), [1, 128]);
    assert_eq!(shape("us6"), [128, 8, 8]);
    assert_eq!(shape("us9"), [96, 16, 16]);
    assert_eq!(weights.dtype("us6").unwrap().to_string(), "F16");
    assert_eq!(weights.dtype("latents").unwrap().to_string(), "F32");
    assert_eq!(weights.metadata()["picture"], "in/p000.png");

    let pooled = [
        "in/p000.png",
        "-o",
        "pooled",
        "--pool",
        "mean",
        "--taps",
        "us6",
    ];
    assert!(extract(&pooled, here).status.success());
    let pooled = Weights::open(&here.join("pooled/p000.safetensors")).unwrap();
    let plain = ["in/p000.png", "-o", "plain", "--taps", "us6"];
    assert!(extract(&plain, here).status.success());
    let plain = Weights::open(&here.join("plain/p000.safetensors"))
        .unwrap()
        .read("us6")
        .unwrap();
    for (mean, cells) in pooled
        .read("us6")
        .unwrap()
        .iter()
        .zip(plain.chunks_exact(64))
    {
        let expected = cells.iter().map(|&v| f64::from(v)).sum::<f64>() / 64.0;
        assert!((f64::from(*mean) - expected).abs() < 1e-6);
    }
}

#[test]
fn inputs_of_every_kind() {
    let folder = pictures(3);
    let here = folder.path();
    fs::create_dir_all(here.join("in/sub/.hidden")).unwrap();
    fs::copy(here.join("in/p000.png"), here.join("in/sub/P.PNG")).unwrap();
    fs::copy(here.join("in/p000.png"), here.join("in/sub/.hidden/x.png")).unwrap();
    image::open(here.join("in/p001.png"))
        .unwrap()
        .save(here.join("in/p001.bmp"))
        .unwrap();
    fs::write(here.join("in/notes.md"), "not a picture").unwrap();
    fs::write(here.join("list.txt"), "in/p000.png\n\nin/p002.png\n").unwrap();
    let stems = |out: &str| -> Vec<String> {
        let files = contents(&here.join(out)).into_keys();
        files
            .map(|path| path.display().to_string())
            .filter(|name| !["manifest.json", "pictures.jsonl"].contains(&name.as_str()))
            .collect()
    };
    assert!(extract(&["in", "-o", "a"], here).status.success());
    let expected = ["p000", "p001.bmp", "p001.png", "p002", "sub/P"];
    assert_eq!(
        stems("a"),
        expected.map(|stem| format!("{stem}.safetensors"))
    );
    assert!(extract(&["list.txt", "-o", "b"], here).status.success());
    assert_eq!(stems("b"), ["p000.safetensors", "p002.safetensors"]);
    assert!(
        extract(&["in/p00[01].png", "-o", "c", "--format", "npy"], here)
            .status
            .success()
    );
    assert_eq!(stems("c"), ["p000.us3.npy", "p001.us3.npy"]);
    let mut piped = binary()
        .args(["extract", "-", "-o", "d", "--size", "64", "--format", "npz"])
        .args(RANDOM)
        .current_dir(here)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut piped.stdin.take().unwrap(), b"in/p001.png\n").unwrap();
    assert!(piped.wait().unwrap().success());
    assert_eq!(stems("d"), ["p001.npz"]);
}

#[test]
fn pictures_may_have_prompts_of_their_own() {
    let folder = pictures(3);
    let here = folder.path();
    fs::write(
        here.join("prompts.tsv"),
        "in/p001.png\t0\nin/unknown.png\t0\n",
    )
    .unwrap();
    let output = extract(&["in", "-o", "own", "--prompt-file", "prompts.tsv"], here);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(extract(&["in", "-o", "none"], here).status.success());
    assert!(
        extract(&["in", "-o", "zero", "--prompt", "0"], here)
            .status
            .success()
    );
    let us3 = |out: &str, stem: &str| {
        let file = here.join(out).join(format!("{stem}.safetensors"));
        Weights::open(&file).unwrap().read("us3").unwrap()
    };
    assert_eq!(us3("own", "p000"), us3("none", "p000"));
    assert_eq!(us3("own", "p001"), us3("zero", "p001"));
    assert_ne!(us3("own", "p001"), us3("none", "p001"));
}

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
fn pictures_of_their_own_size() {
    let folder = pictures(1);
    let here = folder.path();
    let arguments = [
        "extract", "in", "-o", "out", "--size", "native", "--taps", "us6",
    ];
    let output = binary()
        .args(arguments)
        .args(RANDOM)
        .current_dir(here)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    // 40 x 30 pixels become 40 x 32: 10 x 8 cells of latent, 5 x 4 of us6.
    let weights = Weights::open(&here.join("out/p000.safetensors")).unwrap();
    assert_eq!(weights.shape("us6").unwrap(), [128, 4, 5]);
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
