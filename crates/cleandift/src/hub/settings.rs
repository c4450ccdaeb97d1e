//! Which hub, which cache, which token: Hugging Face's environment variables, with their meaning in
//! `huggingface_hub`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ureq::Proxy;

use super::HubError;

/// How a hub is spoken to, and where its files are kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hub's address, without a slash at its end.
    pub endpoint: String,
    /// The folder that holds a folder for each repository.
    pub cache: PathBuf,
    /// Shown to the endpoint, and to no other server.
    pub token: Option<Token>,
    /// Whether only the cache may be used.
    pub offline: bool,
    /// How long a server may take to connect, to answer, and from one piece of a file to the next.
    pub timeout: Duration,
    proxy: Option<Proxy>,
}

/// A secret that shows who asks.
#[derive(Clone)]
pub struct Token {
    pub(super) secret: String,
    /// Where it comes from: a variable or a file.
    pub origin: String,
}

impl Token {
    /// A token of printable ASCII; `origin` says where it comes from.
    pub fn new(secret: impl Into<String>, origin: impl Into<String>) -> Self {
        Self {
            secret: secret.into(),
            origin: origin.into(),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token from {}", self.origin)
    }
}

const ENDPOINT: &str = "https://huggingface.co";

/// What `huggingface_hub` allows for a download's silence is as long.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Settings {
    /// The given hub and cache, without token and proxy.
    pub fn new(endpoint: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: endpoint.into(),
            cache: cache.into(),
            token: None,
            offline: false,
            timeout: TIMEOUT,
            proxy: None,
        }
    }

    /// What the environment says: `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`,
    /// `HF_TOKEN_PATH`, `HF_HUB_OFFLINE`, `HF_HUB_DOWNLOAD_TIMEOUT`, and the variables of proxies:
    /// `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`.
    ///
    /// # Errors
    /// If a value cannot be used, or no folder is known for the cache.
    pub fn from_env() -> Result<Self, HubError> {
        let variable = |name: &str| std::env::var(name).ok();
        Ok(Self {
            proxy: Proxy::try_from_env(),
            ..Self::from_variables(&variable, std::env::home_dir())?
        })
    }

    fn from_variables(
        variable: &dyn Fn(&str) -> Option<String>,
        home: Option<PathBuf>,
    ) -> Result<Self, HubError> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let expanded = |path: String| match (path.strip_prefix("~/"), &home) {
            (Some(inner), Some(home)) => home.join(inner),
            _ => PathBuf::from(path),
        };
        let usual = || {
            let cache = set("XDG_CACHE_HOME").map(expanded);
            let cache = cache.or_else(|| Some(home.as_ref()?.join(".cache")))?;
            Some(cache.join("huggingface"))
        };
        let hf_home = set("HF_HOME").map(expanded).or_else(usual);
        let cache = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE"));
        let cache = match (cache.map(expanded), &hf_home) {
            (Some(cache), _) => cache,
            (None, Some(hf_home)) => hf_home.join("hub"),
            (None, None) => {
                return Err(HubError::Setting {
                    variable: "HF_HOME",
                    reason: "not set, and no home folder is known: set it to a folder for models"
                        .to_owned(),
                });
            }
        };
        let token_path = set("HF_TOKEN_PATH").map(expanded);
        let token_path = token_path.or_else(|| Some(hf_home?.join("token")));
        Ok(Self {
            token: token(&set, token_path)?,
            offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
                .iter()
                .any(|name| set(name).is_some_and(|value| is_true(&value))),
            timeout: timeout(set("HF_HUB_DOWNLOAD_TIMEOUT"))?,
            ..Self::new(endpoint(set("HF_ENDPOINT"))?, cache)
        })
    }

    /// The proxy in use, if there is one, without its password.
    pub fn proxy(&self) -> Option<String> {
        let proxy = self.proxy.as_ref()?;
        Some(format!("{}:{}", proxy.host(), proxy.port()))
    }

    pub(super) fn ureq_proxy(&self) -> Option<Proxy> {
        self.proxy.clone()
    }
}

fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.trim().to_ascii_lowercase().as_str())
}

fn endpoint(value: Option<String>) -> Result<String, HubError> {
    let Some(value) = value else {
        return Ok(ENDPOINT.to_owned());
    };
    let address = value.trim().trim_end_matches('/');
    let uri = address.parse::<ureq::http::Uri>().ok();
    let scheme = uri.as_ref().and_then(|uri| uri.scheme_str());
    match scheme {
        Some("http" | "https") => Ok(address.to_owned()),
        _ => Err(HubError::Setting {
            variable: "HF_ENDPOINT",
            reason: format!("`{value}` is not an address such as {ENDPOINT}"),
        }),
    }
}

fn timeout(value: Option<String>) -> Result<Duration, HubError> {
    let Some(value) = value else {
        return Ok(TIMEOUT);
    };
    match value.trim().parse() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(HubError::Setting {
            variable: "HF_HUB_DOWNLOAD_TIMEOUT",
            reason: format!("`{value}` is not a number of seconds, at least 1"),
        }),
    }
}

/// The variable's token goes before the file's.
fn token(
    set: &dyn Fn(&str) -> Option<String>,
    path: Option<PathBuf>,
) -> Result<Option<Token>, HubError> {
    let variables = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];
    let of_variable = variables
        .iter()
        .find_map(|name| Some((set(name)?, (*name).to_owned())));
    let of_file = || {
        let path = path?;
        let text = std::fs::read_to_string(&path).ok()?;
        Some((text, path.display().to_string()))
    };
    let Some((text, origin)) = of_variable.or_else(of_file) else {
        return Ok(None);
    };
    let secret = text.trim().to_owned();
    match secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        true if secret.is_empty() => Ok(None),
        true => Ok(Some(Token { secret, origin })),
        false => Err(HubError::Setting {
            variable: "HF_TOKEN",
            reason: format!("the token from {origin} has characters that no token has"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings, HubError> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(set, _)| *set == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Settings::from_variables(&variable, Some("/home/ada".into()))
    }

    #[test]
    fn the_cache_lies_where_diffusers_has_it() {
        let cache = |variables: &[_]| settings(variables).unwrap().cache;
        let hub = "/home/ada/.cache/huggingface/hub";
        assert_eq!(cache(&[]), PathBuf::from(hub));
        assert_eq!(cache(&[("HF_HOME", "")]), PathBuf::from(hub));
        let xdg = ("XDG_CACHE_HOME", "/fast");
        assert_eq!(cache(&[xdg]), PathBuf::from("/fast/huggingface/hub"));
        let home = ("HF_HOME", "~/hf");
        assert_eq!(cache(&[xdg, home]), PathBuf::from("/home/ada/hf/hub"));
        let direct = ("HF_HUB_CACHE", "/models");
        assert_eq!(cache(&[xdg, home, direct]), PathBuf::from("/models"));
    }

    #[test]
    fn the_variables_token_goes_before_the_files_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "hf_file\n").unwrap();
        let path = ("HF_TOKEN_PATH", file.to_str().unwrap());
        let token = |variables: &[_]| settings(variables).unwrap().token;
        assert_eq!(token(&[path]).unwrap().secret, "hf_file");
        let both = token(&[path, ("HF_TOKEN", " hf_variable ")]).unwrap();
        assert_eq!(both.secret, "hf_variable");
        assert_eq!(format!("{both:?}"), "Token from HF_TOKEN");
        assert!(token(&[("HF_TOKEN_PATH", "/nowhere")]).is_none());
        assert!(settings(&[("HF_TOKEN", "a\nb")]).is_err());
    }

    #[test]
    fn switches_and_addresses() {
        let offline = |value| settings(&[("HF_HUB_OFFLINE", value)]).unwrap().offline;
        assert!(["1", "ON", "yes", "True"].into_iter().all(offline));
        assert!(!["0", "", "no"].into_iter().any(offline));
        let endpoint = |value| Some(settings(&[("HF_ENDPOINT", value)]).ok()?.endpoint);
        let given = endpoint("http://127.0.0.1:8080/");
        assert_eq!(given.as_deref(), Some("http://127.0.0.1:8080"));
        assert_eq!(endpoint("huggingface.co"), None);
        assert_eq!(settings(&[]).unwrap().endpoint, ENDPOINT);
        assert!(settings(&[("HF_HUB_DOWNLOAD_TIMEOUT", "soon")]).is_err());
    }
}
