//! The directory of a zip archive whose entries are stored as they are, as `torch.save` writes it.
//!
//! Entries are read by position from the file itself, so nothing is unpacked, and compressed ones
//! (of which PyTorch makes none) are refused. Source: PKWARE's APPNOTE 6.3.10, sections 4.3 and 4.5.

use std::collections::BTreeMap;

use super::super::source::Source;

/// Where an entry's bytes lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// The longest directory that is read, in bytes: half a million entries of PyTorch's.
const LONGEST_DIRECTORY: u64 = 64 << 20;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;

const LOCAL_BYTES: usize = 30;
const CENTRAL_BYTES: usize = 46;
const END_BYTES: usize = 22;
const END_64_BYTES: usize = 56;
const LOCATOR_64_BYTES: usize = 20;

/// Stands in a field of 32 bits for "see the field of 64 bits".
const IN_64: u64 = u32::MAX as u64;

/// The archive's entries by name.
pub(super) fn directory(source: &Source) -> Result<BTreeMap<String, Entry>, String> {
    let Directory { offset, len, count } = find(source)?;
    if len > LONGEST_DIRECTORY {
        return Err(format!("its directory would have {len} bytes"));
    }
    let bytes = read(source, offset, len as usize)?;
    let mut fields = Fields::new(&bytes);
    let mut entries = BTreeMap::new();
    while entries.len() < count as usize {
        let central = fields.central()?;
        let entry = locate(source, &central)?;
        if entries.insert(central.name.to_owned(), entry).is_some() {
            return Err(format!("it has two entries `{}`", central.name));
        }
    }
    if !fields.rest.is_empty() {
        return Err("its directory has more entries than it says".into());
    }
    apart(&entries, offset)?;
    Ok(entries)
}

struct Directory {
    offset: u64,
    len: u64,
    count: u64,
}

/// Looks for the end of the archive, before which a comment of 64 KiB may stand.
fn find(source: &Source) -> Result<Directory, String> {
    let searched = source.len().min((END_BYTES + usize::from(u16::MAX)) as u64);
    let start = source.len() - searched;
    let tail = read(source, start, searched as usize)?;
    let mut ends = tail.windows(END_BYTES).enumerate().rev();
    let (at, record) = ends
        .find(|(at, record)| {
            let fields = Fields::new(record);
            // The comment must reach exactly to the end of the file.
            let comment = fields.at(20, 2);
            fields.at(0, 4) == Some(u64::from(END))
                && comment == Some((tail.len() - at - END_BYTES) as u64)
        })
        .ok_or("it has no end of a zip archive: it is truncated")?;
    let fields = Fields::new(record);
    let field = |at, bytes| fields.at(at, bytes).unwrap_or(0);
    let directory = Directory {
        count: field(10, 2),
        len: field(12, 4),
        offset: field(16, 4),
    };
    let saturated = directory.count == u64::from(u16::MAX)
        || directory.len == IN_64
        || directory.offset == IN_64;
    match saturated {
        true => find_64(source, start + at as u64),
        false => Ok(directory),
    }
}

/// The directory by the records of 64 bits, whose locator lies right before the end record.
fn find_64(source: &Source, end: u64) -> Result<Directory, String> {
    let error = || "its 64-bit directory is damaged".to_owned();
    let locator = end.checked_sub(LOCATOR_64_BYTES as u64).ok_or_else(error)?;
    let bytes = read(source, locator, LOCATOR_64_BYTES)?;
    let fields = Fields::new(&bytes);
    if fields.at(0, 4) != Some(u64::from(LOCATOR_64)) {
        return Err(error());
    }
    let bytes = read(source, fields.at(8, 8).ok_or_else(error)?, END_64_BYTES)?;
    let fields = Fields::new(&bytes);
    if fields.at(0, 4) != Some(u64::from(END_64)) {
        return Err(error());
    }
    let field = |at| fields.at(at, 8).ok_or_else(error);
    Ok(Directory {
        count: field(32)?,
        len: field(40)?,
        offset: field(48)?,
    })
}

/// An entry as the directory has it.
struct Central<'b> {
    name: &'b str,
    len: u64,
    /// Where its local header begins.
    header: u64,
}

/// Little-endian fields one after another.
struct Fields<'b> {
    rest: &'b [u8],
}

impl<'b> Fields<'b> {
    fn new(rest: &'b [u8]) -> Self {
        Self { rest }
    }

    /// A number of so many bytes at a place counted from the current one.
    fn at(&self, at: usize, bytes: usize) -> Option<u64> {
        let field = self.rest.get(at..)?.get(..bytes)?;
        Some(
            field
                .iter()
                .rev()
                .fold(0, |number, &byte| number << 8 | u64::from(byte)),
        )
    }

    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn central(&mut self) -> Result<Central<'b>, String> {
        let short = || "its directory is damaged".to_owned();
        let field = |at, bytes| self.at(at, bytes).ok_or_else(short);
        if field(0, 4)? != u64::from(CENTRAL) {
            return Err(short());
        }
        let (flags, method) = (field(8, 2)?, field(10, 2)?);
        let (packed, len, header) = (field(20, 4)?, field(24, 4)?, field(42, 4)?);
        let lengths = [field(28, 2)?, field(30, 2)?, field(32, 2)?].map(|bytes| bytes as usize);
        self.take(CENTRAL_BYTES).ok_or_else(short)?;
        let name = self.take(lengths[0]).ok_or_else(short)?;
        let extra = self.take(lengths[1]).ok_or_else(short)?;
        self.take(lengths[2]).ok_or_else(short)?;

        let name = std::str::from_utf8(name).map_err(|_| "an entry's name is not UTF-8")?;
        let [len, packed, header] = widen(extra, [len, packed, header]).ok_or_else(short)?;
        // Encrypted entries have the lowest flag.
        if method != 0 || flags & 1 != 0 || packed != len {
            return Err(format!(
                "its entry `{name}` is compressed or encrypted, which PyTorch never does"
            ));
        }
        Ok(Central { name, len, header })
    }
}

/// The fields that do not fit into 32 bits, in their order, from the extra field of 64-bit ones.
fn widen(extra: &[u8], mut values: [u64; 3]) -> Option<[u64; 3]> {
    const ID: u64 = 1;
    let mut fields = Fields::new(extra);
    while !fields.rest.is_empty() && values.contains(&IN_64) {
        let (id, len) = (fields.at(0, 2)?, fields.at(2, 2)?);
        fields.take(4)?;
        let mut wide = Fields::new(fields.take(len as usize)?);
        if id == ID {
            for value in values.iter_mut().filter(|value| **value == IN_64) {
                *value = wide.at(0, 8)?;
                wide.take(8)?;
            }
            return Some(values);
        }
    }
    (!values.contains(&IN_64)).then_some(values)
}

/// Where an entry's bytes begin: behind its local header, which has lengths of its own.
fn locate(source: &Source, central: &Central<'_>) -> Result<Entry, String> {
    let error = || format!("its entry `{}` does not lie within the file", central.name);
    let header = read(source, central.header, LOCAL_BYTES)?;
    let fields = Fields::new(&header);
    if fields.at(0, 4) != Some(u64::from(LOCAL)) {
        return Err(error());
    }
    let (name, extra) = (fields.at(26, 2), fields.at(28, 2));
    let skipped = LOCAL_BYTES as u64 + name.unwrap_or(0) + extra.unwrap_or(0);
    let offset = central.header.checked_add(skipped).ok_or_else(error)?;
    let end = offset.checked_add(central.len).ok_or_else(error)?;
    match end <= source.len() {
        true => Ok(Entry {
            offset,
            len: central.len,
        }),
        false => Err(error()),
    }
}

/// Entries that share bytes with each other or with the directory are made by no honest writer.
fn apart(entries: &BTreeMap<String, Entry>, directory: u64) -> Result<(), String> {
    let mut places: Vec<_> = entries.values().filter(|entry| entry.len > 0).collect();
    places.sort_by_key(|entry| entry.offset);
    let ends = places.iter().map(|entry| entry.offset + entry.len);
    let next = places.iter().skip(1).map(|entry| entry.offset);
    match ends
        .zip(next.chain([directory]))
        .all(|(end, next)| end <= next)
    {
        true => Ok(()),
        false => Err("its entries overlap".into()),
    }
}

fn read(source: &Source, offset: u64, len: usize) -> Result<Vec<u8>, String> {
    let end = offset.checked_add(len as u64);
    if end.is_none_or(|end| end > source.len()) {
        return Err("its directory points outside the file".into());
    }
    let mut bytes = vec![0; len];
    source
        .read_exact_at(&mut bytes, offset)
        .map_err(|error| format!("it cannot be read: {error}"))?;
    Ok(bytes)
}
