//! A hub on the loopback interface that answers as the real one does: commits and hashes in headers,
//! large files by a redirect to another server, small ones by one within, ranges. On request it
//! misbehaves.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the next answers of the server with the large files do, one each.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Ends the connection after so many bytes.
    CutAfter(usize),
    /// Answers with this status and these header lines, and nothing else.
    Status(u16, &'static str),
    /// Sends other bytes of the same length.
    OtherBytes,
    /// Says nothing for so long.
    Silence(Duration),
    /// Sends the file in many small pieces, each after a pause.
    Drip(usize, Duration),
    /// Ignores ranges.
    NoRanges,
}

#[derive(Default)]
pub struct State {
    /// Repositories: files by path.
    pub repositories: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Files of this length and more are large.
    pub large: usize,
    pub faults: VecDeque<Fault>,
    /// Header lines and statuses for paths of the hub itself that begin so.
    pub refusals: Vec<(String, u16, String)>,
    /// Heads of all requests, and which server got them.
    pub requests: Vec<String>,
    /// Body bytes sent by the server with the large files.
    pub sent: usize,
    /// Stands for the commit in all answers.
    pub commit: String,
    /// Added to every listing.
    pub extra_names: Vec<String>,
    /// Stands for every ETag and X-Linked-Etag.
    pub etag: Option<String>,
}

#[derive(Clone)]
pub struct Server {
    pub endpoint: String,
    storage: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub fn start() -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [endpoint, storage] =
            [0, 1].map(|index: usize| format!("http://{}", listeners[index].local_addr().unwrap()));
        let state = State {
            large: 1000,
            commit: COMMIT.to_owned(),
            ..State::default()
        };
        let server = Self {
            endpoint,
            storage,
            state: Arc::new(Mutex::new(state)),
        };
        for (listener, is_hub) in listeners.into_iter().zip([true, false]) {
            let server = server.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let server = server.clone();
                    std::thread::spawn(move || server.serve(stream, is_hub));
                }
            });
        }
        server
    }

    /// Where a file lies behind the hub.
    pub fn storage_address(&self, file: &str) -> String {
        format!("{}/{file}", self.storage)
    }

    pub fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    pub fn add(&self, repository: &str, file: &str, bytes: &[u8]) {
        self.with(|state| {
            let files = state.repositories.entry(repository.to_owned()).or_default();
            files.insert(file.to_owned(), bytes.to_vec());
        });
    }

    pub fn fault(&self, fault: Fault) {
        self.with(|state| state.faults.push_back(fault));
    }

    /// The first lines of all requests so far that begin with this method and server.
    pub fn count(&self, start: &str) -> usize {
        self.with(|state| {
            state
                .requests
                .iter()
                .filter(|head| head.starts_with(start))
                .count()
        })
    }

    fn serve(&self, mut stream: TcpStream, is_hub: bool) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(head) = read_head(&mut reader) {
            let place = if is_hub { "hub" } else { "storage" };
            self.with(|state| state.requests.push(format!("{place} {head}")));
            let mut words = head.split_whitespace();
            let method = words.next().unwrap().to_owned();
            let path = words.next().unwrap().to_owned();
            let going = match is_hub {
                true => self.answer_as_hub(&mut stream, &method, &path),
                false => self.answer_as_storage(&mut stream, &path, &head),
            };
            if going.is_none() {
                return;
            }
        }
    }

    fn answer_as_hub(&self, stream: &mut TcpStream, method: &str, path: &str) -> Option<()> {
        let refusal = self.with(|state| {
            let mut refusals = state.refusals.iter();
            refusals
                .find(|(start, ..)| path.starts_with(start))
                .cloned()
        });
        if let Some((_, status, headers)) = refusal {
            return send(stream, status, &headers, b"");
        }
        if let Some(rest) = path.strip_prefix("/api/models/") {
            let (repository, _) = rest.split_once("/revision/")?;
            return self.list(stream, repository);
        }
        if let Some(rest) = path.strip_prefix("/api/resolve-cache/models/") {
            let mut parts = rest.splitn(4, '/');
            let repository = format!("{}/{}", parts.next()?, parts.next()?);
            let bytes = self.bytes(&repository, parts.nth(1)?)?;
            let headers = self.file_headers(&bytes);
            return send_for(stream, method, 200, &headers, &bytes);
        }
        let (repository, rest) = path[1..].split_once("/resolve/")?;
        let (revision, file) = rest.split_once('/')?;
        if !self.with(|state| state.repositories.contains_key(repository)) {
            return send(stream, 401, "X-Error-Code: RepoNotFound\r\n", b"");
        }
        if revision != "main" && revision != self.with(|state| state.commit.clone()) {
            return send(stream, 404, "X-Error-Code: RevisionNotFound\r\n", b"");
        }
        let Some(bytes) = self.bytes(repository, file) else {
            return send(stream, 404, "X-Error-Code: EntryNotFound\r\n", b"");
        };
        let headers = self.file_headers(&bytes);
        if bytes.len() < self.with(|state| state.large) {
            let commit = self.with(|state| state.commit.clone());
            let to = format!("/api/resolve-cache/models/{repository}/{commit}/{file}");
            return send(stream, 307, &format!("{headers}Location: {to}\r\n"), b"");
        }
        let linked = self
            .with(|state| state.etag.clone())
            .unwrap_or_else(|| sha256(&bytes));
        let headers = format!(
            "{headers}X-Linked-Size: {}\r\nX-Linked-Etag: \"{linked}\"\r\n\
             Location: {}/{repository}/{file}?signature=secret\r\n",
            bytes.len(),
            self.storage,
        );
        send_for(stream, method, 302, &headers, b"Found. Redirecting")
    }

    fn bytes(&self, repository: &str, file: &str) -> Option<Vec<u8>> {
        self.with(|state| state.repositories.get(repository)?.get(file).cloned())
    }

    /// The ETag of a small file is git's SHA-1; any name of the contents does here.
    fn file_headers(&self, bytes: &[u8]) -> String {
        let (commit, etag) = self.with(|state| (state.commit.clone(), state.etag.clone()));
        let etag = etag.unwrap_or_else(|| sha256(bytes)[..40].to_owned());
        format!("X-Repo-Commit: {commit}\r\nETag: \"{etag}\"\r\n")
    }

    fn list(&self, stream: &mut TcpStream, repository: &str) -> Option<()> {
        let body = self.with(|state| {
            let files = state.repositories.get(repository)?.keys();
            let names = files.chain(&state.extra_names);
            let siblings: Vec<_> = names
                .map(|name| serde_json::json!({"rfilename": name}))
                .collect();
            Some(
                serde_json::json!({"id": repository, "sha": state.commit, "siblings": siblings})
                    .to_string(),
            )
        });
        match body {
            Some(body) => send(stream, 200, "", body.as_bytes()),
            None => send(stream, 401, "X-Error-Code: RepoNotFound\r\n", b""),
        }
    }

    fn answer_as_storage(&self, stream: &mut TcpStream, path: &str, head: &str) -> Option<()> {
        let fault = self.with(|state| state.faults.pop_front());
        let path = path.split('?').next()?;
        let mut parts = path[1..].splitn(3, '/');
        let repository = format!("{}/{}", parts.next()?, parts.next()?);
        let whole = self.bytes(&repository, parts.next()?)?;
        let range = head
            .lines()
            .find_map(|line| line.strip_prefix("range: bytes="));
        let range = range.filter(|_| !matches!(fault, Some(Fault::NoRanges)));
        let (mut bytes, status, headers) = match range.and_then(|range| range.split_once('-')) {
            Some((first, last)) => {
                let first: usize = first.parse().unwrap();
                let end = last
                    .parse()
                    .map_or(whole.len(), |last: usize| last + 1)
                    .min(whole.len());
                let (last, total) = (end - 1, whole.len());
                let headers = format!("Content-Range: bytes {first}-{last}/{total}\r\n");
                (whole[first..end].to_vec(), 206, headers)
            }
            None => (whole, 200, String::new()),
        };
        let mut stop = bytes.len();
        match fault {
            Some(Fault::Status(status, headers)) => return send(stream, status, headers, b""),
            Some(Fault::Silence(time)) => std::thread::sleep(time),
            Some(Fault::OtherBytes) => bytes.iter_mut().for_each(|byte| *byte ^= 1),
            Some(Fault::CutAfter(count)) => stop = count.min(stop),
            Some(Fault::Drip(piece, pause)) => {
                write_head(stream, status, &headers, bytes.len())?;
                for piece in bytes.chunks(piece) {
                    stream.write_all(piece).ok()?;
                    self.with(|state| state.sent += piece.len());
                    std::thread::sleep(pause);
                }
                return Some(());
            }
            Some(Fault::NoRanges) | None => {}
        }
        write_head(stream, status, &headers, bytes.len())?;
        stream.write_all(&bytes[..stop]).ok()?;
        self.with(|state| state.sent += stop);
        (stop == bytes.len()).then_some(())
    }
}

fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        match reader.by_ref().take(1 << 16).read_line(&mut line) {
            Ok(bytes) if bytes > 0 => {}
            _ => return None,
        }
        if line.trim().is_empty() {
            return Some(head);
        }
        head += &line.replace('\r', "");
    }
}

fn write_head(stream: &mut TcpStream, status: u16, headers: &str, length: usize) -> Option<()> {
    let head = format!("HTTP/1.1 {status} S\r\n{headers}Content-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).ok()
}

fn send(stream: &mut TcpStream, status: u16, headers: &str, body: &[u8]) -> Option<()> {
    write_head(stream, status, headers, body.len())?;
    stream.write_all(body).ok()
}

/// The same, without the body if only the head is asked for.
fn send_for(
    stream: &mut TcpStream,
    method: &str,
    status: u16,
    headers: &str,
    body: &[u8],
) -> Option<()> {
    match method {
        "HEAD" => write_head(stream, status, headers, body.len()),
        _ => send(stream, status, headers, body),
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that don't repeat, the same for the same seed (Marsaglia's xorshift).
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}
