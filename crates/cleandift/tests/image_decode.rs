//! Decoding: the pixels that Pillow reads, nothing made up for what is missing, and no panic.

use std::io::Write;
use std::path::{Path, PathBuf};

use cleandift::image::{Extent, ImageError, PIXEL_LIMIT, Picture, SIDE_LIMIT};
use proptest::prelude::*;
use safetensors::SafeTensors;

fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(file)
}

/// File name, content, and the extent and samples that Pillow reads.
fn pictures() -> Vec<(String, Vec<u8>, Extent, Vec<u8>)> {
    let bytes = std::fs::read(golden("pictures.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let pictures = tensors.tensors().into_iter().map(|(file, tensor)| {
        let content = std::fs::read(golden("pictures").join(&file)).unwrap();
        let extent = Extent::new(tensor.shape()[1], tensor.shape()[0]);
        (file, content, extent, tensor.data().to_vec())
    });
    pictures.collect()
}

/// The folder of unusual pictures, if this machine has the test data.
fn odd_images() -> Option<PathBuf> {
    let data = std::env::var_os("CLEANDIFT_TESTDATA");
    if data.is_none() {
        // Past the test harness, which keeps what passing tests print to itself.
        let _ = writeln!(std::io::stderr(), "skipped: CLEANDIFT_TESTDATA is not set");
    }
    Some(Path::new(&data?).join("data/odd-images"))
}

/// The largest and the mean difference of two sets of samples, in levels.
fn difference(a: &[u8], b: &[u8]) -> (u8, f64) {
    assert_eq!(a.len(), b.len());
    let differences = || a.iter().zip(b).map(|(a, b)| a.abs_diff(*b));
    let sum: u64 = differences().map(u64::from).sum();
    (
        differences().max().unwrap_or(0),
        sum as f64 / a.len() as f64,
    )
}

/// JPEG leaves the rounding of its transform and of the interpolation of colour to the decoder, so
/// two decoders agree within a few levels only (measured here: at most 3 levels; mean 0.37 with
/// subsampled colour, 0.03 without). Two rare kinds round once differently; all others are exact.
#[test]
fn pictures_are_those_of_pillow() {
    for (file, content, extent, expected) in pictures() {
        let picture = Picture::decode(&content, &file).unwrap();
        assert_eq!(picture.extent(), extent, "{file}");
        let (largest, mean) = difference(picture.rgb(), &expected);
        let (allowed, allowed_mean) = match file.as_str() {
            "baseline_444.jpg" | "keep_rgb.jpg" | "grey.jpg" | "cmyk.jpg" => (2, 0.03),
            "jpeg.tif" => (1, 0.02),
            "cmyk.tif" => (1, 0.5),
            "maxval.ppm" => (1, 0.01),
            name if name.ends_with(".jpg") => (3, 0.37),
            _ => (0, 0.0),
        };
        assert!(
            largest <= allowed && mean <= allowed_mean,
            "{file}: {largest}, mean {mean}"
        );
    }
}

#[test]
fn unusual_pictures_open_and_broken_ones_are_refused() {
    let Some(folder) = odd_images() else { return };
    let index = std::fs::read_to_string(folder.join("index.tsv")).unwrap();
    let files: Vec<_> = index
        .lines()
        .skip(1)
        .filter_map(|line| line.split('\t').next())
        .collect();
    assert_eq!(files.len(), 45);
    for file in files {
        let result = Picture::open(folder.join(file));
        assert_eq!(
            result.is_err(),
            file.starts_with("BAD_"),
            "{file}: {result:?}"
        );
        if let Err(error) = result {
            assert!(error.to_string().contains(file), "{error}");
        }
    }
}

#[test]
fn each_broken_picture_has_its_error() {
    let Some(folder) = odd_images() else { return };
    let error = |file: &str| Picture::open(folder.join(file)).unwrap_err();
    assert!(matches!(error("BAD_empty.jpg"), ImageError::Empty { .. }));
    assert!(matches!(
        error("BAD_text.jpg"),
        ImageError::NotAPicture { .. }
    ));
    assert!(matches!(
        error("BAD_huge_dims.png"),
        ImageError::TooLarge {
            extent: Extent {
                width: 2_000_000,
                height: 2_000_000
            },
            ..
        }
    ));
    for file in [
        "crc.png",
        "header_only.png",
        "truncated.jpg",
        "truncated.png",
        "zero_width.png",
    ] {
        let error = error(&format!("BAD_{file}"));
        assert!(matches!(error, ImageError::Damaged { .. }), "{error}");
    }
}

#[test]
fn variants_of_one_picture_agree() {
    let Some(folder) = odd_images() else { return };
    let open = |file: &str| Picture::open(folder.join(file)).unwrap();
    let reference = open("reference_rgb.png");
    for file in [
        "MISNAMED_png_inside.jpg",
        "lossless.webp",
        "rgb16.png",
        "rgb_adam7.png",
        "rgba.png",
    ] {
        assert_eq!(open(file), reference, "{file}");
    }
    assert_eq!(open("grey16.png"), open("grey8.png"));
    assert_eq!(open("palette_transparent.png"), open("palette32.png"));
    assert_eq!(open("trailing_garbage.jpg"), open("rgb_baseline.jpg"));
    assert_eq!(open("one_pixel.png").rgb(), [10, 20, 30]);
    // Stored turned and compressed anew: a wrong orientation differs by 40 levels and more.
    for orientation in 1..=8 {
        let turned = open(&format!("exif_orientation_{orientation}.jpg"));
        assert_eq!(turned.extent(), reference.extent(), "{orientation}");
        let (_, mean) = difference(turned.rgb(), reference.rgb());
        assert!(mean < 5.0, "{orientation}: mean difference {mean}");
    }
}

/// Whatever part of a file is missing, the picture is either refused or (if nothing of it was in
/// the missing part) whole.
#[test]
fn nothing_is_made_up_for_a_missing_end() {
    for (file, content, _, _) in pictures() {
        let whole = Picture::decode(&content, &file).unwrap();
        let half = Picture::decode(&content[..content.len() / 2], &file);
        // The first frame of an animation may lie in the first half.
        assert!(
            half.is_err() || file.starts_with("animated"),
            "{file}: half of it opened"
        );
        for end in (1..content.len()).step_by(content.len() / 60) {
            if let Ok(part) = Picture::decode(&content[..end], &file) {
                assert!(part == whole, "{file}: {end} of {} bytes", content.len());
            }
        }
    }
}

#[test]
fn a_changed_byte_of_a_png_is_noticed() {
    let content = std::fs::read(golden("pictures/rgb.png")).unwrap();
    let whole = Picture::decode(&content, "rgb.png").unwrap();
    for at in 0..content.len() {
        let mut changed = content.clone();
        changed[at] ^= 0x10;
        if let Ok(picture) = Picture::decode(&changed, "rgb.png") {
            assert!(picture == whole, "byte {at} of {}", content.len());
        }
    }
}

#[test]
fn limits_are_checked_on_the_header() {
    let announced = |content: &[u8]| match Picture::decode(content, "large") {
        Err(ImageError::TooLarge { extent, .. }) => extent,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        announced(b"P6 65536 65536 255\n"),
        Extent::new(SIDE_LIMIT, SIDE_LIMIT)
    );
    assert_eq!(announced(b"P6 65537 1 255\n"), Extent::new(65537, 1));
    assert_eq!(
        announced(b"P6 16384 16385 255\n"),
        Extent::new(16384, 16385)
    );
    assert_eq!(PIXEL_LIMIT, 16384 * 16384);

    let mut jpeg = std::fs::read(golden("pictures/baseline_444.jpg")).unwrap();
    let frame = jpeg
        .windows(2)
        .position(|pair| pair == [0xFF, 0xC0])
        .unwrap();
    jpeg[frame + 5..frame + 9].fill(0xFF);
    assert_eq!(announced(&jpeg), Extent::new(65535, 65535));
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let missing = Picture::open(golden("pictures/none.png")).unwrap_err();
    assert!(matches!(&missing, ImageError::NotFound { .. }), "{missing}");
    let folder = Picture::open(golden("pictures")).unwrap_err();
    assert!(matches!(&folder, ImageError::Folder { .. }), "{folder}");
}

#[test]
fn what_is_no_picture_is_named() {
    let message = |content: &[u8]| Picture::decode(content, "a").unwrap_err().to_string();
    assert!(message(b"hello").starts_with("a: is not a picture: it starts with \"hello\";"));
    assert!(message(&[0x80, 4, 0x95]).contains("it starts with the bytes 80 04 95;"));
    assert!(message(b"\0\0\0\x18ftypheic").starts_with("a: HEIC is not supported"));
    assert!(message(b"\0\0\0\x1cftypavif").starts_with("a: AVIF is not supported"));
    assert!(message(b"\xFF\x0A").starts_with("a: JPEG XL is not supported"));
}

#[test]
fn samples_must_match_the_extent() {
    assert!(Picture::from_rgb(Extent::new(2, 1), vec![0; 6]).is_ok());
    for (width, height, bytes) in [(2, 1, 5), (0, 1, 0), (1, 0, 0), (usize::MAX, usize::MAX, 3)] {
        let error = Picture::from_rgb(Extent::new(width, height), vec![0; bytes]).unwrap_err();
        assert!(matches!(&error, ImageError::WrongLength { .. }), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_decoder_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        for (file, mut content, _, _) in pictures() {
            for (at, byte) in &changes {
                let at = at.index(content.len());
                content[at] = *byte;
            }
            if let Ok(picture) = Picture::decode(&content, &file) {
                let Extent { width, height } = picture.extent();
                prop_assert_eq!(picture.rgb().len(), width * height * 3);
            }
        }
    }
}
