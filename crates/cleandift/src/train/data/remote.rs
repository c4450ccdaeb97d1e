//! Archives behind a web server, read by position: nothing of them is kept.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::DataError;
use crate::archive::Bytes;
use crate::hub::{HubError, RemoteFile, Settings};

/// How to connect to servers: asked for when the first address comes.
pub type Connection<'c> = &'c dyn Fn() -> Result<Settings, HubError>;

#[derive(Debug)]
struct RemoteArchive(RemoteFile);

impl Bytes for RemoteArchive {
    fn path(&self) -> &Path {
        Path::new(self.0.address())
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length().map_err(io::Error::other)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer).map_err(io::Error::other)
    }
}

/// A source that is an address.
pub(super) fn address(source: &Path) -> Option<&str> {
    let text = source.to_str()?;
    ["http://", "https://"]
        .iter()
        .any(|scheme| text.starts_with(scheme))
        .then_some(text)
}

/// The archives that an address names. All of them share their connections.
pub(super) fn archives(
    address: &str,
    connection: Connection<'_>,
) -> Result<Vec<Arc<dyn Bytes>>, DataError> {
    let first = RemoteFile::new(address, Arc::new(connection()?))?;
    let archive =
        |address: String| -> Arc<dyn Bytes> { Arc::new(RemoteArchive(first.sibling(&address))) };
    Ok(expanded(address).into_iter().map(archive).collect())
}

/// The addresses that `train-{0000..0021}.tar` stands for: numbers of one length.
fn expanded(address: &str) -> Vec<String> {
    let parts = || {
        let (before, rest) = address.split_once('{')?;
        let (range, after) = rest.split_once('}')?;
        let (first, last) = range.split_once("..")?;
        let numbers = first.parse::<u64>().ok()?..=last.parse().ok()?;
        Some((before, numbers, first.len(), after))
    };
    match parts() {
        None => vec![address.to_owned()],
        Some((before, numbers, digits, after)) => numbers
            .map(|number| format!("{before}{number:0digits$}{after}"))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_a_range_stand_for_many() {
        let found = expanded("https://a.org/train-{0009..0011}.tar?x=1");
        let number = |number: &str| format!("https://a.org/train-{number}.tar?x=1");
        assert_eq!(found, [number("0009"), number("0010"), number("0011")]);
        assert_eq!(expanded("https://a.org/{a}.tar"), ["https://a.org/{a}.tar"]);
        assert_eq!(address(Path::new("http/x.tar")), None);
    }
}
