//! `cleandift eval claim`, end to end on drawn data: a base and its fine-tunings, which here are the
//! base itself, so that what must come out is known.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use image::{GrayImage, Luma, Rgb, RgbImage};
use serde_json::{Value, json};

const SUITE: &str = r#"
timesteps = [100, 261]
draws = [1, 2]

[[task]]
name = "pairs"
data = "pairs"
size = 64
taps = ["us3", "us6"]
question = { spair = { choose = ["val"], report = ["trn", "test"] } }

[[task]]
name = "classes"
data = "classes"
size = 64
taps = ["us3", "us6"]
question = { neighbours = { known = 8, choose = 1, report = 2 } }

[[task]]
name = "masks"
data = "masks"
size = 64
taps = ["us6"]
question = { segmentation = { hold_out = 4 } }
"#;

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cleandift/tests/golden/tiny-sd21")
}

/// Stripes with a bright spot, which moves with `index`.
fn picture(index: u32, hue: u8) -> RgbImage {
    let [u, v] = spot(index);
    RgbImage::from_fn(64, 48, |x, y| {
        let near = x.abs_diff(u) < 4 && y.abs_diff(v) < 4;
        let stripe = 40 + 50 * ((x / 3 + index) % 2) as u8;
        Rgb(if near {
            [250, 200, 20]
        } else {
            [stripe, (y * 4) as u8, hue]
        })
    })
}

fn spot(index: u32) -> [u32; 2] {
    [10 + 9 * index, 12 + 5 * index]
}

/// All pairs of four pictures, in SPair-71k's layout, for each split.
fn draw_pairs(folder: &Path) {
    let root = folder.join("SPair-71k");
    for (split, category) in [("trn", "cow"), ("val", "cat"), ("test", "dog")] {
        let pairs = root.join("PairAnnotation").join(split);
        let pictures = root.join("JPEGImages").join(category);
        fs::create_dir_all(&pairs).unwrap();
        fs::create_dir_all(&pictures).unwrap();
        let points = |index: u32| {
            let [u, v] = spot(index);
            json!([[u, v], [u + 6, v + 2]])
        };
        for a in 0..4u32 {
            picture(a, 60)
                .save(pictures.join(format!("{a}.png")))
                .unwrap();
            for b in (0..4u32).filter(|b| *b != a) {
                let pair = json!({
                    "src_imname": format!("{a}.png"), "trg_imname": format!("{b}.png"),
                    "category": category, "src_bndbox": [5, 5, 60, 40],
                    "trg_bndbox": [5, 5, 60, 40], "src_kps": points(a), "trg_kps": points(b),
                    "kps_ids": ["0", "1"],
                });
                let file = pairs.join(format!("{a}-{b}_{category}.json"));
                fs::write(file, pair.to_string()).unwrap();
            }
        }
    }
}

/// Two classes that differ in their colour, as ImageNet's folders; masks of the spot.
fn draw_classes_and_masks(folder: &Path) {
    for (part, count) in [("train", 10), ("val", 2)] {
        for (class, hue) in [("dark", 20), ("light", 220)] {
            let folder = folder.join("classes").join(part).join(class);
            fs::create_dir_all(&folder).unwrap();
            for index in 0..count {
                let file = folder.join(format!("{index}.png"));
                picture(index % 4, hue + index as u8).save(file).unwrap();
            }
        }
    }
    for (part, count) in [("train", 8), ("test", 4)] {
        let place = |kind: &str| folder.join("masks").join(kind).join(part);
        fs::create_dir_all(place("images")).unwrap();
        fs::create_dir_all(place("masks")).unwrap();
        for index in 0..count {
            let [u, _] = spot(index % 4);
            let mask = GrayImage::from_fn(64, 48, |x, _| Luma([u8::from(x > u)]));
            let name = format!("{part}{index}.png");
            let hue = 30 * index as u8;
            picture(index % 4, hue)
                .save(place("images").join(&name))
                .unwrap();
            mask.save(place("masks").join(&name)).unwrap();
        }
    }
    fs::write(folder.join("masks/classes.txt"), "left\nright\n").unwrap();
}

fn claim(folder: &Path, more: &[&str]) -> Output {
    let base = base();
    let base = base.to_str().unwrap();
    let models = ["eval", "claim", "--base", base, "--clean", base, base];
    let rest = [
        "--data",
        "data",
        "--suite",
        "suite.toml",
        "--threads",
        "1",
        "-o",
        "out",
    ];
    let mut command = Command::new(env!("CARGO_BIN_EXE_cleandift"));
    command
        .args(models)
        .args(rest)
        .args(more)
        .current_dir(folder);
    command.output().unwrap()
}

fn succeeded(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn findings(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("out/findings.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The lines of an item's file, without the settings.
fn items(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn a_base_is_not_better_than_itself_and_a_stopped_test_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    draw_pairs(&data.join("pairs"));
    draw_classes_and_masks(&data);
    fs::write(folder.path().join("suite.toml"), SUITE).unwrap();

    let said = succeeded(&claim(folder.path(), &["--dry-run"]));
    assert!(said.contains("in all"), "{said}");
    assert!(!folder.path().join("out").exists());

    let said = succeeded(&claim(folder.path(), &[]));
    assert!(said.contains("descriptive"), "{said}");
    let found = findings(folder.path());
    let answers = found["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 3);
    for answer in answers {
        let ways = answer["ways"].as_array().unwrap();
        let [one, two, naive, clean] = &ways[..] else {
            panic!("{} ways", ways.len());
        };
        assert_eq!(one["way"], json!({ "noisy": { "draws": 1 } }));
        assert_eq!(two["way"], json!({ "noisy": { "draws": 2 } }));
        // The clean pass of a folder without a timestep of its own is the naive one at 261.
        assert_eq!(clean["validated"]["figure"], naive["fixed"]["figure"]);
        // Two fine-tunings that are the same have their mean.
        let models = clean["models"].as_array().unwrap();
        assert_eq!(
            models,
            &vec![clean["validated"]["figure"]["value"].clone(); 2]
        );
        assert_eq!(answer["judged"].as_array().unwrap().len(), 3);
        // Few pictures carry no verdict.
        assert_eq!(answer["judged"][1]["verdict"], "descriptive");
        assert!(answer["floors"].as_array().unwrap().len() >= 5);
    }
    for file in ["timesteps-pairs", "timesteps-masks", "cost", "variance"] {
        for ending in ["svg", "png"] {
            let path = folder.path().join(format!("out/claim/{file}.{ending}"));
            assert!(path.exists(), "{}", path.display());
        }
    }
    let page = fs::read_to_string(folder.path().join("out/claim.md")).unwrap();
    assert!(
        page.contains("| pairs |") && page.contains("claim/cost.svg"),
        "{page}"
    );
    assert!(!page.contains(folder.path().to_str().unwrap()), "{page}");

    // The features are those of a single evaluation.
    let base = base();
    let alone = Command::new(env!("CARGO_BIN_EXE_cleandift"))
        .args([
            "eval",
            "spair",
            "--data",
            "data/pairs",
            "--size",
            "64",
            "--noise",
            "100",
        ])
        .args([
            "--ensemble",
            "2",
            "--taps",
            "us6",
            "--floors",
            "none",
            "-o",
            "alone",
        ])
        .args(["--model", base.to_str().unwrap()])
        .current_dir(folder.path())
        .output()
        .unwrap();
    succeeded(&alone);
    let file = fs::read_dir(folder.path().join("alone/items"))
        .unwrap()
        .next()
        .unwrap();
    let shared = folder
        .path()
        .join("out/pairs/items/noisy-2-draws-us6-t-100.jsonl");
    // Of two splits that are reported as one, the second's pairs come last: twelve of `test`.
    let both = items(&shared);
    assert_eq!(both.len(), 24);
    assert_eq!(items(&file.unwrap().path()), both[12..]);

    // As a kill leaves it: one file ends within a line, another is not there yet.
    let text = fs::read(&shared).unwrap();
    fs::write(&shared, &text[..text.len() / 2]).unwrap();
    fs::remove_file(
        folder
            .path()
            .join("out/masks/choosing/naive-clean-us6-t-261.jsonl"),
    )
    .unwrap();
    succeeded(&claim(folder.path(), &[]));
    assert_eq!(fs::read(&shared).unwrap(), text);
    assert_eq!(findings(folder.path()), found);

    // Results are forgotten, and nothing else that lies beside them.
    let own = folder.path().join("out/mine.txt");
    fs::write(&own, "kept").unwrap();
    fs::write(&shared, "no items").unwrap();
    succeeded(&claim(folder.path(), &["--overwrite"]));
    assert_eq!(fs::read(&shared).unwrap(), text);
    assert!(own.exists());
}
