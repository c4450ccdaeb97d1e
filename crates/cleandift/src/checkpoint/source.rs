//! A file that many threads read by position, without a shared cursor.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use super::CheckpointError;

/// An open file of known length. It stays the same file even if its name is given to another one.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    file: File,
    len: u64,
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
            file,
            len,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in the file when it was opened.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// What the system knows of the open file now.
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }

    /// Fills the buffer from `offset`; an error if the file ends before.
    #[cfg(unix)]
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buffer, offset)
    }

    /// Fills the buffer from `offset`; an error if the file ends before.
    #[cfg(windows)]
    pub(super) fn read_exact_at(&self, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buffer.is_empty() {
            match std::os::windows::fs::FileExt::seek_read(&self.file, buffer, offset) {
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

    /// Fills the buffer from `offset`; an error if the file ends before. Systems without positional
    /// reads open the file anew, because a cursor cannot be shared between threads.
    #[cfg(not(any(unix, windows)))]
    pub(super) fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(buffer)
    }
}
