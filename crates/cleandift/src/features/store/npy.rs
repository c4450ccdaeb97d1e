//! NumPy's array format, version 1.0: a header that describes the array, then its values.

use std::io::{Cursor, Write};

use half::f16;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::Stored;
use crate::checkpoint::Dtype;

/// The bytes of an npy file: f16 for [`Dtype::F16`], else f32.
///
/// # Panics
/// For bf16, which NumPy does not have: callers refuse it before any work.
pub(super) fn array(tensor: &Stored) -> Vec<u8> {
    let kind = match tensor.dtype {
        Dtype::F32 => "<f4",
        Dtype::F16 => "<f2",
        Dtype::BF16 => panic!("NumPy has no bf16"),
    };
    let sides: String = tensor
        .shape
        .iter()
        .map(|side| format!("{side}, "))
        .collect();
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({sides}), }}");
    // Magic, version, length and header together fill multiples of 64 bytes, closed by a new line.
    let before = 10;
    let length = (before + header.len() + 1).next_multiple_of(64) - before;
    header.push_str(&" ".repeat(length - header.len() - 1));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    match tensor.dtype {
        Dtype::F16 => {
            bytes.extend(
                tensor
                    .values
                    .iter()
                    .flat_map(|&v| f16::from_f32(v).to_le_bytes()),
            );
        }
        _ => bytes.extend(tensor.values.iter().flat_map(|v| v.to_le_bytes())),
    }
    bytes
}

/// The bytes of an npz file.
pub(super) fn archive(tensors: &[Stored]) -> Vec<u8> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .large_file(true);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for tensor in tensors {
        // Writing to memory cannot fail, and names are taps': none is too long or comes twice.
        zip.start_file(format!("{}.npy", tensor.name), options)
            .expect("a valid name");
        zip.write_all(&array(tensor)).expect("memory takes all");
    }
    zip.finish().expect("memory takes all").into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_numpys() {
        let tensor = Stored {
            name: "us6".into(),
            shape: vec![2, 1],
            values: vec![1.0, -2.0],
            dtype: Dtype::F16,
        };
        let bytes = array(&tensor);
        // numpy.lib.format, version 1.0: the data begin at a multiple of 64.
        assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
        let length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        assert_eq!((10 + length) % 64, 0);
        let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
        let described = "{'descr': '<f2', 'fortran_order': False, 'shape': (2, 1, ), }";
        assert_eq!(header.trim_end(), described);
        assert!(header.ends_with('\n'));
        assert_eq!(&bytes[10 + length..], [0x00, 0x3c, 0x00, 0xc0]);
    }
}
