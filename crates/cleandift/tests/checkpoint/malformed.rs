//! Files that are not what they should be: an error with the cause, never a panic.

use std::path::PathBuf;

use cleandift::checkpoint::{CheckpointError, Dtype, Weights};
use cleandift::graph::Parameters;

use super::{assert_message, tensor, write};

fn open_bytes(bytes: &[u8]) -> CheckpointError {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    Weights::open(&path).unwrap_err()
}

/// A file of this header and as many zeros of data.
fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let cases: [(&[u8], &str); 4] = [
        (b"", "an empty file"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:94",
            "git lfs pull",
        ),
        (b"<!DOCTYPE html><html><title>404", "a web page"),
        (&[0xff; 200], "ff ff ff ff ff ff ff ff"),
    ];
    for (bytes, found) in cases {
        let error = open_bytes(bytes);
        assert!(
            matches!(error, CheckpointError::NotSafetensors { .. }),
            "{error}"
        );
        assert_message(
            error,
            &["model.safetensors", "not a safetensors file", found],
        );
    }
}

#[test]
fn archives_and_pickles_that_are_no_checkpoints() {
    let cases: [(&[u8], &str); 2] = [
        (b"PK\x03\x04archive/data.pkl and more bytes", "truncated"),
        (b"\x80\x02}q\x00.", "a pickle that PyTorch did not write"),
    ];
    for (bytes, found) in cases {
        assert_message(open_bytes(bytes), &["not a PyTorch checkpoint", found]);
    }
}

#[test]
fn a_long_header_is_not_allocated() {
    // Just within the bound of 100 MB, but the file has only 20 bytes.
    let mut bytes = 99_999_999u64.to_le_bytes().to_vec();
    bytes.extend(b"{\"a\":       ");
    let error = open_bytes(&bytes);
    assert_message(error, &["100000007 bytes", "it has 20", "truncated"]);
}

#[test]
fn every_truncation_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(
        &path,
        Dtype::F16,
        &[tensor("a", &[3, 5]), tensor("b", &[7])],
    );
    let whole = std::fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    assert_eq!(whole.len(), header + 2 * (15 + 7));
    for length in 0..whole.len() {
        match open_bytes(&whole[..length]) {
            CheckpointError::NotSafetensors { .. } => assert!(length < 8),
            CheckpointError::WrongLength {
                expected, found, ..
            } => {
                assert_eq!(found, length as u64);
                assert_eq!(
                    expected,
                    if length < header { header } else { whole.len() } as u64
                );
            }
            error => panic!("{length}: {error}"),
        }
    }
    let longer = [whole.as_slice(), b"x"].concat();
    assert_message(open_bytes(&longer), &["followed by foreign data"]);
}

#[test]
fn headers_that_contradict_themselves() {
    let one = |entry: &str| format!(r#"{{"a":{entry}}}"#);
    let cases = [
        ("{not json".to_string(), 0),
        (one(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,4]}"#), 4),
        (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#), 8),
        (one(r#"{"dtype":"F32","shape":[1],"data_offsets":[8,4]}"#), 8),
        (one(r#"{"dtype":"F33","shape":[1],"data_offsets":[0,4]}"#), 4),
        (one(r#"{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}"#), 4),
        (
            one(r#"{"dtype":"F32","shape":[4294967296,4294967296,4],"data_offsets":[0,0]}"#),
            0,
        ),
        // Two tensors that share bytes.
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#
                .to_string(),
            12,
        ),
    ];
    for (header, data) in cases {
        let error = open_bytes(&with_header(&header, data));
        assert!(
            matches!(error, CheckpointError::InvalidHeader { .. }),
            "{header}: {error}"
        );
        assert_message(error, &["model.safetensors", "invalid safetensors header"]);
    }
}

#[test]
fn data_that_the_header_does_not_reach_is_refused() {
    let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let error = open_bytes(&with_header(header, 5));
    assert!(
        matches!(error, CheckpointError::WrongLength { .. }),
        "{error}"
    );
}

#[test]
fn nothing_there_or_a_folder() {
    let error = Weights::open(&PathBuf::from("nowhere/model.safetensors")).unwrap_err();
    assert!(matches!(error, CheckpointError::NotFound { .. }), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let error = Weights::open(folder.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::Io { .. }), "{error}");
}

#[test]
fn a_file_that_shrinks_after_opening_gives_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, Dtype::F32, &[tensor("a", &[100])]);
    let weights = Weights::open(&path).unwrap();
    assert_eq!(weights.read("a").unwrap().len(), 100);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(200).unwrap();
    let error = weights.read("a").unwrap_err();
    assert_message(error, &["model.safetensors", "`a`", "shorter"]);
}
