//! Pictures that the commands write.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use cleandift::checkpoint::write_file;
use cleandift::image::{Extent, Picture};
use image::codecs::jpeg::JpegEncoder;
use image::{ImageFormat, RgbImage};

use crate::failure::Failure;

/// The quality of JPEG files: hardly to be told from the original.
const JPEG_QUALITY: u8 = 92;

/// A picture as the drawing code has it.
pub fn to_image(picture: &Picture) -> RgbImage {
    let Extent { width, height } = picture.extent();
    RgbImage::from_raw(width as u32, height as u32, picture.rgb().to_vec())
        .expect("a picture has three bytes a pixel")
}

/// Fails if one of `outputs` would take the place of an input, or of another output.
pub fn refuse_to_replace(inputs: &[&Path], outputs: &[&Path]) -> Result<(), Failure> {
    let place = |path: &&Path| {
        path.canonicalize()
            .or_else(|_| std::path::absolute(path))
            .ok()
    };
    let mut taken: Vec<PathBuf> = inputs.iter().filter_map(place).collect();
    for output in outputs {
        let Some(place) = place(output) else {
            continue;
        };
        if taken.contains(&place) {
            return Err(Failure::new(format!(
                "{}: would be written over, and is one of the other files of this command: name \
                 another output",
                output.display()
            )));
        }
        taken.push(place);
    }
    Ok(())
}

/// Writes a picture whole or not at all: JPEG if the file is named so, else PNG.
pub fn write_picture(path: &Path, picture: &RgbImage) -> Result<(), Failure> {
    let mut bytes = Cursor::new(Vec::new());
    let ending = path.extension().and_then(|ending| ending.to_str());
    match ending.map(str::to_lowercase).as_deref() {
        Some("jpg" | "jpeg") => {
            picture.write_with_encoder(JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY))?;
        }
        _ => picture.write_to(&mut bytes, ImageFormat::Png)?,
    }
    Ok(write_file(path, bytes.get_ref())?)
}
