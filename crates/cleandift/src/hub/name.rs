//! What a model is called on a hub: a repository, perhaps one file of it, perhaps a revision.

use std::fmt;
use std::str::FromStr;

use super::HubError;
use super::catalogue::ShortName;

/// `org/repo[:file][@revision]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `org/repo`.
    pub repository: String,
    /// One file, by its path in the repository; `None` for a whole model folder.
    pub file: Option<String>,
    /// A branch, tag or commit; `None` for the default branch.
    pub revision: Option<String>,
}

impl Reference {
    /// The revision that is asked for.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

impl FromStr for Reference {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let wrong = |reason| HubError::Name {
            name: text.to_owned(),
            reason,
        };
        let (rest, revision) = match text.rsplit_once('@') {
            Some((rest, revision)) => (rest, Some(revision)),
            None => (text, None),
        };
        let (repository, file) = match rest.split_once(':') {
            Some((repository, file)) => (repository, Some(file)),
            None => (rest, None),
        };
        match repository.split_once('/') {
            Some((owner, name)) if is_repository_part(owner) && is_repository_part(name) => {}
            _ => return Err(wrong("expected org/repo[:file][@revision]")),
        }
        if !file.is_none_or(is_inner_path) {
            return Err(wrong("expected a file's path in the repository after `:`"));
        }
        if !revision.is_none_or(is_inner_path) {
            return Err(wrong("expected a branch, tag or commit after `@`"));
        }
        Ok(Self {
            repository: repository.to_owned(),
            file: file.map(str::to_owned),
            revision: revision.map(str::to_owned),
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if let Some(file) = &self.file {
            write!(f, ":{file}")?;
        }
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        Ok(())
    }
}

/// A model to be fetched: where it may lie, the preferred place first, and what completes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    text: String,
    pub(super) sources: Vec<Reference>,
    pub(super) base: Option<Vec<Reference>>,
}

impl Name {
    /// The same without what completes it.
    pub fn alone(self) -> Self {
        Self { base: None, ..self }
    }
}

impl FromStr for Name {
    type Err = HubError;

    /// A short name of the catalogue, or a [`Reference`].
    fn from_str(text: &str) -> Result<Self, HubError> {
        match ShortName::find(text) {
            Some(short) => Ok(short.into()),
            None => Ok(Self {
                text: text.to_owned(),
                sources: vec![text.parse()?],
                base: None,
            }),
        }
    }
}

impl From<&ShortName> for Name {
    fn from(short: &ShortName) -> Self {
        let parsed = |sources: &[&str]| {
            let sources = sources.iter().map(|source| source.parse());
            sources
                .collect::<Result<_, _>>()
                .expect("the catalogue is well formed")
        };
        Self {
            text: short.name.to_owned(),
            sources: parsed(short.sources),
            base: short.base.map(parsed),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The hub's own rule, which leaves nothing that a file system could misunderstand.
fn is_repository_part(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=96).contains(&part.len())
        && part.bytes().all(allowed)
        && !part.starts_with(['-', '.'])
        && !part.ends_with(['-', '.'])
        && !part.contains("--")
        && !part.contains("..")
}

/// Whether a path stays below the folder that it is put into, on any system. Names that a hub
/// tells are checked with it, too.
pub(super) fn is_inner_path(path: &str) -> bool {
    let allowed = |character: char| !character.is_control() && !"\\:*?\"<>|".contains(character);
    let good =
        |part: &str| !part.is_empty() && part.chars().all(allowed) && !part.ends_with(['.', ' ']);
    path.len() <= 1024 && path.split('/').all(good)
}

/// Whether this is the full hash of a commit, which never comes to mean another one.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Option<(String, Option<String>, Option<String>)> {
        let reference: Reference = text.parse().ok()?;
        assert_eq!(reference.to_string(), text);
        Some((reference.repository, reference.file, reference.revision))
    }

    #[test]
    fn references_have_up_to_three_parts() {
        let some = |text: &str| Some(text.to_owned());
        let of = |file: Option<&str>, revision: Option<&str>| {
            Some((
                "org/repo".to_owned(),
                file.and_then(some),
                revision.and_then(some),
            ))
        };
        assert_eq!(parts("org/repo"), of(None, None));
        assert_eq!(parts("org/repo@v1.0"), of(None, Some("v1.0")));
        assert_eq!(parts("org/repo@refs/pr/3"), of(None, Some("refs/pr/3")));
        assert_eq!(parts("org/repo:a/b.ckpt"), of(Some("a/b.ckpt"), None));
        assert_eq!(
            parts("org/repo:b.ckpt@main"),
            of(Some("b.ckpt"), Some("main"))
        );
    }

    #[test]
    fn whatever_could_leave_the_cache_is_no_name() {
        for text in [
            "",
            "sd",
            "org/",
            "/repo",
            "org/repo/more",
            "./repo",
            "../repo",
            "org/..",
            "org/a--b",
            "org/repo:",
            "org/repo:../x",
            "org/repo:/etc/passwd",
            "org/repo:a//b",
            "org/repo:a\\b",
            "org/repo@",
            "org/repo@../x",
            "org/repo@a/../b",
            "C:\\models/x",
            "org/re po",
            "org/repo:a\n",
            "org/repo:x/.",
            "org/repo:a:b",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn short_names_have_sources_and_a_base() {
        let name: Name = "cleandift-sd21".parse().unwrap();
        assert_eq!(name.to_string(), "cleandift-sd21");
        assert_eq!(name.sources.len(), 1);
        let file = name.sources[0].file.as_deref();
        assert_eq!(file, Some("cleandift_sd21_unet.safetensors"));
        let sd21: Name = "sd21".parse().unwrap();
        assert_eq!(name.base.as_ref(), Some(&sd21.sources));
        assert!(sd21.sources.len() > 1);
        assert!("sd22".parse::<Name>().is_err());
        assert_eq!(name.alone().base, None);
    }

    proptest::proptest! {
        /// Whatever is taken for a name says itself again and, as a path, stays where it is put.
        #[test]
        fn what_parses_is_harmless(text in "\\PC{0,40}|[a-z./:@~-]{0,24}") {
            if let Ok(reference) = text.parse::<Reference>() {
                proptest::prop_assert_eq!(reference.to_string(), text);
                let parts = [Some(reference.revision()), reference.file.as_deref()];
                for part in parts.into_iter().flatten().chain([&*reference.repository]) {
                    let mut components = std::path::Path::new(part).components();
                    let inner = components.all(|part| matches!(part, std::path::Component::Normal(_)));
                    proptest::prop_assert!(inner);
                }
            }
        }
    }
}
