//! Members of an archive that belong together, as WebDataset has them: they follow each other
//! under one key.

use std::sync::Arc;

use super::{Bytes, Member, Place};

/// Files with one key: the path up to the first dot of the name.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The key.
    pub key: String,
    /// What follows the dot, in lower case, and where the bytes are.
    pub parts: Vec<(String, Place)>,
}

impl Sample {
    /// The part whose name ends so.
    pub fn part(&self, ends: impl Fn(&str) -> bool) -> Option<&Place> {
        let found = self.parts.iter().find(|(extension, _)| ends(extension));
        found.map(|(_, place)| place)
    }
}

/// The samples that an archive's members make, in their order. Members without a dot are left out.
pub fn samples(archive: &Arc<dyn Bytes>, members: Vec<Member>) -> Vec<Sample> {
    let mut samples: Vec<Sample> = Vec::new();
    for member in members {
        let Some((key, extension)) = key(&member.name) else {
            continue;
        };
        let (key, extension) = (key.to_owned(), extension.to_ascii_lowercase());
        let archive = archive.clone();
        let part = (extension, Place::Member { archive, member });
        match samples.last_mut() {
            Some(sample) if sample.key == key => sample.parts.push(part),
            _ => samples.push(Sample {
                key,
                parts: vec![part],
            }),
        }
    }
    samples
}

/// A path's part before the first dot of its name, and the part behind it.
pub fn key(path: &str) -> Option<(&str, &str)> {
    let name = path.rfind('/').map_or(0, |slash| slash + 1);
    let dot = name + path[name..].find('.')?;
    Some((&path[..dot], &path[dot + 1..]))
}

/// The first WordNet id in a key: `n` and eight digits.
pub fn wordnet_id(key: &str) -> Option<&str> {
    let is_id = |word: &[u8]| word[0] == b'n' && word[1..].iter().all(u8::is_ascii_digit);
    let start = key.as_bytes().windows(9).position(is_id)?;
    key.get(start..start + 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_at_the_first_dot_of_the_name() {
        assert_eq!(key("a.b/c.color.jpg"), Some(("a.b/c", "color.jpg")));
        assert_eq!(key("a.b/readme"), None);
    }

    #[test]
    fn wordnet_ids_are_found_anywhere() {
        assert_eq!(wordnet_id("n01443537_12"), Some("n01443537"));
        assert_eq!(wordnet_id("in1k_n03976657"), Some("n03976657"));
        assert_eq!(wordnet_id("night_0001"), None);
    }
}
