//! A long run needs no more memory than a short one.

#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Resident memory of a process, in KiB.
fn resident(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.expect("the process runs still").trim();
    words.strip_suffix(" kB").unwrap().parse().unwrap()
}

/// Pictures in four shapes, so that programs and arena are used in turn. The run goes on for a
/// while after the second look.
#[test]
fn two_hundred_pictures_take_no_more_than_twenty() {
    const COUNT: usize = 230;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("in")).unwrap();
    for index in 0..COUNT {
        let (width, height) = [(128, 96), (96, 128), (128, 128), (64, 96)][index % 4];
        let picture = image::RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([x as u8, y as u8, index as u8])
        });
        let path = format!("in/{index:03}.bmp");
        picture.save(folder.path().join(path)).unwrap();
    }
    let mut run = Command::new(env!("CARGO_BIN_EXE_cleandift"))
        .args(["extract", "in", "-o", "out", "--size", "native", "--json"])
        .args(["--taps", "all", "--threads", "2", "--model", "random"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let events = BufReader::new(run.stdout.take().unwrap()).lines();
    let done = events.filter(|event| event.as_ref().unwrap().contains("\"done\",\"path\""));
    let mut looks = Vec::new();
    for (before, _) in done.enumerate() {
        if [20, 200].contains(&(before + 1)) {
            looks.push(resident(run.id()));
        }
    }
    assert!(run.wait().unwrap().success());
    let [early, late] = looks[..] else {
        panic!("{} of two looks", looks.len())
    };
    eprintln!("{early} KiB after 20 pictures, {late} KiB after 200");
    // 180 pictures' pixels alone would be 24 MiB, as floats.
    assert!(late < early + 4096, "{early} KiB grow to {late} KiB");
}
