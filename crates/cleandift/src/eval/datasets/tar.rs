//! Members of a tar archive (POSIX ustar, GNU long names, pax paths), found without unpacking.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::eval::{EvalError, Origin};

/// A file in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its path in the archive.
    pub name: String,
    /// Where its bytes begin.
    pub offset: u64,
    /// How many there are.
    pub length: u64,
}

impl Member {
    /// Where its bytes are.
    pub fn origin(&self, archive: &Path) -> Origin {
        Origin::Part {
            path: archive.to_owned(),
            member: self.name.clone(),
            offset: self.offset,
            length: self.length,
        }
    }
}

/// Archives are made of blocks of this many bytes.
const BLOCK: u64 = 512;

/// The regular files of an archive, in its order.
///
/// # Errors
/// If the file is missing, is no tar archive, is compressed, or ends within a member.
pub fn members(archive: &Path) -> Result<Vec<Member>, EvalError> {
    let read = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => EvalError::missing(archive, "expected a tar archive"),
        _ => EvalError::Read {
            path: archive.to_owned(),
            source,
        },
    };
    let file = File::open(archive).map_err(read)?;
    let total = file.metadata().map_err(read)?.len();
    let mut file = BufReader::new(file);
    let (mut members, mut offset, mut long_name) = (Vec::new(), 0, None);
    while offset + BLOCK <= total {
        let mut header = [0; BLOCK as usize];
        file.read_exact(&mut header).map_err(read)?;
        if header.iter().all(|&byte| byte == 0) {
            break;
        }
        let (name, length) = parse(&header).ok_or_else(|| {
            let found = format!("no tar header at byte {offset}");
            EvalError::malformed(archive, found, "an uncompressed tar archive")
        })?;
        offset += BLOCK;
        if offset + length > total {
            let found = format!("an end within `{name}`");
            return Err(EvalError::malformed(archive, found, "a whole tar archive"));
        }
        match header[156] {
            b'L' | b'x' => {
                let mut text = vec![0; length as usize];
                file.read_exact(&mut text).map_err(read)?;
                file.seek_relative(-(length as i64)).map_err(read)?;
                long_name = long_name_in(&text, header[156] == b'x').or(long_name);
            }
            b'0' | 0 => members.push(Member {
                name: long_name.take().unwrap_or(name),
                offset,
                length,
            }),
            _ => long_name = None,
        }
        offset += length.next_multiple_of(BLOCK);
        file.seek(SeekFrom::Start(offset)).map_err(read)?;
    }
    Ok(members)
}

/// Name and length of a header whose checksum is right.
fn parse(header: &[u8; BLOCK as usize]) -> Option<(String, u64)> {
    let sum = |(index, &byte): (usize, &u8)| match index {
        148..156 => u64::from(b' '),
        _ => u64::from(byte),
    };
    if header.iter().enumerate().map(sum).sum::<u64>() != octal(&header[148..156])? {
        return None;
    }
    let name = text(&header[..100]);
    let prefix = text(&header[345..500]);
    let ustar = &header[257..262] == b"ustar" && header[262] == 0;
    let name = match ustar && !prefix.is_empty() {
        true => format!("{prefix}/{name}"),
        false => name,
    };
    Some((name, octal(&header[124..136])?))
}

/// A number in octal digits, or in base 256 if the first bit is set.
fn octal(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let bytes = field[field.len() - 8..].try_into().ok()?;
        return Some(u64::from_be_bytes(bytes));
    }
    let text = text(field);
    let text = text.trim();
    if text.is_empty() {
        return Some(0);
    }
    u64::from_str_radix(text, 8).ok()
}

/// A field up to its first zero.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&field[..end.unwrap_or(field.len())]).into_owned()
}

/// The name in a GNU long name, or in the `path` record of a pax header.
fn long_name_in(bytes: &[u8], pax: bool) -> Option<String> {
    if !pax {
        return Some(text(bytes));
    }
    let text = String::from_utf8_lossy(bytes);
    let records = text.lines().filter_map(|line| line.split_once(' '));
    let path = records
        .filter_map(|(_, record)| record.strip_prefix("path="))
        .next();
    path.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header as the format describes it: name, size in octal, checksum, type, magic.
    fn header(name: &str, length: usize, kind: u8) -> Vec<u8> {
        let mut block = vec![0; BLOCK as usize];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[124..135].copy_from_slice(format!("{length:011o}").as_bytes());
        block[148..156].copy_from_slice(b"        ");
        block[156] = kind;
        block[257..263].copy_from_slice(b"ustar\0");
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    fn archive(parts: &[(&str, &[u8], u8)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, content, kind) in parts {
            bytes.extend(header(name, content.len(), *kind));
            bytes.extend(*content);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    #[test]
    fn members_are_found_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let long = "d/".repeat(60) + "x.jpg";
        let pax = format!("{} path={long}\n", long.len() + 10);
        let bytes = archive(&[
            ("images/", b"", b'5'),
            ("images/a.jpg", b"hello", b'0'),
            ("././@LongLink", long.as_bytes(), b'L'),
            ("short", b"GNU", b'0'),
            ("pax", pax.as_bytes(), b'x'),
            ("short", b"PAX", b'0'),
        ]);
        std::fs::write(&path, &bytes).unwrap();
        let found = members(&path).unwrap();
        let content = |member: &Member| member.origin(&path).bytes().unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|m| (m.name.as_str(), content(m)))
            .collect();
        let expected = [
            ("images/a.jpg", b"hello".to_vec()),
            (long.as_str(), b"GNU".to_vec()),
            (long.as_str(), b"PAX".to_vec()),
        ];
        assert_eq!(found, expected);

        std::fs::write(&path, &bytes[..1026]).unwrap();
        let error = members(&path).unwrap_err().to_string();
        assert!(
            error.contains("a.tar") && error.contains("images/a.jpg"),
            "{error}"
        );
        std::fs::write(&path, [b'x'; 600]).unwrap();
        assert!(members(&path).unwrap_err().to_string().contains("byte 0"));
    }
}
