//! `cleandift pretrain`: interrupted and not, with broken pictures.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::{command, pictures, stderr, wait_for};

fn run(folder: &Path, arguments: &[&str]) -> Output {
    command("pretrain", folder, arguments).output().unwrap()
}

/// A folder with a config, a few pictures of two classes in `in/`, one of them broken, and two others
/// in `held-out/`.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let training = folder.path().join("in");
    let names = ["n00000000_0", "n00000001_1", "n00000000_2", "n00000001_3"];
    pictures(&training, &names);
    pictures(
        &folder.path().join("held-out"),
        &["n00000000_4", "n00000001_5"],
    );
    fs::write(training.join("n00000001_broken.png"), "no picture").unwrap();
    let config = "seed = 3\n\
         [model]\nchannels = [16, 16, 16, 16]\nheads = [2, 2, 2, 0]\nmid_heads = 2\ngroups = 4\n\
         class_width = 8\n\
         [data]\ntrain = ['in']\nvalidation = ['held-out']\nsize = 32\nbatch = 2\nflip = true\n\
         crop = [0.5, 1.0]\n\
         [optimiser]\nrate = 1e-3\naverage = 0.9\n\
         [schedule]\nwarmup = 2\n\
         [run]\nsteps = 12\nsave_every = 1\nvalidate_every = 5\n";
    fs::write(folder.path().join("pretrain.toml"), config).unwrap();
    folder
}

fn model(out: &Path) -> Vec<u8> {
    fs::read(out.join("model/unet/diffusion_pytorch_model.safetensors")).unwrap()
}

#[test]
fn an_interrupted_run_goes_on_bit_for_bit() {
    let folder = folder();
    let path = folder.path();
    let whole = run(path, &["-o", "whole"]);
    let words = stderr(&whole);
    assert!(whole.status.success(), "{words}");
    for part in [
        "validation loss",
        "left out",
        "n00000001_broken",
        "images/s",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }

    let mut interrupted = command("pretrain", path, &["-o", "parts"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&path.join("parts/state-00000002"));
    let id = interrupted.id().to_string();
    Command::new("kill").args(["-TERM", &id]).status().unwrap();
    let ended = interrupted.wait().unwrap();
    // It saved and left, or had made all steps by then.
    assert!(matches!(ended.code(), Some(130 | 0)), "{ended}");

    let refused = run(path, &["-o", "parts"]);
    assert!(
        stderr(&refused).contains("--resume"),
        "{}",
        stderr(&refused)
    );
    let resumed = run(path, &["-o", "parts", "--resume"]);
    assert!(resumed.status.success(), "{}", stderr(&resumed));
    assert!(model(&path.join("whole")) == model(&path.join("parts")));
}

#[test]
fn two_runs_do_not_write_into_one_folder() {
    let folder = folder();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    let other = fs::File::create(out.join(".lock")).unwrap();
    other.lock().unwrap();
    let step = ["-o", "out", "--set", "run.steps=1"];
    let refused = run(folder.path(), &step);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("another run"),
        "{}",
        stderr(&refused)
    );
    drop(other);
    let alone = run(folder.path(), &step);
    assert!(alone.status.success(), "{}", stderr(&alone));
}

#[test]
fn another_run_begins_with_a_state_or_a_model() {
    let folder = folder();
    let path = folder.path();
    let first = run(path, &["-o", "first", "--set", "run.steps=2"]);
    assert!(first.status.success(), "{}", stderr(&first));
    for (out, from) in [("second", "state-00000002"), ("third", "model")] {
        let from = format!("model.from=first/{from}");
        let none = ["-o", out, "--set", &from, "--set", "run.steps=0"];
        let again = run(path, &none);
        assert!(again.status.success(), "{from}: {}", stderr(&again));
        assert!(
            model(&path.join("first")) == model(&path.join(out)),
            "{from}"
        );
    }
    let from = "model.from=first/model";
    let other = [
        "-o",
        "fourth",
        "--set",
        from,
        "--set",
        "model.class_width=16",
    ];
    let other = run(path, &other);
    assert_eq!(other.status.code(), Some(1));
    assert!(
        stderr(&other).contains("another model"),
        "{}",
        stderr(&other)
    );
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
        "2 pictures",
        "12 steps",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    assert!(!folder.path().join("out").exists());
}

#[test]
fn what_cannot_be_done_is_said_clearly() {
    let folder = folder();
    let path = folder.path();
    fs::create_dir(path.join("empty")).unwrap();
    let cases: [(&str, &[&str]); 16] = [
        (
            "model.chanels=[16,16,16,16]",
            &["`model.chanels` is unknown", "`model.channels`"],
        ),
        ("objective.prediction=sample", &["sample", "velocity"]),
        ("data.train=[\"empty\"]", &["empty"]),
        ("model.heads=[3,2,2,0]", &["`model.heads`", "16 channels"]),
        ("model.classes=nowhere.tsv", &["nowhere.tsv"]),
        ("model.from=nowhere", &["nowhere"]),
        ("data.validation_share=2", &["`data.validation_share` is 2"]),
        ("data.crop=[50, 100]", &["`data.crop`", "[50, 100]"]),
        ("optimiser.betas=[0.9, 1.0]", &["`optimiser.betas`"]),
        ("optimiser.average=1.0", &["`optimiser.average`"]),
        ("optimiser.rate=nan", &["`optimiser.rate` is NaN"]),
        ("optimiser.weight_decay=-1.0", &["`optimiser.weight_decay`"]),
        ("model.class_width=0", &["`model.class_width`"]),
        ("model.detail=9", &["`model.detail` is 9"]),
        ("objective.snr_limit=0.0", &["`objective.snr_limit`"]),
        ("data.batch=10000000", &["GiB of memory", "`data.batch`"]),
    ];
    for (change, expected) in cases {
        let output = run(path, &["-o", "out", "--set", change]);
        assert_eq!(output.status.code(), Some(1), "{change}");
        for words in expected {
            assert!(
                stderr(&output).contains(words),
                "{change}: {}",
                stderr(&output)
            );
        }
        assert!(!path.join("out").exists(), "{change}");
    }
    let all = ["data.validation=[]", "data.validation_share=0.999"];
    let none_left = run(path, &["-o", "out", "--set", all[0], "--set", all[1]]);
    assert_eq!(none_left.status.code(), Some(1));
    assert!(
        stderr(&none_left).contains("`data.validation_share`"),
        "{}",
        stderr(&none_left)
    );
}
