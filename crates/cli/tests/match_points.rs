//! `cleandift match`, end to end.

use std::process::Command;

use serde_json::Value;

#[test]
fn the_example_works_in_an_empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cleandift"))
        .args(["match", "--example", "--model", "random"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("RANDOM"),
        "the weights are random: that must be said"
    );
    let drawn = image::open(folder.path().join("match.png")).unwrap();
    // Two portraits of 420 pixels and more side by side, heat maps below.
    assert!(drawn.width() > 840 && drawn.height() > 840);
    for portrait in ["person-collins.jpg", "person-hopper.jpg"] {
        assert!(folder.path().join(portrait).exists());
    }
}

/// A picture matched with itself: every point is found where it is, with similarity 1.
#[test]
fn a_picture_matches_itself() {
    let folder = tempfile::tempdir().unwrap();
    let picture = image::RgbImage::from_fn(120, 90, |x, y| {
        image::Rgb([(x * 2) as u8, (y * 2) as u8, ((x * y) % 251) as u8])
    });
    picture.save(folder.path().join("a.png")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cleandift"))
        .args(["match", "a.png", "a.png", "--json", "-", "--mutual"])
        .args(["--model", "random"])
        .args(["--point", "20,30", "--point", "77,61"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for found in report["targets"][0]["matches"].as_array().unwrap() {
        let number = |value: &Value| value.as_f64().unwrap();
        for axis in 0..2 {
            assert_eq!(number(&found["point"][axis]), number(&found["found"][axis]));
        }
        assert!(number(&found["similarity"]) > 1.0 - 1e-6);
        assert!(number(&found["runner_up_ratio"]) < 1.0);
        assert_eq!(number(&found["returned_distance"]), 0.0);
    }
}

/// Several taps are one map if they are joined, and a question if they are not.
#[test]
fn taps_are_joined_by_plus() {
    let folder = tempfile::tempdir().unwrap();
    image::RgbImage::from_fn(40, 40, |x, y| image::Rgb([(x * 6) as u8, (y * 6) as u8, 9]))
        .save(folder.path().join("a.png"))
        .unwrap();
    let matched = |taps: &str| {
        Command::new(env!("CARGO_BIN_EXE_cleandift"))
            .args(["match", "a.png", "a.png", "--point", "9,30"])
            .args(["--json", "-", "--model", "random", "--taps", taps])
            .current_dir(folder.path())
            .output()
            .unwrap()
    };
    let joined = matched("us3+us9");
    assert!(joined.status.success());
    let report: Value = serde_json::from_slice(&joined.stdout).unwrap();
    assert_eq!(report["tap"], "us3+us9");
    assert_eq!(
        report["targets"][0]["matches"][0]["found"],
        serde_json::json!([9, 30])
    );
    let several = matched("us3,us9");
    assert_eq!(several.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&several.stderr).contains("joined by `+`"));
}

#[test]
fn points_outside_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    image::RgbImage::new(20, 20)
        .save(folder.path().join("a.png"))
        .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cleandift"))
        .args(["match", "a.png", "a.png", "--point", "20,3"])
        .args(["--model", "random"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("(20, 3)") && said.contains("20x20"), "{said}");
    assert!(!folder.path().join("match.png").exists());
}

/// No command writes over what it reads, or over its own other output.
#[test]
fn pictures_are_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let picture = image::RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8, y as u8, 7]));
    for name in ["a.png", "b.png"] {
        picture.save(folder.path().join(name)).unwrap();
    }
    let before = std::fs::read(folder.path().join("b.png")).unwrap();
    let pair = ["match", "a.png", "b.png", "--model", "random"];
    for arguments in [
        [&pair[..], &["-o", "./b.png"]].concat(),
        [&pair[..], &["--json", "b.png"]].concat(),
        [&pair[..], &["-o", "m.png", "--json", "m.png"]].concat(),
        ["reconstruct", "b.png", "-o", "b.png", "--model", "random"].to_vec(),
        [
            "match",
            "--example",
            "--model",
            "random",
            "-o",
            "person-hopper.jpg",
        ]
        .to_vec(),
        [
            "models", "convert", "b.png", "-o", "b.png", "--to", "bundle",
        ]
        .to_vec(),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_cleandift"))
            .args(&arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(said.contains("written over"), "{arguments:?}: {said}");
    }
    assert!(std::fs::read(folder.path().join("b.png")).unwrap() == before);
    assert!(!folder.path().join("m.png").exists());
}
