//! Smooth discs, lines and text on an RGB picture.

use image::{Rgb, RgbImage};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

use super::colour::mix;

/// Pixels from one line of text to the next.
pub const LINE: u32 = 24;

/// The height of a letter's box.
const LETTER: RasterHeight = RasterHeight::Size16;

/// How heavy letters are.
#[derive(Clone, Copy)]
pub enum Weight {
    /// Captions.
    Regular,
    /// Numbers.
    Bold,
}

impl Weight {
    fn of_font(self) -> FontWeight {
        match self {
            Weight::Regular => FontWeight::Regular,
            Weight::Bold => FontWeight::Bold,
        }
    }
}

/// A disc around a point (pixel centres at whole numbers).
pub fn disc(sheet: &mut RgbImage, [x, y]: [f32; 2], radius: f32, colour: Rgb<u8>, opacity: f32) {
    cover(sheet, [x, y], [x, y], radius, colour, opacity);
}

/// A line with round ends.
pub fn line(
    sheet: &mut RgbImage,
    from: [f32; 2],
    to: [f32; 2],
    width: f32,
    colour: Rgb<u8>,
    opacity: f32,
) {
    cover(sheet, from, to, 0.5 * width, colour, opacity);
}

/// Colours everything within `radius` of the segment, fading over the last pixel.
fn cover(
    sheet: &mut RgbImage,
    from: [f32; 2],
    to: [f32; 2],
    radius: f32,
    colour: Rgb<u8>,
    opacity: f32,
) {
    let reach = radius + 1.0;
    let range = |a: f32, b: f32, count: u32| {
        let end = (a.max(b) + reach).ceil().max(0.0) as u32;
        ((a.min(b) - reach).floor().max(0.0) as u32)..end.saturating_add(1).min(count)
    };
    let (dx, dy) = (to[0] - from[0], to[1] - from[1]);
    let squared = dx * dx + dy * dy;
    for y in range(from[1], to[1], sheet.height()) {
        for x in range(from[0], to[0], sheet.width()) {
            let (px, py) = (x as f32 - from[0], y as f32 - from[1]);
            let along = if squared > 0.0 {
                ((px * dx + py * dy) / squared).clamp(0.0, 1.0)
            } else {
                0.0
            };
            let distance = (px - along * dx).hypot(py - along * dy);
            let share = (radius + 0.5 - distance).clamp(0.0, 1.0);
            if share > 0.0 {
                let pixel = sheet.get_pixel_mut(x, y);
                *pixel = mix(*pixel, colour, share * opacity);
            }
        }
    }
}

/// The width of a text in pixels.
pub fn text_width(text: &str, weight: Weight) -> u32 {
    (text.chars().count() * get_raster_width(weight.of_font(), LETTER)) as u32
}

/// As much of a text as `width` pixels hold, with dots for what was left out.
pub fn shortened(text: &str, width: u32) -> String {
    let room = width as usize / get_raster_width(FontWeight::Regular, LETTER);
    if text.chars().count() <= room {
        return text.to_owned();
    }
    let kept: String = text.chars().take(room.saturating_sub(3)).collect();
    kept + &"..."[..room.min(3)]
}

/// A line of text with its top left corner at a pixel. Letters beyond Latin-1 become `?`.
pub fn text(sheet: &mut RgbImage, [x, y]: [i64; 2], text: &str, weight: Weight, colour: Rgb<u8>) {
    let font = weight.of_font();
    let step = get_raster_width(font, LETTER) as i64;
    for (index, letter) in text.chars().enumerate() {
        let raster = get_raster(letter, font, LETTER).or_else(|| get_raster('?', font, LETTER));
        let Some(raster) = raster else { continue };
        for (down, row) in raster.rows().enumerate() {
            for (across, &share) in row.iter().enumerate() {
                let left = x + index as i64 * step + across as i64;
                let (Ok(left), Ok(top)) = (u32::try_from(left), u32::try_from(y + down as i64))
                else {
                    continue;
                };
                if let Some(pixel) = sheet.get_pixel_mut_checked(left, top) {
                    *pixel = mix(*pixel, colour, f32::from(share) / 255.0);
                }
            }
        }
    }
}

/// A line of text centred at a point.
pub fn centred_text(
    sheet: &mut RgbImage,
    [x, y]: [f32; 2],
    words: &str,
    weight: Weight,
    colour: Rgb<u8>,
) {
    let left = x + 0.5 - 0.5 * text_width(words, weight) as f32;
    let top = y + 0.5 - 0.5 * LETTER.val() as f32;
    text(
        sheet,
        [left.round() as i64, top.round() as i64],
        words,
        weight,
        colour,
    );
}
