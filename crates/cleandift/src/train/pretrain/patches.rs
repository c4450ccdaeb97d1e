//! The codec of a model from nothing: blocks of pixels by brightness, colours and frequencies.
//!
//! Blocks of 4 x 4 pixels have 48 values, and photographs hardly use most of them: 12 low frequencies
//! have 97 % of the variance. The others would be noise to predict, and noise alone.

use std::f64::consts::PI;

use crate::checkpoint::Weights;

/// Brightness and two colours, as orthonormal rows over red, green and blue.
const COLOURS: [[f64; 3]; 3] = [
    [0.577_350_269_189_625_8; 3],
    [
        std::f64::consts::FRAC_1_SQRT_2,
        0.0,
        -std::f64::consts::FRAC_1_SQRT_2,
    ],
    [
        0.408_248_290_463_863,
        -0.816_496_580_927_726,
        0.408_248_290_463_863,
    ],
];

/// How many frequencies less are kept of colours than of brightness.
const COARSER_COLOURS: usize = 3;

/// Colour, and frequencies down and across, of the channels that are kept: those of brightness whose
/// sum is at most `detail`, of colours three less. Low frequencies come first.
fn kept(factor: usize, detail: usize) -> Vec<[usize; 3]> {
    let mut kept = Vec::new();
    for sum in 0..=detail {
        for colour in 0..COLOURS.len() {
            let Some(of_colour) = sum.checked_sub(COARSER_COLOURS * colour.min(1)) else {
                continue;
            };
            let frequencies = (0..=of_colour).map(|down| [colour, down, of_colour - down]);
            kept.extend(frequencies.filter(|[_, down, across]| down.max(across) < &factor));
        }
    }
    kept
}

/// How many channels that gives.
pub(super) fn channels(factor: usize, detail: usize) -> usize {
    kept(factor, detail).len()
}

/// Encoder and decoder: the coefficients of the orthonormal DCT-II of `pixel - shift`, each times its
/// scale.
pub(super) fn weights(factor: usize, detail: usize, shift: f64, scales: &[f64]) -> Weights {
    let rows = kept(factor, detail).into_iter();
    let rows: Vec<Vec<f64>> = rows.map(|channel| row(factor, channel)).collect();
    let (channels, pixels) = (rows.len(), 3 * factor * factor);
    let narrow = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x as f32).collect();
    let scaled = || rows.iter().zip(scales);
    let encoder = narrow(&mut scaled().flat_map(|(row, scale)| row.iter().map(move |x| scale * x)));
    let of_shift = |(row, scale): (&Vec<f64>, &f64)| -shift * scale * row.iter().sum::<f64>();
    let encoder_bias = narrow(&mut scaled().map(of_shift));
    let of_pixel = |pixel: usize| scaled().map(move |(row, scale)| row[pixel] / scale);
    let decoder = narrow(&mut (0..pixels).flat_map(of_pixel));
    let tensor = |name: &str, shape: Vec<usize>, values| (name.to_owned(), shape, values);
    Weights::from_memory(
        "the codec's frequencies",
        [
            tensor("encoder.weight", vec![channels, pixels], encoder),
            tensor("encoder.bias", vec![channels], encoder_bias),
            tensor("decoder.weight", vec![pixels, channels], decoder),
            tensor("decoder.bias", vec![pixels], vec![shift as f32; pixels]),
        ],
    )
}

/// A channel's share of each pixel, in (channel, row, column) order.
fn row(factor: usize, [colour, down, across]: [usize; 3]) -> Vec<f64> {
    let wave = |frequency: usize, place: usize| {
        let norm = if frequency == 0 { 1.0 } else { 2.0 } / factor as f64;
        let angle = PI * frequency as f64 * (place as f64 + 0.5) / factor as f64;
        norm.sqrt() * angle.cos()
    };
    let places = (0..factor).flat_map(|y| (0..factor).map(move |x| (y, x)));
    let places: Vec<(usize, usize)> = places.collect();
    let of_primary = |share: f64| {
        let places = places.iter();
        places.map(move |&(y, x)| share * wave(down, y) * wave(across, x))
    };
    COLOURS[colour].into_iter().flat_map(of_primary).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Parameters;

    #[test]
    fn channels_are_orthonormal_and_low_frequencies_come_first() {
        // Brightness: 1 + 2 + 3 + 4; two colours: 1 each.
        assert_eq!(channels(4, 3), 12);
        // All of them, from 3 + 3 + 3 on.
        assert_eq!(channels(4, 9), 48);
        let rows: Vec<Vec<f64>> = kept(4, 9).into_iter().map(|kept| row(4, kept)).collect();
        for (i, a) in rows.iter().enumerate() {
            for (j, b) in rows.iter().enumerate() {
                let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!((product - expected).abs() < 1e-12, "{i} {j}: {product}");
            }
        }
        assert_eq!(kept(4, 3)[..3], [[0, 0, 0], [0, 0, 1], [0, 1, 0]]);
    }

    /// With all frequencies, decoding undoes encoding, whatever their scales.
    #[test]
    fn decoding_undoes_encoding() {
        let scales: Vec<f64> = (0..12).map(|i| 0.4 + 0.2 * f64::from(i)).collect();
        let weights = weights(2, 5, -0.1, &scales);
        let read = |name: &str| weights.read(name).unwrap();
        let (encoder, bias) = (read("encoder.weight"), read("encoder.bias"));
        let (decoder, shift) = (read("decoder.weight"), read("decoder.bias"));
        assert_eq!(encoder.len(), 144);
        let pixels: Vec<f32> = (0..12).map(|i| (i as f32 * 0.7).sin()).collect();
        let apply = |matrix: &[f32], bias: &[f32], x: &[f32]| -> Vec<f32> {
            let rows = matrix.chunks_exact(12).zip(bias);
            let product = |row: &[f32]| row.iter().zip(x).map(|(a, b)| a * b).sum::<f32>();
            rows.map(|(row, bias)| product(row) + bias).collect()
        };
        let back = apply(&decoder, &shift, &apply(&encoder, &bias, &pixels));
        for (back, pixel) in back.iter().zip(&pixels) {
            assert!((back - pixel).abs() < 1e-5, "{back} {pixel}");
        }
    }
}
