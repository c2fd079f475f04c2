//! The method as a whole: the numeric cases, and the checks that every method must pass.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use anomaly_core::{
    Cancellation, Criterion, Detector, DetectorReader, DetectorWriter, Event, FitContext, Images, Method,
    MethodError, Observer, Precision, Streams, TestMetric, TrainingData, ValidationImages, parse_config,
};
use candle_core::{DType, Device, Tensor};
use cnn_backbone::{BlockKind, ResNet, ResNetConfig};
use method_testkit::{Defect, InMemoryData, Resume, Scene, SeedUse, Suite, Texture, TinyVit};
use serde_json::{Value, json};
use simplenet::{Backbone, Config, Monitor, SimpleNet, SimpleNetDetector};

fn vit() -> Backbone {
    Backbone::from(TinyVit::default().build(&Device::Cpu).unwrap())
}

fn resnet() -> Backbone {
    let config = ResNetConfig { kind: BlockKind::Bottleneck, blocks: [1; 4], stem: 8, width: 8 };
    Backbone::from(ResNet::random(config, &mut Streams::new(0).stream("resnet"), &Device::Cpu).unwrap())
}

fn small() -> Value {
    json!({"image_size": 32, "epochs": 4, "batch_size": 8, "hidden_dim": 32, "learning_rate": 2e-3,
           "adaptor_learning_rate": 1e-3, "noise_std": 0.3, "smoothing_sigma": 1.0, "smoothing_radius": 2})
}

fn with(mut config: Value, more: Value) -> Value {
    if let (Value::Object(all), Value::Object(more)) = (&mut config, more) {
        all.extend(more);
    }
    config
}

const SCENE: Scene =
    Scene { texture: Texture::Weave, defect: Defect::OtherTexture, size: 32, training_images: 40 };

#[test]
fn all_numeric_cases_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/generalad");
    let mut failures = Vec::new();
    let mut passed = 0;
    let mut see = |line: &conformance::CaseLine| match &line.outcome {
        conformance::Outcome::Passed => passed += 1,
        conformance::Outcome::Failed(_) => failures.push(format!("{line:?}")),
        // Cases of other methods lie in the same folder.
        conformance::Outcome::Skipped(_) => {}
    };
    conformance::run_dir(&[folder], &simplenet::conformance_units(), true, &mut see).unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(passed >= 3, "{passed}");
}

fn suite(backbone: fn() -> Backbone, config: Value) -> Suite<'static> {
    let build = move |overrides: &Value| -> Result<Box<dyn Method>, MethodError> {
        let config: Config = parse_config(overrides)?;
        Ok(Box::new(SimpleNet::new(config, backbone())?))
    };
    let load = move |directory: &Path| -> Result<Box<dyn Detector>, MethodError> {
        let reader = DetectorReader::open(directory, &Device::Cpu)?;
        Ok(Box::new(SimpleNetDetector::load(&reader, backbone())?))
    };
    let mut suite = Suite::new("simplenet", build, load);
    suite.out_of_range =
        vec![("epochs", json!(0)), ("noise_std", json!(0)), ("layers", json!([9])), ("pool_size", json!(4))];
    suite.scene = SCENE;
    suite.reason = "places are judged one by one: textures that may shift, told apart by random features";
    suite.seed_use = SeedUse::Draws;
    suite.resume = Resume::FromCheckpoint;
    let gradients = config.clone();
    suite.config = config;
    suite.gradients = Some(Box::new(move || {
        let method = SimpleNet::new(parse_config(&gradients)?, backbone())?;
        let data = InMemoryData::new(&SCENE.training(), method.preprocess()).unwrap();
        simplenet::training_gradients(&method, &data.get(&[0, 1, 2])?)
    }));
    suite
}

#[test]
fn on_a_vision_transformer_it_passes_the_checks_of_every_method() {
    let config = with(small(), json!({"layers": [2, 3]}));
    if let Err(failures) = suite(vit, config).run_all() {
        panic!("{failures}");
    }
}

fn of_resnet(config: Value) -> Suite<'static> {
    let mut suite = suite(resnet, with(config, json!({"noise_std": 1.0, "epochs": 8})));
    suite.scene = Scene { texture: Texture::Part, ..SCENE };
    suite.reason = "random convolutions see edges and shades: what lies at a fixed place varies least; noise of their scale";
    suite
}

#[test]
fn on_a_residual_network_it_passes_the_checks_of_every_method() {
    let config = with(small(), json!({"layers": [1, 2], "discriminator_layers": 3}));
    if let Err(failures) = of_resnet(config).run_all() {
        panic!("{failures}");
    }
}

#[test]
fn with_batch_statistics_it_passes_them_too() {
    let config = with(small(), json!({"layers": [1, 2], "batch_statistics": true}));
    if let Err(failures) = of_resnet(config).run_all() {
        panic!("{failures}");
    }
}

fn prepared(overrides: Value, backbone: Backbone) -> (SimpleNet, InMemoryData) {
    let method = SimpleNet::new(parse_config(&with(small(), overrides)).unwrap(), backbone).unwrap();
    let data = InMemoryData::new(&SCENE.training(), method.preprocess()).unwrap();
    (method, data)
}

#[test]
fn the_map_is_of_the_input_s_size_and_highest_near_the_score_s_place() {
    let (method, mut data) = prepared(json!({}), vit());
    let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 5)).unwrap();
    let images = data.get(&[0, 1]).unwrap();
    let prediction = detector.score(&images).unwrap();
    let maps = prediction.maps.unwrap();
    assert_eq!((maps.height, maps.width, maps.data.len()), (32, 32, 2 * 32 * 32));
    for (score, index) in prediction.scores.iter().zip(0..) {
        let highest = maps.get(index).unwrap().iter().copied().fold(f32::MIN, f32::max);
        // Enlarging and smoothing take weighted means.
        assert!(f64::from(highest) <= score + 1e-5, "{highest} {score}");
    }
    let none = Tensor::zeros((0, 3, 32, 32), DType::F32, &Device::Cpu).unwrap();
    let none = detector.score(&Images::new(vec![], none).unwrap()).unwrap();
    assert!(none.scores.is_empty() && none.maps.unwrap().data.is_empty());
    let wrong = Tensor::zeros((1, 3, 24, 32), DType::F32, &Device::Cpu).unwrap();
    let message = detector.score(&Images::new(vec!["x".to_owned()], wrong).unwrap()).unwrap_err().to_string();
    assert!(message.contains("32 x 32") && message.contains("24 x 32"), "{message}");
}

#[test]
fn training_lowers_the_loss() {
    #[derive(Default)]
    struct Losses(std::sync::Mutex<Vec<f64>>);
    impl Observer for Losses {
        fn event(&self, event: &Event) {
            if let Event::Metric { value, .. } = event {
                self.0.lock().unwrap().push(*value);
            }
        }
    }
    for (overrides, backbone) in [(json!({"epochs": 8}), vit()), (json!({"epochs": 8}), resnet())] {
        let (method, mut data) = prepared(overrides, backbone);
        let losses = Arc::new(Losses::default());
        let mut context = FitContext::new(Device::Cpu, 5);
        context.observer = losses.clone();
        method.fit(&mut data, &mut context).unwrap();
        let losses = losses.0.lock().unwrap();
        assert!(losses.len() == 8 && losses[7] < 0.7 * losses[0], "{losses:?}");
    }
}

#[test]
fn features_are_computed_once_unless_the_batch_matters() {
    /// Counts how many images are read.
    struct Counting<'a>(&'a InMemoryData, std::sync::atomic::AtomicUsize);
    impl TrainingData for Counting<'_> {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn key(&self, index: usize) -> Result<anomaly_core::ContentKey, anomaly_core::DataError> {
            self.0.key(index)
        }
        fn get(&self, indices: &[usize]) -> Result<Images, anomaly_core::DataError> {
            self.1.fetch_add(indices.len(), std::sync::atomic::Ordering::Relaxed);
            self.0.get(indices)
        }
    }
    for (batch_statistics, reads) in [(false, 40), (true, 4 * 40)] {
        let (method, data) = prepared(json!({"batch_statistics": batch_statistics}), resnet());
        let mut counting = Counting(&data, 0.into());
        method.fit(&mut counting, &mut FitContext::new(Device::Cpu, 5)).unwrap();
        assert_eq!(counting.1.into_inner(), reads);
    }
}

#[test]
fn without_room_for_features_there_is_a_warning_and_the_same_detector() {
    #[derive(Default)]
    struct Warned(std::sync::Mutex<Vec<String>>);
    impl Observer for Warned {
        fn event(&self, event: &Event) {
            if let Event::Warning(text) = event {
                self.0.lock().unwrap().push(text.clone());
            }
        }
    }
    let fitted = |room| {
        let (method, mut data) = prepared(json!({"epochs": 2}), vit());
        let warned = Arc::new(Warned::default());
        let mut context = FitContext::new(Device::Cpu, 5);
        context.features = Arc::new(anomaly_core::MemoryFeatureStore::new(room));
        context.observer = warned.clone();
        let detector = method.fit(&mut data, &mut context).unwrap();
        let images = data.get(&[0, 1, 2]).unwrap();
        let scores: Vec<u64> =
            detector.score(&images).unwrap().scores.into_iter().map(f64::to_bits).collect();
        let warnings = warned.0.lock().unwrap().clone();
        (scores, warnings)
    };
    let ((kept, none), (computed, warnings)) = (fitted(1 << 24), fitted(0));
    assert_eq!(kept, computed);
    assert!(none.is_empty() && warnings[0].contains("40 images need"), "{none:?} {warnings:?}");
}

#[test]
fn drifted_statistics_are_part_of_the_detector() {
    let (method, mut data) = prepared(json!({"batch_statistics": true}), resnet());
    let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 5)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let fingerprint = data.fingerprint().unwrap();
    let (info, preprocess) = (method.info(), method.preprocess());
    let mut writer = DetectorWriter::new(folder.path(), info, preprocess, Precision::F32, 5, fingerprint);
    detector.save(&mut writer).unwrap();
    writer.finish().unwrap();
    let reader = DetectorReader::open(folder.path(), &Device::Cpu).unwrap();
    assert!(reader.tensors().keys().any(|name| name.starts_with("backbone.mean.layer2")));
    let refused = SimpleNetDetector::load(&reader, vit()).unwrap_err().to_string();
    assert!(refused.contains("sha256"), "{refused}");
}

#[test]
fn selection_follows_the_monitor() {
    for (monitor, metric) in
        [(Monitor::ImageAuroc, TestMetric::ImageAuroc), (Monitor::PixelAuroc, TestMetric::PixelAuroc)]
    {
        let (method, _) = prepared(json!({"monitor": monitor}), vit());
        let selection = method.selection();
        assert_eq!(selection.faithful, Criterion::HighestOnTest { metric, decimals: Some(3) });
        let on = ValidationImages::HeldOut;
        assert_eq!(selection.honest, Criterion::LowestValidationLoss { on, batch: 8, min_delta: 0.0 });
    }
}

#[test]
fn defaults_follow_the_backbone_and_what_does_not_fit_is_named() {
    let settings = |backbone| SimpleNet::new(Config::default(), backbone).unwrap().settings().clone();
    let (of_vit, of_resnet) = (settings(vit()), settings(resnet()));
    assert_eq!((of_vit.image_size, of_vit.layers), (Some(32), Some(vec![3])));
    assert_eq!((of_resnet.image_size, of_resnet.layers), (Some(224), Some(vec![2, 3])));

    let refused = |config, backbone| SimpleNet::new(config, backbone).unwrap_err().to_string();
    let beyond = refused(Config { layers: Some(vec![5]), ..Config::default() }, resnet());
    assert!(beyond.contains("`layers`") && beyond.contains("1 to 4"), "{beyond}");
    let vit_mode = refused(Config { batch_statistics: true, ..Config::default() }, vit());
    assert!(vit_mode.contains("`batch_statistics`"), "{vit_mode}");
    let tiny = refused(Config { image_size: Some(7), ..Config::default() }, vit());
    assert!(tiny.contains("`image_size`"), "{tiny}");

    let (method, _) = prepared(json!({}), vit());
    let mut empty = InMemoryData::new(&[], method.preprocess()).unwrap();
    let message = method.fit(&mut empty, &mut FitContext::new(Device::Cpu, 0)).err().unwrap().to_string();
    assert!(message.contains("found none"), "{message}");
}

#[test]
fn a_checkpoint_of_other_settings_is_refused() {
    let mut store = anomaly_core::MemoryCheckpoints::default();
    let mut run = |overrides: Value, cancel: bool| {
        let (method, mut data) = prepared(overrides, vit());
        let mut context = FitContext::new(Device::Cpu, 5);
        context.cancellation = Cancellation::default();
        if cancel {
            context.cancellation.cancel();
        }
        context.checkpoints = Box::new(&mut store);
        method.fit(&mut data, &mut context).map(|_| ())
    };
    assert!(run(json!({}), true).unwrap_err().is_cancelled());
    let message = run(json!({"learning_rate": 0.5}), false).unwrap_err().to_string();
    assert!(message.contains("config"), "{message}");
    run(json!({}), false).unwrap();
}
