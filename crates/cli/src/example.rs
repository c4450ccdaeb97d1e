//! Two portraits inside the binary, to try `match` in an empty folder and to measure with.

use std::path::PathBuf;

use cleandift::checkpoint::write_file;
use cleandift::image::{ImageError, Picture};

use crate::failure::Failure;

/// Eyes, nose, mouth, temple, hair, chin and neck in the first portrait, in its pixels.
pub const POINTS: [[f64; 2]; 8] = [
    [154.0, 200.0],
    [240.0, 202.0],
    [196.0, 240.0],
    [198.0, 280.0],
    [92.0, 224.0],
    [194.0, 60.0],
    [196.0, 320.0],
    [206.0, 380.0],
];

/// The portraits, of two sizes as most pairs are; credits are in `pictures/CREDITS.md`.
const PORTRAITS: [(&str, &[u8]); 2] = [
    (
        "person-collins.jpg",
        include_bytes!("../pictures/person-collins.jpg"),
    ),
    (
        "person-hopper.jpg",
        include_bytes!("../pictures/person-hopper.jpg"),
    ),
];

/// The files that [`write_portraits`] writes.
pub fn names() -> impl Iterator<Item = &'static str> {
    PORTRAITS.iter().map(|(name, _)| *name)
}

/// The portraits.
pub fn portraits() -> Result<[Picture; 2], ImageError> {
    let [first, second] = PORTRAITS.map(|(name, bytes)| Picture::decode(bytes, name));
    Ok([first?, second?])
}

/// Writes the portraits into the current folder and gives their paths.
///
/// # Errors
/// If another file has the name of one, or the folder cannot be written.
pub fn write_portraits() -> Result<[PathBuf; 2], Failure> {
    for (name, bytes) in PORTRAITS {
        match std::fs::read(name) {
            Ok(there) if there == bytes => {}
            Ok(_) => {
                return Err(Failure::new(format!(
                    "{name}: is here already, and is another picture than the portrait of that name; \
                     run this in another folder"
                )));
            }
            Err(_) => write_file(name.as_ref(), bytes)?,
        }
    }
    Ok(PORTRAITS.map(|(name, _)| PathBuf::from(name)))
}
