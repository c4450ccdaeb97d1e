//! The dense tasks from files to figures: on pictures drawn here, whose colours tell all, and on
//! real data, if `CLEANDIFT_TESTDATA` names a folder of it.

use std::path::{Path, PathBuf};

use cleandift::eval::classification::{Classification, Classifier};
use cleandift::eval::datasets::classes::ClassSet;
use cleandift::eval::datasets::davis;
use cleandift::eval::datasets::depths::DepthSet;
use cleandift::eval::datasets::masks::{MaskOptions, MaskSet};
use cleandift::eval::depth::{Depth, MEAN_DEPTH};
use cleandift::eval::probes::{Propagation, Vote};
use cleandift::eval::segmentation::{CLASS_PER_POSITION, Segmentation};
use cleandift::eval::source::{Canvas, PixelFeature, PixelSource};
use cleandift::eval::video::{SAME_POSITION, Video};
use cleandift::eval::{Candidate, EvalError, Item, Journal, Probing, Run, Task};
use cleandift::image::{Extent, Filter, Fit, Resample, Size};

/// Squares of 16 pixels, four by four in a picture.
const SIDE: usize = 16;
const SQUARES: usize = 4;

/// The colours of the squares' kinds.
const COLOURS: [[u8; 3]; 2] = [[200, 30, 30], [30, 30, 200]];

fn write_png(path: &Path, kind: png::ColorType, depth: png::BitDepth, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let side = (SIDE * SQUARES) as u32;
    let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), side, side);
    encoder.set_color(kind);
    encoder.set_depth(depth);
    encoder
        .write_header()
        .unwrap()
        .write_image_data(bytes)
        .unwrap();
}

/// Which kind each pixel of a picture is: a pattern of squares that depends on its number.
fn kinds(number: usize) -> Vec<usize> {
    let side = SIDE * SQUARES;
    let kind = |pixel: usize| {
        let (column, row) = (pixel % side / SIDE, pixel / side / SIDE);
        (7 * number + 3 * column + 5 * row + column * row * number) / 2 % 2
    };
    (0..side * side).map(kind).collect()
}

/// Writes 12 pictures with masks and depths: 8 to learn from, 1 held out of them, 4 to report.
fn draw(folder: &Path) {
    use png::{BitDepth, ColorType};
    for number in 0..12 {
        let part = if number < 8 { "train" } else { "test" };
        let kinds = kinds(number);
        let rgb: Vec<u8> = kinds.iter().flat_map(|&kind| COLOURS[kind]).collect();
        let mask: Vec<u8> = kinds.iter().map(|&kind| kind as u8).collect();
        let millimetres = kinds.iter().map(|&kind| [1500u16, 4000][kind]);
        let depth: Vec<u8> = millimetres.flat_map(u16::to_be_bytes).collect();
        let path = |place: &str| folder.join(place).join(format!("{number:02}.png"));
        let eight = BitDepth::Eight;
        write_png(
            &path(&format!("seg/images/{part}")),
            ColorType::Rgb,
            eight,
            &rgb,
        );
        write_png(
            &path(&format!("seg/masks/{part}")),
            ColorType::Grayscale,
            eight,
            &mask,
        );
        write_png(
            &path(&format!("rgbd/{part}/rgb")),
            ColorType::Rgb,
            eight,
            &rgb,
        );
        let sixteen = BitDepth::Sixteen;
        write_png(
            &path(&format!("rgbd/{part}/depth")),
            ColorType::Grayscale,
            sixteen,
            &depth,
        );
    }
    std::fs::write(folder.join("seg/classes.txt"), "red\nblue\n").unwrap();
}

fn colours() -> PixelSource {
    let canvas = Canvas {
        size: Size::from(Extent::new(128, 128)),
        fit: Fit::Squash,
        resample: Resample::Filter(Filter::Bicubic),
        window: None,
    };
    PixelSource::new(PixelFeature::Colour, canvas)
}

fn run(task: &dyn Task, mut candidate: Candidate) -> Result<Vec<Item>, EvalError> {
    let mut run = Run {
        journal: Journal::in_memory(),
        watch: &mut |_| true,
    };
    task.evaluate(&mut candidate, &mut run)
}

fn on_colours(task: &dyn Task) -> Vec<Item> {
    let candidate = Candidate::Features {
        source: &mut colours(),
        taps: vec![PixelSource::TAP.to_owned()],
    };
    run(task, candidate).unwrap()
}

fn on_floor(task: &dyn Task, floor: &'static str) -> Vec<Item> {
    run(task, Candidate::Floor(floor)).unwrap()
}

fn figure(task: &dyn Task, place: usize, items: &[Item]) -> f64 {
    task.schema().figures[place].value(items)
}

#[test]
fn colours_tell_classes_and_positions_do_not() {
    let folder = tempfile::tempdir().unwrap();
    draw(folder.path());
    let set = || MaskSet::open(&folder.path().join("seg"), MaskOptions::default()).unwrap();
    let task = Segmentation::new(set(), Probing::default(), "");
    let items = on_colours(&task);
    let (probe, floor) = (
        figure(&task, 0, &items),
        figure(&task, 0, &on_floor(&task, CLASS_PER_POSITION)),
    );
    // Cells of 4 pixels of the picture lie within its squares.
    assert_eq!(probe, 1.0);
    assert!(floor < 0.8, "{floor}");
    // A picture, its mask in colours, and what was found: here the same.
    let mut source = colours();
    let mut candidate = Candidate::Features {
        source: &mut source,
        taps: vec![PixelSource::TAP.to_owned()],
    };
    let case = task.cases(&[items[0].id.as_str()], &mut candidate).unwrap();
    let pictures: Vec<_> = case[0].panels.iter().map(|(picture, _)| picture).collect();
    assert_eq!(pictures.len(), 3);
    assert_eq!(pictures[1], pictures[2]);
    assert_ne!(pictures[0], pictures[1]);

    assert_eq!(task.schema().independent, "blocks of 5 frames");
    let words = task.schema().descriptive.as_deref();
    assert_eq!(
        words,
        Some("all frames that are reported come from one sequence")
    );
}

#[test]
fn colours_tell_depths_and_a_saved_probe_does_the_same() {
    let folder = tempfile::tempdir().unwrap();
    draw(folder.path());
    let set = || DepthSet::open(&folder.path().join("rgbd"), None).unwrap();
    let probes = folder.path().join("probes");
    let probing = Probing {
        save: Some(probes.clone()),
        ..Probing::default()
    };
    let task = Depth::new(set(), probing, "");
    let items = on_colours(&task);
    let (rmse, floor) = (
        figure(&task, 0, &items),
        figure(&task, 0, &on_floor(&task, MEAN_DEPTH)),
    );
    // Depths are blended over the borders of squares: 2.5 m within half a cell of 4 pixels.
    assert!(rmse < 0.5 && floor > 0.8, "{rmse} {floor}");

    let saved: Vec<PathBuf> = std::fs::read_dir(&probes)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(saved.len(), 1);
    // The same again takes what is there; another seed trains anew.
    let trained = saved[0].metadata().unwrap().modified().unwrap();
    let again = |seed: u64| {
        let probing = Probing {
            seed,
            save: Some(probes.clone()),
            ..Probing::default()
        };
        on_colours(&Depth::new(set(), probing, ""))
    };
    assert_eq!(again(0), items);
    assert_eq!(saved[0].metadata().unwrap().modified().unwrap(), trained);
    again(1);
    assert_eq!(std::fs::read_dir(&probes).unwrap().count(), 2);
    let loaded = Probing {
        load: Some(saved[0].clone()),
        ..Probing::default()
    };
    let task = Depth::new(set(), loaded, "");
    assert_eq!(task.images().len(), 4);
    assert_eq!(on_colours(&task), items);
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let folder = tempfile::tempdir().unwrap();
    draw(folder.path());
    let items = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let set = DepthSet::open(&folder.path().join("rgbd"), None).unwrap();
            on_colours(&Depth::new(set, Probing::default(), ""))
        })
    };
    assert_eq!(items(1), items(3));
}

#[test]
fn a_stopped_run_goes_on_with_the_same_items() {
    let folder = tempfile::tempdir().unwrap();
    draw(folder.path());
    let set = MaskSet::open(&folder.path().join("seg"), MaskOptions::default()).unwrap();
    let task = Segmentation::new(set, Probing::default(), "");
    let journal = || Journal::open(&folder.path().join("items.jsonl"), &task.settings()).unwrap();
    let mut source = colours();
    let mut candidate = Candidate::Features {
        source: &mut source,
        taps: vec![PixelSource::TAP.to_owned()],
    };
    let mut first = Run {
        journal: journal(),
        watch: &mut |progress| progress.done < 2,
    };
    let stopped = task.evaluate(&mut candidate, &mut first);
    assert!(matches!(stopped, Err(EvalError::Stopped)));
    assert_eq!(first.journal.len(), 2);
    drop(first);
    let mut second = Run {
        journal: journal(),
        watch: &mut |_| true,
    };
    let items = task.evaluate(&mut candidate, &mut second).unwrap();
    assert_eq!(items, on_colours(&task));
}

#[test]
fn several_taps_and_foreign_probes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    draw(folder.path());
    let set = || DepthSet::open(&folder.path().join("rgbd"), None).unwrap();
    let candidate = Candidate::Features {
        source: &mut colours(),
        taps: vec!["us5".to_owned(), "us6".to_owned()],
    };
    let task = Depth::new(set(), Probing::default(), "");
    let error = run(&task, candidate).unwrap_err().to_string();
    assert!(
        error.contains("a dense task reads one tap, not 2"),
        "{error}"
    );

    let path = folder.path().join("probe.safetensors");
    let probe = cleandift::eval::probes::LinearProbe {
        outputs: 256,
        inputs: 1280,
        weight: vec![0.0; 256 * 1280],
        bias: vec![0.0; 256],
    };
    probe.save(&path, &Default::default()).unwrap();
    let probing = Probing {
        load: Some(path),
        ..Probing::default()
    };
    let candidate = Candidate::Features {
        source: &mut colours(),
        taps: vec![PixelSource::TAP.to_owned()],
    };
    let error = run(&Depth::new(set(), probing, ""), candidate)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("takes 1280 channels, the features have 3"),
        "{error}"
    );
}

/// The folder of larger data, if there is one.
fn data(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("CLEANDIFT_TESTDATA").map(|data| Path::new(&data).join(name));
    let found = folder.filter(|folder| folder.is_dir());
    if found.is_none() {
        eprintln!("skipped: CLEANDIFT_TESTDATA has no {name}");
    }
    found
}

fn close(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() < 5e-5,
        "{found}, expected {expected}"
    );
}

/// Counts are those of the data's description; the floors' figures were computed from the same
/// files by `scripts/dense_floors.py`.
#[test]
fn real_data_open_and_their_floors_are_those_of_numpy() {
    if let Some(folder) = data("davis-240") {
        let sequences = davis::open(&folder, "val").unwrap();
        let frames: Vec<usize> = sequences.iter().map(|s| s.frames.len()).collect();
        assert_eq!(frames, [30, 30, 30]);
        let task = Video::new(sequences, "val", Propagation::DIFT, "");
        let items = on_floor(&task, SAME_POSITION);
        close(figure(&task, 0, &items), 0.50643);
        close(figure(&task, 1, &items), 0.58872);
    }
    if let Some(folder) = data("voc2012-mini") {
        let set = MaskSet::open(&folder, MaskOptions::default()).unwrap();
        let split = &set.split;
        assert_eq!(split.train.len() + split.validation.len(), 106);
        assert_eq!((split.test.len(), set.classes.len()), (54, 21));
        let task = Segmentation::new(set, Probing::default(), "");
        let items = on_floor(&task, CLASS_PER_POSITION);
        close(figure(&task, 0, &items), 0.03610);
        close(figure(&task, 1, &items), 0.58821);
    }
    if let Some(folder) = data("camvid-240") {
        let set = MaskSet::open(&folder, MaskOptions::default()).unwrap();
        let split = &set.split;
        let counts = [split.train.len(), split.validation.len(), split.test.len()];
        assert_eq!(
            (counts, set.classes.len(), set.void),
            ([50, 15, 25], 11, Some(11))
        );
        set.split
            .all()
            .for_each(|masked| drop(set.labels(masked).unwrap()));
    }
    if let Some(folder) = data("rgbd") {
        let set = DepthSet::open(&folder, None).unwrap();
        let split = &set.split;
        let counts = [split.train.len(), split.validation.len(), split.test.len()];
        assert_eq!(counts, [100, 18, 50]);
        let task = Depth::new(set, Probing::default(), "");
        close(figure(&task, 0, &on_floor(&task, MEAN_DEPTH)), 1.43635);
        assert!(task.schema().descriptive.is_some());
    }
}

#[test]
fn real_archives_of_classified_pictures_open() {
    for (name, classes, learn, ask) in [
        ("tiny-imagenet-64", 100, 28_000, 1000),
        ("photos-128", 0, 2950, 330),
    ] {
        let Some(folder) = data(name) else { continue };
        let set = ClassSet::open(&folder).unwrap();
        assert!(classes == 0 || set.classes.len() == classes);
        let split = &set.split;
        assert_eq!(split.train.len() + split.validation.len(), learn);
        assert_eq!(split.test.len(), ask);
        let picture = split.test[0].image.open().unwrap();
        assert!(picture.extent().width >= 64);
        let classifier = Classifier::Neighbours {
            ks: vec![10],
            vote: Vote::Equal,
        };
        // Colours alone tell a little more than chance.
        if name == "photos-128" {
            let task = Classification::new(set, classifier, "");
            let items = on_colours(&task);
            let floor = on_floor(&task, cleandift::eval::classification::MOST_FREQUENT);
            let [colours, floor] = [&items, &floor].map(|items| figure(&task, 0, items));
            assert!(colours > floor, "{colours} {floor}");
        }
    }
}
