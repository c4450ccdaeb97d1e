//! Pictures as files hold them, made plain: upright, 8 bits, red, green, blue.

use std::io::{Cursor, ErrorKind};
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use super::{Extent, Filter, ImageError, Pixels, jpeg, resample};

/// The most pixels that a picture may have: 2^28, so that a photo of 200 megapixels (the largest
/// sensors in phones) and a scan of 16384x16384 open, and a picture never takes more than 0.8 GB.
/// Checked against the header, before anything is allocated.
pub const PIXEL_LIMIT: usize = 1 << 28;

/// The most pixels that a side of a picture or of a canvas may have: what JPEG can store, and one
/// more for the round number.
pub const SIDE_LIMIT: usize = 1 << 16;

/// An upright 8-bit RGB picture.
///
/// Read from PNG, JPEG, WebP, GIF, BMP, TIFF and PNM, told apart by their content. Of an animation
/// the first frame counts. The EXIF orientation is applied. The samples are those of Pillow's
/// `Image.open(file).convert("RGB")`: colours as stored (no colour management), grey repeated,
/// palettes resolved, transparency dropped without blending; of 16-bit samples the high byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    extent: Extent,
    rgb: Vec<u8>,
}

impl Picture {
    /// Reads a file.
    ///
    /// # Errors
    /// If there is no such file, it may not be read, or it is refused by [`Picture::decode`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ImageError> {
        let path = path.as_ref();
        Self::decode(&read_file(path)?, &path.display().to_string())
    }

    /// Decodes the bytes of a file; `name` is what errors call it.
    ///
    /// # Errors
    /// If the bytes are none, no picture, an unsupported one, a damaged or truncated one (never
    /// filled up), or one beyond [`PIXEL_LIMIT`] or [`SIDE_LIMIT`].
    pub fn decode(bytes: &[u8], name: &str) -> Result<Self, ImageError> {
        if bytes.is_empty() {
            return Err(ImageError::Empty {
                name: name.to_owned(),
            });
        }
        let (extent, rgb, orientation) = match sniff(bytes, name)? {
            ImageFormat::Jpeg => jpeg::decode(bytes, name)?,
            format => decode_with(format, bytes, name)?,
        };
        Ok(Self { extent, rgb }.turned(orientation))
    }

    /// A picture from its samples, `[row][column][3]`.
    ///
    /// # Errors
    /// If there are not `3 * width * height` bytes, or a side is 0.
    pub fn from_rgb(extent: Extent, rgb: Vec<u8>) -> Result<Self, ImageError> {
        let expected = extent
            .width
            .checked_mul(extent.height)
            .and_then(|n| n.checked_mul(3));
        if rgb.is_empty() || expected != Some(rgb.len()) {
            return Err(ImageError::WrongLength {
                extent,
                found: rgb.len(),
            });
        }
        Ok(Self { extent, rgb })
    }

    /// Width and height.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// The samples, `[row][column][3]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The picture resized to exactly `extent`, with the bits of Pillow's `Image.resize` before
    /// version 13 (which resizes some tall pictures in another order). An axis that keeps its size
    /// is left alone.
    ///
    /// # Panics
    /// If a side of `extent` is 0.
    pub fn resize(&self, extent: Extent, filter: Filter) -> Self {
        assert!(
            extent.width > 0 && extent.height > 0,
            "resizing to {extent}"
        );
        let columns = resample::Axis::whole(self.extent.width, extent.width);
        let rows = resample::Axis::whole(self.extent.height, extent.height);
        Self {
            extent,
            rgb: resample::resize(&self.rgb, &columns, &rows, filter),
        }
    }

    /// The picture turned left to right.
    pub fn mirrored(&self) -> Self {
        let lines = self.rgb.chunks_exact(self.extent.width * 3);
        let turned = lines.flat_map(|line| line.rchunks_exact(3).flatten().copied());
        Self {
            extent: self.extent,
            rgb: turned.collect(),
        }
    }

    /// A part of the picture, whose top left pixel is at `left`, `top`.
    ///
    /// # Panics
    /// If it is empty or does not lie within the picture.
    pub fn part(&self, left: usize, top: usize, extent: Extent) -> Self {
        let Extent { width, height } = self.extent;
        assert!(extent.width > 0 && extent.height > 0, "an empty part");
        assert!(
            left + extent.width <= width && top + extent.height <= height,
            "a part of {extent} at {left}, {top} of a picture of {}",
            self.extent
        );
        let lines = self.rgb.chunks_exact(width * 3);
        let lines = lines.skip(top).take(extent.height);
        let columns = left * 3..(left + extent.width) * 3;
        Self {
            extent,
            rgb: lines
                .flat_map(|line| &line[columns.clone()])
                .copied()
                .collect(),
        }
    }

    /// How much this picture is like another: the peak signal-to-noise ratio in decibels,
    /// `10 log10(255² / mean squared difference)` over all samples; infinite for equal pictures.
    ///
    /// # Panics
    /// If the pictures have different extents.
    pub fn psnr(&self, other: &Self) -> f64 {
        assert_eq!(self.extent, other.extent, "pictures of different extents");
        let squares = self.rgb.iter().zip(&other.rgb).map(|(&a, &b)| {
            let difference = f64::from(a) - f64::from(b);
            difference * difference
        });
        let mean = squares.sum::<f64>() / self.rgb.len() as f64;
        10.0 * (255.0 * 255.0 / mean).log10()
    }

    fn turned(self, orientation: Orientation) -> Self {
        if orientation == Orientation::NoTransforms {
            return self;
        }
        // Sides are at most `SIDE_LIMIT` here.
        let (width, height) = (self.extent.width as u32, self.extent.height as u32);
        let stored = RgbImage::from_raw(width, height, self.rgb).expect("3 bytes a pixel");
        let mut image = DynamicImage::ImageRgb8(stored);
        image.apply_orientation(orientation);
        Self {
            extent: Extent::new(image.width() as usize, image.height() as usize),
            rgb: image.into_rgb8().into_raw(),
        }
    }
}

/// The nearest bytes; what lies outside [-1, 1] is clipped.
impl From<&Pixels> for Picture {
    fn from(pixels: &Pixels) -> Self {
        let byte = |value: &f32| ((value + 1.0) / 2.0 * 255.0).round() as u8;
        Self {
            extent: pixels.extent(),
            rgb: pixels.values().iter().map(byte).collect(),
        }
    }
}

/// Endings of the photographs and drawings that [`Picture`] reads.
pub const PICTURE_ENDINGS: [&str; 11] = [
    "png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm", "pnm",
];

/// Whether a file's name has one of the [`PICTURE_ENDINGS`].
pub fn is_picture_name(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    PICTURE_ENDINGS
        .iter()
        .any(|known| extension.eq_ignore_ascii_case(known))
}

/// The bytes of a file.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, ImageError> {
    std::fs::read(path).map_err(|source| {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::NotFound => ImageError::NotFound { path },
            // Windows answers "permission denied" for a folder.
            _ if path.is_dir() => ImageError::Folder { path },
            ErrorKind::PermissionDenied => ImageError::Permission { path },
            _ => ImageError::Read { path, source },
        }
    })
}

/// Refuses what the header announces before anything is allocated for it.
pub(super) fn check_extent(extent: Extent, name: &str) -> Result<(), ImageError> {
    let pixels = extent.width.saturating_mul(extent.height);
    if extent.width.max(extent.height) > SIDE_LIMIT || pixels > PIXEL_LIMIT {
        return Err(ImageError::TooLarge {
            name: name.to_owned(),
            extent,
        });
    }
    Ok(())
}

/// The format by the content.
fn sniff(bytes: &[u8], name: &str) -> Result<ImageFormat, ImageError> {
    use ImageFormat::{Bmp, Gif, Jpeg, Png, Pnm, Tiff, WebP};
    let unsupported = |kind: &str| ImageError::Unsupported {
        name: name.to_owned(),
        kind: kind.to_owned(),
    };
    match image::guess_format(bytes) {
        Ok(format @ (Bmp | Gif | Jpeg | Png | Pnm | Tiff | WebP)) => Ok(format),
        Ok(other) => Err(unsupported(&other.extensions_str()[0].to_uppercase())),
        Err(_) => match bytes {
            [
                _,
                _,
                _,
                _,
                b'f',
                b't',
                b'y',
                b'p',
                b'h' | b'm',
                b'e' | b'i',
                b'i' | b'v' | b'f',
                ..,
            ] => Err(unsupported("HEIC")),
            [0xFF, 0x0A, ..] | [0, 0, 0, 0x0C, b'J', b'X', b'L', b' ', ..] => {
                Err(unsupported("JPEG XL"))
            }
            [0, 0, 0, 0x0C, b'j', b'P', b' ', b' ', ..] => Err(unsupported("JPEG 2000")),
            _ => Err(ImageError::NotAPicture {
                name: name.to_owned(),
                start: start_of(bytes),
            }),
        },
    }
}

/// The first bytes of a file for a message: quoted if they are text, otherwise hexadecimal.
fn start_of(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(16)];
    if start
        .iter()
        .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
    {
        format!("{:?}", String::from_utf8_lossy(start))
    } else {
        let hexadecimal: Vec<_> = start.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("the bytes {}", hexadecimal.join(" "))
    }
}

/// Decodes everything but JPEG through the `image` crate.
fn decode_with(
    format: ImageFormat,
    bytes: &[u8],
    name: &str,
) -> Result<(Extent, Vec<u8>, Orientation), ImageError> {
    let explain = |error| explain(error, format, name);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // For what stands beside the pixels (profiles, text): small in any honest file.
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(256 << 20);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(explain)?;
    let (width, height) = decoder.dimensions();
    let extent = Extent::new(width as usize, height as usize);
    check_extent(extent, name)?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(3 * decoder.total_bytes() + (256 << 20));
    decoder.set_limits(limits).map_err(explain)?;
    let orientation = decoder.orientation().map_err(explain)?;
    let color = decoder.color_type();
    let mut samples = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut samples).map_err(explain)?;
    let channels = usize::from(color.channel_count());
    match usize::from(color.bytes_per_pixel()) / channels {
        1 => {}
        2 => samples = high_bytes(&samples),
        _ => {
            return Err(ImageError::Unsupported {
                name: name.to_owned(),
                kind: format!("a {} with floating-point samples", format_name(format)),
            });
        }
    }
    Ok((extent, to_rgb(samples, channels), orientation))
}

/// The high bytes of 16-bit samples in the machine's order.
fn high_bytes(samples: &[u8]) -> Vec<u8> {
    samples
        .as_chunks()
        .0
        .iter()
        .map(|&pair| (u16::from_ne_bytes(pair) >> 8) as u8)
        .collect()
}

/// Three channels from grey, grey and alpha, RGB, or RGB and alpha.
fn to_rgb(samples: Vec<u8>, channels: usize) -> Vec<u8> {
    match channels {
        3 => samples,
        4 => samples
            .as_chunks::<4>()
            .0
            .iter()
            .flat_map(|&[r, g, b, _]| [r, g, b])
            .collect(),
        _ => samples
            .chunks_exact(channels)
            .flat_map(|pixel| [pixel[0]; 3])
            .collect(),
    }
}

fn explain(error: image::ImageError, format: ImageFormat, name: &str) -> ImageError {
    let (name, format) = (name.to_owned(), format_name(format));
    let reason = match error {
        image::ImageError::Limits(_) => return ImageError::Memory { name, format },
        image::ImageError::Unsupported(error) => {
            return ImageError::Unsupported {
                name,
                kind: format!("this {format} ({error})"),
            };
        }
        image::ImageError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            "the file ends before the picture does".to_owned()
        }
        error => error.to_string(),
    };
    ImageError::Damaged {
        name,
        format,
        reason,
    }
}

fn format_name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Bmp => "BMP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Png => "PNG",
        ImageFormat::Pnm => "PNM",
        ImageFormat::Tiff => "TIFF",
        ImageFormat::WebP => "WebP",
        _ => "picture",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        let rgb = vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        Picture::from_rgb(Extent::new(2, 2), rgb).unwrap()
    }

    #[test]
    fn mirrored_pictures_have_their_columns_in_the_other_order() {
        let turned = [4, 5, 6, 1, 2, 3, 10, 11, 12, 7, 8, 9];
        assert_eq!(picture().mirrored().rgb(), turned);
    }

    #[test]
    fn parts_are_cut_out_where_they_are() {
        let part = |left, top, width, height| picture().part(left, top, Extent::new(width, height));
        assert_eq!(part(0, 0, 2, 2), picture());
        assert_eq!(part(1, 0, 1, 2).rgb(), [4, 5, 6, 10, 11, 12]);
        assert_eq!(part(0, 1, 2, 1).rgb(), [7, 8, 9, 10, 11, 12]);
    }
}
