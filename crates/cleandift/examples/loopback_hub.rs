//! A hub on the loopback interface with one model, to try names without a network:
//!
//! ```sh
//! cargo run --example loopback_hub MODEL_FOLDER     # then, in another shell, what it prints
//! ```

#[path = "../tests/hub/server.rs"]
#[allow(dead_code)]
mod server;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let Some(root) = std::env::args_os().nth(1) else {
        return Err(std::io::Error::other("usage: loopback_hub MODEL_FOLDER"));
    };
    let server = server::Server::start();
    add(&server, Path::new(&root), Path::new(""))?;
    println!(
        "HF_ENDPOINT={} cleandift models pull org/repo",
        server.endpoint
    );
    loop {
        std::thread::park();
    }
}

fn add(server: &server::Server, root: &Path, inner: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root.join(inner))? {
        let inner = inner.join(entry?.file_name());
        let path = root.join(&inner);
        if path.is_dir() {
            add(server, root, &inner)?;
        } else {
            let name = inner.to_string_lossy().replace('\\', "/");
            server.add("org/repo", &name, &std::fs::read(path)?);
        }
    }
    Ok(())
}
