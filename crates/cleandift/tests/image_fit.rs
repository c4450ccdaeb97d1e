//! Fitting: where the picture lands on the canvas, and which sizes are taken.

use std::num::NonZeroUsize;

use cleandift::image::{
    Extent, Filter, Fit, Frame, ImageError, Picture, Pixels, Resample, Size, fit,
};
use proptest::prelude::*;

const FITS: [Fit; 3] = [Fit::Squash, Fit::Pad, Fit::Crop];
const RESAMPLES: [Resample; 5] = [
    Resample::Filter(Filter::Bicubic),
    Resample::Filter(Filter::Bilinear),
    Resample::Filter(Filter::Lanczos),
    Resample::Filter(Filter::Box),
    Resample::Tensor,
];

fn multiple(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap()
}

fn exact(width: usize, height: usize) -> Size {
    Size::Exact(Extent::new(width, height))
}

/// A picture of hashed noise, no two rows or columns alike.
fn noise(width: usize, height: usize) -> Picture {
    let samples =
        (0..width * height * 3).map(|i| ((i as u32 + 1).wrapping_mul(0x9E37_79B1) >> 24) as u8);
    Picture::from_rgb(Extent::new(width, height), samples.collect()).unwrap()
}

/// One pixel of the canvas.
fn at(pixels: &Pixels, x: usize, y: usize) -> &[f32] {
    let start = (y * pixels.extent().width + x) * 3;
    &pixels.values()[start..start + 3]
}

#[test]
fn a_picture_of_the_wanted_size_keeps_its_bits() {
    let picture = noise(24, 16);
    for resample in RESAMPLES {
        for how in FITS {
            for size in [exact(24, 16), Size::Native { multiple: None }] {
                let (pixels, frame) = fit(&picture, size, how, resample, multiple(8)).unwrap();
                assert_eq!(pixels, Pixels::from(&picture), "{how} {resample}");
                assert_eq!(frame, Frame::squash(picture.extent(), picture.extent()));
            }
        }
    }
}

#[test]
fn squash_is_a_plain_resize() {
    let picture = noise(50, 37);
    for filter in [Filter::Bicubic, Filter::Lanczos] {
        let resample = Resample::Filter(filter);
        let (pixels, frame) =
            fit(&picture, exact(64, 24), Fit::Squash, resample, multiple(8)).unwrap();
        assert_eq!(
            pixels,
            Pixels::from(&picture.resize(Extent::new(64, 24), filter))
        );
        assert_eq!(frame.scale, [64.0 / 50.0, 24.0 / 37.0]);
        assert_eq!(frame.offset, [0.0, 0.0]);
    }
}

/// 500x375 on 96x96: 72 rows, 12 above. 31x60 on 64x64: 33.07 columns, 33; of the 31 left over 15
/// lie to the left. 64x5 on 32x32: 2.5 rows, halves to even: 2.
#[test]
fn pad_centres_on_black() {
    let cases = [
        ((500, 375), 96, (96, 72), (0, 12)),
        ((31, 60), 64, (33, 64), (15, 0)),
        ((64, 5), 32, (32, 2), (0, 15)),
        ((300, 1), 64, (64, 1), (0, 31)),
    ];
    for ((width, height), side, (inner_width, inner_height), (left, top)) in cases {
        let picture = noise(width, height);
        let resample = Resample::Filter(Filter::Lanczos);
        let (pixels, frame) =
            fit(&picture, exact(side, side), Fit::Pad, resample, multiple(8)).unwrap();
        let inner = Extent::new(inner_width, inner_height);
        let resized = Pixels::from(&picture.resize(inner, Filter::Lanczos));
        for y in 0..side {
            for x in 0..side {
                let inside = (left..left + inner_width).contains(&x)
                    && (top..top + inner_height).contains(&y);
                let expected = if inside {
                    at(&resized, x - left, y - top)
                } else {
                    &[-1.0, -1.0, -1.0]
                };
                assert_eq!(at(&pixels, x, y), expected, "{width}x{height} at {x}, {y}");
            }
        }
        let scale = [
            inner_width as f64 / width as f64,
            inner_height as f64 / height as f64,
        ];
        assert_eq!(frame.scale, scale);
        assert_eq!(frame.offset, [left as f64, top as f64]);
    }
}

/// Cropping shows the centre of the picture resized to cover the canvas: 50x37 over 32x48 is
/// 64.86, 65 columns, of which the 33 too many go 16 to the left; 20x50 over 32x48 is 80 rows, of
/// which 16 are above.
#[test]
fn crop_keeps_the_centre() {
    for ((width, height), covering, (left, top)) in [
        ((50, 37), Extent::new(65, 48), (16, 0)),
        ((20, 50), Extent::new(32, 80), (0, 16)),
    ] {
        let picture = noise(width, height);
        for resample in RESAMPLES {
            let one = multiple(1);
            let (pixels, frame) = fit(&picture, exact(32, 48), Fit::Crop, resample, one).unwrap();
            let size = Size::Exact(covering);
            let (whole, _) = fit(&picture, size, Fit::Squash, resample, one).unwrap();
            for y in 0..48 {
                for x in 0..32 {
                    assert_eq!(
                        at(&pixels, x, y),
                        at(&whole, x + left, y + top),
                        "{resample}"
                    );
                }
            }
            assert_eq!(frame.offset, [-(left as f64), -(top as f64)]);
            assert_eq!(frame.scale[0], covering.width as f64 / width as f64);
            assert_eq!(frame.scale[1], covering.height as f64 / height as f64);
        }
    }
}

#[test]
fn native_rounds_to_the_nearest_multiple() {
    let canvas = |size: &str, width, height| {
        let size: Size = size.parse().unwrap();
        size.canvas(Extent::new(width, height), multiple(8))
            .unwrap()
    };
    assert_eq!(canvas("native", 500, 375), Extent::new(504, 376));
    assert_eq!(canvas("native", 499, 3), Extent::new(496, 8));
    assert_eq!(canvas("native:64", 500, 375), Extent::new(512, 384));
    assert_eq!(canvas("native:64", 1, 1), Extent::new(64, 64));
}

#[test]
fn sizes_are_written_in_four_ways() {
    let native = |n| Size::Native {
        multiple: NonZeroUsize::new(n),
    };
    for (text, size) in [
        ("768x768", exact(768, 768)),
        ("512x384", exact(512, 384)),
        ("65536x1", exact(65536, 1)),
        ("native", native(0)),
        ("native:64", native(64)),
    ] {
        assert_eq!(text.parse::<Size>().unwrap(), size);
        assert_eq!(size.to_string(), text);
    }
    assert_eq!("768".parse::<Size>().unwrap(), exact(768, 768));
    for text in [
        "",
        "0",
        "0x8",
        "8x0",
        "x",
        "8x",
        "x8",
        "8x8x8",
        "65537",
        "8x65537",
        "-8",
        "+8",
        "8.5",
        "8 x 8",
        "99999999999999999999",
        "native:",
        "native:0",
        "native:x",
        "Native",
        "big",
    ] {
        let error = text.parse::<Size>().unwrap_err();
        assert!(matches!(error, ImageError::BadSize { .. }), "{error}");
        assert!(
            error.to_string().starts_with(&format!("size \"{text}\": ")),
            "{error}"
        );
        assert!(error.to_string().contains("\"512x384\""), "{error}");
    }
}

#[test]
fn a_wrong_size_names_the_nearest_right_ones() {
    let message = |size: Size, n| {
        size.check_multiple(multiple(n))
            .map_err(|error| error.to_string())
    };
    assert_eq!(message(exact(512, 384), 64), Ok(()));
    assert_eq!(message(Size::Native { multiple: None }, 64), Ok(()));
    assert_eq!(
        message(exact(500, 384), 8).unwrap_err(),
        "size 500x384: the width is not a multiple of 8; nearest: 496 or 504"
    );
    assert_eq!(
        message(exact(64, 5), 8).unwrap_err(),
        "size 64x5: the height is not a multiple of 8; nearest: 8"
    );
    assert_eq!(
        message("native:12".parse().unwrap(), 8).unwrap_err(),
        "size native:12: the multiple is not a multiple of 8; nearest: 8 or 16"
    );
    let refused = fit(
        &noise(3, 3),
        exact(12, 8),
        Fit::Pad,
        Resample::Tensor,
        multiple(8),
    )
    .unwrap_err();
    assert!(matches!(refused, ImageError::NotMultiple { .. }));
}

#[test]
fn a_canvas_beyond_the_limit_is_refused() {
    let refused = |picture: &Picture, size| {
        fit(picture, size, Fit::Squash, RESAMPLES[0], multiple(1)).unwrap_err()
    };
    let canvas = refused(&noise(1, 1), exact(65536, 65536));
    assert!(
        matches!(canvas, ImageError::CanvasTooLarge { .. }),
        "{canvas}"
    );
    let between = refused(&noise(1, 60000), exact(65536, 8));
    assert!(matches!(
        between,
        ImageError::CanvasTooLarge {
            needed: Extent {
                width: 65536,
                height: 60000
            },
            ..
        }
    ));
}

#[test]
fn names_are_read_as_they_are_written() {
    for fit in FITS {
        assert_eq!(fit.to_string().parse::<Fit>().unwrap(), fit);
    }
    for resample in RESAMPLES {
        assert_eq!(resample.to_string().parse::<Resample>().unwrap(), resample);
    }
    assert_eq!(
        "stretch".parse::<Fit>().unwrap_err().to_string(),
        "unknown fit \"stretch\"; choose one of: squash, pad, crop"
    );
    assert_eq!(
        "nearest".parse::<Resample>().unwrap_err().to_string(),
        "unknown resampling \"nearest\"; choose one of: bicubic, bilinear, lanczos, box, tensor"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_shape_fits_any_canvas(
        (width, height) in (1..70_usize, 1..70_usize),
        (thin, upright) in (prop::option::of(1..600_usize), any::<bool>()),
        size in prop_oneof![
            (1..90_usize, 1..90_usize).prop_map(|(width, height)| exact(width, height)),
            (1..40_usize).prop_map(|n| Size::Native { multiple: NonZeroUsize::new(n) }),
        ],
        how in prop::sample::select(&FITS),
        resample in prop::sample::select(&RESAMPLES),
    ) {
        let (width, height) = match (thin, upright) {
            (Some(long), true) => (1, long),
            (Some(long), false) => (long, 1),
            (None, _) => (width, height),
        };
        let picture = noise(width, height);
        let (pixels, frame) = fit(&picture, size, how, resample, multiple(1)).unwrap();
        prop_assert_eq!(pixels.extent(), frame.canvas);
        prop_assert_eq!(frame.picture, picture.extent());
        prop_assert!(pixels.values().iter().all(|value| (-1.0..=1.0).contains(value)));

        let centre = frame.to_picture([
            (frame.canvas.width - 1) as f64 / 2.0,
            (frame.canvas.height - 1) as f64 / 2.0,
        ]);
        // The centre stays in the centre, but for the half pixel of an odd rest.
        for (axis, side) in [width, height].into_iter().enumerate() {
            let off = (centre[axis] - (side - 1) as f64 / 2.0).abs() * frame.scale[axis];
            prop_assert!(off <= 0.5 + 1e-9, "{} on axis {}", off, axis);
        }
    }

    #[test]
    fn frames_lead_back(
        picture in (1..5000_usize, 1..5000_usize),
        resized in (1..2000_usize, 1..2000_usize),
        offset in (-1000..1000_i64, -1000..1000_i64),
        canvas in (1..2000_usize, 1..2000_usize),
        map in (1..100_usize, 1..100_usize),
        (x, y) in (-0.5..5000.0_f64, -0.5..5000.0_f64),
    ) {
        let extent = |(width, height)| Extent::new(width, height);
        let frame = Frame::placed(extent(picture), extent(resized), [offset.0, offset.1], extent(canvas));
        let map = extent(map);
        // Rounding of numbers up to 1e7 canvas pixels, divided by scales down to 2e-4.
        let near = |[a, b]: [f64; 2]| (a - x).abs() < 1e-5 && (b - y).abs() < 1e-5;
        prop_assert!(near(frame.to_picture(frame.to_canvas([x, y]))));
        prop_assert!(near(frame.from_cell(map, frame.to_cell(map, [x, y]))));
        // The edges of the picture lie at its offset and a resized side further.
        let [left, top] = frame.to_canvas([-0.5, -0.5]);
        prop_assert!((left + 0.5 - offset.0 as f64).abs() < 1e-9);
        prop_assert!((top + 0.5 - offset.1 as f64).abs() < 1e-9);
        let far = frame.to_canvas([picture.0 as f64 - 0.5, picture.1 as f64 - 0.5]);
        prop_assert!((far[0] - left - resized.0 as f64).abs() < 1e-7);
        prop_assert!((far[1] - top - resized.1 as f64).abs() < 1e-7);
    }
}
