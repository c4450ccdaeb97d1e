//! What folders hold.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// A folder that cannot be listed.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot be listed: {source}", folder.display())]
pub struct Unlisted {
    /// The folder.
    pub folder: PathBuf,
    /// What the operating system said.
    pub source: io::Error,
}

/// All files below a folder and its folders, in the order of their names; of what is below, files and
/// folders, only what is `wanted`. Links are followed, save into a folder that they lie in, which would
/// never end; those that lead nowhere are files that cannot be read.
///
/// # Errors
/// The first folder that cannot be listed.
pub fn files_below(root: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>, Unlisted> {
    let mut files = Vec::new();
    let walk = WalkDir::new(root).follow_links(true).sort_by_file_name();
    let wanted = |path: &Path| path == root || wanted(path);
    for entry in walk.into_iter().filter_entry(|entry| wanted(entry.path())) {
        match entry {
            Ok(entry) if entry.file_type().is_dir() => {}
            Ok(entry) => files.push(entry.into_path()),
            Err(error) => {
                let path = error.path().unwrap_or(root).to_owned();
                if error.loop_ancestor().is_some() || !wanted(&path) {
                    continue;
                } else if path.is_symlink() {
                    files.push(path);
                } else {
                    return Err(Unlisted {
                        folder: path,
                        source: error.into(),
                    });
                }
            }
        }
    }
    Ok(files)
}

/// What a folder holds, files and folders, by name.
///
/// # Errors
/// If it cannot be listed.
pub fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_are_followed_once() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        fs::create_dir(&a).unwrap();
        fs::create_dir(&b).unwrap();
        fs::write(a.join("1.jpg"), "x").unwrap();
        symlink(&b, a.join("to-b")).unwrap();
        symlink(&a, b.join("to-a")).unwrap();
        symlink(folder.path().join("nothing"), b.join("2.jpg")).unwrap();
        fs::write(a.join("unwanted"), "x").unwrap();

        let wanted = |path: &Path| !path.ends_with("unwanted");
        let found = files_below(&a, wanted).unwrap();
        assert_eq!(found, [a.join("1.jpg"), a.join("to-b/2.jpg")]);
        let error = files_below(&a.join("none"), wanted).unwrap_err();
        assert_eq!(error.folder, a.join("none"));
    }
}
