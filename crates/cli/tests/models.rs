//! `cleandift models convert` and `verify`, and what hostile files can do to the program.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use cleandift::checkpoint::{Checkpoint, Dtype, TensorData, write_safetensors};
use cleandift::graph::Parameters;

fn cleandift() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cleandift"))
}

fn error_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../cleandift/tests/golden/tiny-sd21")
}

/// Each file of `golden/hostile` ends in one line, within 1 GiB of address space.
#[test]
#[cfg(target_os = "linux")]
fn hostile_files_end_in_one_line_within_a_gibibyte() {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cleandift");
    let mut count = 0;
    for entry in std::fs::read_dir(library.join("tests/golden/hostile")).unwrap() {
        let path = entry.unwrap().path();
        let output = Command::new("sh")
            .arg("-c")
            .arg("ulimit -v 1048576; exec \"$0\" models inspect \"$1\"")
            .args([Path::new(env!("CARGO_BIN_EXE_cleandift")), &path])
            .output()
            .unwrap();
        let error = error_of(&output);
        assert_eq!(output.status.code(), Some(1), "{}: {error}", path.display());
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
        assert!(error.starts_with("error: "), "{error}");
        // The file itself must be refused, not the model that it would be.
        assert!(!error.contains("neither a UNet"), "{error}");
        assert!(!error.contains("has no config.json"), "{error}");
        count += 1;
    }
    assert!(count >= 40, "only {count} files");
}

/// Numbers in a config that no network has: refused before anything is made of that size.
#[test]
#[cfg(target_os = "linux")]
fn configs_beyond_all_bounds_end_in_one_line_within_a_gibibyte() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    copy(&model(), here);
    let large: [(&str, &str, serde_json::Value); 8] = [
        ("unet", "sample_size", (1u64 << 62).into()),
        ("unet", "in_channels", 0.into()),
        ("unet", "block_out_channels", vec![1u64 << 62; 4].into()),
        ("vae", "latent_channels", (1u64 << 63).into()),
        ("vae", "layers_per_block", 1_000_000_000_000u64.into()),
        ("vae", "scaling_factor", 0.into()),
        (
            "text_encoder",
            "num_hidden_layers",
            1_000_000_000_000u64.into(),
        ),
        ("text_encoder", "num_hidden_layers", 0.into()),
    ];
    for (part, key, value) in large {
        let path = here.join(part).join("config.json");
        let before = std::fs::read(&path).unwrap();
        let mut config: serde_json::Value = serde_json::from_slice(&before).unwrap();
        config[key] = value.clone();
        std::fs::write(&path, config.to_string()).unwrap();
        let output = Command::new("sh")
            .arg("-c")
            .arg("ulimit -v 1048576; exec \"$0\" models verify \"$1\"")
            .args([Path::new(env!("CARGO_BIN_EXE_cleandift")), here])
            .output()
            .unwrap();
        let (error, printed) = (error_of(&output), String::from_utf8_lossy(&output.stdout));
        assert_eq!(output.status.code(), Some(1), "{key} {value}: {error}");
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
        assert!(printed.contains(key), "{key} {value}: {printed}");
        std::fs::write(&path, before).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => {
                std::fs::copy(&path, target).unwrap();
            }
        }
    }
}

/// `cleandift … | head`: who has read enough is no error.
#[test]
#[cfg(unix)]
fn a_closed_pipe_ends_quietly() {
    let mut command = cleandift();
    let command = command.args(["completions", "bash"]);
    let command = command.stdout(std::process::Stdio::piped());
    let mut child = command
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(error_of(&output), "");
    assert_eq!(output.status.code(), Some(141));
}

#[test]
fn a_model_is_converted_and_verified() {
    let model = model();
    let folder = tempfile::tempdir().unwrap();
    let single = folder.path().join("model.safetensors");
    let convert = |to: &str, output: &Path| {
        let mut command = cleandift();
        command.args(["models", "convert"]).arg(&model);
        command
            .args(["--to", to, "-o"])
            .arg(output)
            .output()
            .unwrap()
    };
    let output = convert("single", &single);
    assert!(output.status.success(), "{}", error_of(&output));
    let verify = |arguments: &[&str]| {
        let mut command = cleandift();
        command.args(["models", "verify"]).arg(&single);
        command
            .arg("--base")
            .arg(&model)
            .args(arguments)
            .output()
            .unwrap()
    };
    let output = verify(&[]);
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{words}{}", error_of(&output));
    assert!(
        words.contains("U-Net: 686 tensors: fits, all values finite"),
        "{words}"
    );
    let hash = cleandift::checkpoint::file_sha256(&single).unwrap();
    assert!(words.contains(&hash), "{words}");
    assert!(verify(&["--sha256", &hash]).status.success());
    let output = verify(&["--sha256", &"0".repeat(64)]);
    assert!(error_of(&output).contains("no file has the SHA-256"));
    let output = convert("full", &folder.path().join("full.safetensors"));
    assert!(error_of(&output).contains("has no teacher"));
}

#[test]
fn a_value_that_is_not_finite_is_found() {
    let model = model();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("student.safetensors");
    let weights = Checkpoint::open(&model, None)
        .unwrap()
        .unet()
        .weights
        .clone();
    let tensors: Vec<_> = weights
        .names()
        .into_iter()
        .map(|name| {
            let mut values = weights.read(name).unwrap();
            if name == "conv_out.bias" {
                values[2] = f32::NAN;
            }
            (name, weights.shape(name).unwrap(), values)
        })
        .collect();
    let data = tensors.iter().map(|(name, shape, values)| TensorData {
        name,
        shape,
        values,
        dtype: Dtype::F32,
    });
    write_safetensors(&path, &data.collect::<Vec<_>>(), &Default::default()).unwrap();
    let mut command = cleandift();
    command
        .args(["models", "verify"])
        .arg(&path)
        .arg("--base")
        .arg(&model);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        words.contains("`conv_out.bias` has a value that is not finite at index 2"),
        "{words}"
    );
}

/// `CLEANDIFT_KILLS` sets how many times; a few with every run of the tests.
#[test]
#[cfg(unix)]
fn a_conversion_that_is_killed_leaves_nothing_torn() {
    let model = model();
    let kills = std::env::var("CLEANDIFT_KILLS").map_or(10, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let convert = || {
        let mut command = cleandift();
        command.args(["models", "convert"]).arg(&model);
        command.args(["--to", "single", "-o"]).arg(&path);
        command.stdout(std::process::Stdio::null());
        command
    };
    let began = std::time::Instant::now();
    assert!(convert().status().unwrap().success());
    let whole = began.elapsed();
    let expected = std::fs::read(&path).unwrap();
    let mut finished = true;
    for kill in 0..kills {
        // Every other time an older, finished file is there: it must not be lost.
        if kill % 2 == 0 {
            std::fs::remove_file(&path).ok();
            finished = false;
        }
        let mut child = convert().spawn().unwrap();
        // The golden ratio's multiples fill the time evenly.
        let share = (f64::from(kill) * 0.618_034).fract();
        std::thread::sleep(Duration::from_secs_f64(whole.as_secs_f64() * 1.1 * share));
        child.kill().unwrap();
        finished |= child.wait().unwrap().success();
        match std::fs::read(&path) {
            Ok(found) => {
                assert!(found == expected, "kill {kill}: a torn file");
                finished = true;
            }
            Err(error) => assert!(!finished, "kill {kill}: a finished file is lost: {error}"),
        }
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap().path();
            if entry != path {
                std::fs::remove_file(entry).unwrap();
            }
        }
    }
}
