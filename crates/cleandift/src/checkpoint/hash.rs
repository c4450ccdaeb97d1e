//! SHA-256 of a checkpoint's weights, to tell in a manifest which ones were used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::hash_cache::HashCache;
use super::source::Source;
use super::{Checkpoint, CheckpointError};

/// The hashes of all files that a checkpoint's weights lie in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointHash {
    /// One hash for all of them, which depends on their contents and the roles they play (UNet,
    /// teacher, VAE, text encoder, heads), not on where they lie or what they are called.
    pub combined: String,
    /// Each file's own, as `sha256sum` prints it, in the order of their paths.
    pub files: Vec<FileHash>,
}

/// The hash of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHash {
    /// The file.
    pub path: PathBuf,
    /// 64 hexadecimal digits.
    pub sha256: String,
}

impl Checkpoint {
    /// Hashes all files of weights, which takes seconds for gigabytes.
    pub fn sha256(&self) -> Result<CheckpointHash, CheckpointError> {
        self.hash_files(hash_file)
    }

    /// The same, except that files which have not changed since `cache` saw them are not read
    /// again.
    pub fn sha256_cached(&self, cache: &HashCache) -> Result<CheckpointHash, CheckpointError> {
        self.hash_files(|source| cache.get_or_hash(source, hash_file))
    }

    /// One hash for all that changes features and is no weight: the parts' configs, the schedule,
    /// how strongly each change of a LoRA counts.
    pub fn configs_sha256(&self) -> String {
        let mut combined = Sha256::new();
        for (role, part) in self.parts() {
            combined.update(format!("{role} {}\n", part.config));
        }
        if let Some(scheduler) = &self.scheduler {
            combined.update(format!("scheduler {scheduler}\n"));
        }
        if let Some(lora) = &self.lora {
            combined.update(format!("lora {}\n", lora.strengths()));
        }
        hexadecimal(&combined.finalize())
    }

    fn hash_files(
        &self,
        hash_file: impl Fn(&Source) -> Result<String, CheckpointError> + Sync,
    ) -> Result<CheckpointHash, CheckpointError> {
        let roles: Vec<(_, Vec<Arc<Source>>)> = self
            .stores()
            .map(|(role, weights)| (role, weights.sources()))
            .collect();
        let sources: BTreeMap<_, _> = roles
            .iter()
            .flat_map(|(_, sources)| sources)
            .map(|s| (s.path(), s))
            .collect();
        let hashes = sources
            .par_iter()
            .map(|(&path, source)| Ok((path, hash_file(source)?)))
            .collect::<Result<BTreeMap<_, _>, CheckpointError>>()?;

        let mut combined = Sha256::new();
        for (role, sources) in &roles {
            for source in sources {
                combined.update(format!("{role} {}\n", hashes[source.path()]));
            }
        }
        if let Some(lora) = self.lora() {
            combined.update(format!("scale {}\n", lora.scale()));
        }
        let file = |(path, sha256): (&Path, String)| FileHash {
            path: path.into(),
            sha256,
        };
        Ok(CheckpointHash {
            combined: hexadecimal(&combined.finalize()),
            files: hashes.into_iter().map(file).collect(),
        })
    }
}

/// SHA-256 of any file, as `sha256sum` prints it.
///
/// # Errors
/// If it cannot be read.
pub fn file_sha256(path: &Path) -> Result<String, CheckpointError> {
    hash_file(&Source::open(path)?)
}

pub(super) fn hash_file(source: &Source) -> Result<String, CheckpointError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < source.len() {
        let bytes = (source.len() - offset).min(buffer.len() as u64) as usize;
        let bytes = &mut buffer[..bytes];
        source
            .read_exact_at(bytes, offset)
            .map_err(|error| CheckpointError::io(source.path(), error))?;
        hash.update(&*bytes);
        offset += bytes.len() as u64;
    }
    Ok(hexadecimal(&hash.finalize()))
}

/// The digits of a hash, or of a part of one.
pub(crate) fn hexadecimal(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}
