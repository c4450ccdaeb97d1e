//! Two portraits inside the binary, to try `match` in an empty folder and to measure with.

use std::path::PathBuf;

use cleandift::checkpoint::write_file;
use cleandift::image::{ImageError, Picture};

use crate::failure::Failure;

/// Eyes, nose, mouth, an ear, hair and neck in the first portrait, in its pixels.
pub const POINTS: [[f64; 2]; 7] = [
    [169.0, 219.0],
    [262.0, 221.0],
    [214.0, 262.0],
    [217.0, 306.0],
    [101.0, 245.0],
    [212.0, 66.0],
    [225.0, 415.0],
];

/// The portraits; credits are in `pictures/CREDITS.md`.
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
