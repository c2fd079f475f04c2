//! From files to batches and truth, as a harness goes.
#![allow(clippy::unwrap_used)]

#[path = "trees/trees.rs"]
mod trees;

use std::path::Path;
use std::sync::Arc;

use anomaly_core::{
    ContentKey, EpochPlan, EvalSpec, MaskRule, Order, Resolution, Sample, Streams, TrainingData,
};
use datasets::{Dataset, Protocol, Split, SplitOptions, TestSet, TrainingSet};
use image::{GrayImage, Luma, Rgb, RgbImage};
use image_prep::{Crop, Filter, Preprocess};

fn save(path: &Path, image: impl FnOnce() -> image::DynamicImage) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    image().save(path).unwrap();
}

/// One category, 16 x 12 images; the defect is the top left quarter, given as two masks.
fn industrial(root: &Path) {
    for (folder, count) in [("train/good", 6), ("test/good", 2), ("test/cut", 3)] {
        for number in 0..count {
            let level = (40 * number) as u8;
            save(&root.join(format!("nut/{folder}/{number}.png")), || {
                RgbImage::from_pixel(16, 12, Rgb([level, 0, 255])).into()
            });
        }
    }
    for number in 0..3 {
        for half in 0..2 {
            save(&root.join(format!("nut/ground_truth/cut/{number}/{half}.png")), || {
                let inside = |x: u32, y: u32| x < 8 && y < 6 && (x < 4) == (half == 0);
                GrayImage::from_fn(16, 12, |x, y| Luma([if inside(x, y) { 200 + half } else { 0 }])).into()
            });
        }
    }
}

fn preprocess() -> Preprocess {
    Preprocess::square(8, Filter::Bilinear, [0.0; 3], [1.0; 3])
}

fn opened(root: &Path) -> (Arc<dyn Dataset>, Split) {
    let dataset: Arc<dyn Dataset> = datasets::open("mvtec", Some(root)).unwrap().into();
    let split = Split::new(&*dataset, Protocol::ClassSeparated, "nut", &SplitOptions::default()).unwrap();
    (dataset, split)
}

#[test]
fn a_fit_gets_pixels_keys_and_epochs() {
    let root = tempfile::tempdir().unwrap();
    industrial(root.path());
    let (dataset, split) = opened(root.path());
    let normals = TrainingSet::new(dataset, split.train, preprocess()).unwrap();
    assert_eq!(normals.len(), 6);
    let images = normals.get(&[5, 1]).unwrap();
    assert_eq!(images.ids(), ["nut/train/good/5.png", "nut/train/good/1.png"]);
    let red = images.pixels().narrow(1, 0, 1).unwrap().flatten_from(1).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!((red[0][0], red[1][63]), (200.0 / 255.0, 40.0 / 255.0));
    let pixels = [80, 0, 255].repeat(16 * 12);
    assert_eq!(normals.key(2).unwrap(), ContentKey::of_pixels(12, 16, &pixels));
    assert_eq!(normals.fingerprint().unwrap().images, 6);

    let mut stream = Streams::new(3).stream("shuffle");
    let mut epoch = |order| {
        let plan = EpochPlan { sample: Sample::All, order, batch: 4, drop_last: false, stream: &mut stream };
        let batches: Vec<_> = normals.epoch(plan).map(Result::unwrap).collect();
        for batch in &batches {
            let ids: Vec<_> = batch.indices.iter().map(|i| format!("nut/train/good/{i}.png")).collect();
            assert_eq!(batch.images.ids(), ids);
        }
        batches.iter().map(|batch| batch.indices.clone()).collect::<Vec<_>>().concat()
    };
    assert_eq!(epoch(Order::InOrder), [0, 1, 2, 3, 4, 5]);
    let (first, second) = (epoch(Order::Shuffled), epoch(Order::Shuffled));
    assert_ne!(first, second);
    assert_eq!(first.len(), 6);
}

#[test]
fn the_harness_gets_the_truth_at_the_resolution_it_asks_for() {
    let root = tempfile::tempdir().unwrap();
    industrial(root.path());
    let (dataset, split) = opened(root.path());
    let cropped = preprocess().with_crop(Crop::square(6));
    let test = TestSet::new(dataset, &split, cropped).unwrap();
    let truth = test.truth();
    assert_eq!(truth.anomalous(), [true, true, true, false, false]);
    assert_eq!((truth.id(0), truth.kind(0), truth.kind(4)), ("nut/test/cut/0.png", "cut", "nut"));
    let sizes: Vec<_> = test.batches(2).map(|batch| batch.unwrap().len()).collect();
    assert_eq!(sizes, [2, 2, 1]);

    assert!(truth.has_masks());
    let stored = truth.stored_masks(0).unwrap();
    assert_eq!((stored.len(), stored[0].data[0], stored[1].data[4]), (2, 200, 201));
    let original = truth.mask(0, &EvalSpec::default()).unwrap();
    assert_eq!((original.height, original.width), (12, 16));
    assert_eq!(original.area(), 8 * 6);
    assert!(original.data.iter().all(|&v| v <= 1));
    let network = EvalSpec { resolution: Resolution::Network, ..EvalSpec::default() };
    let seen = truth.mask(0, &network).unwrap();
    // A quarter of 8 x 8 is 4 x 4, of which the crop leaves 3 x 3.
    assert_eq!((seen.height, seen.width, seen.area()), (6, 6, 9));
    let grown = truth.mask(0, &EvalSpec { mask: MaskRule::LanczosNonzero, ..network }).unwrap();
    assert!(grown.area() > 9);
    let normal = truth.mask(3, &network).unwrap();
    assert_eq!((normal.height, normal.any()), (6, false));
}

#[test]
fn an_image_that_breaks_later_is_named_by_its_path() {
    let root = tempfile::tempdir().unwrap();
    industrial(root.path());
    let (dataset, split) = opened(root.path());
    let before = split.fingerprint(&*dataset).unwrap();
    let path = root.path().join("nut/train/good/3.png");
    let whole = std::fs::read(&path).unwrap();
    // The header stays whole: only decoding finds this.
    std::fs::write(&path, &whole[..whole.len() - 30]).unwrap();
    let (dataset, split) = opened(root.path());
    assert_ne!(split.fingerprint(&*dataset).unwrap().content, before.content);
    let normals = TrainingSet::new(dataset, split.train, preprocess()).unwrap();
    let mut stream = Streams::new(0).stream("shuffle");
    let plan = EpochPlan {
        sample: Sample::All,
        order: Order::InOrder,
        batch: 2,
        drop_last: false,
        stream: &mut stream,
    };
    let results: Vec<_> = normals.epoch(plan).collect();
    assert_eq!((results.len(), results[2].is_ok()), (3, true));
    let message = results[1].as_ref().unwrap_err().to_string();
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    assert!(normals.key(3).unwrap_err().to_string().contains("3.png"));
}

#[test]
fn the_data_of_the_transformer_gan_are_as_its_case_says() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/anogan-trans/g13_preprocess_protocol.safetensors");
    let mut failures = Vec::new();
    let units = datasets::conformance_units();
    let summary = conformance::run_dir(&[&case], &units, false, &mut |line| {
        if !matches!(line.outcome, conformance::Outcome::Passed) {
            failures.push(line.to_string());
        }
    });
    assert_eq!((failures, summary.unwrap().passed), (Vec::<String>::new(), 1));
    let mut case = conformance::Case::load(&case).unwrap();
    case.config["crop"] = true.into();
    assert!((units[0].run)(&case).unwrap_err().to_string().contains("crop"));
}
