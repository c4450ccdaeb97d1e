//! Names of files by what their contents depend on.

use sha2::{Digest, Sha256};

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
    let bytes = digest.finalize();
    bytes[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
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
