//! `cleandift extract`, end to end: the same bytes however it is run, nothing lost, nothing torn.

mod inputs;
mod plan;
mod resumed;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
