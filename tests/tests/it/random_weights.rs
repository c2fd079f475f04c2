//! The pretrained weights matter: the same matrix with random ones scores lower.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use datasets::Part;
use end_to_end::{root, xtask};
use image_prep::{Filter, IMAGENET_MEAN, IMAGENET_STD, Preprocess};
use serde_json::Value;
use vit_backbone::{LoadOptions, NameScheme, Outputs, Vit};

const PRETRAINED: &str = "\"dinov2-small-b9\"";

fn pretrained() -> Vit {
    Vit::load("dinov2-small-b9", &LoadOptions::default()).unwrap()
}

/// The embedded backbone's configuration with random weights.
fn random() -> Vit {
    let mut stream = random_streams::Streams::new(0).stream("random-weights");
    Vit::random(pretrained().config().clone(), &mut stream, &Device::Cpu).unwrap()
}

/// Length-1 class tokens of the first `per_class` images of each class of a part of the sample, and their classes.
fn class_tokens(vit: &Vit, part: Part, per_class: usize) -> Vec<(usize, Vec<f32>)> {
    const SIZE: usize = 56;
    let set = datasets::open("fashion-mnist-sample", None).unwrap();
    let prepare = Preprocess::square(SIZE, Filter::Bilinear, IMAGENET_MEAN, IMAGENET_STD);
    let of_class = |class| {
        let items = set.items().iter().enumerate();
        items.filter(move |(_, i)| i.part == part && i.class == class).map(|(at, _)| at).take(per_class)
    };
    let mut tokens = Vec::new();
    for class in 0..set.classes().len() {
        let images: Vec<f32> =
            of_class(class).flat_map(|at| prepare.apply(&set.image(at).unwrap()).unwrap().data).collect();
        let images = Tensor::from_vec(images, (per_class, 3, SIZE, SIZE), &Device::Cpu).unwrap();
        let norm = vit.forward(&images, &Outputs::norm()).unwrap().norm.unwrap();
        for token in norm.narrow(1, 0, 1).unwrap().squeeze(1).unwrap().to_vec2::<f32>().unwrap() {
            let length = token.iter().map(|v| v * v).sum::<f32>().sqrt();
            tokens.push((class, token.iter().map(|v| v / length).collect()));
        }
    }
    tokens
}

/// Nearest-neighbour AUROC on class tokens, each class in turn the normal one, in the mean.
fn nearest_neighbour_auroc(vit: &Vit) -> f64 {
    let (train, test) = (class_tokens(vit, Part::Train, 40), class_tokens(vit, Part::Test, 20));
    let auroc = |normal: usize| {
        let score = |token: &Vec<f32>| {
            let cosines = train.iter().filter(|(class, _)| *class == normal).map(|(_, other)| {
                token.iter().zip(other).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
            });
            -cosines.fold(f64::NEG_INFINITY, f64::max)
        };
        let scores: Vec<f64> = test.iter().map(|(_, token)| score(token)).collect();
        let anomalous: Vec<bool> = test.iter().map(|(class, _)| *class != normal).collect();
        metrics::auroc(&scores, &anomalous).unwrap()
    };
    (0..10).map(auroc).sum::<f64>() / 10.0
}

#[test]
fn a_random_backbone_tells_classes_apart_less_well() {
    let (pretrained, random) = (nearest_neighbour_auroc(&pretrained()), nearest_neighbour_auroc(&random()));
    assert!(pretrained >= random + 0.05, "{pretrained:.4} pretrained, {random:.4} random");
}

/// A checkpoint of the random weights.
fn write_random(folder: &Path) {
    let random = random();
    let tensors: HashMap<String, _> =
        random.file_tensors(NameScheme::HfDinov2).unwrap().into_iter().collect();
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    std::fs::copy(root().join("assets/dinov2-small-b9/config.json"), folder.join("config.json")).unwrap();
}

/// The mean image AUROC over all cells of `profile` that use a backbone.
fn mean_auroc(profile: &str, folder: &Path) -> f64 {
    let path = folder.join("profile.toml");
    std::fs::write(&path, profile).unwrap();
    let out = folder.join("out");
    let mut command = xtask();
    command.arg("reproduce").arg("--profile").arg(&path).arg("--out").arg(&out).args(["--device", "cpu"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cells: Vec<Value> =
        serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap();
    let aurocs: Vec<f64> = cells
        .iter()
        .filter(|cell| cell["backbone"].is_string())
        .map(|cell| cell["results"]["last"]["image_auroc"].as_f64().unwrap())
        .collect();
    assert!(aurocs.len() >= 4, "{aurocs:?}");
    aurocs.iter().sum::<f64>() / aurocs.len() as f64
}

/// The quick matrix twice.
#[test]
#[ignore = "takes minutes; .ci/extended runs it"]
fn a_random_backbone_scores_lower_in_the_quick_matrix() {
    let profile = std::fs::read_to_string(root().join("matrix/quick.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (weights, pretrained, random) =
        (folder.path().join("weights"), folder.path().join("pretrained"), folder.path().join("random"));
    for new in [&weights, &pretrained, &random] {
        std::fs::create_dir(new).unwrap();
    }
    write_random(&weights);
    let with_random = profile.replace(PRETRAINED, &format!("{:?}", weights.to_str().unwrap()));
    assert_ne!(with_random, profile);
    let pretrained = mean_auroc(&profile, &pretrained);
    let random = mean_auroc(&with_random, &random);
    assert!(pretrained >= random + 0.05, "{pretrained:.4} pretrained, {random:.4} random");
}
