use std::path::Path;
use std::process::Output;

use super::{cleandift, stderr};

fn sample(folder: &Path, arguments: &[&str]) -> Output {
    cleandift()
        .args(["sample", "--model", "random"])
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn a_seed_makes_the_same_pictures_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.png", "b.png"] {
        let output = sample(
            folder.path(),
            &[
                "--count", "3", "--size", "64x32", "--steps", "2", "-o", name,
            ],
        );
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(read("a.png"), read("b.png"));
    // Three of 64 pixels, with two between them.
    let picture = image::load_from_memory(&read("a.png")).unwrap().to_rgb8();
    assert_eq!(picture.dimensions(), (196, 32));

    let other = sample(
        folder.path(),
        &["--size", "64x32", "--steps", "2", "--seed", "1"],
    );
    assert!(other.status.success(), "{}", stderr(&other));
    let other = image::load_from_memory(&read("sample.png"))
        .unwrap()
        .to_rgb8();
    assert_eq!(other.dimensions(), (262, 32));
    assert_ne!(other.get_pixel(9, 9), picture.get_pixel(9, 9));
}

#[test]
fn what_cannot_be_done_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &[&str]); 4] = [
        (
            &["--size", "8192", "--count", "1000"],
            &["GiB of memory", "--count"],
        ),
        (&["--size", "63"], &["63x63", "nearest: 60 or 64"]),
        (&["--steps", "0"], &["1 to 1000"]),
        (&["--class", "unicorn"], &["unicorn"]),
    ];
    for (arguments, expected) in cases {
        let output = sample(folder.path(), arguments);
        assert!(!output.status.success(), "{arguments:?}");
        for words in expected {
            assert!(
                stderr(&output).contains(words),
                "{arguments:?}: {}",
                stderr(&output)
            );
        }
    }
    assert!(!folder.path().join("sample.png").exists());
}
