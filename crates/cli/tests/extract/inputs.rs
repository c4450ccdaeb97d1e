//! What is extracted: the same bytes however it is run, of inputs of every kind.

use std::fs;
use std::process::Stdio;

use cleandift::checkpoint::Weights;
use cleandift::graph::Parameters;

use super::{RANDOM, binary, contents, extract, pictures, report, stderr};

#[test]
fn batches_threads_and_shards_give_the_same_bytes() {
    let folder = pictures(10);
    let here = folder.path();
    for (out, more) in [
        ("one", &["--batch-size", "1"][..]),
        ("three", &["--batch-size", "3", "--threads", "2"]),
        ("eight", &["--batch-size", "8"]),
    ] {
        let arguments = [
            "extract", "in", "-o", out, "--size", "64", "--taps", "us6,mid",
        ];
        let output = binary()
            .args(arguments)
            .args(more)
            .args(RANDOM)
            .current_dir(here)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let parts = ["0/2", "1/2"].map(|shard| {
        binary()
            .args([
                "extract", "in", "-o", "parts", "--size", "64", "--taps", "us6,mid",
            ])
            .args(["--shard", shard])
            .args(RANDOM)
            .current_dir(here)
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    });
    for mut part in parts {
        assert!(part.wait().unwrap().success());
    }
    let expected = contents(&here.join("one"));
    assert_eq!(expected.len(), 11, "ten outputs and the manifest");
    for out in ["three", "eight", "parts"] {
        assert!(contents(&here.join(out)) == expected, "{out}");
    }
    assert!(here.join("parts/report-0-of-2.json").exists());
}

#[test]
fn broken_pictures_are_named_and_end_nothing() {
    let folder = pictures(6);
    let here = folder.path();
    let whole = fs::read(here.join("in/p000.png")).unwrap();
    fs::write(here.join("in/torn.png"), &whole[..whole.len() / 2]).unwrap();
    fs::write(here.join("in/empty.jpg"), "").unwrap();
    fs::write(here.join("in/words.webp"), "no picture").unwrap();
    let output = extract(&["in", "-o", "out"], here);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let report = report(&here.join("out"));
    assert_eq!((&report["done"], &report["total"]), (&6.into(), &9.into()));
    let failed: Vec<&str> = report["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["path"].as_str().unwrap())
        .collect();
    assert_eq!(failed, ["in/empty.jpg", "in/torn.png", "in/words.webp"]);
    assert_eq!(contents(&here.join("out")).len(), 7);
}

#[test]
fn names_that_are_not_utf8_are_extracted_too() {
    use std::os::unix::ffi::OsStrExt;
    let folder = pictures(1);
    let here = folder.path();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.png");
    fs::copy(here.join("in/p000.png"), here.join("in").join(name)).unwrap();
    let output = extract(&["in", "-o", "out", "--json"], here);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("2 done"), "{said}");
}

#[test]
fn outputs_hold_what_was_asked_for() {
    let folder = pictures(1);
    let here = folder.path();
    let extra = [
        "--also",
        "latents,prompt_embeds",
        "--dtype",
        "f16",
        "--taps",
        "us6,us9",
    ];
    let output = extract(&[&["in/p000.png", "-o", "out"][..], &extra].concat(), here);
    assert!(output.status.success(), "{}", stderr(&output));
    let weights = Weights::open(&here.join("out/p000.safetensors")).unwrap();
    let shape = |name| weights.shape(name).unwrap().to_vec();
    // 16 x 16 cells of 48 values at factor 4; us6 has half of them a side, us9 all.
    assert_eq!(shape("latents"), [48, 16, 16]);
    assert_eq!(shape("prompt_embeds"), [1, 128]);
    assert_eq!(shape("us6"), [128, 8, 8]);
    assert_eq!(shape("us9"), [96, 16, 16]);
    assert_eq!(weights.dtype("us6").unwrap().to_string(), "F16");
    assert_eq!(weights.dtype("latents").unwrap().to_string(), "F32");
    assert_eq!(weights.metadata()["picture"], "in/p000.png");

    let pooled = [
        "in/p000.png",
        "-o",
        "pooled",
        "--pool",
        "mean",
        "--taps",
        "us6",
    ];
    assert!(extract(&pooled, here).status.success());
    let pooled = Weights::open(&here.join("pooled/p000.safetensors")).unwrap();
    let plain = ["in/p000.png", "-o", "plain", "--taps", "us6"];
    assert!(extract(&plain, here).status.success());
    let plain = Weights::open(&here.join("plain/p000.safetensors"))
        .unwrap()
        .read("us6")
        .unwrap();
    for (mean, cells) in pooled
        .read("us6")
        .unwrap()
        .iter()
        .zip(plain.chunks_exact(64))
    {
        let expected = cells.iter().map(|&v| f64::from(v)).sum::<f64>() / 64.0;
        assert!((f64::from(*mean) - expected).abs() < 1e-6);
    }
}

#[test]
fn inputs_of_every_kind() {
    let folder = pictures(3);
    let here = folder.path();
    fs::create_dir_all(here.join("in/sub/.hidden")).unwrap();
    fs::copy(here.join("in/p000.png"), here.join("in/sub/P.PNG")).unwrap();
    fs::copy(here.join("in/p000.png"), here.join("in/sub/.hidden/x.png")).unwrap();
    image::open(here.join("in/p001.png"))
        .unwrap()
        .save(here.join("in/p001.bmp"))
        .unwrap();
    fs::write(here.join("in/notes.md"), "not a picture").unwrap();
    fs::write(here.join("list.txt"), "in/p000.png\n\nin/p002.png\n").unwrap();
    let stems = |out: &str| -> Vec<String> {
        let files = contents(&here.join(out)).into_keys();
        files
            .map(|path| path.display().to_string())
            .filter(|name| !["manifest.json", "pictures.jsonl"].contains(&name.as_str()))
            .collect()
    };
    assert!(extract(&["in", "-o", "a"], here).status.success());
    let expected = ["p000", "p001.bmp", "p001.png", "p002", "sub/P"];
    assert_eq!(
        stems("a"),
        expected.map(|stem| format!("{stem}.safetensors"))
    );
    assert!(extract(&["list.txt", "-o", "b"], here).status.success());
    assert_eq!(stems("b"), ["p000.safetensors", "p002.safetensors"]);
    assert!(
        extract(&["in/p00[01].png", "-o", "c", "--format", "npy"], here)
            .status
            .success()
    );
    assert_eq!(stems("c"), ["p000.us3.npy", "p001.us3.npy"]);
    let mut piped = binary()
        .args(["extract", "-", "-o", "d", "--size", "64", "--format", "npz"])
        .args(RANDOM)
        .current_dir(here)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut piped.stdin.take().unwrap(), b"in/p001.png\n").unwrap();
    assert!(piped.wait().unwrap().success());
    assert_eq!(stems("d"), ["p001.npz"]);
}

#[test]
fn pictures_may_have_prompts_of_their_own() {
    let folder = pictures(3);
    let here = folder.path();
    fs::write(
        here.join("prompts.tsv"),
        "in/p001.png\t0\nin/unknown.png\t0\n",
    )
    .unwrap();
    let output = extract(&["in", "-o", "own", "--prompt-file", "prompts.tsv"], here);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(extract(&["in", "-o", "none"], here).status.success());
    assert!(
        extract(&["in", "-o", "zero", "--prompt", "0"], here)
            .status
            .success()
    );
    let us3 = |out: &str, stem: &str| {
        let file = here.join(out).join(format!("{stem}.safetensors"));
        Weights::open(&file).unwrap().read("us3").unwrap()
    };
    assert_eq!(us3("own", "p000"), us3("none", "p000"));
    assert_eq!(us3("own", "p001"), us3("zero", "p001"));
    assert_ne!(us3("own", "p001"), us3("none", "p001"));
}

#[test]
fn pictures_of_their_own_size() {
    let folder = pictures(1);
    let here = folder.path();
    let arguments = [
        "extract", "in", "-o", "out", "--size", "native", "--taps", "us6",
    ];
    let output = binary()
        .args(arguments)
        .args(RANDOM)
        .current_dir(here)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    // 40 x 30 pixels become 40 x 32: 10 x 8 cells of latent, 5 x 4 of us6.
    let weights = Weights::open(&here.join("out/p000.safetensors")).unwrap();
    assert_eq!(weights.shape("us6").unwrap(), [128, 4, 5]);
}
