//! Layouts, marks and extremes of match pictures.

use super::*;

fn plain(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 90]))
}

/// The same point everywhere, with heat that grows to the right.
fn found(count: usize, point: [f64; 2], extent: Extent) -> Vec<Found> {
    let find = |_| Found {
        point,
        similarity: 0.875,
        heat: Some(Heat {
            extent,
            values: (0..extent.width * extent.height)
                .map(|cell| (cell % extent.width) as f32)
                .collect(),
        }),
    };
    (0..count).map(find).collect()
}

fn drawn(source: &RgbImage, points: &[[f64; 2]], targets: &[(&RgbImage, &[Found])]) -> RgbImage {
    let panel = |picture| Panel {
        picture,
        caption: "a picture with a long name – Ωmega.jpg",
    };
    let targets: Vec<Target> = (targets.iter())
        .map(|&(picture, found)| Target {
            panel: panel(picture),
            found,
        })
        .collect();
    draw(&MatchPicture {
        source: panel(source),
        points,
        targets: &targets,
    })
}

#[test]
fn a_pair_with_five_points_has_five_maps_in_a_row() {
    let layout = Layout::new(&[Extent::new(600, 400), Extent::new(400, 400)], &[5]);
    let area = |left, top, width, height| Area {
        left,
        top,
        width,
        height,
    };
    assert_eq!(
        layout.pictures,
        [area(24, 24, 600, 400), area(640, 24, 400, 400)]
    );
    // 1016 pixels and one more gap of 16 make five slots of 206, the last 16 of each white;
    // below the pictures are 24 pixels of text and 20 of white.
    let tile = |index: u32| area(24 + 206 * index, 468, 190, 190);
    assert_eq!(layout.heats, [[0, 1, 2, 3, 4].map(tile)]);
    assert_eq!(layout.scale, Some(area(24, 702, 272, 8)));
    assert_eq!(layout.sheet, Extent::new(1064, 758));
}

#[test]
fn a_single_point_has_its_map_below_the_target() {
    let layout = Layout::new(&[Extent::new(500, 375), Extent::new(375, 375)], &[1]);
    let [target, map] = [layout.pictures[1], layout.heats[0][0]];
    assert_eq!(
        (map.left, map.width, map.height),
        (target.left, target.width, target.height)
    );
    assert_eq!(map.top, target.bottom() + 44);
}

#[test]
fn small_pictures_are_enlarged_and_large_ones_reduced() {
    let layout = Layout::new(&[Extent::new(32, 24), Extent::new(6000, 4000)], &[0]);
    let [small, large] = layout.pictures[..] else {
        panic!("two pictures, two areas")
    };
    // At a height of 768 both would be 1024 wide, with the gap 16 more than a row of 2048; the
    // common height becomes 768 * (2048 - 16) / 2048 = 762. The large one is lower already.
    assert_eq!((small.width, small.height), (1016, 762));
    assert_eq!((large.width, large.height), (1024, 683));
    assert_eq!(layout.scale, None);
}

#[test]
fn nothing_overlaps_or_leaves_the_sheet() {
    let shapes = [
        (1, 1),
        (1, 900),
        (2000, 3),
        (640, 480),
        (375, 500),
        (4000, 3000),
    ]
    .map(|(width, height)| Extent::new(width, height));
    for source in shapes {
        for first in shapes {
            for (targets, points) in [(1, 1), (1, 5), (1, 64), (2, 7), (5, 1), (5, 64)] {
                let mut pictures = vec![source, first];
                pictures.extend(shapes.iter().cycle().take(targets - 1));
                let layout = Layout::new(&pictures, &vec![points; targets]);
                let all: Vec<Area> = (layout.pictures.iter())
                    .chain(layout.heats.iter().flatten())
                    .chain(&layout.scale)
                    .copied()
                    .collect();
                assert_eq!(all.len(), 1 + targets + points * targets + 1);
                for (index, a) in all.iter().enumerate() {
                    let sheet = layout.sheet;
                    assert!(a.width > 0 && a.height > 0);
                    assert!(a.left + a.width + 24 <= sheet.width as u32, "{a:?} {sheet}");
                    assert!(
                        a.bottom() + pen::LINE + 24 <= sheet.height as u32,
                        "{a:?} {sheet}"
                    );
                    for b in &all[..index] {
                        let beside = a.left + a.width <= b.left || b.left + b.width <= a.left;
                        let apart = |a: &Area, b: &Area| a.bottom() + pen::LINE <= b.top;
                        assert!(beside || apart(a, b) || apart(b, a), "{a:?} on {b:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn points_are_marked_where_they_are() {
    let (source, target) = (plain(400, 400), plain(400, 400));
    let found = found(1, [300.0, 100.0], Extent::new(8, 8));
    let sheet = drawn(&source, &[[50.0, 200.0]], &[(&target, &found)]);
    // 24 pixels of margin, 400 of source, 16 of gap; 8 pixels above the centre there is no digit.
    for [x, y] in [[24 + 50, 24 + 200], [440 + 300, 24 + 100]] {
        assert_eq!(*sheet.get_pixel(x, y - 8), colour::of_point(0));
        assert_eq!(*sheet.get_pixel(x, y + 8), colour::of_point(0));
        assert_ne!(*sheet.get_pixel(x, y - 14), colour::of_point(0));
    }
    // The line from (74, 224) to (740, 124) crosses the gap at (432, 170.25).
    assert_ne!(*sheet.get_pixel(432, 170), colour::PAPER);
    assert_eq!(*sheet.get_pixel(432, 160), colour::PAPER);
}

#[test]
fn heat_is_spread_over_its_area() {
    let heat = Heat {
        extent: Extent::new(2, 1),
        values: vec![1.0, 3.0],
    };
    let area = Area {
        left: 10,
        top: 10,
        width: 8,
        height: 4,
    };
    // Cell centres lie at 1/4 and 3/4 of the width: pixel x at x/4 + 1/8 - 1/2 cells.
    let along: Vec<f32> = (0..8).map(|x| heat.at(x, 3, area)).collect();
    assert_eq!(along, [1.0, 1.0, 1.25, 1.75, 2.25, 2.75, 3.0, 3.0]);
    assert_eq!(heat.range(), [1.0, 3.0]);
}

#[test]
fn colours_run_from_dark_to_light() {
    let grey = Rgb([100; 3]);
    let levels: Vec<u32> = (0..=10)
        .map(|step| colour::heated(grey, step as f32 / 10.0))
        .map(|Rgb([red, green, blue])| 299 * red as u32 + 587 * green as u32 + 114 * blue as u32)
        .collect();
    assert!(levels.is_sorted(), "{levels:?}");
    assert!(
        colour::heated(grey, f32::NAN)
            .0
            .iter()
            .all(|&channel| channel > 100)
    );
}

#[test]
fn long_captions_are_shortened() {
    let letter = pen::text_width("x", Weight::Regular);
    assert_eq!(pen::shortened("picture.jpg", 11 * letter), "picture.jpg");
    assert_eq!(pen::shortened("picture.jpg", 10 * letter), "picture...");
    assert_eq!(pen::shortened("picture.jpg", 2 * letter), "..");
    assert_eq!(pen::shortened("picture.jpg", 0), "");
}

#[test]
fn extremes_are_drawn() {
    let pictures = [plain(1, 1), plain(1, 300), plain(300, 2), plain(40, 30)];
    for (source, target) in pictures.iter().zip(pictures.iter().cycle().skip(1)) {
        for count in [0, 1, 64, 120] {
            let points = vec![[0.0, 0.0]; count];
            let found = found(count, [-3.0, 1e4], Extent::new(1, 1));
            let sheet = drawn(source, &points, &[(target, &found)]);
            assert!(sheet.width() >= 320 + 2 * 24);
        }
    }
    let many: Vec<Vec<Found>> = (0..5)
        .map(|_| found(3, [0.0, 0.0], Extent::new(3, 2)))
        .collect();
    let targets: Vec<_> = (many.iter().zip(pictures.iter().cycle()))
        .map(|(found, picture)| (picture, &found[..]))
        .collect();
    drawn(&pictures[3], &[[1.0, 1.0]; 3], &targets);
    let mut unknown = found(2, [0.0, 0.0], Extent::new(2, 2));
    for found in &mut unknown {
        let heat = found.heat.as_mut().expect("made above");
        heat.values.fill(f32::NAN);
    }
    drawn(&pictures[3], &[[1.0, 1.0]; 2], &[(&pictures[3], &unknown)]);
}
