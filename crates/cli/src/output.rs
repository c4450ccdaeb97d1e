//! Pictures that the commands write.

use std::io::Cursor;
use std::path::Path;

use cleandift::checkpoint::write_file;
use cleandift::image::{Extent, Picture};
use image::{ImageFormat, RgbImage};

use crate::failure::Failure;

/// A picture as the drawing code has it.
pub fn to_image(picture: &Picture) -> RgbImage {
    let Extent { width, height } = picture.extent();
    RgbImage::from_raw(width as u32, height as u32, picture.rgb().to_vec())
        .expect("a picture has three bytes a pixel")
}

/// Writes a PNG file whole or not at all.
pub fn write_png(path: &Path, picture: &RgbImage) -> Result<(), Failure> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(write_file(path, bytes.get_ref())?)
}
