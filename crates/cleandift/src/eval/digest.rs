//! Names of files by what their contents depend on.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::checkpoint::hexadecimal;

/// A file as it looks without being read: its path, length and time of change.
pub(super) fn appearance(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let metadata = fs::metadata(&path).ok();
    let bytes = metadata.as_ref().map(fs::Metadata::len);
    let changed = metadata.and_then(|metadata| metadata.modified().ok());
    format!("{} {bytes:?} {changed:?}", path.display())
}

/// The first half of the SHA-256 of some parts, in hexadecimal; where one ends and the next begins
/// matters.
pub(super) fn digest<'p, P>(parts: impl IntoIterator<Item = &'p P>) -> String
where
    P: AsRef<[u8]> + ?Sized + 'p,
{
    let mut digest = Sha256::new();
    for part in parts.into_iter().map(P::as_ref) {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    hexadecimal(&digest.finalize()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_between_parts_matter() {
        assert_eq!(digest(["a", "b"]).len(), 32);
        assert_ne!(digest(["ab", ""]), digest(["a", "b"]));
        assert_eq!(digest(["a", "b"]), digest(["a", "b"]));
    }
}
