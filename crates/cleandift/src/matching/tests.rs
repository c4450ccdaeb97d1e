//! Matching against PyTorch's results, against a naive upsampling, and against hand-made maps.

use proptest::prelude::*;
use safetensors::SafeTensors;

use super::*;
use crate::features::FeatureMap;
use crate::image::{Extent, Frame};

const SOFT: Readout = Readout::WindowSoftArgMax {
    window: 5,
    temperature: 0.02,
};

fn with_readout(readout: Readout) -> Options {
    Options {
        readout,
        mutual: false,
    }
}

mod golden {
    use super::*;

    const PROCEDURE: &[u8] = include_bytes!("../../tests/golden/matching/procedure.safetensors");
    const ORACLE: &[u8] = include_bytes!("../../tests/golden/matching/oracle.safetensors");

    fn numbers<const N: usize, T>(
        file: &SafeTensors,
        name: &str,
        from: impl Fn([u8; N]) -> T,
    ) -> Vec<T> {
        let tensor = file.tensor(name).expect(name);
        let (chunks, rest) = tensor.data().as_chunks::<N>();
        assert!(rest.is_empty());
        chunks.iter().map(|bytes| from(*bytes)).collect()
    }

    fn pairs(file: &SafeTensors, name: &str) -> Vec<[usize; 2]> {
        let values = numbers(file, name, i64::from_le_bytes);
        let (pairs, _) = values.as_chunks::<2>();
        pairs.iter().map(|pair| pair.map(|v| v as usize)).collect()
    }

    /// A `[1, c, h, w]` tensor as a feature map.
    fn map(file: &SafeTensors, name: &str) -> FeatureMap {
        let [_, channels, height, width] = file.tensor(name).expect(name).shape()[..] else {
            panic!("{name} is not [1, c, h, w]")
        };
        let values = numbers(file, name, f32::from_le_bytes);
        let cells = height * width;
        let by_cell = (0..cells)
            .flat_map(|cell| (0..channels).map(move |channel| channel * cells + cell))
            .map(|index| values[index])
            .collect();
        FeatureMap::new(Extent::new(width, height), channels, by_cell)
    }

    /// The frame for a picture squashed onto a canvas of eight pixels a cell.
    fn squash(picture: Extent, map: &FeatureMap) -> Frame {
        let Extent { width, height } = map.extent();
        Frame::squash(picture, Extent::new(width * 8, height * 8))
    }

    /// Whether two pixels lie on the same sample: beyond the outer cells' centres all are alike,
    /// and f32 rounding, not similarity, decides among them in PyTorch.
    fn same_sample(field: &Field, a: [usize; 2], b: [usize; 2]) -> bool {
        let Extent { width, height } = field.extent();
        let position = |point: [usize; 2]| {
            let [x, y] = field
                .frame()
                .to_cell(field.extent(), point.map(|v| v as f64));
            [
                x.clamp(0.0, (width - 1) as f64),
                y.clamp(0.0, (height - 1) as f64),
            ]
        };
        position(a) == position(b)
    }

    #[test]
    fn points_are_those_of_the_published_procedure() {
        let file = SafeTensors::deserialize(PROCEDURE).unwrap();
        let mut names: Vec<&str> = (file.names().into_iter())
            .filter_map(|name| name.strip_suffix("/source"))
            .collect();
        names.sort_unstable();
        assert_eq!(names.len(), 8);
        let (mut points, mut alike, mut largest, mut farthest) = (0, 0, 0.0f64, 0.0f64);
        for name in names {
            let (source_map, target_map) = (
                map(&file, &format!("{name}/source")),
                map(&file, &format!("{name}/target")),
            );
            let sizes = pairs(&file, &format!("{name}/sizes"));
            let [source_size, target_size] = [0, 1].map(|i| Extent::new(sizes[i][0], sizes[i][1]));
            let source = Field::new(&source_map, &squash(source_size, &source_map)).unwrap();
            let target = Field::new(&target_map, &squash(target_size, &target_map)).unwrap();
            let asked: Vec<[f64; 2]> = (pairs(&file, &format!("{name}/points_xy")).iter())
                .map(|point| point.map(|v| v as f64))
                .collect();

            let found = match_points(&source, &asked, &target, &Options::default()).unwrap();
            let expected = pairs(&file, &format!("{name}/match_xy"));
            let similarities = numbers(&file, &format!("{name}/similarity"), f32::from_le_bytes);
            for ((found, expected), similarity) in found.iter().zip(expected).zip(similarities) {
                points += 1;
                if found.point != expected {
                    assert!(
                        same_sample(&target, found.point, expected),
                        "{name}: {found:?}, expected {expected:?}"
                    );
                    alike += 1;
                }
                largest = largest.max((found.similarity - f64::from(similarity)).abs());
            }

            let found = match_points(&source, &asked, &target, &with_readout(SOFT)).unwrap();
            let expected = numbers(&file, &format!("{name}/soft_xy"), f64::from_le_bytes);
            for (found, &[x, y]) in found.iter().zip(expected.as_chunks::<2>().0) {
                let [x, y] = target.frame().from_cell(target.extent(), [x, y]);
                let [found_x, found_y] = found.refined;
                farthest = farthest.max((found_x - x).hypot(found_y - y));
            }
        }
        eprintln!(
            "{points} points, {alike} on the same sample, similarity off by {largest:.1e}, \
             soft arg-max by {farthest:.1e} px"
        );
        assert!(largest < 1e-6, "similarity is off by {largest:e}");
        assert!(farthest < 1e-3, "soft arg-max is off by {farthest:e} px");
    }

    #[test]
    fn points_are_those_of_the_oracle() {
        let file = SafeTensors::deserialize(ORACLE).unwrap();
        let (source_map, target_map) =
            (map(&file, "match/in.source"), map(&file, "match/in.target"));
        let source_frame = squash(Extent::new(31, 32), &source_map);
        let target_frame = squash(Extent::new(45, 33), &target_map);
        let source = Field::new(&source_map, &source_frame).unwrap();
        let target = Field::new(&target_map, &target_frame).unwrap();
        let asked: Vec<[f64; 2]> = (pairs(&file, "match/in.points_xy").iter())
            .map(|point| point.map(|v| v as f64))
            .collect();
        let found = match_points(&source, &asked, &target, &Options::default()).unwrap();
        let expected = pairs(&file, "match/out.match_yx");
        let similarities = numbers(&file, "match/out.best_similarity", f32::from_le_bytes);
        for ((found, [y, x]), similarity) in found.iter().zip(expected).zip(similarities) {
            assert_eq!(found.point, [x, y]);
            assert!((found.similarity - f64::from(similarity)).abs() < 1e-6);
        }
    }
}

/// The bilinear sample of a map at a point of the picture, in f64 and channel by channel.
fn naive_sample(map: &FeatureMap, frame: &Frame, point: [f64; 2]) -> Vec<f64> {
    let Extent { width, height } = map.extent();
    let [x, y] = frame.to_cell(map.extent(), point);
    let (x, y) = (
        x.clamp(0.0, (width - 1) as f64),
        y.clamp(0.0, (height - 1) as f64),
    );
    let (left, top) = (x.floor() as usize, y.floor() as usize);
    let (right, bottom) = ((left + 1).min(width - 1), (top + 1).min(height - 1));
    let (u, v) = (x - left as f64, y - top as f64);
    (0..map.channels())
        .map(|channel| {
            let at = |column, row| f64::from(map.cell(column, row)[channel]);
            (1.0 - v) * ((1.0 - u) * at(left, top) + u * at(right, top))
                + v * ((1.0 - u) * at(left, bottom) + u * at(right, bottom))
        })
        .collect()
}

fn naive_cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a).sqrt().max(1e-12) * dot(b, b).sqrt().max(1e-12))
}

/// Similarities of all pixels by upsampling, NaN where the canvas does not show the picture.
fn naive_similarities(query: &[f64], map: &FeatureMap, frame: &Frame) -> Vec<f64> {
    let Extent { width, height } = frame.picture;
    (0..width * height)
        .map(|pixel| {
            let point = [(pixel % width) as f64, (pixel / width) as f64];
            if frame.shows(point) {
                naive_cosine(query, &naive_sample(map, frame, point))
            } else {
                f64::NAN
            }
        })
        .collect()
}

/// Maps of 1 to 6 cells a side with values in -1..1.
fn any_map(channels: usize) -> impl Strategy<Value = FeatureMap> {
    (1..=6usize, 1..=6usize).prop_flat_map(move |(width, height)| {
        proptest::collection::vec(-1.0f32..1.0, width * height * channels)
            .prop_map(move |values| FeatureMap::new(Extent::new(width, height), channels, values))
    })
}

/// Pictures of 1 to 24 pixels a side: squashed, beside padding, and partly outside of the canvas.
fn any_frame() -> impl Strategy<Value = Frame> {
    let extent = || (1..=24usize, 1..=24usize).prop_map(|(w, h)| Extent::new(w, h));
    let squash = (extent(), extent()).prop_map(|(picture, canvas)| Frame::squash(picture, canvas));
    // The offset's share of the free (or excess) room on each axis puts the picture on the canvas.
    let placed = (extent(), extent(), 0.3f64..3.0, 0.0f64..=1.0, 0.0f64..=1.0).prop_map(
        |(picture, canvas, scale, across, down)| Frame {
            picture,
            canvas,
            scale: [scale; 2],
            offset: [
                across * (canvas.width as f64 - scale * picture.width as f64),
                down * (canvas.height as f64 - scale * picture.height as f64),
            ],
        },
    );
    prop_oneof![squash, placed].prop_filter("shows a pixel", |f| {
        f.shown().iter().all(|range| !range.is_empty())
    })
}

proptest! {
    #[test]
    fn agrees_with_a_naive_upsampling(
        source_map in any_map(5), target_map in any_map(5),
        source_frame in any_frame(), target_frame in any_frame(),
        across in 0.0f64..1.0, down in 0.0f64..1.0,
    ) {
        let source = Field::new(&source_map, &source_frame).unwrap();
        let target = Field::new(&target_map, &target_frame).unwrap();
        let [columns, rows] = source_frame.shown();
        let along = |range: &std::ops::Range<usize>, share: f64| {
            range.start as f64 + share * (range.len() - 1) as f64
        };
        let point = [along(&columns, across), along(&rows, down)];
        let query = naive_sample(&source_map, &source_frame, point);
        let expected = naive_similarities(&query, &target_map, &target_frame);
        let picture = target_frame.picture;

        let heat = target.heat_map(&source.descriptor(point).unwrap(), picture).unwrap();
        for (pixel, (&heat, &expected)) in heat.iter().zip(&expected).enumerate() {
            prop_assert_eq!(heat.is_nan(), expected.is_nan(), "pixel {}", pixel);
            let off = (f64::from(heat) - expected).abs();
            prop_assert!(off.is_nan() || off < 1e-6, "pixel {} is off by {}", pixel, off);
        }

        let found = match_points(&source, &[point], &target, &Options::default()).unwrap()[0];
        let best = expected.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let at = |[x, y]: [usize; 2]| expected[y * picture.width + x];
        prop_assert!((found.similarity - best).abs() < 1e-9);
        prop_assert!((at(found.point) - best).abs() < 1e-9);
        let first = expected.iter().position(|&s| s == best).unwrap();
        let rivals = expected.iter().filter(|&&s| s > best - 1e-9).count();
        if rivals == 1 {
            prop_assert_eq!(found.point, [first % picture.width, first / picture.width]);
        }

        let cell_of = |point: [usize; 2]| {
            target_frame.to_cell(target_map.extent(), point.map(|v| v as f64))
        };
        let [best_x, best_y] = cell_of(found.point);
        // A pixel exactly 2 cells away belongs to the neighbourhood, whatever rounding says.
        let runner_up = (0..expected.len())
            .filter(|pixel| {
                let [x, y] = cell_of([pixel % picture.width, pixel / picture.width]);
                (x - best_x).abs() > 2.0 + 1e-8 || (y - best_y).abs() > 2.0 + 1e-8
            })
            .map(|pixel| expected[pixel])
            .filter(|similarity| !similarity.is_nan())
            .reduce(f64::max);
        prop_assert_eq!(found.runner_up.is_some(), runner_up.is_some());
        if let (Some(found), Some(expected)) = (found.runner_up, runner_up) {
            prop_assert!((found - expected).abs() < 1e-9);
        }
        for (refined, pixel) in found.refined.iter().zip(found.point) {
            prop_assert!((refined - pixel as f64).abs() <= 0.5);
        }
    }

    #[test]
    fn shown_pixels_are_those_that_the_canvas_shows(frame in any_frame()) {
        let [columns, rows] = frame.shown();
        for y in 0..frame.picture.height {
            for x in 0..frame.picture.width {
                let shown = columns.contains(&x) && rows.contains(&y);
                prop_assert_eq!(shown, frame.shows([x as f64, y as f64]));
            }
        }
    }
}

/// A map whose features turn slowly, with the column one way and with the row the other.
fn spiral(extent: Extent, first_column: usize) -> FeatureMap {
    let values = (0..extent.width * extent.height)
        .flat_map(|cell| {
            let column = (first_column + cell % extent.width) as f32;
            let row = (cell / extent.width) as f32;
            let turns = [0.5 * column + 0.2 * row, 0.6 * row - 0.3 * column];
            turns.map(|turn| [turn.cos(), turn.sin()])
        })
        .flatten()
        .collect();
    FeatureMap::new(extent, 4, values)
}

#[test]
fn finds_a_shifted_point_and_its_way_back() {
    // The target's map is the source's, one cell to the left; a cell is four pixels wide.
    let cells = Extent::new(8, 6);
    let (source_map, target_map) = (spiral(cells, 0), spiral(cells, 1));
    let frame = Frame::squash(Extent::new(32, 24), Extent::new(64, 48));
    let source = Field::new(&source_map, &frame).unwrap();
    let target = Field::new(&target_map, &frame).unwrap();
    let options = Options {
        mutual: true,
        ..Options::default()
    };
    let found = match_points(&source, &[[13.0, 9.0], [22.0, 17.0]], &target, &options).unwrap();
    for (found, [x, y]) in found.iter().zip([[13, 9], [22, 17]]) {
        assert_eq!(found.point, [x - 4, y]);
        assert!((found.similarity - 1.0).abs() < 1e-12);
        let back = found.returned.unwrap();
        assert_eq!(back.point, [x, y]);
        assert_eq!(back.distance, 0.0);
    }
}

#[test]
fn a_source_between_pixels_is_refined_towards_its_place() {
    // Matching a map with itself: the similarity peaks, at 1, exactly at the point.
    let map = spiral(Extent::new(8, 6), 0);
    let frame = Frame::squash(Extent::new(80, 60), Extent::new(64, 48));
    let field = Field::new(&map, &frame).unwrap();
    let found = match_points(&field, &[[31.3, 28.8]], &field, &Options::default()).unwrap()[0];
    assert_eq!(found.point, [31, 29]);
    let [x, y] = found.refined;
    assert!((x - 31.3).abs() < 0.1 && (y - 28.8).abs() < 0.1, "{x} {y}");
}

#[test]
fn the_first_of_equal_candidates_wins() {
    let flat = |channels: usize| {
        let cell: Vec<f32> = (0..channels).map(|c| 0.1 + c as f32 / 3.0).collect();
        FeatureMap::new(Extent::new(7, 5), channels, cell.repeat(35))
    };
    let map = flat(13);
    let whole = Frame::squash(Extent::new(23, 19), Extent::new(56, 40));
    // Of this picture the canvas shows columns 3..=16 and rows 2..=11, four pixels each.
    let crop = Frame {
        picture: Extent::new(30, 30),
        canvas: Extent::new(56, 40),
        scale: [4.0; 2],
        offset: [-12.0, -8.0],
    };
    let source = Field::new(&map, &whole).unwrap();
    for (frame, first) in [(whole, [0, 0]), (crop, [3, 2])] {
        let target = Field::new(&map, &frame).unwrap();
        let asked = [[11.0, 8.0], [22.0, 18.0]];
        for found in match_points(&source, &asked, &target, &Options::default()).unwrap() {
            assert_eq!(found.point, first);
            assert_eq!(found.refined, first.map(|v| v as f64));
            assert!((found.similarity - 1.0).abs() < 1e-12);
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let cells = Extent::new(9, 7);
    let (source_map, target_map) = (spiral(cells, 0), spiral(cells, 3));
    let picture = Extent::new(70, 51);
    let frame = Frame::squash(picture, Extent::new(72, 56));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let source = Field::new(&source_map, &frame).unwrap();
            let target = Field::new(&target_map, &frame).unwrap();
            let options = Options {
                mutual: true,
                ..Options::default()
            };
            // More points than are handled at a time.
            match_points(&source, &grid(picture, 9), &target, &options).unwrap()
        })
    };
    let one = run(1);
    assert_eq!(one.len(), 81);
    assert_eq!(one, run(2));
    assert_eq!(one, run(7));
}

#[test]
fn points_that_cannot_be_matched_are_refused() {
    let map = spiral(Extent::new(7, 5), 0);
    let picture = Extent::new(30, 20);
    let crop = Frame {
        picture,
        canvas: Extent::new(56, 40),
        scale: [4.0; 2],
        offset: [-12.0, -8.0],
    };
    let field = Field::new(&map, &crop).unwrap();
    for point in [[-0.6, 3.0], [30.0, 3.0], [3.0, 19.6], [f64::NAN, 0.0]] {
        let error = field.descriptor(point).unwrap_err();
        assert!(matches!(error, MatchError::Outside { .. }), "{error}");
    }
    for point in [[2.0, 5.0], [17.0, 5.0], [5.0, 1.0], [5.0, 12.0]] {
        let error = field.descriptor(point).unwrap_err();
        assert!(matches!(error, MatchError::NotShown { .. }), "{error}");
        assert!(field.cell_descriptor(point).is_err());
    }
    let message = field.descriptor([31.0, 4.0]).unwrap_err().to_string();
    assert!(
        message.contains("point (31, 4)") && message.contains("30x20"),
        "{message}"
    );
}

#[test]
fn maps_that_cannot_be_matched_are_refused() {
    let extent = Extent::new(2, 2);
    let frame = Frame::squash(Extent::new(8, 8), Extent::new(16, 16));
    let new = |map: &FeatureMap, frame: &Frame| Field::new(map, frame).map(|_| ()).unwrap_err();
    let empty = FeatureMap::new(extent, 0, vec![]);
    assert!(matches!(new(&empty, &frame), MatchError::EmptyMap { .. }));
    let broken = FeatureMap::new(extent, 1, vec![1.0, 2.0, f32::NAN, 1.0]);
    assert_eq!(
        new(&broken, &frame),
        MatchError::NotFinite { column: 0, row: 1 }
    );
    let (three, four) = (
        FeatureMap::new(extent, 3, vec![1.0; 12]),
        FeatureMap::new(extent, 4, vec![1.0; 16]),
    );
    let beside = Frame {
        offset: [100.0, 0.0],
        ..frame
    };
    assert!(matches!(
        new(&three, &beside),
        MatchError::NothingShown { .. }
    ));
    let (three, four) = (
        Field::new(&three, &frame).unwrap(),
        Field::new(&four, &frame).unwrap(),
    );
    let error = match_points(&three, &[[0.0, 0.0]], &four, &Options::default()).unwrap_err();
    assert_eq!(
        error,
        MatchError::Channels {
            source_channels: 3,
            target_channels: 4
        }
    );
    let frozen = with_readout(Readout::WindowSoftArgMax {
        window: 5,
        temperature: 0.0,
    });
    let error = match_points(&three, &[[0.0, 0.0]], &three, &frozen).unwrap_err();
    assert_eq!(error, MatchError::Temperature(0.0));
}

#[test]
fn features_of_zero_are_similar_to_nothing() {
    let extent = Extent::new(3, 3);
    let map = FeatureMap::new(extent, 2, vec![0.0; 18]);
    let field = Field::new(&map, &Frame::squash(extent, extent)).unwrap();
    let found = match_points(&field, &[[1.0, 1.0]], &field, &Options::default()).unwrap()[0];
    assert_eq!((found.point, found.similarity), ([0, 0], 0.0));
}

#[test]
fn soft_arg_max_weighs_what_is_outside_the_window_as_zero() {
    // One row of three cells, window 0: the best cell keeps its similarity T, the others count
    // as 0: weights e, 1, 1 after dividing by e, so x = (0 + e + 2) / (e + 2).
    let temperature = 0.5;
    let similarities = [-0.9, temperature, 0.4];
    let [x, y] = window_soft_argmax(&similarities, Extent::new(3, 1), 0, temperature);
    let e = std::f64::consts::E;
    assert!((x - (e + 2.0) / (e + 2.0)).abs() < 1e-12);
    assert_eq!(y, 0.0);
    // With window 1 all keep theirs.
    let [x, _] = window_soft_argmax(&similarities, Extent::new(3, 1), 1, temperature);
    let [a, b, c] = similarities.map(|s: f64| (s / temperature).exp());
    assert!((x - (b + 2.0 * c) / (a + b + c)).abs() < 1e-12);
}

#[test]
fn a_grid_has_the_centres_of_its_parts() {
    let points = grid(Extent::new(4, 2), 2);
    assert_eq!(points, [[0.5, 0.0], [2.5, 0.0], [0.5, 1.0], [2.5, 1.0]]);
}
