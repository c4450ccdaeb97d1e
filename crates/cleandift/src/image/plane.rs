//! Pictures that hold one number a pixel and no colour: masks of classes or objects, depth maps.

use std::io::Cursor;
use std::path::Path;

use png::{BitDepth, ColorType, Transformations};

use super::picture::{check_extent, read_file};
use super::{Extent, ImageError};

/// The numbers of a grey or palette PNG just as it stores them: of a palette picture the indices,
/// not the colours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plane {
    extent: Extent,
    bits: u8,
    samples: Vec<u16>,
}

impl Plane {
    /// Reads a file.
    ///
    /// # Errors
    /// If the file cannot be read, or it is refused by [`Plane::decode`].
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        Self::decode(&read_file(path)?, &path.display().to_string())
    }

    /// Decodes the bytes of a file; `name` is what errors call it.
    ///
    /// # Errors
    /// If the bytes are no PNG, a damaged one, one in colours, or one beyond the limits that hold
    /// for pictures.
    pub fn decode(bytes: &[u8], name: &str) -> Result<Self, ImageError> {
        let explain = |error: png::DecodingError| ImageError::Damaged {
            name: name.to_owned(),
            format: "PNG",
            reason: error.to_string(),
        };
        if !bytes.starts_with(b"\x89PNG") {
            return Err(ImageError::Unsupported {
                name: name.to_owned(),
                kind: "a mask or depth map that is no PNG".to_owned(),
            });
        }
        let mut decoder = png::Decoder::new(Cursor::new(bytes));
        decoder.set_transformations(Transformations::IDENTITY);
        let mut reader = decoder.read_info().map_err(explain)?;
        let info = reader.info();
        let extent = Extent::new(info.width as usize, info.height as usize);
        check_extent(extent, name)?;
        let (kind, depth) = (info.color_type, info.bit_depth);
        if !matches!(kind, ColorType::Grayscale | ColorType::Indexed) {
            return Err(ImageError::Unsupported {
                name: name.to_owned(),
                kind: format!(
                    "a mask or depth map of type {kind:?} (expected one number a pixel: grey, or \
                     a palette)"
                ),
            });
        }
        let size = reader.output_buffer_size().ok_or(ImageError::Memory {
            name: name.to_owned(),
            format: "PNG",
        })?;
        let mut rows = vec![0; size];
        let frame = reader.next_frame(&mut rows).map_err(explain)?;
        let samples = rows
            .chunks_exact(frame.line_size)
            .flat_map(|row| unpack(row, depth).take(extent.width))
            .collect();
        Ok(Self {
            extent,
            bits: depth as u8,
            samples,
        })
    }

    /// Columns and rows.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// Bits of a sample: 1, 2, 4, 8 or 16.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// The samples, `[row][column]`.
    pub fn samples(&self) -> &[u16] {
        &self.samples
    }
}

/// The samples of a row: several a byte, the first in the highest bits, or two bytes each, the
/// high one first.
fn unpack(row: &[u8], depth: BitDepth) -> Box<dyn Iterator<Item = u16> + '_> {
    match depth {
        BitDepth::Sixteen => {
            Box::new((row.as_chunks().0.iter()).map(|&pair| u16::from_be_bytes(pair)))
        }
        BitDepth::Eight => Box::new(row.iter().map(|&byte| u16::from(byte))),
        few => {
            let bits = few as usize;
            let mask = (1u8 << bits) - 1;
            let places = (0..8 / bits).map(move |place| 8 - bits * (place + 1));
            Box::new(row.iter().flat_map(move |&byte| {
                let places = places.clone();
                places.map(move |shift| u16::from(byte >> shift & mask))
            }))
        }
    }
}

/// A palette PNG of two rows, as data sets have them.
#[cfg(test)]
pub(crate) fn indexed_png(width: u32, indices: &[u8]) -> Vec<u8> {
    tests::write(width, indices, ColorType::Indexed, BitDepth::Eight)
}

/// A 16-bit grey PNG of two rows, as data sets have them.
#[cfg(test)]
pub(crate) fn depth_png(width: u32, samples: &[u16]) -> Vec<u8> {
    let bytes: Vec<u8> = samples
        .iter()
        .flat_map(|sample| sample.to_be_bytes())
        .collect();
    tests::write(width, &bytes, ColorType::Grayscale, BitDepth::Sixteen)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn write(width: u32, bytes: &[u8], kind: ColorType, depth: BitDepth) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, 2);
        encoder.set_color(kind);
        encoder.set_depth(depth);
        if kind == ColorType::Indexed {
            encoder.set_palette((0..=255).flat_map(|i| [i, 0, 255 - i]).collect::<Vec<u8>>());
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(bytes).unwrap();
        writer.finish().unwrap();
        file
    }

    #[test]
    fn indices_and_grey_values_are_kept_as_they_are() {
        let file = write(
            3,
            &[0, 255, 7, 1, 2, 3],
            ColorType::Indexed,
            BitDepth::Eight,
        );
        let plane = Plane::decode(&file, "mask.png").unwrap();
        assert_eq!(plane.samples(), [0, 255, 7, 1, 2, 3]);
        assert_eq!((plane.extent(), plane.bits()), (Extent::new(3, 2), 8));

        let depth = [0x03, 0xE8, 0, 0, 0xFF, 0xFF, 0, 1, 0, 2, 0, 3];
        let file = write(3, &depth, ColorType::Grayscale, BitDepth::Sixteen);
        let plane = Plane::decode(&file, "depth.png").unwrap();
        assert_eq!(plane.samples(), [1000, 0, 65535, 1, 2, 3]);
    }

    /// Rows begin on whole bytes: three samples of 2 bits leave two bits over.
    #[test]
    fn several_samples_a_byte() {
        let rows = [0b01_10_11_00, 0b11_00_01_00];
        let file = write(3, &rows, ColorType::Grayscale, BitDepth::Two);
        let plane = Plane::decode(&file, "mask.png").unwrap();
        assert_eq!(plane.samples(), [1, 2, 3, 3, 0, 1]);
    }

    #[test]
    fn colours_and_other_files_are_refused_by_name() {
        let file = write(1, &[0; 6], ColorType::Rgb, BitDepth::Eight);
        let error = Plane::decode(&file, "mask.png").unwrap_err().to_string();
        assert!(
            error.starts_with("mask.png: a mask or depth map of type Rgb"),
            "{error}"
        );
        let error = Plane::decode(b"P5 1 1 255 ", "m.pgm")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("m.pgm: a mask"), "{error}");
        let file = write(2, &[0; 4], ColorType::Grayscale, BitDepth::Eight);
        let error = Plane::decode(&file[..file.len() - 20], "m.png").unwrap_err();
        assert!(matches!(error, ImageError::Damaged { .. }), "{error}");
    }
}
