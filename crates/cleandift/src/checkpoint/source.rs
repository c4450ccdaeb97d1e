//! A file, or bytes that stand for one, which many threads read by position, without a shared cursor.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use super::CheckpointError;

/// An open file of known length. It stays the same file even if its name is given to another one.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    bytes: Bytes,
    len: u64,
}

#[derive(Debug)]
enum Bytes {
    File(File),
    Memory(Vec<u8>),
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self, CheckpointError> {
        let open = || {
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            if metadata.is_dir() {
                return Err(io::Error::from(io::ErrorKind::IsADirectory));
            }
            Ok((file, metadata.len()))
        };
        let (file, len) = open().map_err(|error| CheckpointError::io(path, error))?;
        Ok(Self {
            path: path.to_path_buf(),
            bytes: Bytes::File(file),
            len,
        })
    }

    /// The contents of a file that are in memory already; `label` stands for its path.
    pub(super) fn from_memory(label: &str, bytes: Vec<u8>) -> Self {
        Self {
            path: label.into(),
            len: bytes.len() as u64,
            bytes: Bytes::Memory(bytes),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in the file when it was opened.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// What the system knows of the open file now; an error for bytes in memory.
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        match &self.bytes {
            Bytes::File(file) => file.metadata(),
            Bytes::Memory(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Fills the buffer from `offset`; an error if the file ends before.
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.bytes {
            Bytes::File(file) => self.read_file(file, buffer, offset),
            Bytes::Memory(bytes) => {
                let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..));
                let found = rest.and_then(|rest| rest.get(..buffer.len()));
                buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }

    #[cfg(unix)]
    fn read_file(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
    }

    #[cfg(windows)]
    fn read_file(&self, file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(file, buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    buffer = &mut buffer[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Systems without positional reads open the file anew, because a cursor cannot be shared
    /// between threads.
    #[cfg(not(any(unix, windows)))]
    fn read_file(&self, _: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(buffer)
    }
}
