//! The arithmetic of the dense evaluations against public implementations on the same arrays:
//! `golden/eval`, made by `scripts/make_eval_dense_golden.py`.

mod common;

use std::sync::Arc;

use cleandift::checkpoint::Weights;
use cleandift::eval::datasets::classes::ClassSet;
use cleandift::eval::datasets::depths::DepthSet;
use cleandift::eval::dense::{DepthMap, LabelMap, bilinear_at_pixels, nearest_at_pixels};
use cleandift::eval::metrics::confusion::Confusion;
use cleandift::eval::metrics::depth::{DepthErrors, DepthRange};
use cleandift::eval::metrics::video::{boundary_accuracy, region_similarity};
use cleandift::eval::probes::{
    CrossEntropy, DepthBins, LogisticRegression, Neighbours, Objective, Propagation, Vote,
    propagate,
};
use cleandift::features::FeatureMap;
use cleandift::graph::Parameters;
use cleandift::image::{Extent, Frame};
use cleandift_kernels::Kernels;

fn golden() -> Arc<Weights> {
    common::tensors(&common::golden("eval/dense.safetensors"))
}

fn read(weights: &Weights, name: &str) -> Vec<f32> {
    weights
        .read(name)
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn places(weights: &Weights, name: &str) -> Vec<usize> {
    read(weights, name)
        .into_iter()
        .map(|value| value as usize)
        .collect()
}

fn labels(weights: &Weights, name: &str) -> Vec<u8> {
    read(weights, name)
        .into_iter()
        .map(|value| value as u8)
        .collect()
}

fn near(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= tolerance,
            "{index}: {found} {expected}"
        );
    }
}

#[test]
fn neighbours_are_those_of_scikit_learn() {
    let golden = golden();
    let (train, test) = (read(&golden, "knn/train"), read(&golden, "knn/test"));
    for kernels in Kernels::all() {
        let known = places(&golden, "knn/classes");
        let neighbours = Neighbours::new(kernels, &train, known, 6);
        let ks = [1, 5, 10, 20];
        for (k, found) in ks.iter().zip(neighbours.classify(&test, &ks, Vote::Equal)) {
            assert_eq!(found, places(&golden, &format!("knn/equal_{k}")), "k = {k}");
        }
        let vote = Vote::Weighted { temperature: 0.07 };
        let found = neighbours.classify(&test, &[10], vote).remove(0);
        assert_eq!(found, places(&golden, "knn/weighted_10"));
    }
}

/// scikit-learn's optimum to ten digits; ours is limited by products in f32.
#[test]
fn logistic_regression_finds_the_optimum_of_scikit_learn() {
    let golden = golden();
    let rows = read(&golden, "logistic/rows");
    let classes = places(&golden, "logistic/classes");
    let solver = LogisticRegression {
        iterations: 1000,
        tolerance: 1e-6,
        ..LogisticRegression::new(0.5)
    };
    let probe = solver.fit(Kernels::best(), &rows, &classes, 4);
    near(&probe.weight, &read(&golden, "logistic/weight"), 1e-3);
    let logits = probe.logits(Kernels::best(), &rows);
    let probabilities: Vec<f32> = logits
        .chunks_exact(4)
        .flat_map(|row| {
            let sum: f32 = row.iter().map(|logit| logit.exp()).sum();
            row.iter().map(move |logit| logit.exp() / sum)
        })
        .collect();
    near(
        &probabilities,
        &read(&golden, "logistic/probabilities"),
        1e-4,
    );
}

#[test]
fn intersection_over_union_is_scikit_learns() {
    let golden = golden();
    let (truth, found) = (labels(&golden, "iou/truth"), labels(&golden, "iou/found"));
    let overlaps = Confusion::count(5, &truth, &found).overlaps();
    let ratios: Vec<f32> = overlaps.iter().map(|o| o.ratio().unwrap() as f32).collect();
    near(&ratios, &read(&golden, "iou/classes"), 1e-7);
    let mean = ratios.iter().sum::<f32>() / ratios.len() as f32;
    near(&[mean], &read(&golden, "iou/mean"), 1e-7);
}

#[test]
fn regions_and_boundaries_are_measured_as_davis_does() {
    let golden = golden();
    let shape = golden.shape("davis/truth").unwrap().to_vec();
    let extent = Extent::new(shape[2], shape[1]);
    let masks = |name: &str| -> Vec<bool> {
        read(&golden, name)
            .into_iter()
            .map(|value| value > 0.5)
            .collect()
    };
    let (truths, founds) = (masks("davis/truth"), masks("davis/found"));
    let measures = read(&golden, "davis/measures");
    let pixels = extent.width * extent.height;
    let pairs = truths.chunks_exact(pixels).zip(founds.chunks_exact(pixels));
    let found: Vec<f32> = pairs
        .flat_map(|(truth, found)| {
            let region = region_similarity(found, truth);
            [
                region as f32,
                boundary_accuracy(found, truth, extent) as f32,
            ]
        })
        .collect();
    near(&found, &measures, 1e-6);
    // The first pair is equal, the prediction of the last one is empty.
    assert_eq!((measures[0], measures[8]), (1.0, 0.0));
}

#[test]
fn depth_errors_are_numpys() {
    let golden = golden();
    let (truth, found) = (read(&golden, "depth/truth"), read(&golden, "depth/found"));
    let extent = Extent::new(50, 40);
    let errors = DepthErrors::compare(&found, &truth, extent, &DepthRange::INDOOR).unwrap();
    let found = [errors.rmse, errors.abs_rel, errors.log10];
    let found: Vec<f32> = found
        .into_iter()
        .chain(errors.delta)
        .map(|e| e as f32)
        .collect();
    near(&found, &read(&golden, "depth/errors"), 1e-6);
}

/// The gradients are f32 roundings of f64 arithmetic on both sides.
#[test]
fn losses_and_gradients_are_pytorchs() {
    let golden = golden();
    let bins = DepthBins::published();
    let (logits, target) = (read(&golden, "sig/logits"), read(&golden, "sig/target"));
    near(&bins.depths(&logits), &read(&golden, "sig/depths"), 1e-6);
    for (step, name) in [(100, "full"), (99, "warm")] {
        let (loss, gradient) = bins.loss(step, &logits, &target);
        near(&[loss as f32], &read(&golden, &format!("sig/{name}")), 1e-6);
        near(
            &gradient,
            &read(&golden, &format!("sig/{name}_gradient")),
            1e-8,
        );
    }
    let (logits, classes) = (
        read(&golden, "entropy/logits"),
        labels(&golden, "entropy/classes"),
    );
    let (loss, gradient) = CrossEntropy::new(7).loss(0, &logits, &classes);
    near(&[loss as f32], &read(&golden, "entropy/loss"), 1e-6);
    near(&gradient, &read(&golden, "entropy/gradient"), 1e-7);
}

#[test]
fn maps_are_resized_as_pytorch_does() {
    let golden = golden();
    let (cells, picture) = (Extent::new(9, 6), Extent::new(50, 31));
    let frame = Frame::squash(picture, Extent::new(72, 48));
    let values = read(&golden, "resize/cells");
    let found = bilinear_at_pixels(&values, cells, &frame);
    near(&found, &read(&golden, "resize/bilinear"), 1e-6);
    let found = nearest_at_pixels(&values, cells, &frame);
    assert_eq!(found, read(&golden, "resize/nearest"));

    let picture = Extent::new(53, 37);
    let frame = Frame::squash(picture, Extent::new(72, 48));
    let pixels = read(&golden, "resize/pixels");
    let depths = DepthMap::new(picture, pixels.clone()).at_cells(&frame, cells);
    near(&depths, &read(&golden, "resize/shrunk"), 1e-6);
    // Labels that name a pixel's column, then its row.
    let nearest = read(&golden, "resize/shrunk_nearest");
    let names: [fn(usize) -> u8; 2] = [|pixel| (pixel % 53) as u8, |pixel| (pixel / 53) as u8];
    for name in names {
        let labels = LabelMap::new(picture, (0..53 * 37).map(name).collect());
        for (found, value) in labels.at_cells(&frame, cells).into_iter().zip(&nearest) {
            let pixel = pixels
                .iter()
                .position(|pixel| pixel == value)
                .expect("one of them");
            assert_eq!(found, name(pixel));
        }
    }
}

#[test]
fn masks_are_carried_on_as_in_dino() {
    let golden = golden();
    let shape = golden.shape("propagate/maps").unwrap().to_vec();
    let [frames, height, width, channels] = shape[..] else {
        panic!("{shape:?}")
    };
    let extent = Extent::new(width, height);
    let values = read(&golden, "propagate/maps");
    let first: Vec<f32> = places(&golden, "propagate/first")
        .into_iter()
        .flat_map(|object| (0..3).map(move |other| f32::from(u8::from(other == object))))
        .collect();
    let settings = Propagation {
        temperature: 0.2,
        top: 5,
        frames: 2,
        radius: 2,
    };
    let mut maps = values
        .chunks_exact(values.len() / frames)
        .map(|map| FeatureMap::new(extent, channels, map.to_vec()));
    let mut found = Vec::new();
    propagate::<()>(
        Kernels::best(),
        &settings,
        &first,
        3,
        || Ok(maps.next()),
        |shares| {
            found.extend_from_slice(shares);
            Ok(())
        },
    )
    .unwrap();
    near(&found, &read(&golden, "propagate/found"), 2e-5);
}

/// Three pictures as h5py and scipy write the official layout: the first and the third to learn
/// from, the second to ask about.
#[test]
fn the_labelled_set_of_nyu_opens() {
    let golden = golden();
    let set = DepthSet::open(&common::golden("eval/labelled"), None).unwrap();
    assert_eq!(set.layout, "NYU Depth v2, labelled");
    let ids = |part: &[cleandift::eval::datasets::depths::Measured]| -> Vec<String> {
        part.iter()
            .map(|measured| measured.image.id.clone())
            .collect()
    };
    assert_eq!(ids(&set.split.train), ["nyu_0001", "nyu_0003"]);
    assert_eq!(ids(&set.split.test), ["nyu_0002"]);
    let third = &set.split.train[1];
    let picture = third.image.open().unwrap();
    assert_eq!(picture.extent(), Extent::new(6, 4));
    // [picture, row, column, colour]
    let images = labels(&golden, "nyu/images");
    assert_eq!(picture.rgb(), &images[2 * 72..]);
    let depths = read(&golden, "nyu/depths");
    assert_eq!(third.depths().unwrap().metres(), &depths[2 * 24..]);

    let missing = DepthSet::open(&common::golden("eval"), None)
        .unwrap_err()
        .to_string();
    assert!(missing.contains("none of the known layouts"), "{missing}");
}

#[test]
fn the_files_of_fast_depth_open() {
    let golden = golden();
    let set = DepthSet::open(&common::golden("eval/fast-depth"), None).unwrap();
    let test = &set.split.test[0];
    assert_eq!(test.image.id, "val/official/00002");
    assert_eq!(
        test.image.open().unwrap().rgb(),
        &labels(&golden, "nyu/images")[72..144]
    );
    assert_eq!(
        test.depths().unwrap().metres(),
        &read(&golden, "nyu/depths")[24..48]
    );
}

#[test]
fn what_is_wrong_with_a_file_of_nyu_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        let to = folder.path().join(name);
        std::fs::copy(common::golden(&format!("eval/labelled/{name}")), to).unwrap();
    };
    copy("nyu_depth_v2_labeled.mat");
    let open = || DepthSet::open(folder.path(), None).unwrap_err().to_string();
    assert!(open().contains("splits.mat: is missing"), "{}", open());
    copy("splits.mat");
    let path = folder.path().join("nyu_depth_v2_labeled.mat");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..700]).unwrap();
    assert!(
        open().contains("nyu_depth_v2_labeled.mat: found"),
        "{}",
        open()
    );
}

#[test]
fn a_folder_of_no_known_layout_lists_what_is_known() {
    let error = ClassSet::open(&common::golden("eval"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("CIFAR-10"), "{error}");
}
