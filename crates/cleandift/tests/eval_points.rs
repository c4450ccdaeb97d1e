//! Correspondence, homographies and statistics against published procedures and public
//! implementations (`golden/eval/points.safetensors`, made by `scripts/make_eval_points_golden.py`),
//! and floors on real data.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cleandift::eval::correspondence::{
    Correspondence, Keypoint, Pair, PairSet, Picture, SAME_POSITION, Side,
};
use cleandift::eval::datasets::{Draw, hpatches, keypoint_table, pf_willow, spair};
use cleandift::eval::homography::{Estimator, estimate};
use cleandift::eval::protocols::{
    DIFT, Protocol, SD_DINO, TLFR, describe_together, mutual_distance,
};
use cleandift::eval::statistics::{intervals, sign_flip};
use cleandift::eval::{
    Candidate, EvalError, Figure, Formula, Image, Item, Journal, Origin, Run, Seen, Settings,
    Source, Task,
};
use cleandift::features::FeatureMap;
use cleandift::graph::Parameters;
use cleandift::image::{Extent, Frame};

mod common;
use common::{golden, tensors};

fn values(name: &str) -> Vec<f64> {
    common::values(&tensors(&golden("eval/points.safetensors")), name)
}

fn points(name: &str) -> Vec<[f64; 2]> {
    values(name).as_chunks().0.to_vec()
}

fn map(name: &str) -> FeatureMap {
    let weights = tensors(&golden("eval/points.safetensors"));
    let &[height, width, channels] = weights.shape(name).unwrap() else {
        panic!("{name} is no map");
    };
    FeatureMap::new(
        Extent::new(width, height),
        channels,
        weights.read(name).unwrap(),
    )
}

/// The source and the target of a golden pair.
struct Golden {
    prefix: String,
    extents: [Extent; 2],
}

impl Golden {
    fn new(prefix: String) -> Self {
        let extent = |which: &str| {
            let size = values(&format!("{prefix}/{which}_size"));
            Extent::new(size[0] as usize, size[1] as usize)
        };
        Self {
            extents: [extent("source"), extent("target")],
            prefix,
        }
    }

    fn pair(&self) -> Pair {
        let both = points(&format!("{}/points", self.prefix)).into_iter();
        let both = both.zip(points(&format!("{}/truth", self.prefix)));
        Pair {
            id: self.prefix.clone(),
            category: String::new(),
            source: 0,
            target: 1,
            points: both
                .enumerate()
                .map(|(slot, (source, target))| Keypoint {
                    slot,
                    source,
                    target,
                })
                .collect(),
            box_side: values(&format!("{}/side", self.prefix))[0],
        }
    }

    /// Runs a protocol: predictions in pixels of the target, and how many are correct at 0.1.
    fn run(&self, protocol: Protocol) -> (Vec<[f64; 2]>, f64) {
        let picture = |which: &str| Picture {
            image: Image::file(which, ""),
            category: String::new(),
            unit: which.to_owned(),
            mask: None,
        };
        let set = PairSet {
            name: "golden".to_owned(),
            settings: Settings::new(),
            images: vec![picture("source"), picture("target")],
            pairs: vec![self.pair()],
            mirrors: HashMap::new(),
            independent: "pictures".to_owned(),
            descriptive: None,
            alphas: vec![0.1],
            sides: vec![Side::Box],
        };
        let task = Correspondence::new(set, protocol);
        let mut source = Maps(self);
        let mut candidate = Candidate::Features {
            source: &mut source,
            taps: vec!["map".to_owned()],
        };
        let pair = self.pair();
        let found = task.predict(&pair, &mut candidate).unwrap();
        let mut run = Run {
            journal: Journal::in_memory(),
            watch: &mut |_| true,
        };
        let items = task.evaluate(&mut candidate, &mut run).unwrap();
        // points, pairs, correct
        (
            found.iter().map(|found| found.point).collect(),
            items[0].tallies[2],
        )
    }
}

struct Maps<'g>(&'g Golden);

impl Source for Maps<'_> {
    fn settings(&self) -> Settings {
        Settings::new()
    }

    fn see(&mut self, image: &Image) -> Result<Arc<Seen>, EvalError> {
        let picture = self.0.extents[usize::from(image.id == "target")];
        Ok(Arc::new(Seen {
            frame: Frame::squash(picture, Extent::new(768, 768)),
            maps: vec![(
                "map".to_owned(),
                map(&format!("{}/{}", self.0.prefix, image.id)),
            )],
        }))
    }
}

fn count(name: &str) -> f64 {
    values(name).iter().sum()
}

#[test]
fn pck_is_that_of_the_published_dift_procedure_to_the_last_keypoint() {
    for index in 0..6 {
        let golden = Golden::new(format!("dift/{index}"));
        let (found, correct) = golden.run(DIFT);
        assert_eq!(found, points(&format!("dift/{index}/found")));
        assert_eq!(correct, count(&format!("dift/{index}/correct")));
    }
}

/// Components found by iteration against exact ones; nearest cells agree wherever the exact
/// cosines do not tie.
#[test]
fn components_of_a_pair_keep_the_cosines_of_exact_ones() {
    let weights = tensors(&golden("eval/components.safetensors"));
    let taps = ["us8", "us5", "us2"].map(str::to_owned);
    let seen = ["source", "target"].map(|picture| {
        let map = |tap: &String| {
            let name = format!("{picture}/{tap}");
            let &[height, width, channels] = weights.shape(&name).unwrap() else {
                panic!("{name} is no map");
            };
            let values = weights.read(&name).unwrap();
            (
                tap.clone(),
                FeatureMap::new(Extent::new(width, height), channels, values),
            )
        };
        let extent = Extent::new(64, 64);
        Seen {
            frame: Frame::squash(extent, extent),
            maps: taps.iter().map(map).collect(),
        }
    });
    let images = ["source", "target"].map(|name| Image::file(name, ""));
    let [source, target] = describe_together(seen.each_ref(), &taps, images.each_ref(), 8).unwrap();
    assert_eq!(
        (source.channels(), source.extent()),
        (24, Extent::new(14, 12))
    );
    let cells = |map: &FeatureMap| map.values().chunks_exact(24).map(<[f32]>::to_vec).collect();
    let (source, target): (Vec<Vec<f32>>, Vec<Vec<f32>>) = (cells(&source), cells(&target));
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum()
    };
    let expected = common::values(&weights, "cosines");
    let rows = expected.chunks_exact(target.len());
    for (cell, expected) in source.iter().step_by(5).zip(rows) {
        for (other, expected) in target.iter().zip(expected) {
            let found = dot(cell, other) / (dot(cell, cell) * dot(other, other)).sqrt();
            assert!(
                (found - expected).abs() < 1e-3,
                "{found}, expected {expected}"
            );
        }
    }
}

#[test]
fn patches_are_found_as_by_the_other_published_procedures() {
    // Of one map of six channels there is nothing to reduce; the golden arrays are not centred.
    let hard = Protocol {
        components: None,
        ..SD_DINO
    };
    let soft = Protocol { pose: None, ..TLFR };
    for index in 0..2 {
        let golden = Golden::new(format!("patches/{index}"));
        for (protocol, name) in [(hard, "hard"), (soft, "soft")] {
            let (found, correct) = golden.run(protocol);
            let prefix = format!("patches/{index}/{name}");
            let placement = protocol.placement(
                golden.extents[1],
                &Frame::squash(golden.extents[1], golden.extents[1]),
            );
            for (found, expected) in found.iter().zip(points(&prefix)) {
                let found = placement.place(*found);
                let error = (found[0] - expected[0]).hypot(found[1] - expected[1]);
                assert!(error < 1e-3, "{prefix}: {found:?}, expected {expected:?}");
            }
            assert_eq!(correct, count(&format!("{prefix}_correct")), "{prefix}");
        }
    }
}

#[test]
fn mutual_neighbours_are_numpys() {
    let found = mutual_distance(&map("mutual/source"), &map("mutual/target"));
    let expected = values("mutual/distance")[0];
    // Similarities are products in f32.
    assert!((found - expected).abs() < 1e-5, "{found} {expected}");
}

fn items(values: &[f64]) -> Vec<Item> {
    let item = |(index, value): (usize, &f64)| Item {
        id: index.to_string(),
        category: String::new(),
        units: vec![index.to_string()],
        tallies: vec![*value, 1.0],
    };
    values.iter().enumerate().map(item).collect()
}

fn mean() -> Figure {
    Figure::percent("mean", Formula::Ratio { of: 0, over: 1 })
}

/// Both are random: the standard error of a 2.5th percentile from R draws is
/// √(0.025 · 0.975 / R) over the density there (0.0584 over the standard deviation).
#[test]
fn intervals_are_scipys() {
    let values_ = values("bootstrap/values");
    let found = intervals(&items(&values_), &[mean()], 50_000, 3)[0];
    let expected = values("bootstrap/interval");
    let deviation = (expected[1] - expected[0]) / 3.92;
    let error = (0.025f64 * 0.975 / 50_000.0).sqrt() / 0.0584 * deviation;
    let allowed = 4.0 * error * 2f64.sqrt();
    assert!(
        (found.low - expected[0]).abs() < allowed,
        "{found:?} {expected:?} {allowed}"
    );
    assert!(
        (found.high - expected[1]).abs() < allowed,
        "{found:?} {expected:?} {allowed}"
    );
}

#[test]
fn exhaustive_flips_are_scipys() {
    let (a, b) = (items(&values("exact/a")), items(&values("exact/b")));
    let expected = values("exact/p")[0];
    assert!((sign_flip(&a, &b, &mean(), 0) - expected).abs() < 1e-7);
}

#[test]
fn homographies_are_opencvs() {
    let extent = Extent::new(300, 200);
    for (moved, estimator, name) in [
        ("moved", Estimator::Ransac { threshold: 100.0 }, "all"),
        ("wrong", Estimator::Ransac { threshold: 3.0 }, "ransac"),
        ("wrong", Estimator::LeastMedian, "lmeds"),
    ] {
        let matches = points("homography/points").into_iter();
        let matches: Vec<_> = (matches.zip(points(&format!("homography/{moved}"))))
            .map(|(from, to)| [from, to])
            .collect();
        let found = estimate(&matches, estimator).unwrap();
        let expected = values(&format!("homography/{name}"));
        let expected = cleandift::eval::homography::Homography(expected.try_into().unwrap());
        let error = found.corner_error(&expected, extent);
        assert!(error < 0.01, "{name}: corners differ by {error} px");
    }
}

/// The folder of larger data, if there is one.
fn data(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("CLEANDIFT_TESTDATA").map(|folder| Path::new(&folder).join(name));
    let found = folder.filter(|folder| folder.exists());
    if found.is_none() {
        eprintln!("skipped: CLEANDIFT_TESTDATA has no {name}");
    }
    found
}

/// PCK@0.1 (box, per point) of the same position, in percent.
fn same_position(set: PairSet) -> f64 {
    let task = Correspondence::new(set, DIFT);
    let mut run = Run {
        journal: Journal::in_memory(),
        watch: &mut |_| true,
    };
    let items = task
        .evaluate(&mut Candidate::Floor(SAME_POSITION), &mut run)
        .unwrap();
    100.0 * task.schema().figures[0].value(&items)
}

/// Expected values: the same computed in numpy from the files, over the same pairs.
#[test]
fn same_position_on_real_data() {
    let all = Draw {
        count: usize::MAX,
        seed: 0,
    };
    let close = |found: f64, expected: f64| {
        assert!(
            (found - expected).abs() < 0.006,
            "{found}, expected {expected}"
        )
    };
    if let Some(folder) = data("pf-willow") {
        let set = pf_willow::load(&folder).unwrap();
        assert_eq!((set.pairs.len(), set.images.len()), (630, 70));
        close(same_position(set), 20.38);
    }
    if let Some(folder) = data("animalpose-spair") {
        let set = spair::load(&folder, "test").unwrap();
        assert_eq!((set.pairs.len(), set.images.len()), (160, 75));
        close(same_position(set), 7.07);
        assert_eq!(spair::load(&folder, "trn").unwrap().pairs.len(), 70);
    }
    if let Some(folder) = data("lspet") {
        let set = keypoint_table::load(&folder, "test", all).unwrap();
        assert_eq!(set.pairs.len(), 6320);
        close(same_position(set), 5.05);
    }
    if let Some(folder) = data("faces-68") {
        let set = keypoint_table::load(&folder, "test", all).unwrap();
        assert_eq!(set.pairs.len(), 3480);
        close(same_position(set), 19.56);
    }
}

/// The homographies map the first picture onto the others: grey values agree far better there than
/// without moving anything.
#[test]
fn hpatches_homographies_on_real_data() {
    let Some(folder) = data("oxford-affine-hpatches") else {
        return;
    };
    let sequences = hpatches::load(&folder).unwrap();
    assert_eq!(sequences.len(), 4);
    for sequence in sequences
        .iter()
        .filter(|sequence| sequence.name.starts_with("v_"))
    {
        let first = sequence.reference.open().unwrap();
        let (image, homography) = &sequence.others[0];
        let other = image.open().unwrap();
        let homography = cleandift::eval::homography::Homography(*homography);
        let difference = |moved: &dyn Fn([f64; 2]) -> [f64; 2]| {
            let (mut sum, mut count) = (0.0, 0.0);
            let Extent { width, height } = first.extent();
            for y in (0..height).step_by(3) {
                for x in (0..width).step_by(3) {
                    let [u, v] = moved([x as f64, y as f64]).map(f64::round);
                    let Extent {
                        width: w,
                        height: h,
                    } = other.extent();
                    if u >= 0.0 && v >= 0.0 && u < w as f64 && v < h as f64 {
                        let a = f64::from(first.rgb()[(y * width + x) * 3]);
                        let b = f64::from(other.rgb()[(v as usize * w + u as usize) * 3]);
                        sum += (a - b).abs();
                        count += 1.0;
                    }
                }
            }
            sum / count
        };
        let (with, without) = (difference(&|p| homography.map(p)), difference(&|p| p));
        assert!(
            with < 0.8 * without,
            "{}: {with} and {without}",
            sequence.name
        );
    }
}

/// Pictures in tar archives open.
#[test]
fn pictures_in_archives_open() {
    for name in ["lspet", "faces-68"] {
        let Some(folder) = data(name) else { continue };
        let draw = Draw { count: 3, seed: 1 };
        let set = keypoint_table::load(&folder, "val", draw).unwrap();
        for pair in &set.pairs {
            let image = &set.images[pair.target].image;
            assert!(matches!(image.origin, Origin::Encoded(_)));
            let extent = image.open().unwrap().extent();
            for point in &pair.points {
                assert!(
                    point.target[0] < extent.width as f64 && point.target[1] < extent.height as f64
                );
            }
        }
    }
}
