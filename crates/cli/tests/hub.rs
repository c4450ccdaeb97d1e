//! Models by name, as a person asks for them.

#[path = "../../cleandift/tests/hub/server.rs"]
#[expect(dead_code, reason = "the library's tests use all of it")]
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use server::{Fault, Server, noise, sha256};

/// A hub, and the program with a cache of its own.
struct Setting {
    server: Server,
    home: tempfile::TempDir,
}

impl Setting {
    fn new() -> Self {
        Self {
            server: Server::start(),
            home: tempfile::tempdir().unwrap(),
        }
    }

    fn cleandift(&self) -> Command {
        self.environment(Command::new(env!("CARGO_BIN_EXE_cleandift")))
    }

    fn environment(&self, mut command: Command) -> Command {
        for variable in [
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "HF_HUB_CACHE",
            "HF_TOKEN",
        ] {
            command
                .env_remove(variable)
                .env_remove(variable.to_lowercase());
        }
        command
            .env("HF_ENDPOINT", &self.server.endpoint)
            .env("HF_HOME", self.home.path())
            .env("XDG_CACHE_HOME", self.home.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.cleandift().args(arguments).output().unwrap()
    }

    fn repository(&self) -> PathBuf {
        self.home.path().join("hub/models--org--repo")
    }

    /// `org/repo` is a small model that works.
    fn with_model() -> Self {
        let setting = Self::new();
        let root = golden("tiny-sd21");
        for folder in ["unet", "vae", "text_encoder", "tokenizer", "scheduler"] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let file = format!("{folder}/{}", path.file_name().unwrap().to_str().unwrap());
                setting
                    .server
                    .add("org/repo", &file, &std::fs::read(&path).unwrap());
            }
        }
        setting
    }
}

/// A golden model of the library.
fn golden(model: &str) -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    crates.join("cleandift/tests/golden").join(model)
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn a_name_is_as_good_as_a_path() {
    let setting = Setting::with_model();
    let by_name = setting.run(&["models", "inspect", "org/repo", "--size", "64", "--json"]);
    assert!(by_name.status.success(), "{}", stderr(&by_name));
    assert!(stderr(&by_name).contains("fetching unet/diffusion_pytorch_model.safetensors, "));
    let report: serde_json::Value = serde_json::from_str(stdout(&by_name)).unwrap();
    let model = report["model"].as_str().unwrap();
    assert!(
        Path::new(model).starts_with(setting.repository().join("snapshots")),
        "{model}"
    );

    let pulled = setting.run(&["models", "pull", "org/repo"]);
    assert_eq!(stdout(&pulled).trim_end(), model);
    assert_eq!(stderr(&pulled), "");

    let list = setting.run(&["models", "list"]);
    assert!(
        stdout(&list).contains("cleandift-sd21"),
        "{}",
        stdout(&list)
    );
    assert!(stdout(&list).contains("org/repo"), "{}", stdout(&list));
}

#[test]
fn a_wrong_name_is_told_as_a_path_and_as_a_name() {
    let setting = Setting::new();
    let output = setting.run(&["models", "inspect", "models/sd15"]);
    assert_eq!(output.status.code(), Some(1));
    let start = "error: models/sd15: no such file or folder here; as a name: models/sd15: no such \
                 repository on http";
    assert!(stderr(&output).starts_with(start), "{}", stderr(&output));
    assert_eq!(stderr(&output).trim_end().lines().count(), 1);

    // What cannot be a name is a path.
    let output = setting.run(&["models", "inspect", "./models/sd15"]);
    assert_eq!(
        stderr(&output),
        "error: ./models/sd15: no such file or folder\n"
    );
    let output = setting.run(&["models", "pull", "./models/sd15"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_log_tells_requests_without_secrets() {
    let setting = Setting::new();
    setting
        .server
        .add("org/repo", "model.safetensors", &noise(5000, 1));
    let mut command = setting.cleandift();
    command.args([
        "--log",
        "debug",
        "models",
        "pull",
        "org/repo:model.safetensors",
    ]);
    let output = command.env("HF_TOKEN", "hf_secret").output().unwrap();
    let log = stderr(&output);
    assert!(log.contains("HEAD http://127.0.0.1"), "{log}");
    assert!(log.contains("GET http://127.0.0.1"), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

/// Every system call of the program and its threads that has to do with sockets.
#[cfg(target_os = "linux")]
#[test]
fn offline_no_socket_is_opened() {
    let setting = Setting::with_model();
    setting.run(&["models", "pull", "org/repo"]);
    let asked = setting.server.count("");
    let trace = setting.home.path().join("trace");
    let mut command = setting.environment(Command::new("strace"));
    command
        .args(["-f", "-e", "trace=%network", "-o"])
        .arg(&trace);
    command.arg(env!("CARGO_BIN_EXE_cleandift"));
    command.args(["models", "inspect", "org/repo", "--size", "64"]);
    let Ok(output) = command.env("HF_HUB_OFFLINE", "1").output() else {
        eprintln!("skipped: there is no strace here");
        return;
    };
    assert!(output.status.success(), "{}", stderr(&output));
    let trace = std::fs::read_to_string(trace).unwrap();
    assert!(trace.contains("exited with 0"), "{trace}");
    assert!(
        !trace.contains("socket(") && !trace.contains("connect("),
        "{trace}"
    );
    assert_eq!(setting.server.count(""), asked);
}

/// Kills `models pull` again and again, `CLEANDIFT_KILLS` times (25 if not set), at moments spread
/// over its whole run.
#[test]
fn killed_at_any_moment_nothing_is_torn_and_nothing_finished_is_lost() {
    let kills = std::env::var("CLEANDIFT_KILLS").map_or(25, |kills| kills.parse().unwrap());
    let setting = Setting::new();
    let bytes = noise(4_000_000, 2);
    setting.server.add("org/repo", "model.safetensors", &bytes);
    setting.server.add("org/repo", "small.json", b"{}");
    let small = ["models", "pull", "org/repo:small.json"];
    assert!(setting.run(&small).status.success());
    let etag = sha256(&bytes);
    let moments = noise(kills, 3);
    let mut whole = 0;
    for moment in moments {
        setting.server.with(|state| {
            state.faults = [Fault::Drip(50_000, Duration::from_micros(500))].into();
        });
        let mut command = setting.cleandift();
        command.args(["models", "pull", "org/repo:model.safetensors"]);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_micros(u64::from(moment) * 600));
        child.kill().unwrap();
        child.wait().unwrap();
        whole += usize::from(check(&setting, &etag));
        assert!(setting.repository().join("refs/main").exists());
    }
    eprintln!("{kills} kills, the file was whole after {whole}");
    setting.server.with(|state| state.faults.clear());
    let output = setting.run(&["models", "pull", "org/repo:model.safetensors"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(std::fs::read(stdout(&output).trim_end()).unwrap(), bytes);
}

/// Whatever has a name is whole. If the large file is, it is taken away again, so that there is
/// something to do for the next run.
fn check(setting: &Setting, etag: &str) -> bool {
    let repository = setting.repository();
    let blob = repository.join("blobs").join(etag);
    let link = repository
        .join("snapshots")
        .join(server::COMMIT)
        .join("model.safetensors");
    let linked = std::fs::symlink_metadata(&link).is_ok();
    match std::fs::read(&blob) {
        Ok(bytes) => {
            assert_eq!(sha256(&bytes), etag);
            std::fs::remove_file(&blob).unwrap();
        }
        Err(_) => assert!(!linked, "a link to nothing"),
    }
    if linked {
        std::fs::remove_file(&link).unwrap();
    }
    let small = repository
        .join("snapshots")
        .join(server::COMMIT)
        .join("small.json");
    assert_eq!(std::fs::read(small).unwrap(), b"{}");
    linked
}

#[test]
fn two_processes_at_once_fetch_a_file_once() {
    let setting = Setting::new();
    let bytes = noise(1_000_000, 5);
    setting.server.add("org/repo", "model.safetensors", &bytes);
    setting
        .server
        .fault(Fault::Drip(50_000, Duration::from_millis(50)));
    let children = [(); 2].map(|()| {
        let mut command = setting.cleandift();
        command.args(["models", "pull", "org/repo:model.safetensors"]);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let outputs = children.map(|child| child.wait_with_output().unwrap());
    for output in &outputs {
        assert!(output.status.success(), "{}", stderr(output));
        assert_eq!(std::fs::read(stdout(output).trim_end()).unwrap(), bytes);
    }
    let told = "model.safetensors: another process fetches it: waiting\n";
    assert!(outputs.iter().any(|output| stderr(output) == told));
    assert_eq!(setting.server.count("storage GET"), 1);
}

/// A cache on a disk of 1 MiB, in a namespace of its own.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told_and_what_came_is_kept() {
    let setting = Setting::new();
    setting
        .server
        .add("org/repo", "model.safetensors", &noise(3_000_000, 4));
    let mut command = setting.environment(Command::new("unshare"));
    let script = "mount -t tmpfs -o size=1m none \"$HF_HOME\" || exit 77
        \"$0\" models pull org/repo:model.safetensors
        code=$?; ls -s \"$HF_HOME\"/hub/*/blobs; exit $code";
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    let output = command.arg(env!("CARGO_BIN_EXE_cleandift")).output();
    let Some(output) = output.ok().filter(|output| output.status.code() == Some(1)) else {
        eprintln!("skipped: no disk can be mounted here");
        return;
    };
    let error = stderr(&output);
    // No more than the disk holds has come.
    let missing = error.split_once("the disk is full, and ").unwrap().1;
    let missing: usize = missing.split_once(' ').unwrap().0.parse().unwrap();
    assert!(
        (3_000_000 - (1 << 20)..3_000_000).contains(&missing),
        "{error}"
    );
    assert!(error.contains("the next run goes on from there"), "{error}");
    assert!(
        stdout(&output).contains(".incomplete"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn shells_and_man_know_the_commands() {
    let setting = Setting::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = setting.run(&["completions", shell]);
        assert!(stdout(&output).contains("reconstruct"), "{shell}");
    }
    let folder = setting.home.path().join("man1");
    let output = setting.run(&["man", folder.to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    for page in [
        "cleandift.1",
        "cleandift-extract.1",
        "cleandift-models-pull.1",
    ] {
        let text = std::fs::read_to_string(folder.join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
}

#[test]
fn doctor_tells_where_models_come_from() {
    let setting = Setting::with_model();
    setting.run(&["models", "pull", "org/repo"]);
    let mut command = setting.cleandift();
    command
        .args(["doctor", "--json"])
        .env("HF_TOKEN", "hf_secret");
    let output = command
        .env("HTTPS_PROXY", "http://user:word@proxy.example:3128")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(!text.contains("secret") && !text.contains("word"), "{text}");
    let report: serde_json::Value = serde_json::from_str(text).unwrap();
    let models = &report["models"];
    assert_eq!(models["hub"], setting.server.endpoint);
    assert_eq!(models["token"], "HF_TOKEN");
    assert_eq!(models["proxy"], "proxy.example:3128");
    assert_eq!(models["repositories"], 1);
    assert_eq!(models["cache"]["refusal"], serde_json::Value::Null);

    let output = setting
        .cleandift()
        .arg("doctor")
        .env("HF_ENDPOINT", "nowhere")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: HF_ENDPOINT: `nowhere` is not an address"));
}
