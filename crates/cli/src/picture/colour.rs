//! The colours of match pictures.

use image::Rgb;

/// The sheet that everything lies on.
pub const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
/// Text.
pub const INK: Rgb<u8> = Rgb([36, 41, 47]);
/// Text that matters less.
pub const FAINT: Rgb<u8> = Rgb([101, 109, 118]);

/// Okabe and Ito's palette, told apart with any colour vision, in an order in which neighbours
/// differ most.
const POINTS: [Rgb<u8>; 7] = [
    Rgb([213, 94, 0]),
    Rgb([86, 180, 233]),
    Rgb([240, 228, 66]),
    Rgb([0, 158, 115]),
    Rgb([204, 121, 167]),
    Rgb([230, 159, 0]),
    Rgb([0, 114, 178]),
];

/// Ten evenly spaced colours of matplotlib's "inferno" map: lightness grows evenly.
const INFERNO: [[u8; 3]; 10] = [
    [0x00, 0x00, 0x04],
    [0x1b, 0x0c, 0x41],
    [0x4a, 0x0c, 0x6b],
    [0x78, 0x1c, 0x6d],
    [0xa5, 0x2c, 0x60],
    [0xcf, 0x44, 0x46],
    [0xed, 0x69, 0x25],
    [0xfb, 0x9b, 0x06],
    [0xf7, 0xd1, 0x3d],
    [0xfc, 0xff, 0xa4],
];

/// The colour of the point with this index; they repeat after seven.
pub fn of_point(index: usize) -> Rgb<u8> {
    POINTS[index % POINTS.len()]
}

/// A pixel without its colours, and paler: the ground for heat.
pub fn greyed(pixel: Rgb<u8>) -> Rgb<u8> {
    let grey = luma(pixel).round() as u8;
    mix(Rgb([grey; 3]), PAPER, 0.15)
}

/// A grey pixel under a value in 0..=1, the more coloured the higher it is; only paler where the
/// value is not known (NaN).
pub fn heated(grey: Rgb<u8>, value: f32) -> Rgb<u8> {
    if value.is_nan() {
        mix(grey, PAPER, 0.5)
    } else {
        mix(grey, of_heat(value), 0.4 + 0.4 * value)
    }
}

/// From black over red to light yellow.
fn of_heat(value: f32) -> Rgb<u8> {
    let position = value.clamp(0.0, 1.0) * (INFERNO.len() - 1) as f32;
    let low = (position as usize).min(INFERNO.len() - 2);
    mix(
        Rgb(INFERNO[low]),
        Rgb(INFERNO[low + 1]),
        position - low as f32,
    )
}

/// Black or white, whichever can be read on a colour.
pub fn readable_on(colour: Rgb<u8>) -> Rgb<u8> {
    if luma(colour) > 120.0 { INK } else { PAPER }
}

/// Lightness in 0..=255 (ITU-R BT.601).
fn luma(Rgb(channels): Rgb<u8>) -> f32 {
    let [red, green, blue] = channels.map(f32::from);
    0.299 * red + 0.587 * green + 0.114 * blue
}

/// `share` of `over` on `under`.
pub fn mix(under: Rgb<u8>, over: Rgb<u8>, share: f32) -> Rgb<u8> {
    let share = share.clamp(0.0, 1.0);
    Rgb(std::array::from_fn(|channel| {
        let (under, over) = (f32::from(under.0[channel]), f32::from(over.0[channel]));
        (under + share * (over - under)).round() as u8
    }))
}
