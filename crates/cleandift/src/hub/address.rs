//! Addresses on the web: put together, followed, and shown without their secrets.

use ureq::http::Uri;
use ureq::http::uri::{Authority, Scheme};

/// Scheme and server.
pub(super) fn server(uri: &Uri) -> Option<(Scheme, Authority)> {
    Some((uri.scheme()?.clone(), uri.authority()?.clone()))
}

/// Where a `Location` leads from an address.
pub(super) fn resolved(from: &Uri, location: &str) -> Option<Uri> {
    let scheme = from.scheme_str()?;
    let absolute = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{}{location}", from.authority()?)
    } else {
        let folder = from.path().rsplit_once('/')?.0;
        format!("{scheme}://{}{folder}/{location}", from.authority()?)
    };
    absolute.parse().ok()
}

/// An address without its query, which may hold a signature.
pub(super) fn shown(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or_default();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{scheme}://{authority}{}", uri.path())
}

/// Percent-encodes all but letters, digits, `-_.~` and what is `safe`.
pub(super) fn quoted(text: &str, safe: &str) -> String {
    let mut quoted = String::new();
    for byte in text.bytes() {
        let character = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-_.~".contains(character) || safe.contains(character) {
            quoted.push(character);
        } else {
            quoted += &format!("%{byte:02X}");
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_absolute_or_relative() {
        let from: Uri = "https://hub.example/org/repo/resolve/main/a"
            .parse()
            .unwrap();
        let to = |location| resolved(&from, location).unwrap().to_string();
        assert_eq!(to("https://cdn.example/x?y=1"), "https://cdn.example/x?y=1");
        assert_eq!(to("//cdn.example/x"), "https://cdn.example/x");
        assert_eq!(to("/api/x"), "https://hub.example/api/x");
        assert_eq!(to("b"), "https://hub.example/org/repo/resolve/main/b");
        assert!(resolved(&from, "https://").is_none());
    }

    #[test]
    fn addresses_are_quoted() {
        assert_eq!(quoted("refs/pr/3", ""), "refs%2Fpr%2F3");
        assert_eq!(quoted("a b/ü.ckpt", "/"), "a%20b/%C3%BC.ckpt");
    }
}
