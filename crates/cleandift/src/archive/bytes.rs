//! Bytes that are read by position, wherever they lie.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Bytes that many threads read by position: those of a file here, or behind a server.
pub trait Bytes: std::fmt::Debug + Send + Sync {
    /// What messages call it: a path or an address.
    fn path(&self) -> &Path;

    /// How many there are.
    ///
    /// # Errors
    /// If it cannot be found out.
    fn length(&self) -> io::Result<u64>;

    /// Fills the buffer from `offset`.
    ///
    /// # Errors
    /// If that fails, or the bytes end before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// A file is opened for each reading, so that thousands of shards need no handle each.
impl Bytes for PathBuf {
    fn path(&self) -> &Path {
        self
    }

    fn length(&self) -> io::Result<u64> {
        Ok(std::fs::metadata(self)?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut file = File::open(self)?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(buffer)
    }
}

/// Bytes looked at from front to back, a window at a time: many small headers cost one reading.
pub(super) struct Window<'a> {
    bytes: &'a dyn Bytes,
    length: u64,
    start: u64,
    held: Vec<u8>,
}

/// Bytes in a window.
const WINDOW: u64 = 1 << 16;

impl<'a> Window<'a> {
    pub(super) fn new(bytes: &'a dyn Bytes) -> io::Result<Self> {
        Ok(Self {
            length: bytes.length()?,
            bytes,
            start: 0,
            held: Vec::new(),
        })
    }

    /// Bytes in all.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The `count` bytes from `offset`, which must be there.
    pub(super) fn get(&mut self, offset: u64, count: u64) -> io::Result<&[u8]> {
        let held = self.start..self.start + self.held.len() as u64;
        if offset < held.start || offset + count > held.end {
            let size = WINDOW.max(count).min(self.length - offset);
            self.held.resize(size as usize, 0);
            self.bytes.read_at(offset, &mut self.held)?;
            self.start = offset;
        }
        let place = (offset - self.start) as usize;
        Ok(&self.held[place..place + count as usize])
    }
}
