//! The embedded backbone's 8 bits, against the full-precision scores that its script wrote beside it.

use candle_core::{Device, Tensor};
use datasets::Part;
use end_to_end::root;
use image_prep::{Filter, IMAGENET_MEAN, IMAGENET_STD, Preprocess};
use serde::Deserialize;
use vit_backbone::{LoadOptions, Outputs, Vit};

#[derive(Deserialize)]
struct FullPrecision {
    image_size: usize,
    train_per_class: usize,
    neighbours: usize,
    test_label: Vec<usize>,
    results: Vec<OneClass>,
}

#[derive(Deserialize)]
struct OneClass {
    normal_class: usize,
    auroc: f64,
    scores: Vec<f64>,
}

/// Mean patch token of each item, of length 1, in f64.
fn features(vit: &Vit, set: &dyn datasets::Dataset, items: &[usize], size: usize) -> Vec<Vec<f64>> {
    let prepare = Preprocess::square(size, Filter::Bilinear, IMAGENET_MEAN, IMAGENET_STD);
    let mut all = Vec::new();
    for batch in items.chunks(50) {
        let pixels: Vec<f32> =
            batch.iter().flat_map(|&item| prepare.apply(&set.image(item).unwrap()).unwrap().data).collect();
        let pixels = Tensor::from_vec(pixels, (batch.len(), 3, size, size), &Device::Cpu).unwrap();
        let out = vit.forward(&pixels, &Outputs::norm()).unwrap();
        let mean = out.patches(out.norm.as_ref().unwrap()).unwrap().mean(1).unwrap();
        for row in mean.to_vec2::<f32>().unwrap() {
            let row: Vec<f64> = row.into_iter().map(f64::from).collect();
            let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            all.push(row.into_iter().map(|v| v / length).collect());
        }
    }
    all
}

#[test]
fn quantised_backbone_keeps_the_auroc() {
    let path = root().join("assets/dinov2-small-b9/full-precision-scores.json");
    let full: FullPrecision = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let vit = Vit::load("dinov2-small-b9", &LoadOptions::default()).unwrap();
    let set = datasets::open("fashion-mnist-sample", None).unwrap();
    let of_class = |part: Part, class: usize, count: usize| -> Vec<usize> {
        let items = set.items().iter().enumerate();
        items.filter(|(_, i)| i.part == part && i.class == class).map(|(i, _)| i).take(count).collect()
    };
    let per_class = full.test_label.len() / 10;
    let tests: Vec<usize> = (0..10).flat_map(|class| of_class(Part::Test, class, per_class)).collect();
    let labels: Vec<usize> = tests.iter().map(|&i| set.items()[i].class).collect();
    assert_eq!(labels, full.test_label);
    let tests = features(&vit, set.as_ref(), &tests, full.image_size);
    assert!(!full.results.is_empty());
    for one in &full.results {
        let train = of_class(Part::Train, one.normal_class, full.train_per_class);
        let train = features(&vit, set.as_ref(), &train, full.image_size);
        let scores: Vec<f64> = tests
            .iter()
            .map(|test| {
                let distance = |t: &Vec<f64>| 1.0 - t.iter().zip(test).map(|(a, b)| a * b).sum::<f64>();
                let mut distances: Vec<f64> = train.iter().map(distance).collect();
                distances.sort_by(f64::total_cmp);
                distances[..full.neighbours].iter().sum::<f64>() / full.neighbours as f64
            })
            .collect();
        let anomalous: Vec<bool> = labels.iter().map(|&class| class != one.normal_class).collect();
        // What was written beside the scores, to six digits, is what they give: the comparison is with real scores.
        assert!((metrics::auroc(&one.scores, &anomalous).unwrap() - one.auroc).abs() < 1e-6);
        let auroc = metrics::auroc(&scores, &anomalous).unwrap();
        let off = (auroc - one.auroc).abs();
        assert!(
            off <= 0.002,
            "class {}: {auroc} in 8 bits, {} in full precision",
            one.normal_class,
            one.auroc
        );
    }
}
