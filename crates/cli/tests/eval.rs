//! `cleandift eval`, `eval compare` and `sweep`, end to end, on a small set in SPair-71k's layout made
//! of drawn pictures.

use std::path::Path;
use std::process::{Command, Output};

use image::{Rgb, RgbImage};
use serde_json::{Value, json};

/// Two categories of four pictures, each a bright spot on stripes; a keypoint at the spot and one
/// beside it. All ordered pairs of a category.
fn archive(folder: &Path) {
    let root = folder.join("SPair-71k");
    let pairs = root.join("PairAnnotation/test");
    std::fs::create_dir_all(&pairs).unwrap();
    for category in ["cat", "dog"] {
        let pictures = root.join("JPEGImages").join(category);
        std::fs::create_dir_all(&pictures).unwrap();
        let spot = |index: u32| [10 + 9 * index, 12 + 5 * index];
        for index in 0..4u32 {
            let [u, v] = spot(index);
            let picture = RgbImage::from_fn(64, 48, |x, y| {
                let near = x.abs_diff(u) < 4 && y.abs_diff(v) < 4;
                let stripe = if (x / 3 + index).is_multiple_of(2) {
                    40
                } else {
                    90
                };
                Rgb(if near {
                    [250, 200, 20]
                } else {
                    [stripe, (y * 4) as u8, 60]
                })
            });
            picture.save(pictures.join(format!("{index}.png"))).unwrap();
        }
        for (a, b) in (0..4)
            .flat_map(|a| (0..4).map(move |b| (a, b)))
            .filter(|(a, b)| a != b)
        {
            let points = |index: u32| {
                let [u, v] = spot(index);
                json!([[u, v], [u + 6, v + 2]])
            };
            let pair = json!({
                "src_imname": format!("{a}.png"), "trg_imname": format!("{b}.png"),
                "category": category, "src_bndbox": [5, 5, 60, 40], "trg_bndbox": [5, 5, 60, 40],
                "src_kps": points(a), "trg_kps": points(b), "kps_ids": ["0", "1"],
            });
            let name = format!("{a}-{b}:{category}").replace(':', "_");
            std::fs::write(pairs.join(format!("{name}.json")), pair.to_string()).unwrap();
        }
    }
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_cleandift"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

fn report(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("report.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The report's rows without what a run of another time changes.
fn rows(folder: &Path) -> Vec<Value> {
    let mut report = report(folder);
    let rows = report["rows"].as_array_mut().unwrap();
    rows.iter_mut().for_each(|row| row["seconds"] = Value::Null);
    rows.clone()
}

const EVAL: [&str; 9] = [
    "eval", "spair", "--data", ".", "--model", "random", "--size", "64", "-o",
];

#[test]
fn a_stopped_run_goes_on_and_ends_with_the_same_results() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    run(folder.path(), &[&EVAL[..], &["out"]].concat());
    let out = folder.path().join("out");
    let whole = rows(&out);
    let names: Vec<&str> = whole
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    let floors = [
        "same position",
        "mean colours",
        "raw pixels",
        "dense SIFT",
        "random weights (small)",
    ];
    assert_eq!(names[..5], floors);
    assert_eq!(names.len(), 6);
    // The colour of a spot is found exactly where it is: one of two points at least.
    let colours = whole[1]["figures"][0]["value"].as_f64().unwrap();
    assert!(colours >= 0.5, "{colours}");
    for file in ["report.md", "figure.svg", "figure.png"] {
        assert!(out.join(file).exists(), "{file}");
    }
    assert_eq!(std::fs::read_dir(out.join("cases")).unwrap().count(), 6);

    // As a kill leaves it: a journal that ends within a line.
    let items = out.join(whole[5]["items"].as_str().unwrap());
    let text = std::fs::read(&items).unwrap();
    std::fs::write(&items, &text[..text.len() / 2]).unwrap();
    run(folder.path(), &[&EVAL[..], &["out"]].concat());
    assert_eq!(rows(&out), whole);
    assert_eq!(std::fs::read(&items).unwrap(), text);

    // Other settings do not join these results.
    let other = Command::new(env!("CARGO_BIN_EXE_cleandift"))
        .args([&EVAL[..], &["out", "--protocol", "sd-dino"]].concat())
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&other.stderr);
    assert!(
        !other.status.success() && said.contains("--overwrite"),
        "{said}"
    );
}

/// Results and kept features are of the pictures as they were, under whatever names.
#[test]
fn other_pictures_are_evaluated_anew() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let eval = |more: &[&str], out: &str| {
        Command::new(env!("CARGO_BIN_EXE_cleandift"))
            .args([&EVAL[..], &[out, "--floors", "none"], more].concat())
            .current_dir(folder.path())
            .output()
            .unwrap()
    };
    assert!(eval(&[], "out").status.success());
    assert!(eval(&[], "before").status.success());
    let before = rows(&folder.path().join("out"));

    let pictures = folder.path().join("SPair-71k/JPEGImages/cat");
    for name in ["0.png", "2.png"] {
        let path = pictures.join(name);
        let picture = image::open(&path).unwrap().to_rgb8();
        image::imageops::rotate180(&picture).save(path).unwrap();
    }
    let refused = eval(&[], "out");
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("`pictures`"), "{said}");
    assert!(eval(&["--overwrite"], "out").status.success());
    assert!(eval(&[], "fresh").status.success());
    let again = rows(&folder.path().join("out"));
    assert_eq!(again, rows(&folder.path().join("fresh")));
    assert_ne!(again, before);

    let compared = Command::new(env!("CARGO_BIN_EXE_cleandift"))
        .args(["eval", "compare", "before", "fresh"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8(compared.stderr).unwrap();
    assert!(said.contains("different pictures"), "{said}");
}

#[test]
fn candidates_are_compared_on_the_same_items_only() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    run(
        folder.path(),
        &[&EVAL[..], &["a", "--floors", "only"]].concat(),
    );
    run(
        folder.path(),
        &[&EVAL[..], &["b", "--floors", "only", "--protocol", "tlfr"]].concat(),
    );
    let compared = [
        "eval",
        "compare",
        "a::same position",
        "a::mean colours",
        "--json",
        "c.json",
    ];
    run(folder.path(), &compared);
    let text = std::fs::read_to_string(folder.path().join("c.json")).unwrap();
    let found: Value = serde_json::from_str(&text).unwrap();
    // Eight pictures are too few for a verdict.
    assert_eq!(found[0]["verdict"], "descriptive");
    assert_eq!(found[0]["comparison"]["units"], 8);
    let refused = Command::new(env!("CARGO_BIN_EXE_cleandift"))
        .args(["eval", "compare", "a", "b"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("different questions"),
        "{said}"
    );
}

/// The row of one draw is that of an evaluation with one draw: it shares the first of two.
#[test]
fn a_sweep_shares_draws_and_gives_what_single_evaluations_give() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let grid = [
        "sweep",
        "--modes",
        "clean,noisy",
        "--timesteps",
        "100,261",
        "--ensembles",
        "1,2",
    ];
    let task = [
        "--sweep-taps",
        "us6,us3",
        "spair",
        "--data",
        ".",
        "--model",
        "random",
        "--size",
        "64",
        "-o",
        "swept",
    ];
    run(folder.path(), &[&grid[..], &task[..]].concat());
    let swept = rows(&folder.path().join("swept"));
    assert_eq!(swept.len(), 2 + 2 * 2 * 2);
    for file in [
        "timesteps-us6.svg",
        "timesteps-us3.png",
        "taps.svg",
        "choices.md",
    ] {
        assert!(folder.path().join("swept").join(file).exists(), "{file}");
    }
    let figures = |name: &str| {
        let row = swept.iter().find(|row| row["name"] == name);
        row.unwrap_or_else(|| panic!("no {name}"))["figures"].clone()
    };
    for (count, out) in [("1", "one"), ("2", "two")] {
        let noise = [
            out,
            "--floors",
            "none",
            "--taps",
            "us6",
            "--noise",
            "261",
            "--ensemble",
            count,
        ];
        run(folder.path(), &[&EVAL[..], &noise].concat());
        let alone = rows(&folder.path().join(out));
        assert_eq!(
            alone[0]["figures"],
            figures(&format!("noisy x{count}, us6, t 261"))
        );
    }
    run(
        folder.path(),
        &[&EVAL[..], &["clean", "--floors", "none", "--taps", "us6"]].concat(),
    );
    let clean = rows(&folder.path().join("clean"));
    assert_eq!(clean[0]["figures"], figures("clean, us6"));
}

/// As many components as channels lose nothing; eight take a small part of the room. The second run
/// finds the components that the first one kept.
#[test]
fn features_are_reduced_before_they_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let run = |out: &str, more: &[&str]| {
        let arguments = [&EVAL[..], &[out, "--floors", "none"], more].concat();
        run(folder.path(), &arguments);
        rows(&folder.path().join(out)).remove(0)
    };
    let bytes = |out: &str| -> u64 {
        let files = std::fs::read_dir(folder.path().join(out).join("features")).unwrap();
        files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum()
    };
    let whole = run("whole", &[]);
    let reduced = run("reduced", &["--cache-components", "8"]);
    assert_eq!(reduced["settings"]["components"], 8);
    assert!(4 * bytes("reduced") < bytes("whole"));
    let all = run("all", &["--cache-components", "4096"]);
    assert_eq!(all["figures"], whole["figures"]);
    let items = folder
        .path()
        .join("reduced")
        .join(reduced["items"].as_str().unwrap());
    std::fs::remove_file(items).unwrap();
    std::fs::remove_dir_all(folder.path().join("reduced/features")).unwrap();
    let again = run("reduced", &["--cache-components", "8"]);
    assert_eq!(again["figures"], reduced["figures"]);
}

/// A canvas larger than the protocol's windows is seen through them, alone and in sweeps.
#[test]
fn windows_give_the_same_in_sweeps() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let task = [
        "spair",
        "--model",
        "random",
        "--data",
        ".",
        "--size",
        "576x64",
        "--protocol",
        "tlfr",
    ];
    let eval = [
        &["eval"],
        &task[..],
        &["--floors", "none", "--taps", "us8", "-o", "e"],
    ]
    .concat();
    run(folder.path(), &eval);
    let swept = ["sweep", "--modes", "clean", "--sweep-taps", "us8"];
    run(folder.path(), &[&swept[..], &task, &["-o", "s"]].concat());
    let [alone, swept] = ["e", "s"].map(|out| rows(&folder.path().join(out)).remove(0));
    assert_eq!(alone["settings"]["window"], 512);
    assert_eq!(alone["figures"], swept["figures"]);
}

/// What a sweep decides itself, or does not have, is refused; a plan is only a plan.
#[test]
fn a_sweep_ignores_nothing() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let sweep = |more: &[&str]| {
        let task = ["sweep", "spair", "--model", "random", "--data", "."];
        let out = ["--size", "64", "-o", "out"];
        let mut command = Command::new(env!("CARGO_BIN_EXE_cleandift"));
        command.args([&task[..], &out, more].concat());
        command.current_dir(folder.path()).output().unwrap()
    };
    for more in [
        &["--taps", "us3"][..],
        &["--noise", "100"],
        &["--floors", "only"],
        &["--cache-components", "4"],
    ] {
        let output = sweep(more);
        assert_eq!(output.status.code(), Some(1), "{more:?}");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(words.contains("error: a sweep "), "{words}");
    }
    let plan = sweep(&["--dry-run"]);
    assert!(plan.status.success());
    assert!(!folder.path().join("out").exists());
}

/// Other pictures of the cats, turned left to right, as a split of its own.
fn cats_for_choosing(folder: &Path) {
    let root = folder.join("SPair-71k");
    let [test, val] = ["test", "val"].map(|part| root.join("PairAnnotation").join(part));
    std::fs::create_dir(&val).unwrap();
    let pictures = root.join("JPEGImages/cat");
    for index in 0..4 {
        let picture = image::open(pictures.join(format!("{index}.png"))).unwrap();
        let turned = pictures.join(format!("{index}v.png"));
        picture.fliph().save(turned).unwrap();
    }
    for entry in std::fs::read_dir(test).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.contains("cat") {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.replace(".png", "v.png");
            std::fs::write(val.join(format!("v{name}")), text).unwrap();
        }
    }
}

/// What is chosen is what the other sweep itself finds best; a sweep is no validation of itself, nor one
/// of another canvas, nor one that was broken off.
#[test]
fn settings_are_chosen_on_another_sweep() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    cats_for_choosing(folder.path());
    let sweep = |more: &[&str], task: &[&str]| {
        let grid = ["sweep", "--modes", "naive", "--timesteps", "100,261"];
        let spair = ["spair", "--model", "random", "--data", "."];
        Command::new(env!("CARGO_BIN_EXE_cleandift"))
            .args([&grid[..], more, &spair, task].concat())
            .current_dir(folder.path())
            .output()
            .unwrap()
    };
    let cells = |out: &str| {
        let path = folder.path().join(out).join("choices.md");
        let text = std::fs::read_to_string(path).unwrap();
        let row = text.lines().find(|line| line.starts_with("| naive"));
        let cells = row.unwrap().split('|').map(|cell| cell.trim().to_owned());
        cells.collect::<Vec<_>>()
    };
    let name = |cell: &str| cell.split(':').next().unwrap().to_owned();
    let small = ["--size", "64", "-o"];
    let of = |split: &'static [&'static str], out: &'static str| [split, &small, &[out]].concat();

    assert!(sweep(&[], &of(&["--split", "val"], "val")).status.success());
    let alone = cells("val");
    assert!(alone[4].contains("not given"));
    let chosen = sweep(&["--chosen-on", "val"], &of(&[], "test"));
    assert!(chosen.status.success());
    let row = cells("test");
    assert_eq!(name(&row[4]), name(&alone[2]));
    assert!(row[5].starts_with("us3:"), "{row:?}");

    let refused = |on: &str, task: &[&str], word: &str| {
        let output = sweep(&["--chosen-on", on], task);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(word), "{said}");
    };
    refused("test", &of(&[], "test"), "items that are reported");
    refused(
        "val",
        &["--size", "128", "-o", "other"],
        "was made with `size`",
    );
    let items = folder.path().join("val/items/naive-us3-t-261.jsonl");
    let text = std::fs::read_to_string(&items).unwrap();
    let lines: Vec<&str> = text.lines().take(4).collect();
    std::fs::write(&items, lines.join("\n") + "\n").unwrap();
    refused("val", &of(&[], "test"), "has other items");
}

/// Features made elsewhere are joined in a sweep as in an evaluation.
#[test]
fn a_sweep_joins_external_features() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cleandift"))
        .args(["sweep", "--modes", "clean", "spair", "--model", "random"])
        .args([
            "--data", ".", "--size", "64", "--fuse", "empty", "-o", "out",
        ])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("features of"), "{said}");
}

#[test]
fn variance_adds_up() {
    let folder = tempfile::tempdir().unwrap();
    archive(folder.path());
    let picture = "SPair-71k/JPEGImages/cat/0.png";
    let arguments = [
        "variance",
        picture,
        "--timesteps",
        "0,500",
        "--model",
        "random",
        "--size",
        "64",
        "-o",
        "v",
    ];
    run(folder.path(), &arguments);
    let text = std::fs::read_to_string(folder.path().join("v/variance.json")).unwrap();
    let found: Value = serde_json::from_str(&text).unwrap();
    let share = |at: usize, name: &str| found[at]["shares"][name].as_f64().unwrap();
    for at in 0..2 {
        let total: f64 = ["clean", "noise", "residual"]
            .map(|name| share(at, name))
            .iter()
            .sum();
        assert!((total - 1.0).abs() < 1e-9);
    }
    // Nearly without noise the clean features explain nearly all, and more than with much noise.
    assert!(share(0, "clean") > 0.9 && share(0, "clean") > share(1, "clean"));
    assert!(found[0]["between_draws"].as_f64() < found[1]["between_draws"].as_f64());
}
