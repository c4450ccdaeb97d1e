//! Members of a tar archive (POSIX ustar, GNU long names, pax paths), found without unpacking.

use super::ArchiveError;
use super::bytes::{Bytes, Window};

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

/// Archives are made of blocks of this many bytes.
const BLOCK: u64 = 512;

/// The longest name that is believed, in bytes.
const LONGEST_NAME: u64 = 1 << 16;

/// The regular files of an archive, in its order.
///
/// # Errors
/// If the file is missing, is no tar archive, is compressed, or ends within a member.
pub fn members(archive: &dyn Bytes) -> Result<Vec<Member>, ArchiveError> {
    let (members, damage) = whole_members(archive);
    match damage {
        Some(error) => Err(error),
        None => Ok(members),
    }
}

/// The regular files that an archive holds whole, in its order, and what cut it short, if anything
/// did.
pub fn whole_members(archive: &dyn Bytes) -> (Vec<Member>, Option<ArchiveError>) {
    let mut members = Vec::new();
    let damage = scan(archive, &mut members).err();
    (members, damage)
}

fn scan(archive: &dyn Bytes, members: &mut Vec<Member>) -> Result<(), ArchiveError> {
    let read = |source| ArchiveError::read(archive.path(), "a tar archive", source);
    let malformed = |found: String, expected| ArchiveError::Malformed {
        path: archive.path().to_owned(),
        found,
        expected,
    };
    let mut window = Window::new(archive).map_err(read)?;
    let (mut offset, mut long_name) = (0, None);
    while offset + BLOCK <= window.length() {
        let header = window.get(offset, BLOCK).map_err(read)?;
        if header.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        let (name, kind, length) = parse(header).ok_or_else(|| {
            let found = format!("no tar header at byte {offset}");
            malformed(found, "an uncompressed tar archive")
        })?;
        offset += BLOCK;
        if window.length() - offset < length {
            let found = format!("an end within `{name}`");
            return Err(malformed(found, "a whole tar archive"));
        }
        match kind {
            b'L' | b'x' if length <= LONGEST_NAME => {
                let text = window.get(offset, length).map_err(read)?;
                long_name = long_name_in(text, kind == b'x').or(long_name);
            }
            b'0' | 0 => members.push(Member {
                name: long_name.take().unwrap_or(name),
                offset,
                length,
            }),
            _ => long_name = None,
        }
        offset += length.next_multiple_of(BLOCK);
    }
    if offset < window.length() {
        let found = format!("an end within the header at byte {offset}");
        return Err(malformed(found, "a whole tar archive"));
    }
    Ok(())
}

/// Name, kind and length of a header whose checksum is right.
fn parse(header: &[u8]) -> Option<(String, u8, u64)> {
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
    Some((name, header[156], octal(&header[124..136])?))
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
        let content = |member: &Member| {
            let mut bytes = vec![0; member.length as usize];
            path.read_at(member.offset, &mut bytes).unwrap();
            bytes
        };
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
        let (whole, damage) = whole_members(&path);
        assert!(whole.is_empty() && damage.is_some());
        std::fs::write(&path, &bytes[..1536 + 5]).unwrap();
        let (whole, damage) = whole_members(&path);
        let names: Vec<_> = whole.iter().map(|member| &member.name).collect();
        assert_eq!(names, ["images/a.jpg"]);
        let damage = damage.unwrap().to_string();
        assert!(damage.contains("the header at byte 1536"), "{damage}");
        std::fs::write(&path, &bytes[..1536]).unwrap();
        assert!(whole_members(&path).1.is_none());
        std::fs::write(&path, [b'x'; 600]).unwrap();
        assert!(members(&path).unwrap_err().to_string().contains("byte 0"));
    }
}
