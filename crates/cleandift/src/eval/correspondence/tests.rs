//! Counting and floors by hand; whole protocols against recomputed ones are in
//! `tests/correspondence.rs`.

use std::sync::Arc;

use super::*;
use crate::eval::{Journal, Origin};
use crate::features::FeatureMap;
use crate::image::{Frame, Picture as Pixels};

fn set(points: &[([f64; 2], [f64; 2])], extents: [Extent; 2]) -> PairSet {
    let picture = |index: usize| {
        let extent = extents[index];
        let rgb = vec![0; extent.width * extent.height * 3];
        let pixels = Pixels::from_rgb(extent, rgb).unwrap();
        Picture {
            image: Image {
                origin: Origin::Pixels(Arc::new(pixels)),
                ..Image::file(index.to_string(), "")
            },
            category: "cat".to_owned(),
            unit: index.to_string(),
            mask: None,
        }
    };
    let points = points
        .iter()
        .enumerate()
        .map(|(slot, &(source, target))| Keypoint {
            slot,
            source,
            target,
        });
    PairSet {
        name: "test".to_owned(),
        settings: Settings::new(),
        images: vec![picture(0), picture(1)],
        pairs: vec![Pair {
            id: "0-1".to_owned(),
            category: "cat".to_owned(),
            source: 0,
            target: 1,
            points: points.collect(),
            box_side: 40.0,
        }],
        mirrors: HashMap::from([("cat".to_owned(), vec![(0, 1)])]),
        independent: "pictures".to_owned(),
        descriptive: None,
        alphas: vec![0.1],
        sides: vec![Side::Box, Side::Picture],
    }
}

fn run(task: &Correspondence, candidate: &mut Candidate) -> Vec<Item> {
    let mut run = Run {
        journal: Journal::in_memory(),
        watch: &mut |_| true,
    };
    task.evaluate(candidate, &mut run).unwrap()
}

/// The target is twice as wide: (10, 10) is predicted at (20, 10). Errors of 4, 5 and 6: at α 0.1
/// the box of 40 allows 4, the picture of 60 pixels 6.
#[test]
fn same_position_by_hand() {
    let points = [
        ([10.0, 10.0], [24.0, 10.0]),
        ([10.0, 10.0], [23.0, 14.0]),
        ([10.0, 10.0], [20.0, 16.0]),
    ];
    let set = set(&points, [Extent::new(30, 30), Extent::new(60, 30)]);
    let strict = Protocol {
        strict: true,
        ..crate::eval::protocols::DIFT
    };
    let task = Correspondence::new(set.clone(), crate::eval::protocols::DIFT);
    let items = run(&task, &mut Candidate::Floor(SAME_POSITION));
    // points, pairs, correct and share for the box, for the picture
    assert_eq!(items[0].tallies, [3.0, 1.0, 1.0, 1.0 / 3.0, 3.0, 1.0]);
    let task = Correspondence::new(set, strict);
    let items = run(&task, &mut Candidate::Floor(SAME_POSITION));
    assert_eq!(items[0].tallies, [3.0, 1.0, 0.0, 0.0, 2.0, 2.0 / 3.0]);
}

/// Features that tell columns apart: of a picture, 4 cells that hold their number as a direction;
/// of the mirrored source, the same in the picture's own order.
struct Columns {
    /// What the mirrored source looks like: like the target, or like nothing.
    mirrored_is_alike: bool,
}

impl Source for Columns {
    fn settings(&self) -> Settings {
        Settings::new()
    }

    fn see(&mut self, image: &Image) -> Result<Arc<Seen>, EvalError> {
        let extent = image.open()?.extent();
        let order = match (image.id.as_str(), image.mirrored) {
            ("1", false) => [0, 1, 2, 3],
            ("0", true) if self.mirrored_is_alike => [0, 1, 2, 3],
            // One cell in four is right, so that the mirrored one is nearer.
            ("0", false) => [3, 5, 6, 0],
            _ => [4, 5, 6, 7],
        };
        let mut values = vec![0.0; 4 * 4 * 8];
        for (cell, values) in values.chunks_exact_mut(8).enumerate() {
            values[order[cell % 4]] = 1.0;
            values[(order[cell % 4] + cell / 4 + 1) % 8] += 0.1 * (cell / 4) as f32;
        }
        Ok(Arc::new(Seen {
            frame: Frame::squash(extent, Extent::new(64, 64)),
            maps: vec![(
                "us6".to_owned(),
                FeatureMap::new(Extent::new(4, 4), 8, values),
            )],
        }))
    }
}

/// The source shows the target turned left to right: with pose alignment point 0 is looked for
/// from where point 1 lies in the turned source, which is where point 0 lies in the target.
#[test]
fn a_mirrored_source_is_aligned_if_it_is_nearer() {
    let extent = Extent::new(40, 40);
    // In the source the left eye (0) is at the right, in the target at the left.
    let points = [([35.0, 5.0], [5.0, 5.0]), ([4.0, 5.0], [34.0, 5.0])];
    let protocol = Protocol {
        taps: &["us6"],
        readout: Readout::Cell,
        ..crate::eval::protocols::TLFR
    };
    // Turned, the slots' points change places: left and right are those of the animal.
    let swapped = [([5.0, 5.0], [5.0, 5.0]), ([34.0, 5.0], [34.0, 5.0])];
    let predicted = |points: &[([f64; 2], [f64; 2])], alike| {
        let task = Correspondence::new(set(points, [extent, extent]), protocol);
        let mut source = Columns {
            mirrored_is_alike: alike,
        };
        let mut candidate = Candidate::Features {
            source: &mut source,
            taps: vec!["us6".to_owned()],
        };
        let pair = task.set.pairs[0].clone();
        let found = task.predict(&pair, &mut candidate).unwrap();
        found
            .iter()
            .map(|found| (found.point[0] / 10.0) as usize)
            .collect::<Vec<_>>()
    };
    // Mirror pairs (0, 1): in the turned source slot 0 is where slot 1 was, 40 - 34 = 6: column 0.
    assert_eq!(predicted(&swapped, true), [0, 3]);
    // Without alignment slot 0 of `points` is found where the source says: column 3 holds 0.
    assert_eq!(predicted(&points, false)[0], 0);
}
