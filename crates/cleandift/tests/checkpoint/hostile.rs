//! Files that were made to do harm (`scripts/make_hostile_checkpoints.py`): each is refused, with one
//! line that says why.

use std::path::Path;

use cleandift::checkpoint::{CheckpointError, Weights};

#[test]
fn every_hostile_file_is_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hostile");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let error = match Weights::open(&path) {
            Ok(weights) => panic!("{name} was opened: {weights:?}"),
            Err(error) => error,
        };
        let message = error.to_string();
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.contains(&name), "{message}");
        if name.starts_with("call-") {
            assert!(
                matches!(error, CheckpointError::InvalidPyTorch { .. }),
                "{message}"
            );
        }
        count += 1;
    }
    assert!(count >= 40, "only {count} files");
}
