//! Files behind any web server, read by position: shards of data sets, say.

use std::io::Read;
use std::sync::{Arc, OnceLock};

use super::client::{Client, Trouble};
use super::download::patiently;
use super::{HubError, Settings, Watch};

/// A file at an address, which many threads may read by position. Nothing of it is kept.
///
/// The server has to know ranges. The hub's token is shown to the hub alone.
pub struct RemoteFile {
    address: String,
    client: Arc<OnceLock<Client>>,
    settings: Arc<Settings>,
    length: OnceLock<u64>,
}

impl RemoteFile {
    /// The file at an `http` or `https` address. Nothing is connected yet.
    ///
    /// # Errors
    /// [`HubError::Offline`] if the settings forbid to connect.
    pub fn new(address: &str, settings: Arc<Settings>) -> Result<Self, HubError> {
        if settings.offline {
            return Err(HubError::Offline {
                name: address.to_owned(),
                cache: settings.cache.clone(),
            });
        }
        Ok(Self {
            address: address.to_owned(),
            client: Arc::default(),
            settings,
            length: OnceLock::new(),
        })
    }

    /// Another file, over the same connections.
    pub fn sibling(&self, address: &str) -> Self {
        Self {
            address: address.to_owned(),
            client: Arc::clone(&self.client),
            settings: Arc::clone(&self.settings),
            length: OnceLock::new(),
        }
    }

    /// Where it lies.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its length in bytes, asked for once.
    ///
    /// # Errors
    /// If the server cannot be reached, or knows no ranges.
    pub fn length(&self) -> Result<u64, HubError> {
        if let Some(length) = self.length.get() {
            return Ok(*length);
        }
        let length = self.patiently(|client| {
            let stream = client.fetch_range(&self.address, 0, 1)?;
            let told = stream.total;
            told.ok_or_else(|| {
                self.unreachable("the server does not tell its length".into())
                    .into()
            })
        })?;
        Ok(*self.length.get_or_init(|| length))
    }

    /// Fills the buffer from `offset` on; tried again where that may help.
    ///
    /// # Errors
    /// If the server cannot be reached or knows no ranges, or the file ends before.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), HubError> {
        if buffer.is_empty() {
            return Ok(());
        }
        self.patiently(|client| {
            let end = offset + buffer.len() as u64;
            let stream = client.fetch_range(&self.address, offset, buffer.len() as u64)?;
            if let Some(total) = stream.total.filter(|&total| total < end) {
                return Err(self
                    .unreachable(format!("it ends at byte {total}, not {end}"))
                    .into());
            }
            let mut body = stream.body.into_reader();
            body.read_exact(buffer)
                .map_err(|error| Trouble::passing(self.unreachable(error.to_string())))
        })
    }

    fn patiently<T>(
        &self,
        mut attempt: impl FnMut(&Client) -> Result<T, Trouble>,
    ) -> Result<T, HubError> {
        let client = self.client.get_or_init(|| Client::new(&self.settings));
        patiently(&self.address, &mut Watch(&mut |_| true), || attempt(client))
    }

    fn unreachable(&self, reason: String) -> HubError {
        HubError::Unreachable {
            url: self.address.clone(),
            reason,
        }
    }
}

impl std::fmt::Debug for RemoteFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.address)
    }
}
