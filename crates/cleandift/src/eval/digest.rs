//! Names of files by what their contents depend on.

use sha2::{Digest, Sha256};

/// The first half of the SHA-256 of some texts, in hexadecimal; where one ends and the next begins
/// matters.
pub(super) fn digest<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let mut digest = Sha256::new();
    for text in texts {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
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
    fn borders_between_texts_matter() {
        assert_eq!(digest(["a", "b"]).len(), 32);
        assert_ne!(digest(["ab", ""]), digest(["a", "b"]));
        assert_eq!(digest(["a", "b"]), digest(["a", "b"]));
    }
}
