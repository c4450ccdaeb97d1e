//! The questions that a hub answers: which files a repository has, what one of them is, and its
//! bytes from some position on. One attempt each; whether to try again is decided elsewhere.
//!
//! Redirects are followed here, because the first answer holds what the last one lacks (commit, hash,
//! length), and because the token is for the hub and not for where it sends us.

use std::time::Duration;

use serde::Deserialize;
use ureq::http::uri::{Authority, Scheme};
use ureq::http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::address::{quoted, resolved, server, shown};
use super::name::{is_commit, is_inner_path};
use super::{HubError, Reference, Settings};

/// A hub that can be asked.
pub(super) struct Client {
    agent: Agent,
    hub: String,
    /// Scheme and server of the hub, which alone sees the token.
    home: Option<(Scheme, Authority)>,
    token: Option<String>,
}

/// Why an attempt failed.
pub(super) struct Trouble {
    pub(super) error: HubError,
    /// Whether another attempt may help.
    pub(super) passing: bool,
    /// How long the server wants to be left alone.
    pub(super) wait: Option<Duration>,
}

impl From<HubError> for Trouble {
    fn from(error: HubError) -> Self {
        Self {
            error,
            passing: false,
            wait: None,
        }
    }
}

impl Trouble {
    pub(super) fn passing(error: HubError) -> Self {
        Self {
            error,
            passing: true,
            wait: None,
        }
    }
}

/// The files of a repository at a commit.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<String>,
}

/// What the hub says about a file before it is fetched.
#[derive(Clone, Debug)]
pub(super) struct Promise {
    pub(super) commit: String,
    /// Names the contents: the SHA-256 of large files, git's hash of small ones.
    pub(super) etag: String,
    pub(super) bytes: Option<u64>,
}

impl Promise {
    /// The SHA-256 of the contents, where the hub tells it.
    pub(super) fn sha256(&self) -> Option<&str> {
        let is_sha256 =
            self.etag.len() == 64 && self.etag.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_sha256.then_some(&self.etag)
    }
}

/// The bytes of a file from `start` on.
pub(super) struct Stream {
    pub(super) start: u64,
    /// The whole file's length, if the server tells it.
    pub(super) total: Option<u64>,
    pub(super) body: Body,
}

const REDIRECTS: usize = 10;
const LONGEST_LISTING: u64 = 64 << 20;

impl Client {
    /// A client for the hub of the settings. Nothing is connected yet.
    pub(super) fn new(settings: &Settings) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(settings.ureq_proxy())
            .tls_config(tls())
            .timeout_resolve(Some(settings.timeout))
            .timeout_connect(Some(settings.timeout))
            .timeout_recv_response(Some(settings.timeout))
            .timeout_per_read(Some(settings.timeout))
            .user_agent(concat!("cleandift/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .build();
        Self {
            agent: Agent::new_with_config(config),
            hub: settings.endpoint.clone(),
            home: settings
                .endpoint
                .parse()
                .ok()
                .and_then(|uri: Uri| server(&uri)),
            token: settings.token.as_ref().map(|token| token.secret.clone()),
        }
    }

    /// The files of a repository.
    pub(super) fn list(&self, reference: &Reference) -> Result<Listing, Trouble> {
        #[derive(Deserialize)]
        struct Answer {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let Reference { repository, .. } = reference;
        let revision = quoted(reference.revision(), "");
        let url = format!("{}/api/models/{repository}/revision/{revision}", self.hub);
        let mut answer = self.follow(Method::GET, &url, None, true)?.response;
        self.check(&answer, &url, reference)?;
        let text = answer.body_mut().with_config().limit(LONGEST_LISTING);
        let text = text.read_to_vec().map_err(|error| broken(&url, &error))?;
        let not_a_hub = |reason: String| HubError::NotAHub {
            url: url.clone(),
            reason,
        };
        let Answer { sha, siblings } = serde_json::from_slice(&text)
            .map_err(|error| not_a_hub(format!("not a listing of a repository: {error}")))?;
        if !is_commit(&sha) {
            return Err(not_a_hub(format!("`{sha}` is not a commit")).into());
        }
        let files = siblings.into_iter().map(|sibling| sibling.rfilename);
        Ok(Listing {
            commit: sha,
            // A name that leads elsewhere is none.
            files: files.filter(|file| is_inner_path(file)).collect(),
        })
    }

    /// What the hub says about a file.
    pub(super) fn ask(&self, reference: &Reference, file: &str) -> Result<Promise, Trouble> {
        let url = self.address(reference, file);
        let Followed { response, headers } = self.follow(Method::HEAD, &url, None, false)?;
        self.check(&response, &url, &of_file(reference, file))?;
        let not_a_hub = |reason: &str| HubError::NotAHub {
            url: url.clone(),
            reason: reason.to_owned(),
        };
        let commit = header(&headers, "x-repo-commit").filter(|commit| is_commit(commit));
        let commit = commit.ok_or_else(|| not_a_hub("the answer names no commit"))?;
        let etag = header(&headers, "x-linked-etag").or_else(|| header(&headers, "etag"));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        let etag = etag.filter(|etag| is_inner_path(etag) && !etag.contains('/'));
        let etag = etag.ok_or_else(|| not_a_hub("the answer has no ETag"))?;
        let bytes = header(&headers, "x-linked-size").or_else(|| {
            // The length of a redirect's own body says nothing about the file.
            let whole = response.status() == StatusCode::OK;
            header(response.headers(), "content-length").filter(|_| whole)
        });
        Ok(Promise {
            commit: commit.to_owned(),
            etag: etag.to_owned(),
            bytes: bytes.and_then(|bytes| bytes.parse().ok()),
        })
    }

    /// The bytes of a file, from `start` on if the server can; [`Stream::start`] says.
    pub(super) fn fetch(
        &self,
        reference: &Reference,
        file: &str,
        start: u64,
    ) -> Result<Stream, Trouble> {
        let url = self.address(reference, file);
        let range = (start > 0).then(|| format!("bytes={start}-"));
        let response = self.follow(Method::GET, &url, range, true)?.response;
        self.check(&response, &url, &of_file(reference, file))?;
        Ok(stream(response, &url, start)?)
    }

    /// Bytes of a file at any address.
    pub(super) fn fetch_range(&self, url: &str, start: u64, count: u64) -> Result<Stream, Trouble> {
        let unreachable = |reason| HubError::Unreachable {
            url: url.to_owned(),
            reason,
        };
        let range = format!("bytes={start}-{}", start + count - 1);
        let response = self.follow(Method::GET, url, Some(range), true)?.response;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => Ok(stream(response, url, start)?),
            StatusCode::OK => Err(unreachable("the server knows no ranges".to_owned()).into()),
            StatusCode::TOO_MANY_REQUESTS => Err(self.too_many(&response)),
            status if status.is_server_error() => Err(Trouble::passing(unreachable(format!(
                "the server answered {status}"
            )))),
            status => Err(unreachable(format!("the server answered {status}")).into()),
        }
    }

    fn address(&self, reference: &Reference, file: &str) -> String {
        let Reference { repository, .. } = reference;
        let revision = quoted(reference.revision(), "");
        format!(
            "{}/{repository}/resolve/{revision}/{}",
            self.hub,
            quoted(file, "/")
        )
    }

    /// Sends a request and follows redirects, to other servers only if `away`.
    fn follow(
        &self,
        method: Method,
        url: &str,
        range: Option<String>,
        away: bool,
    ) -> Result<Followed, Trouble> {
        let odd = |reason: String| HubError::NotAHub {
            url: url.to_owned(),
            reason,
        };
        let mut uri: Uri = url.parse().map_err(|_| odd("not an address".to_owned()))?;
        let mut headers = HeaderMap::new();
        for _ in 0..REDIRECTS {
            let mut request = Request::builder().method(&method).uri(&uri);
            if let Some(range) = &range {
                request = request.header("range", range);
            }
            let at_home = self.home.is_some() && server(&uri) == self.home;
            if let (Some(token), true) = (&self.token, at_home) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let request = request.body(()).map_err(|error| odd(error.to_string()))?;
            let response = self
                .agent
                .run(request)
                .map_err(|error| broken(url, &error))?;
            log::debug!("{method} {} {}", shown(&uri), response.status());
            headers.extend(response.headers().clone());
            let location = header(response.headers(), "location");
            let next = match location {
                Some(location) if response.status().is_redirection() => resolved(&uri, location)
                    .ok_or_else(|| odd("it leads to something that is no address".to_owned()))?,
                _ => return Ok(Followed { response, headers }),
            };
            let same_server = next.authority() == uri.authority();
            if !same_server && !away {
                return Ok(Followed { response, headers });
            }
            if uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(odd("it leads from https to an open connection".to_owned()).into());
            }
            uri = next;
        }
        Err(odd(format!("more than {REDIRECTS} redirects")).into())
    }

    /// Turns a refusal into words.
    fn check(
        &self,
        response: &Response<Body>,
        url: &str,
        asked: &Reference,
    ) -> Result<(), Trouble> {
        let status = response.status();
        if status.is_success() || status.is_redirection() {
            return Ok(());
        }
        let code = header(response.headers(), "x-error-code").unwrap_or_default();
        let message = header(response.headers(), "x-error-message").unwrap_or_default();
        let repository = || asked.repository.clone();
        let hub = || self.hub.clone();
        let (status, token) = (status.as_u16(), self.token.is_some());
        let error = match (status, code) {
            (401, _) if token && message.starts_with("Invalid ") => {
                HubError::BadToken { hub: hub() }
            }
            (_, "GatedRepo") | (403, _) => HubError::Refused {
                repository: repository(),
                hub: hub(),
                status,
            },
            (404, "RevisionNotFound") => HubError::NoRevision {
                repository: repository(),
                revision: asked.revision().to_owned(),
            },
            (404, code) if code != "RepoNotFound" && asked.file.is_some() => HubError::NoFile {
                repository: repository(),
                file: asked.file.clone().unwrap_or_default(),
                revision: asked.revision().to_owned(),
            },
            (401 | 404, _) => HubError::NoRepository {
                repository: repository(),
                hub: hub(),
                token,
            },
            (429, _) => return Err(self.too_many(response)),
            (408 | 500..=599, _) => {
                let url = url.to_owned();
                return Err(Trouble::passing(HubError::Server { url, status }));
            }
            _ => HubError::Server {
                url: url.to_owned(),
                status,
            },
        };
        Err(error.into())
    }

    fn too_many(&self, response: &Response<Body>) -> Trouble {
        let seconds = header(response.headers(), "retry-after").and_then(|text| text.parse().ok());
        Trouble {
            error: HubError::TooMany {
                hub: self.hub.clone(),
                seconds,
            },
            passing: true,
            wait: seconds.map(Duration::from_secs),
        }
    }
}

/// The bytes of an answer to a question for those from `start` on.
fn stream(response: Response<Body>, url: &str, start: u64) -> Result<Stream, HubError> {
    let headers = response.headers();
    let (start, total) = match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let range = header(headers, "content-range").and_then(content_range);
            range
                .filter(|(first, _)| *first == start)
                .ok_or_else(|| HubError::NotAHub {
                    url: url.to_owned(),
                    reason: "another range came than was asked for".to_owned(),
                })?
        }
        _ => {
            let length = header(headers, "content-length");
            (0, length.and_then(|length| length.parse().ok()))
        }
    };
    Ok(Stream {
        start,
        total,
        body: response.into_body(),
    })
}

/// Where redirects ended, and the headers of all answers, later ones before earlier ones.
struct Followed {
    response: Response<Body>,
    headers: HeaderMap,
}

/// The system's own certificates, so that those which a company adds are known, too.
fn tls() -> TlsConfig {
    let found = rustls_native_certs::load_native_certs().certs;
    let certificates = found
        .iter()
        .map(|der| Certificate::from_der(der).to_owned());
    TlsConfig::builder()
        .root_certs(RootCerts::from(certificates))
        .unversioned_rustls_crypto_provider(rustls::crypto::ring::default_provider().into())
        .build()
}

fn of_file(reference: &Reference, file: &str) -> Reference {
    Reference {
        file: Some(file.to_owned()),
        ..reference.clone()
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// First byte and whole length of `bytes 5-9/10`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    Some((first.parse().ok()?, total.parse().ok()))
}

/// An exchange that came to no end.
fn broken(url: &str, error: &ureq::Error) -> Trouble {
    let (reason, passing) = match (insecurity(error), error) {
        (Some(error), _) => (
            format!(
                "no secure connection: {error}: are the system's certificates installed \
                 (ca-certificates; else SSL_CERT_FILE), and is its clock right?"
            ),
            false,
        ),
        (_, ureq::Error::Timeout(_)) => ("the server is silent".to_owned(), true),
        (_, ureq::Error::HostNotFound) => ("no such server is known here".to_owned(), true),
        (_, ureq::Error::Io(error)) => (error.to_string(), true),
        (_, error) => (error.to_string(), false),
    };
    Trouble {
        error: HubError::Unreachable {
            url: url.to_owned(),
            reason,
        },
        passing,
        wait: None,
    }
}

/// What TLS has against the connection; it may come wrapped, as trouble in reading or writing.
fn insecurity(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(content_range("bytes */10"), None);
        assert_eq!(content_range("lines 1-2/3"), None);
    }

    #[test]
    fn certificates_that_nobody_vouches_for_are_final() {
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let wrapped = std::io::Error::new(std::io::ErrorKind::InvalidData, unknown);
        let trouble = broken("https://hub.example", &ureq::Error::Io(wrapped));
        assert!(!trouble.passing);
        let words = trouble.error.to_string();
        assert!(
            words.starts_with("https://hub.example: no secure connection: "),
            "{words}"
        );
        assert!(words.contains("UnknownIssuer"), "{words}");
    }
}
