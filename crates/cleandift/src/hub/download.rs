//! One file's bytes into the cache: resumed where they broke off, checked, and given their name
//! only when they are whole and on the disk.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::cache::{Repository, make_parent};
use super::catalogue::published_sha256;
use super::client::{Client, Promise, Stream, Trouble};
use super::{Event, HubError, Reference, Watch};
use crate::checkpoint::hexadecimal;

/// Attempts in a row that bring nothing.
const TRIES: usize = 5;
/// The pause after the first of them; each further one is three times as long.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest pause that a server may ask for; beyond it a person should decide.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Fetches a file, unless it is there, and gives it its name in its commit.
pub(super) fn download(
    client: &Client,
    repository: &Repository,
    reference: &Reference,
    file: &str,
    watch: &mut Watch<'_>,
) -> Result<(Promise, PathBuf), HubError> {
    let promise = patiently(file, watch, |_| client.ask(reference, file))?;
    let expected = expected_sha256(reference, file, &promise)?;
    // From here on the commit is asked, which cannot change meanwhile.
    let pinned = Reference {
        revision: Some(promise.commit.clone()),
        ..reference.clone()
    };
    let blob = repository.blob(&promise.etag);
    if !is_whole(&blob, &promise) {
        make_parent(&blob)?;
        let _lock = repository.lock(&promise.etag, || {
            let reason = "another process fetches it";
            watch.tell(Event::Waiting { file, reason })
        })?;
        // The other process may have finished it.
        if !is_whole(&blob, &promise) {
            let mut partial = Partial::open(&blob, &promise, expected)?;
            partial.fill(client, &pinned, file, watch)?;
            partial.finish(&blob)?;
        }
    }
    let path = repository.link(&promise.commit, file, &promise.etag)?;
    Ok((promise, path))
}

fn is_whole(blob: &Path, promise: &Promise) -> bool {
    let length = fs::metadata(blob).map(|metadata| metadata.len());
    length.is_ok_and(|length| promise.bytes.is_none_or(|bytes| bytes == length))
}

/// What the bytes must hash to: what the hub tells, which must be what was published.
fn expected_sha256(
    reference: &Reference,
    file: &str,
    promise: &Promise,
) -> Result<Option<String>, HubError> {
    let published = published_sha256(&reference.repository, file);
    match (promise.sha256(), published) {
        (Some(offered), Some(expected)) if offered != expected => Err(HubError::NotThePublished {
            file: file.to_owned(),
            offered: offered.to_owned(),
            expected: expected.to_owned(),
        }),
        (offered, published) => Ok(published.or(offered).map(str::to_owned)),
    }
}

/// Tries again and again, as long as that may help.
pub(super) fn patiently<T>(
    file: &str,
    watch: &mut Watch<'_>,
    mut attempt: impl FnMut(&mut Watch<'_>) -> Result<T, Trouble>,
) -> Result<T, HubError> {
    let mut patience = Patience::new(file);
    loop {
        match attempt(watch) {
            Ok(value) => return Ok(value),
            Err(trouble) => patience.bear(trouble, watch)?,
        }
    }
}

/// How often it went wrong without any gain.
struct Patience<'a> {
    file: &'a str,
    tries: usize,
}

impl<'a> Patience<'a> {
    fn new(file: &'a str) -> Self {
        Self { file, tries: 0 }
    }

    /// Waits for the next attempt, or gives the error if there should be none.
    fn bear(&mut self, trouble: Trouble, watch: &mut Watch<'_>) -> Result<(), HubError> {
        let Trouble {
            error,
            passing,
            wait,
        } = trouble;
        self.tries += 1;
        let pause = wait.unwrap_or(PAUSE * 3u32.pow(self.tries as u32 - 1));
        if !passing || self.tries >= TRIES || pause > LONGEST_PAUSE {
            return Err(error);
        }
        log::info!("{}: {error}: trying again in {pause:?}", self.file);
        let (file, reason) = (self.file, &error.to_string());
        let until = Instant::now() + pause;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            watch.tell(Event::Waiting { file, reason })?;
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
        Ok(())
    }
}

/// Contents on their way: `<etag>.incomplete`, beside where they will lie.
///
/// Two processes that both write here, where locks don't work, do no harm: all bytes are those of
/// one etag, each at its place, and the file is never shortened.
struct Partial {
    path: PathBuf,
    file: File,
    /// Of all bytes that are there.
    hash: Sha256,
    received: u64,
    total: Option<u64>,
    expected: Option<String>,
    /// Whether bytes of an earlier run are among them.
    resumed: bool,
}

impl Partial {
    /// Takes up what an earlier run has left, if it can be checked in the end.
    fn open(blob: &Path, promise: &Promise, expected: Option<String>) -> Result<Self, HubError> {
        let mut path = blob.as_os_str().to_owned();
        path.push(".incomplete");
        let path = PathBuf::from(path);
        let mut partial = Self {
            file: Self::file(&path)?,
            path,
            hash: Sha256::new(),
            received: 0,
            total: promise.bytes,
            expected,
            resumed: false,
        };
        let present = partial.hash_present()?;
        let fits = partial.total.is_some_and(|total| present <= total);
        if partial.expected.is_none() || !fits {
            partial.restart()?;
        } else {
            partial.resumed = present > 0;
        }
        Ok(partial)
    }

    fn file(path: &Path) -> Result<File, HubError> {
        let file = File::options()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(path);
        file.map_err(|error| HubError::io(path, error))
    }

    fn hash_present(&mut self) -> Result<u64, HubError> {
        let mut buffer = vec![0; PIECE];
        loop {
            let bytes = self.file.read(&mut buffer);
            match bytes.map_err(|error| HubError::io(&self.path, error))? {
                0 => return Ok(self.received),
                bytes => self.count(&buffer[..bytes]),
            }
        }
    }

    /// A new file under the same name: whoever has the old one open keeps it.
    fn restart(&mut self) -> Result<(), HubError> {
        fs::remove_file(&self.path).map_err(|error| HubError::io(&self.path, error))?;
        self.file = Self::file(&self.path)?;
        self.hash = Sha256::new();
        self.received = 0;
        self.resumed = false;
        Ok(())
    }

    fn count(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.received += bytes.len() as u64;
    }

    fn is_complete(&self) -> bool {
        self.total == Some(self.received)
    }

    /// Receives until all is there and right.
    fn fill(
        &mut self,
        client: &Client,
        reference: &Reference,
        file: &str,
        watch: &mut Watch<'_>,
    ) -> Result<(), HubError> {
        loop {
            self.receive_all(client, reference, file, watch)?;
            match self.verify(file) {
                Ok(()) => return Ok(()),
                // What an earlier run has left may be what is wrong with it.
                Err(_) if self.resumed => self.restart()?,
                Err(error) => {
                    let _ = fs::remove_file(&self.path);
                    return Err(error);
                }
            }
        }
    }

    fn receive_all(
        &mut self,
        client: &Client,
        reference: &Reference,
        file: &str,
        watch: &mut Watch<'_>,
    ) -> Result<(), HubError> {
        let mut patience = Patience::new(file);
        while !self.is_complete() {
            let before = self.received;
            let attempt = client
                .fetch(reference, file, before)
                .and_then(|stream| self.receive(stream, file, watch));
            let Err(mut trouble) = attempt else {
                break;
            };
            if self.received > before {
                patience = Patience::new(file);
            }
            if let (true, HubError::Unreachable { reason, .. }) =
                (self.received > 0, &trouble.error)
            {
                trouble.error = HubError::BrokenOff {
                    file: file.to_owned(),
                    received: self.received,
                    total: self.total,
                    tries: patience.tries + 1,
                    reason: reason.clone(),
                };
            }
            patience.bear(trouble, watch)?;
        }
        Ok(())
    }

    /// Writes what comes until it ends, which is all if no length was promised.
    fn receive(
        &mut self,
        stream: Stream,
        file: &str,
        watch: &mut Watch<'_>,
    ) -> Result<(), Trouble> {
        if stream.start != self.received {
            self.restart()?;
        }
        self.total = self.total.or(stream.total);
        let position = self.file.seek(SeekFrom::Start(self.received));
        position.map_err(|error| HubError::io(&self.path, error))?;
        let mut body = stream.body.into_reader();
        let mut buffer = vec![0; PIECE];
        loop {
            let event = Event::Received {
                file,
                bytes: self.received,
                total: self.total,
            };
            watch.tell(event)?;
            let bytes = body
                .read(&mut buffer)
                .map_err(|error| broken_off(file, &error))?;
            if bytes == 0 || self.total.is_some_and(|total| self.received > total) {
                break;
            }
            let written = self.file.write_all(&buffer[..bytes]);
            written.map_err(|error| self.unwritable(error))?;
            self.count(&buffer[..bytes]);
        }
        match self.total {
            Some(total) if self.received < total => {
                let ended = io::Error::from(io::ErrorKind::UnexpectedEof);
                Err(broken_off(file, &ended))
            }
            _ => Ok(()),
        }
    }

    fn unwritable(&self, error: io::Error) -> HubError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => HubError::DiskFull {
                path: self.path.clone(),
                missing: self.total.unwrap_or(self.received) - self.received,
            },
            _ => HubError::io(&self.path, error),
        }
    }

    fn verify(&self, file: &str) -> Result<(), HubError> {
        if let Some(expected) = self.total.filter(|&total| total != self.received) {
            return Err(HubError::WrongLength {
                file: file.to_owned(),
                expected,
                found: self.received,
            });
        }
        let found = hexadecimal(self.hash.clone());
        match &self.expected {
            Some(expected) if *expected != found => Err(HubError::WrongHash {
                file: file.to_owned(),
                expected: expected.clone(),
                found,
            }),
            _ => Ok(()),
        }
    }

    /// To the disk, and then under its name.
    fn finish(self, blob: &Path) -> Result<(), HubError> {
        let failed = |error| HubError::io(&self.path, error);
        self.file.sync_all().map_err(failed)?;
        fs::rename(&self.path, blob).map_err(failed)
    }
}

const PIECE: usize = 1 << 18;

fn broken_off(file: &str, error: &io::Error) -> Trouble {
    let reason = match error.kind() {
        io::ErrorKind::TimedOut => "the server is silent".to_owned(),
        _ => error.to_string(),
    };
    Trouble::passing(HubError::Unreachable {
        url: file.to_owned(),
        reason,
    })
}
