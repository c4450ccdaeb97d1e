//! `cleandift train`: killed and not, and what keeps it from beginning.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cleandift::checkpoint::Weights;
use cleandift::graph::Parameters;
use serde_json::Value;
use tempfile::TempDir;

use super::{command, pictures, stderr, wait_for};

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cleandift/tests/golden/tiny-sd21")
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    command("train", folder, arguments).output().unwrap()
}

/// A folder with a config and a few captioned pictures in `in/`, two others in `held-out/`.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let parts: [(&str, &[&str]); 2] = [
        ("in", &["p0", "p1", "p2", "p3", "p4"]),
        ("held-out", &["p5", "p6"]),
    ];
    for (part, names) in parts {
        let part = folder.path().join(part);
        pictures(&part, names);
        for name in names {
            fs::write(part.join(format!("{name}.txt")), "a photo of waves").unwrap();
        }
    }
    let config = format!(
        "seed = 3\n\
         [model]\nbase = '{}'\n\
         [heads]\nwidth = 32\n\
         [data]\ntrain = ['in']\nvalidation = ['held-out']\nsize = 64\nbatch = 2\nflip = true\n\
         crop = [0.5, 1.0]\n\
         [optimiser]\nrate = 1e-3\naverage = 0.9\n\
         [schedule]\nwarmup = 2\n\
         [run]\nsteps = 6\nsave_every = 1\nvalidate_every = 3\n",
        base().display()
    );
    fs::write(folder.path().join("train.toml"), config).unwrap();
    folder
}

const RESULTS: [&str; 3] = [
    "student_unet.safetensors",
    "student_full.safetensors",
    "README.md",
];

fn results(out: &Path) -> Vec<Vec<u8>> {
    RESULTS
        .iter()
        .map(|name| fs::read(out.join(name)).unwrap())
        .collect()
}

/// A name is looked up as `--model` is, and what was made can be used with it again; without the
/// models inside, that fails with the name.
#[test]
fn the_base_may_be_a_model_inside_the_program() {
    let folder = folder();
    let train = [
        "-o",
        "out",
        "--set",
        "model.base=tiny-base",
        "--set",
        "objective.text=none",
        "--set",
        "run.steps=1",
        "--set",
        "export.files=['unet', 'full', 'folder']",
    ];
    let trained = run(folder.path(), &train);
    if cfg!(not(feature = "tiny")) {
        assert!(
            stderr(&trained).contains("tiny-base"),
            "{}",
            stderr(&trained)
        );
        return;
    }
    assert!(trained.status.success(), "{}", stderr(&trained));
    let cases: [(&str, &[&str]); 3] = [
        ("student_unet.safetensors", &["--base", "tiny-base"]),
        ("student_full.safetensors", &["--base", "tiny-base"]),
        ("model", &[]),
    ];
    let features = cases.map(|(name, base)| {
        let taken = Command::new(env!("CARGO_BIN_EXE_cleandift"))
            .args(["extract", "held-out/p5.png", "--threads", "1", "-o", name])
            .args(["--model", &format!("out/{name}")])
            .args(base)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(taken.status.success(), "{name}: {}", stderr(&taken));
        let file = folder.path().join(name).join("p5.safetensors");
        Weights::open(&file).unwrap().read("us3").unwrap()
    });
    assert!(features[0] == features[1], "_full");
    assert!(features[0] == features[2], "folder");
}

/// A validation that was wished for is not left out without a word.
#[test]
fn a_share_without_a_picture_is_refused() {
    let folder = folder();
    let share = [
        "--set",
        "data.validation=[]",
        "--set",
        "data.validation_share=1e-9",
    ];
    let output = run(folder.path(), &[&["-o", "out"][..], &share].concat());
    assert!(!output.status.success());
    let said = stderr(&output);
    assert!(said.contains("none of 5 pictures"), "{said}");
}

/// A run that was broken off before its first state begins again when it is to go on.
#[test]
fn a_run_without_a_state_begins_again() {
    let folder = folder();
    let path = folder.path();
    fs::create_dir(path.join("out")).unwrap();
    fs::write(
        path.join("out/metrics.jsonl"),
        "{\"event\":\"step\",\"step\":1}\n",
    )
    .unwrap();
    let refused = run(path, &["-o", "out"]);
    assert!(stderr(&refused).contains("holds metrics.jsonl"));
    let resumed = run(path, &["-o", "out", "--resume", "--set", "run.steps=1"]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    let metrics = fs::read_to_string(path.join("out/metrics.jsonl")).unwrap();
    let steps = metrics
        .lines()
        .filter(|line| line.contains("\"event\":\"step\""));
    assert_eq!(steps.count(), 1, "{metrics}");
}

#[test]
fn a_killed_run_goes_on_bit_for_bit() {
    let folder = folder();
    let path = folder.path();
    let whole = run(path, &["-o", "whole"]);
    assert!(whole.status.success(), "{}", stderr(&whole));
    assert!(
        stderr(&whole).contains("validation loss"),
        "{}",
        stderr(&whole)
    );
    assert!(path.join("whole/README.md").exists());

    let mut killed = command("train", path, &["-o", "killed"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&path.join("killed/state-00000002"));
    killed.kill().unwrap();
    killed.wait().unwrap();

    let refused = run(path, &["-o", "killed"]);
    assert!(
        stderr(&refused).contains("--resume"),
        "{}",
        stderr(&refused)
    );
    let resumed = run(path, &["-o", "killed", "--resume"]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(
        stderr(&resumed).contains("going on after step"),
        "{}",
        stderr(&resumed)
    );
    assert!(results(&path.join("whole")) == results(&path.join("killed")));
    let entries = fs::read_dir(path.join("killed")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let unfinished: Vec<String> = names.filter(|name| name.ends_with(".tmp")).collect();
    assert!(unfinished.is_empty(), "{unfinished:?}");
}

#[test]
fn a_plan_tells_what_a_run_needs() {
    let folder = folder();
    let plan = run(folder.path(), &["-o", "out", "--dry-run"]);
    assert!(plan.status.success(), "{}", stderr(&plan));
    let words = String::from_utf8(plan.stdout).unwrap();
    for part in [
        "gradients: applied one by one",
        "a state",
        "GMAC",
        "6 steps",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert!(!folder.path().join("out").exists());
    let gathered = ["-o", "out", "--dry-run", "--set", "optimiser.clip=1.0"];
    let plan = run(folder.path(), &gathered);
    assert!(String::from_utf8_lossy(&plan.stdout).contains("gradients: all at once"));
}

#[test]
fn what_cannot_be_done_is_said_clearly() {
    let folder = folder();
    let path = folder.path();
    fs::create_dir(path.join("empty")).unwrap();
    fs::create_dir(path.join("silent")).unwrap();
    fs::copy(path.join("in/p0.png"), path.join("silent/p0.png")).unwrap();
    let cases: [(&[&str], &[&str]); 11] = [
        (
            &["heads.nrom=film"],
            &["`heads.nrom` is unknown", "`heads.norm`"],
        ),
        (&["objective.distance=l3"], &["l3", "l2"]),
        (&["data.train=[\"empty\"]"], &["empty"]),
        (&["data.train=[\"silent\"]"], &["no caption", "p0"]),
        (&["model.base=nowhere"], &["nowhere"]),
        (&["heads.norm=none"], &["export.files", "heads"]),
        (&["objective.taps=us66"], &["us66", "us6"]),
        (
            &["student.train=lora", "lora.layers=[\"attn1\", \"nope\"]"],
            &["`lora.layers`", "`nope`"],
        ),
        (&["lora.layers=[]"], &["`lora.layers` is empty"]),
        (&["data.size=100"], &["`data.size` is 100", "multiple of 8"]),
        (&["data.batch=10000000"], &["GiB of memory", "`data.batch`"]),
    ];
    for (changes, expected) in cases {
        let mut arguments = vec!["-o", "out"];
        arguments.extend(changes.iter().flat_map(|change| ["--set", change]));
        let output = run(path, &arguments);
        assert_eq!(output.status.code(), Some(1), "{changes:?}");
        for words in expected {
            assert!(
                stderr(&output).contains(words),
                "{changes:?}: {}",
                stderr(&output)
            );
        }
        assert!(!path.join("out").exists(), "{changes:?}");
    }
}

/// Pictures are told apart by their whole names, and what a folder holds already is not written over.
#[test]
fn files_are_taken_for_what_they_are() {
    let folder = folder();
    let path = folder.path();
    for number in 1..4 {
        let name = |ending: &str| path.join(format!("in/photo.{number}.{ending}"));
        fs::copy(path.join("in/p0.png"), name("png")).unwrap();
        fs::write(name("txt"), "another photo").unwrap();
    }
    fs::write(path.join("held-out/p7.png"), "no picture").unwrap();
    fs::write(path.join("held-out/p7.txt"), "a broken one").unwrap();
    let steps = ["--set", "run.steps=1"];
    let trained = run(path, &[&["-o", "out"][..], &steps].concat());
    assert!(trained.status.success(), "{}", stderr(&trained));
    for words in ["8 pictures, 2 to validate with", "that are left out: 1"] {
        assert!(
            stderr(&trained).contains(words),
            "{words}: {}",
            stderr(&trained)
        );
    }
    fs::create_dir(path.join("notes")).unwrap();
    fs::write(path.join("notes/README.md"), "mine").unwrap();
    let refused = run(path, &[&["-o", "notes"][..], &steps].concat());
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("README.md"),
        "{}",
        stderr(&refused)
    );
}

/// Other pictures or another base would silently make another run of it. States that say nothing of
/// them, as earlier versions wrote them, are taken as they are.
#[test]
fn a_run_goes_on_with_what_it_began_with() {
    let folder = folder();
    let path = folder.path();
    let unet = path.join("base/unet/diffusion_pytorch_model.safetensors");
    copy(&base(), &path.join("base"));
    let go = |steps: &str| {
        let steps = format!("run.steps={steps}");
        let set = ["--set", "model.base=base", "--set", &steps];
        run(path, &[&["-o", "out", "--resume"][..], &set].concat())
    };
    assert!(go("1").status.success());

    for ending in ["png", "txt"] {
        let file = |name: &str| path.join(format!("in/{name}.{ending}"));
        fs::copy(file("p0"), file("p7")).unwrap();
    }
    let refused = stderr(&go("2"));
    assert!(
        refused.contains("`pictures` was \"5 by the names"),
        "{refused}"
    );
    assert!(refused.contains("is \"6 by the names"), "{refused}");

    let json = path.join("out/state-00000001/state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert!(state.as_object_mut().unwrap().remove("sources").is_some());
    fs::write(&json, state.to_string()).unwrap();
    let resumed = go("2");
    assert!(resumed.status.success(), "{}", stderr(&resumed));

    let mut weights = fs::read(&unet).unwrap();
    *weights.last_mut().unwrap() ^= 0x80;
    fs::write(&unet, weights).unwrap();
    let refused = stderr(&go("3"));
    assert!(refused.contains("`base` was "), "{refused}");
    assert!(!refused.contains("`pictures`"), "{refused}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &to),
            false => fs::write(to, fs::read(entry.path()).unwrap()).unwrap(),
        }
    }
}

#[test]
fn another_config_and_a_loss_that_explodes_keep_what_was_saved() {
    let folder = folder();
    let path = folder.path();
    let begun = run(path, &["-o", "out", "--set", "run.steps=2"]);
    assert!(begun.status.success(), "{}", stderr(&begun));
    let states = || {
        let entries = fs::read_dir(path.join("out")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut states: Vec<String> = names.filter(|name| name.starts_with("state-")).collect();
        states.sort();
        states
    };
    let before = states();
    let other = run(path, &["-o", "out", "--resume", "--set", "heads.width=64"]);
    assert_eq!(other.status.code(), Some(1));
    assert!(
        stderr(&other).contains("`heads.width` was 32"),
        "{}",
        stderr(&other)
    );
    assert_eq!(states(), before);
    // Another rate may be what saves a run.
    let slower = ["-o", "out", "--resume", "--set", "optimiser.rate=1e-4"];
    let slower = run(path, &[&slower[..], &["--set", "run.steps=3"]].concat());
    assert!(slower.status.success(), "{}", stderr(&slower));

    let changes = [
        "optimiser.rate=1e30",
        "schedule.warmup=0",
        "run.save_every=100",
    ];
    let mut arguments = vec!["-o", "wild"];
    arguments.extend(changes.iter().flat_map(|change| ["--set", change]));
    let wild = run(path, &arguments);
    assert_eq!(wild.status.code(), Some(1), "{}", stderr(&wild));
    assert!(stderr(&wild).contains("step 2"), "{}", stderr(&wild));
}
