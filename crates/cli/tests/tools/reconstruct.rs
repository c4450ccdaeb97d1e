use super::{cleandift, golden, stderr, stdout};

#[test]
fn pixels_in_blocks_come_back_identical() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.png");
    let picture = golden("images/shapes.png");
    let output = cleandift()
        .arg("reconstruct")
        .arg(&picture)
        .args(["--model", "random", "--size", "96x64", "-o"])
        .arg(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("RANDOM"));
    assert!(stdout(&output).contains("identical to the canvas"));
    let canvas = cleandift::image::Picture::open(&picture).unwrap().resize(
        cleandift::image::Extent::new(96, 64),
        cleandift::image::Filter::Bicubic,
    );
    assert_eq!(cleandift::image::Picture::open(&out).unwrap(), canvas);
}

#[test]
fn an_auto_encoder_loses_something_and_says_how_much() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.png");
    let output = cleandift()
        .arg("reconstruct")
        .arg(golden("images/shapes.png"))
        .args(["--size", "64x32", "--model"])
        .arg(golden("tiny-sd15"))
        .arg("-o")
        .arg(&out)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("latent  8x4 cells of 4 channels, 128 values"));
    // The same figure from the two files; the weights are random, so that it is bad.
    let decoded = cleandift::image::Picture::open(&out).unwrap();
    let canvas = cleandift::image::Picture::open(golden("images/shapes.png"))
        .unwrap()
        .resize(decoded.extent(), cleandift::image::Filter::Bicubic);
    let psnr = format!("PSNR {:.2} dB", canvas.psnr(&decoded));
    assert!(stdout(&output).contains(&psnr), "{psnr}");
}

#[test]
fn what_is_wrong_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.png");
    let run = |picture: std::path::PathBuf, size: &str, out: &std::path::Path| {
        let output = cleandift()
            .arg("reconstruct")
            .arg(picture)
            .args(["--model", "random", "--size", size, "-o"])
            .arg(out)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stdout(&output), "");
        stderr(&output).to_owned()
    };
    let picture = || golden("images/shapes.png");
    assert!(run(folder.path().join("none.png"), "64", &out).contains("none.png: no such file"));
    assert!(run(picture(), "63", &out).contains("not a multiple of 4; nearest: 60 or 64"));
    let nowhere = folder.path().join("no/such/out.png");
    assert!(run(picture(), "64", &nowhere).contains("out.png: cannot be written"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
