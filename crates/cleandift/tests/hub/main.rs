//! Models by name, from a hub on the loopback interface.

mod misbehaviour;
mod offline;
mod pull;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use cleandift::hub::{Event, Hub, HubError, Located, Name, Settings};
use server::Server;

/// A hub with a cache of its own.
struct Setting {
    server: Server,
    cache: tempfile::TempDir,
}

const FILE: &str = "org/repo:model.safetensors";

impl Setting {
    fn new() -> Self {
        Self {
            server: Server::start(),
            cache: tempfile::tempdir().unwrap(),
        }
    }

    /// With `org/repo` that holds one large file.
    fn with_file(bytes: &[u8]) -> Self {
        let setting = Self::new();
        setting.server.add("org/repo", "model.safetensors", bytes);
        setting
    }

    /// With a change.
    fn settings_with(&self, change: impl FnOnce(&mut Settings)) -> Settings {
        let mut settings = self.settings();
        change(&mut settings);
        settings
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::new(&self.server.endpoint, self.cache.path());
        settings.timeout = Duration::from_secs(2);
        settings
    }

    fn hub(&self) -> Hub {
        Hub::new(self.settings())
    }

    fn pull(&self, name: &str) -> Result<Located, HubError> {
        self.hub().pull(&name.parse().unwrap(), &mut |_| true)
    }

    fn refusal(&self, name: &str) -> String {
        self.pull(name).unwrap_err().to_string()
    }

    fn repository(&self) -> PathBuf {
        self.cache.path().join("models--org--repo")
    }

    /// Everything below the repository's folder, sorted.
    fn left(&self) -> Vec<String> {
        let mut found = Vec::new();
        walk(&self.repository(), &self.repository(), &mut found);
        found.sort();
        found
    }
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            walk(root, &entry.path(), found);
        } else {
            let path = entry.path();
            found.push(path.strip_prefix(root).unwrap().display().to_string());
        }
    }
}

/// The golden models of `tests/golden`.
fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// Puts a golden model folder into a repository.
fn publish(server: &Server, repository: &str, model: &str) {
    let root = golden(model);
    let mut files = Vec::new();
    walk(&root, &root, &mut files);
    for file in files {
        server.add(repository, &file, &std::fs::read(root.join(&file)).unwrap());
    }
    server.add(repository, "README.md", b"not needed");
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Collects what is told about pauses and sources.
fn noted(notes: &mut Vec<String>) -> impl FnMut(Event<'_>) -> bool + '_ {
    |event| {
        match event {
            Event::Waiting { reason, .. } => notes.push(reason.to_owned()),
            Event::Passed { source, reason } => notes.push(format!("{source}: {reason}")),
            _ => {}
        }
        true
    }
}
