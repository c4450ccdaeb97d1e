//! Pictures to learn from as they are shipped: WebDataset archives with classes and with captions,
//! if `CLEANDIFT_TESTDATA` names a folder of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cleandift::image::Extent;
use cleandift::train::data::{Augmentation, Batches, Classes, Dataset, Settings};

fn folder(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("CLEANDIFT_TESTDATA").map(|data| Path::new(&data).join(name));
    let found = folder.filter(|folder| folder.is_dir());
    if found.is_none() {
        eprintln!("skipped: CLEANDIFT_TESTDATA has no {name}");
    }
    found
}

/// Counts are those that the data's own description gives.
#[test]
fn classified_archives() {
    let Some(folder) = folder("data/tiny-imagenet-64") else {
        return;
    };
    let begun = Instant::now();
    let dataset = Dataset::open(&[folder.join("train-*.tar")]).unwrap();
    assert_eq!((dataset.len(), dataset.damage().len()), (28_000, 0));
    let opened = begun.elapsed();
    let classes = Classes::open(&folder.join("classes.tsv")).unwrap();
    assert_eq!(classes.names().len(), 100);
    assert_eq!(
        Classes::of_names(&dataset).unwrap().names().len(),
        classes.names().len()
    );
    let dataset = dataset.classified(&classes).unwrap();
    let settings = Settings {
        batch: 64,
        first: 28_000 - 64,
        seed: 0,
        augmentation: Augmentation {
            crop: Some((0.5, 1.0)),
            flip: true,
            ..Augmentation::none(Extent::new(64, 64))
        },
    };
    let begun = Instant::now();
    for batch in Batches::new(Arc::new(dataset), settings).take(16) {
        let batch = batch.unwrap();
        assert!(batch.skipped.is_empty());
        let known = |caption: &Option<String>| classes.row(caption.as_deref().unwrap()).is_some();
        assert!(batch.samples.iter().all(|sample| known(&sample.caption)));
    }
    let rate = 1024.0 / begun.elapsed().as_secs_f64();
    eprintln!("28,000 pictures found in {opened:?}, {rate:.0} a second decoded and cut");
}

#[test]
fn captioned_archives() {
    let Some(folder) = folder("data/photos-128") else {
        return;
    };
    let dataset = Dataset::open(&[folder.join("train-*.tar")]).unwrap();
    assert_eq!(dataset.len(), 2950);
    dataset.require_captions().unwrap();
    for index in (0..dataset.len()).step_by(100) {
        let example = dataset.load(index).unwrap();
        assert_eq!(example.picture.extent(), Extent::new(128, 128));
        assert!(example.caption.unwrap().starts_with("a photo of a"));
    }
}
