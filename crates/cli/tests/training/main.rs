//! The commands that train, end to end: the same bits however often they are interrupted, and clear
//! words.

mod pretrain;
mod train;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A command that trains by the config of its name, on one thread.
fn command(name: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cleandift"));
    command
        .args([name, &format!("{name}.toml"), "--threads", "1"])
        .args(arguments)
        .current_dir(folder);
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Makes a folder with pictures of waves, each of other lengths and another colour: their names begin
/// as told.
fn pictures(folder: &Path, names: &[&str]) {
    fs::create_dir(folder).unwrap();
    for name in names {
        let unlike = name.bytes().last().unwrap() - b'0';
        let picture = image::RgbImage::from_fn(80, 70, |x, y| {
            let wave = (x * 3 + y * 5) * (u32::from(unlike) + 2);
            image::Rgb([(wave % 256) as u8, (wave / 5 % 256) as u8, unlike * 30])
        });
        picture.save(folder.join(format!("{name}.png"))).unwrap();
    }
}

/// Waits until a run has written a state.
fn wait_for(state: &Path) {
    let begun = Instant::now();
    while !state.exists() {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "no state was written"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}
