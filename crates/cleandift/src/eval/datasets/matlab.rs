//! Arrays in MATLAB files of level 5 (`MATLAB 5.0 MAT-file`), plain or compressed. Files of
//! version 7.3 are HDF5 and another matter.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use flate2::read::ZlibDecoder;

use super::read_bytes;
use crate::eval::EvalError;

/// A numeric array.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Its sides.
    pub shape: Vec<usize>,
    /// Its values, the first side running fastest.
    pub values: Vec<f64>,
}

/// The numeric arrays of a file, by name; other variables are left out.
///
/// # Errors
/// If the file is missing, is no such file, or is cut off.
pub fn read(path: &Path) -> Result<BTreeMap<String, Array>, EvalError> {
    let expected = "a MATLAB file of level 5";
    let bytes = read_bytes(path, expected)?;
    if bytes.get(..8) == Some(b"\x89HDF\r\n\x1a\n") || bytes.starts_with(b"MATLAB 7.3") {
        return Err(EvalError::malformed(path, "version 7.3 (HDF5)", expected));
    }
    if bytes.len() < HEADER || bytes[126..128] != *b"IM" {
        return Err(EvalError::malformed(
            path,
            "no little-endian MATLAB header",
            expected,
        ));
    }
    let mut found = BTreeMap::new();
    elements(&bytes[HEADER..], &mut found)
        .ok_or_else(|| EvalError::malformed(path, "an element that ends too early", expected))?;
    Ok(found)
}

/// Bytes before the first element.
const HEADER: usize = 128;
/// Element types: a compressed element, an array.
const COMPRESSED: u32 = 15;
const MATRIX: u32 = 14;

/// What a compressed element inflates to at most: far more than any table of keypoints or splits.
const LARGEST: u64 = 1 << 28;

/// Adds the arrays among a file's elements, of which each may be compressed.
fn elements(mut bytes: &[u8], found: &mut BTreeMap<String, Array>) -> Option<()> {
    while !bytes.is_empty() {
        let (outer, rest) = element(bytes)?;
        if outer.kind == COMPRESSED {
            let mut inner = Vec::new();
            ZlibDecoder::new(outer.data)
                .take(LARGEST)
                .read_to_end(&mut inner)
                .ok()?;
            add(&element(&inner)?.0, found);
        } else {
            add(&outer, found);
        }
        bytes = rest;
    }
    Some(())
}

/// Adds an element, if it is an array of numbers.
fn add(element: &Element, found: &mut BTreeMap<String, Array>) {
    if element.kind == MATRIX
        && let Some((name, array)) = array(element.data)
    {
        found.insert(name, array);
    }
}

/// A typed piece of a file.
struct Element<'b> {
    kind: u32,
    data: &'b [u8],
}

fn element(bytes: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (first, second) = (word(0)?, word(4)?);
    // Up to four bytes lie in the tag itself.
    if first >> 16 != 0 {
        let length = (first >> 16) as usize;
        let data = bytes.get(4..4 + length)?;
        let kind = first & 0xffff;
        return Some((Element { kind, data }, bytes.get(8..)?));
    }
    let end = 8 + second as usize;
    let data = bytes.get(8..end)?;
    // Compressed elements are not padded.
    let next = if first == COMPRESSED {
        end
    } else {
        end.next_multiple_of(8)
    };
    let rest = bytes.get(next..).unwrap_or_default();
    Some((Element { kind: first, data }, rest))
}

/// Name and values of a numeric array.
fn array(bytes: &[u8]) -> Option<(String, Array)> {
    let (flags, rest) = element(bytes)?;
    // Classes 6 (double) to 15 (unsigned 64-bit) are numbers.
    if !(6..=15).contains(flags.data.first()?) {
        return None;
    }
    let (shape, rest) = element(rest)?;
    let (name, rest) = element(rest)?;
    let (values, _) = element(rest)?;
    let shape: Vec<usize> = numbers(&shape)?
        .into_iter()
        .map(|side| side as usize)
        .collect();
    let values = numbers(&values)?;
    let name = String::from_utf8_lossy(name.data).into_owned();
    let product = |all: usize, side: &usize| all.checked_mul(*side);
    let size = shape.iter().try_fold(1, product)?;
    (values.len() == size).then_some((name, Array { shape, values }))
}

/// The values of an element of numbers.
fn numbers(element: &Element) -> Option<Vec<f64>> {
    macro_rules! as_numbers {
        ($type:ty) => {
            (element.data.as_chunks().0.iter())
                .map(|&bytes| <$type>::from_le_bytes(bytes) as f64)
                .collect()
        };
    }
    Some(match element.kind {
        1 => as_numbers!(i8),
        2 => as_numbers!(u8),
        3 => as_numbers!(i16),
        4 => as_numbers!(u16),
        5 => as_numbers!(i32),
        6 => as_numbers!(u32),
        7 => as_numbers!(f32),
        9 => as_numbers!(f64),
        12 => as_numbers!(i64),
        13 => as_numbers!(u64),
        _ => return None,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;

    fn tagged(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    /// A file with one array of doubles, as MATLAB's documentation of the format has it.
    pub(crate) fn file(name: &str, shape: [usize; 2], values: &[f64], compressed: bool) -> Vec<u8> {
        let sides: Vec<u8> = shape
            .iter()
            .flat_map(|&s| (s as i32).to_le_bytes())
            .collect();
        let values: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let content = [
            tagged(6, &[6, 0, 0, 0, 0, 0, 0, 0]),
            tagged(5, &sides),
            tagged(1, name.as_bytes()),
            tagged(9, &values),
        ];
        let matrix = tagged(MATRIX, &content.concat());
        let mut bytes = vec![b' '; HEADER];
        bytes[..19].copy_from_slice(b"MATLAB 5.0 MAT-file");
        bytes[124..128].copy_from_slice(&[0, 1, b'I', b'M']);
        if compressed {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Default::default());
            encoder.write_all(&matrix).unwrap();
            let packed = encoder.finish().unwrap();
            bytes.extend(COMPRESSED.to_le_bytes());
            bytes.extend((packed.len() as u32).to_le_bytes());
            bytes.extend(packed);
        } else {
            bytes.extend(matrix);
        }
        bytes
    }

    #[test]
    fn arrays_plain_and_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mat");
        for compressed in [false, true] {
            let bytes = file(
                "kps",
                [3, 2],
                &[1.0, 2.0, f64::NAN, 4.0, 5.0, 6.5],
                compressed,
            );
            std::fs::write(&path, &bytes).unwrap();
            let array = read(&path).unwrap().remove("kps").unwrap();
            assert_eq!(array.shape, [3, 2]);
            assert_eq!(array.values[3..], [4.0, 5.0, 6.5]);
            assert!(array.values[2].is_nan());
            std::fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains("a.mat"), "{error}");
        }
        std::fs::write(&path, b"\x89HDF\r\n\x1a\n and more").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("7.3"));
    }
}
