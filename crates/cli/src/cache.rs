//! Where this program keeps what it can do without.

use std::ffi::OsString;
use std::path::PathBuf;

/// The folder for this user's caches of this program, if there is one: `$XDG_CACHE_HOME/cleandift`
/// where that is set, else the platform's usual place.
pub fn folder() -> Option<PathBuf> {
    let home = std::env::home_dir().filter(|home| home.is_absolute());
    folder_of(std::env::var_os("XDG_CACHE_HOME"), usual_place(home))
}

/// The XDG specification has relative paths ignored.
fn folder_of(xdg: Option<OsString>, usual: Option<PathBuf>) -> Option<PathBuf> {
    let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    Some(xdg.or(usual)?.join("cleandift"))
}

#[cfg(target_os = "macos")]
fn usual_place(home: Option<PathBuf>) -> Option<PathBuf> {
    Some(home?.join("Library/Caches"))
}

#[cfg(windows)]
fn usual_place(home: Option<PathBuf>) -> Option<PathBuf> {
    let local = std::env::var_os("LOCALAPPDATA").map(PathBuf::from);
    Some(local.unwrap_or(home?.join("AppData/Local")))
}

#[cfg(not(any(target_os = "macos", windows)))]
fn usual_place(home: Option<PathBuf>) -> Option<PathBuf> {
    Some(home?.join(".cache"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_variable_goes_before_the_usual_place() {
        let absolute = std::env::temp_dir();
        let usual = || Some(absolute.join("usual"));
        let of = |xdg: Option<&Path>| folder_of(xdg.map(OsString::from), usual());
        assert_eq!(of(Some(&absolute)), Some(absolute.join("cleandift")));
        for ignored in [None, Some(Path::new("")), Some(Path::new("relative"))] {
            assert_eq!(of(ignored), Some(absolute.join("usual/cleandift")));
        }
        assert_eq!(folder_of(None, None), None);
    }
}
