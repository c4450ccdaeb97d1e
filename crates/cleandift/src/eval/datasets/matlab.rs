//! Numbers in MATLAB's files of versions 5 to 7.2 (`.mat`); version 7.3 is HDF5 and not read here.
//!
//! After MathWorks' "MAT-File Format", "Level 5 MAT-Files".

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use flate2::read::ZlibDecoder;

use super::read_bytes;
use crate::eval::EvalError;

/// A numeric array.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Rows, columns, and further dimensions.
    pub shape: Vec<usize>,
    /// The values, column by column (the first dimension changes fastest).
    pub values: Vec<f64>,
}

/// The most bytes that a variable may have once it is decompressed.
const LIMIT: u64 = 1 << 30;

/// The numeric variables of a file, by name; cells, structures and text are left out.
///
/// # Errors
/// If the file is missing, of another kind or version, or cut short.
pub fn open(path: &Path) -> Result<BTreeMap<String, Matrix>, EvalError> {
    let expected = "a MATLAB file of version 5 to 7.2 (in MATLAB: save -v7)";
    let bytes = read_bytes(path, expected)?;
    let malformed = |found: &str| EvalError::malformed(path, found, expected);
    if bytes.starts_with(b"MATLAB 7.3") {
        return Err(malformed("a file of version 7.3"));
    }
    match bytes.get(124..128) {
        Some([0, 1, b'I', b'M']) => {}
        Some([1, 0, b'M', b'I']) => return Err(malformed("numbers with the high byte first")),
        _ => return Err(malformed("another header")),
    }
    let mut variables = BTreeMap::new();
    let mut rest = &bytes[128..];
    while !rest.is_empty() {
        let (kind, data) =
            element(&mut rest).ok_or_else(|| malformed("an end within a variable"))?;
        let inflated;
        let mut body = match kind {
            MATRIX => data,
            COMPRESSED => {
                inflated = inflate(data).ok_or_else(|| malformed("damaged compression"))?;
                let mut inner = &inflated[..];
                match element(&mut inner) {
                    Some((MATRIX, data)) => data,
                    _ => continue,
                }
            }
            _ => continue,
        };
        if let Some((name, matrix)) = matrix(&mut body) {
            variables.insert(name, matrix);
        }
    }
    Ok(variables)
}

/// A variable of a file that must have it.
///
/// # Errors
/// As [`open`], or if there is no such variable.
pub fn variable(path: &Path, name: &str) -> Result<Matrix, EvalError> {
    let mut variables = open(path)?;
    variables.remove(name).ok_or_else(|| {
        let known: Vec<&str> = variables.keys().map(String::as_str).collect();
        let found = format!("the variables {}", known.join(", "));
        EvalError::malformed(path, found, format!("a numeric variable `{name}`"))
    })
}

const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT16: u32 = 3;
const UINT16: u32 = 4;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const SINGLE: u32 = 7;
const DOUBLE: u32 = 9;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The next element's type and bytes; `None` at an end within it.
fn element<'b>(rest: &mut &'b [u8]) -> Option<(u32, &'b [u8])> {
    let first = word(rest, 0)?;
    let (kind, size, start) = match first >> 16 {
        0 => (first, word(rest, 4)? as usize, 8),
        // Up to four bytes stand within the tag.
        size => (first & 0xFFFF, size as usize, 4),
    };
    let data = rest.get(start..start.checked_add(size)?)?;
    let end = match kind {
        COMPRESSED => start + size,
        _ => (start + size).next_multiple_of(8),
    };
    *rest = &rest[end.min(rest.len())..];
    Some((kind, data))
}

fn inflate(data: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let decoder = ZlibDecoder::new(data);
    decoder.take(LIMIT).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Name and values of a numeric array; `None` for anything else.
fn matrix(body: &mut &[u8]) -> Option<(String, Matrix)> {
    let (UINT32, flags) = element(body)? else {
        return None;
    };
    // Classes 6 to 15 are the numeric ones.
    if !(6..=15).contains(flags.first()?) {
        return None;
    }
    let (INT32, shape) = element(body)? else {
        return None;
    };
    let shape: Vec<usize> = (shape.as_chunks::<4>().0.iter())
        .map(|&bytes| u32::from_le_bytes(bytes) as usize)
        .collect();
    let (_, name) = element(body)?;
    let (kind, data) = element(body)?;
    let values = numbers(kind, data)?;
    let count = shape
        .iter()
        .try_fold(1usize, |count, &side| count.checked_mul(side))?;
    (values.len() == count).then(|| {
        let name = String::from_utf8_lossy(name).into_owned();
        (name, Matrix { shape, values })
    })
}

fn numbers(kind: u32, data: &[u8]) -> Option<Vec<f64>> {
    fn each<const N: usize>(data: &[u8], f: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        data.as_chunks().0.iter().map(|&bytes| f(bytes)).collect()
    }
    Some(match kind {
        INT8 => each(data, |b| i8::from_le_bytes(b).into()),
        UINT8 => each(data, |b| u8::from_le_bytes(b).into()),
        INT16 => each(data, |b| i16::from_le_bytes(b).into()),
        UINT16 => each(data, |b| u16::from_le_bytes(b).into()),
        INT32 => each(data, |b| i32::from_le_bytes(b).into()),
        UINT32 => each(data, |b| u32::from_le_bytes(b).into()),
        SINGLE => each(data, |b| f32::from_le_bytes(b).into()),
        DOUBLE => each(data, f64::from_le_bytes),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    fn tagged(kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = [kind, data.len() as u32].map(u32::to_le_bytes).concat();
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    /// A variable `xy` of two rows and three columns, as the format describes it.
    fn variable_bytes(kind: u32, values: &[u8]) -> Vec<u8> {
        let mut body = tagged(UINT32, &[6, 0, 0, 0, 0, 0, 0, 0]);
        body.extend(tagged(INT32, &[2, 0, 0, 0, 3, 0, 0, 0]));
        // A name of two letters stands within its tag.
        body.extend([1, 0, 2, 0, b'x', b'y', 0, 0]);
        body.extend(tagged(kind, values));
        tagged(MATRIX, &body)
    }

    fn file(elements: &[u8]) -> Vec<u8> {
        let mut bytes = vec![b' '; 124];
        bytes.extend([0, 1, b'I', b'M']);
        bytes.extend(elements);
        bytes
    }

    #[test]
    fn plain_and_compressed_variables() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("points.mat");
        let plain = variable_bytes(UINT8, &[1, 2, 3, 4, 5, 6]);
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        let doubles: Vec<u8> = (1..=6).flat_map(|i| f64::from(i).to_le_bytes()).collect();
        encoder
            .write_all(&variable_bytes(DOUBLE, &doubles))
            .unwrap();
        let compressed = encoder.finish().unwrap();
        let mut element = [COMPRESSED, compressed.len() as u32]
            .map(u32::to_le_bytes)
            .concat();
        element.extend(compressed);
        for elements in [plain, element] {
            std::fs::write(&path, file(&elements)).unwrap();
            let matrix = variable(&path, "xy").unwrap();
            assert_eq!(matrix.shape, [2, 3]);
            assert_eq!(matrix.values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        }
        let error = variable(&path, "kps").unwrap_err().to_string();
        assert!(
            error.contains("points.mat") && error.contains("xy"),
            "{error}"
        );
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("points.mat");
        let refused = |bytes: &[u8], words: &str| {
            std::fs::write(&path, bytes).unwrap();
            let error = open(&path).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(b"MATLAB 7.3 MAT-file", "version 7.3");
        refused(b"hello", "another header");
        let whole = file(&variable_bytes(UINT8, &[0; 6]));
        refused(&whole[..whole.len() - 9], "an end within a variable");
    }
}
