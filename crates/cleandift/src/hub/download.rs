//! One file from a hub into the cache, with patience.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::cache::{Repository, make_parent};
use super::catalogue::published_sha256;
use super::client::{Client, Promise, Stream, Trouble};
use super::partial::Partial;
use super::{Event, HubError, Reference, Watch};

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
    let promise = patiently(file, watch, || client.ask(reference, file))?;
    let expected = expected_sha256(reference, file, &promise)?;
    // From here on the commit is asked, which cannot change meanwhile.
    let pinned = Reference {
        revision: Some(promise.commit.clone()),
        ..reference.clone()
    };
    let blob = repository.blob(&promise.etag);
    if !is_whole(&blob, &promise) {
        make_parent(&blob)?;
        let lock = repository.lock(&promise.etag, || {
            let reason = "another process fetches it";
            watch.tell(Event::Waiting { file, reason })
        })?;
        // The other process may have finished it.
        if !is_whole(&blob, &promise) {
            let mut partial = Partial::new(&blob, promise.bytes, expected)?;
            if lock.is_some() {
                partial.take_over()?;
            }
            let filled = fill(&mut partial, client, &pinned, file, watch);
            filled.inspect_err(|_| partial.forget_if_empty())?;
            partial.finish()?;
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
    mut attempt: impl FnMut() -> Result<T, Trouble>,
) -> Result<T, HubError> {
    let mut patience = Patience::new(file);
    loop {
        match attempt() {
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

/// Receives until all is there and right.
fn fill(
    partial: &mut Partial,
    client: &Client,
    reference: &Reference,
    file: &str,
    watch: &mut Watch<'_>,
) -> Result<(), HubError> {
    loop {
        receive_all(partial, client, reference, file, watch)?;
        match partial.verify(file) {
            // What an earlier run has left may be what is wrong with it.
            Err(_) if partial.is_resumed() => partial.restart()?,
            Err(error) => {
                partial.discard();
                return Err(error);
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// Fetches what is missing, from where it broke off, as long as that brings something.
fn receive_all(
    partial: &mut Partial,
    client: &Client,
    reference: &Reference,
    file: &str,
    watch: &mut Watch<'_>,
) -> Result<(), HubError> {
    let mut patience = Patience::new(file);
    while !partial.is_complete() {
        let before = partial.received();
        let attempt = client
            .fetch(reference, file, before)
            .and_then(|stream| receive(partial, stream, file, watch));
        let Err(mut trouble) = attempt else {
            break;
        };
        if partial.received() > before {
            patience = Patience::new(file);
        }
        if let (1.., HubError::Unreachable { reason, .. }) = (partial.received(), &trouble.error) {
            trouble.error = HubError::BrokenOff {
                file: file.to_owned(),
                received: partial.received(),
                total: partial.total(),
                tries: patience.tries + 1,
                reason: reason.clone(),
            };
        }
        patience.bear(trouble, watch)?;
    }
    Ok(())
}

/// Keeps what comes until it ends, which is all if no length was promised.
fn receive(
    partial: &mut Partial,
    stream: Stream,
    file: &str,
    watch: &mut Watch<'_>,
) -> Result<(), Trouble> {
    if stream.start != partial.received() {
        partial.restart()?;
    }
    partial.expect_length(stream.total);
    let mut body = stream.body.into_reader();
    let mut buffer = vec![0; 1 << 18];
    loop {
        watch.tell(Event::Received {
            file,
            bytes: partial.received(),
            total: partial.total(),
        })?;
        let bytes = body.read(&mut buffer);
        let bytes = bytes.map_err(|error| broken_off(file, &error))?;
        if bytes == 0 || partial.is_too_long() {
            break;
        }
        partial.append(&buffer[..bytes])?;
    }
    match partial.total() {
        Some(total) if partial.received() < total => {
            let ended = io::Error::from(io::ErrorKind::UnexpectedEof);
            Err(broken_off(file, &ended))
        }
        _ => Ok(()),
    }
}

fn broken_off(file: &str, error: &io::Error) -> Trouble {
    let reason = match error.kind() {
        io::ErrorKind::TimedOut => "the server is silent".to_owned(),
        io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
        _ => error.to_string(),
    };
    Trouble::passing(HubError::Unreachable {
        url: file.to_owned(),
        reason,
    })
}
