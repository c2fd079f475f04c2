//! The method as a whole: the numeric cases, and the checks that every method must pass.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use anogan_trans::{AnoTrans, AnoTransDetector, Config, Error, Trainer};
use anomaly_core::{
    Cancellation, CheckpointStore, Criterion, Detector, DetectorReader, Event, FitContext, Flow, Harness,
    Images, MemoryCheckpoints, Method, MethodError, Observer, Offer, Streams, TestMetric, TrainingData,
    ValidationImages, parse_config,
};
use candle_core::{DType, Device, Tensor};
use method_testkit::{Defect, InMemoryData, Resume, Scene, SeedUse, Suite, Texture};
use serde_json::{Value, json};

fn method(overrides: &Value) -> Result<Box<dyn Method>, MethodError> {
    Ok(Box::new(AnoTrans::new(parse_config(overrides)?)?))
}

/// 32 pixels, so that the lowest grid has windows of more than one token: every parameter has a gradient.
fn small() -> Value {
    json!({
        "image_size": 32, "dim": 8, "discriminator_width": 4, "feature_size": 6, "epochs": 2, "batch_size": 16,
        "learning_rate": 1e-3,
    })
}

/// `overrides` of the small settings.
fn with(overrides: Value) -> Value {
    let Value::Object(mut all) = small() else { unreachable!() };
    if let Value::Object(more) = overrides {
        all.extend(more);
    }
    Value::Object(all)
}

const SCENE: Scene = Scene { texture: Texture::Part, defect: Defect::Spot, size: 32, training_images: 40 };

#[test]
fn all_numeric_cases_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/anogan-trans");
    let mut failures = Vec::new();
    let mut see = |line: &conformance::CaseLine| {
        if line.outcome != conformance::Outcome::Passed {
            failures.push(format!("{line:?}"));
        }
    };
    let units = [
        anogan_trans::conformance_units(),
        datasets::conformance_units(),
        metrics::units::conformance_units(),
    ]
    .concat();
    let summary = conformance::run_dir(&[folder], &units, false, &mut see).unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(summary.passed >= 13, "{summary:?}");
}

#[test]
fn it_passes_the_checks_of_every_method() {
    let load = |directory: &Path| {
        let reader = DetectorReader::open(directory, &Device::Cpu)?;
        Ok(Box::new(AnoTransDetector::load(&reader, &Device::Cpu)?) as Box<dyn Detector>)
    };
    let mut suite = Suite::new("anogan-trans", method, load);
    suite.config = small();
    suite.out_of_range = vec![
        ("epochs", json!(0)),
        ("image_size", json!(96)),
        ("patch_size", json!(3)),
        ("dim", json!(10)),
        ("beta1", json!(1)),
        ("latent_weight", json!(-1)),
    ];
    suite.scene = SCENE;
    suite.reason =
        "a few steps reconstruct next to nothing: what stands out by its colour has the larger error";
    suite.seed_use = SeedUse::Draws;
    suite.resume = Resume::FromCheckpoint;
    suite.gradients = Some(Box::new(|| {
        let method = AnoTrans::new(parse_config(&small())?)?;
        let data = InMemoryData::new(&SCENE.training(), method.preprocess()).unwrap();
        anogan_trans::step_gradients(&method, &data.get(&[0, 1, 2])?)
    }));
    if let Err(failures) = suite.run_all() {
        panic!("{failures}");
    }
}

/// A method with `overrides` of the small settings, and data for it.
fn prepared(overrides: Value) -> (AnoTrans, InMemoryData) {
    let method = AnoTrans::new(parse_config(&with(overrides)).unwrap()).unwrap();
    let data = InMemoryData::new(&SCENE.training(), method.preprocess()).unwrap();
    (method, data)
}

fn fitted(method: &AnoTrans, data: &mut InMemoryData) -> Box<dyn Detector> {
    method.fit(data, &mut FitContext::new(Device::Cpu, 5)).unwrap()
}

#[test]
fn the_score_is_the_weighted_sum_of_its_terms_and_maps_hold_the_pixel_term() {
    let (method, mut data) = prepared(json!({"epochs": 1, "pixel_score_weight": 0.6}));
    let prediction = fitted(&method, &mut data).score(&data.get(&[0, 1, 2]).unwrap()).unwrap();
    let maps = prediction.maps.unwrap();
    for i in 0..3 {
        let (pixel, feature) = (prediction.terms["pixel"][i], prediction.terms["feature"][i]);
        assert!((prediction.scores[i] - (0.6 * pixel + 0.1 * feature)).abs() < 1e-12);
        let mean = maps.get(i).unwrap().iter().map(|v| f64::from(*v)).sum::<f64>() / (32.0 * 32.0);
        assert!((mean - pixel).abs() < 1e-6 * pixel, "{mean} {pixel}");
    }
    let names: Vec<&str> = prediction.pictures.iter().map(|picture| picture.name.as_str()).collect();
    assert_eq!(names, ["reconstruction", "squared error"]);
    for picture in &prediction.pictures {
        assert_eq!(picture.images.dims(), [3, 3, 32, 32]);
        let values = picture.images.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
    }
}

#[test]
fn gradient_maps_and_blurs_are_other_maps_of_the_same_scores() {
    let maps = |overrides| {
        let (method, mut data) = prepared(overrides);
        let prediction = fitted(&method, &mut data).score(&data.get(&[0, 1, 2]).unwrap()).unwrap();
        (prediction.scores, prediction.maps.unwrap())
    };
    let (scores, error) = maps(json!({"epochs": 1}));
    for overrides in [json!({"epochs": 1, "map": "gradient"}), json!({"epochs": 1, "map_blur": 1.5})] {
        let (same, other) = maps(overrides);
        assert_eq!(same, scores);
        assert_eq!((other.height, other.width), (32, 32));
        assert!(other.data.iter().all(|value| value.is_finite() && *value >= 0.0));
        assert!(other.data.iter().any(|value| *value > 0.0));
        assert_ne!(other.data, error.data);
    }
}

#[test]
fn only_the_reference_s_scoring_depends_on_the_batch() {
    let scores = |overrides| {
        let (method, mut data) = prepared(overrides);
        let detector = fitted(&method, &mut data);
        let of = |indices: &[usize]| detector.score(&data.get(indices).unwrap()).unwrap().scores;
        (of(&[0, 1, 2, 3]), of(&[0]))
    };
    let (together, alone) = scores(json!({"epochs": 1}));
    assert_eq!(together[0].to_bits(), alone[0].to_bits());
    let (together, alone) = scores(json!({"epochs": 1, "scoring": "batch"}));
    assert_ne!(together[0].to_bits(), alone[0].to_bits());
}

#[test]
fn every_switch_changes_the_training_and_nothing_else_fails() {
    let scores = |overrides| {
        let (method, mut data) = prepared(overrides);
        fitted(&method, &mut data).score(&data.get(&[0, 1]).unwrap()).unwrap().scores
    };
    let plain = scores(json!({"epochs": 2}));
    for switch in [
        json!({"attention": "tf"}),
        json!({"skip_fusion": true}),
        json!({"patch_size": 4}),
        json!({"latent_gradient": "twice"}),
        json!({"discriminator_latent": true}),
        json!({"running_updates": "five"}),
        json!({"noise": "fixed"}),
        json!({"noise": "redrawn"}),
        json!({"latent_weight": 0.0}),
        json!({"policy": {"step": {"every": 1}}}),
    ] {
        let other = scores(switch.clone());
        assert!(other.iter().all(|score| score.is_finite()), "{switch}");
        assert_ne!(other, plain, "{switch}");
    }
    let squares = scores(json!({"patch_size": 4}));
    assert_ne!(scores(json!({"patch_size": 4, "head": "scrambled"})), squares);
    assert_ne!(scores(json!({"noise": "fixed"})), scores(json!({"noise": "redrawn"})));
}

/// What a fit says on the way.
#[derive(Default)]
struct Curve(Mutex<Vec<(String, f64)>>);

impl Observer for Curve {
    fn event(&self, event: &Event) {
        if let Event::Metric { name, value, .. } = event {
            self.0.lock().unwrap().push((name.clone(), *value));
        }
    }
}

/// What is offered: the reconstruction error of images that the fit never saw.
struct HeldOut {
    images: Images,
    errors: Arc<Mutex<Vec<f64>>>,
}

impl Harness for HeldOut {
    fn offer(&mut self, _: usize, _: Option<f64>, offer: &mut dyn Offer) -> Result<Flow, MethodError> {
        self.errors.lock().unwrap().extend(offer.validation_loss(&self.images)?);
        Ok(Flow::Continue)
    }
}

/// The settings of the quick matrix: it must learn there what it is for. The same constant for every pixel gives 0.57 over
/// all of Fashion-MNIST; the training stays near there for some hundred steps, and then the error drops.
#[test]
fn it_learns_to_reconstruct_held_out_images_in_the_quick_matrix_s_time() {
    let config = json!({
        "image_size": 32, "dim": 16, "discriminator_width": 16, "feature_size": 32, "epochs": 16, "batch_size": 8,
        "learning_rate": 2e-3, "eval_every": 8,
    });
    let method = AnoTrans::new(parse_config(&config).unwrap()).unwrap();
    let sample: Arc<dyn datasets::Dataset> = datasets::open("fashion-mnist-sample", None).unwrap().into();
    let split =
        datasets::Split::new(&*sample, datasets::Protocol::Unimodal, "1", &datasets::SplitOptions::default())
            .unwrap();
    let of = |items: &[usize]| {
        datasets::TrainingSet::new(sample.clone(), items.to_vec(), method.preprocess().clone()).unwrap()
    };
    let (seen, unseen) = split.train.split_at(180);
    let mut training = of(seen);
    let images = of(unseen).get(&(0..unseen.len()).collect::<Vec<_>>()).unwrap();
    let errors = Arc::new(Mutex::default());
    let curve = Arc::new(Curve::default());
    let harness = HeldOut { images, errors: Arc::clone(&errors) };
    let mut context = FitContext::new(Device::Cpu, 0).with_harness(harness);
    context.observer = curve.clone();
    method.fit(&mut training, &mut context).unwrap();
    let errors = errors.lock().unwrap();
    assert_eq!(errors.len(), 2);
    assert!(errors[1] <= 0.10, "{errors:?}");
    let curve = curve.0.lock().unwrap();
    let of = |wanted: &str| curve.iter().filter(|(name, _)| name == wanted).count();
    assert_eq!((of("reconstruction loss"), of("discriminator loss")), (16, 16));
}

#[test]
fn a_run_broken_off_anywhere_goes_on_to_the_same_bits() {
    /// Cancels at a step.
    struct Stop(usize, Cancellation);
    impl Observer for Stop {
        fn event(&self, event: &Event) {
            if matches!(event, Event::Step { step } if *step == self.0) {
                self.1.cancel();
            }
        }
    }
    let overrides = || json!({"epochs": 3, "noise": "redrawn", "policy": {"plateau": {"patience": 0}}});
    let (method, mut data) = prepared(overrides());
    let whole = fitted(&method, &mut data).score(&data.get(&[0, 1]).unwrap()).unwrap();
    for at in [0, 2, 4] {
        let mut store = MemoryCheckpoints::default();
        let (method, mut data) = prepared(overrides());
        let mut context = FitContext::new(Device::Cpu, 5);
        context.observer = Arc::new(Stop(at, context.cancellation.clone()));
        context.checkpoints = Box::new(&mut store);
        assert!(method.fit(&mut data, &mut context).err().unwrap().is_cancelled());
        drop(context);
        let mut context = FitContext::new(Device::Cpu, 5);
        context.checkpoints = Box::new(&mut store);
        let detector = method.fit(&mut data, &mut context).unwrap();
        assert_eq!(detector.score(&data.get(&[0, 1]).unwrap()).unwrap().scores, whole.scores, "{at}");
    }
}

#[test]
fn a_diverged_training_fails_with_its_step_and_keeps_the_checkpoint_before() {
    let mut store = MemoryCheckpoints::default();
    let (method, mut data) = prepared(json!({"epochs": 50, "learning_rate": 1e30}));
    let mut context = FitContext::new(Device::Cpu, 0);
    context.checkpoints = Box::new(&mut store);
    let refused = method.fit(&mut data, &mut context).err().unwrap().to_string();
    assert!(refused.contains("diverged in step"), "{refused}");
    drop(context);
    for tensor in store.latest(&Device::Cpu).unwrap().into_iter().flat_map(|c| c.tensors.into_values()) {
        if tensor.dtype() == DType::F32 {
            let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(values.iter().all(|value| value.is_finite()));
        }
    }
}

#[test]
fn a_checkpoint_of_other_settings_is_refused() {
    let mut store = MemoryCheckpoints::default();
    let mut run = |overrides: Value, cancel: bool| {
        let (method, mut data) = prepared(overrides);
        let mut context = FitContext::new(Device::Cpu, 5);
        if cancel {
            context.cancellation.cancel();
        }
        context.checkpoints = Box::new(&mut store);
        method.fit(&mut data, &mut context).map(|_| ())
    };
    assert!(run(json!({}), true).unwrap_err().is_cancelled());
    let settings = run(json!({"learning_rate": 0.5}), false).unwrap_err().to_string();
    assert!(settings.contains("config"), "{settings}");
    run(json!({}), false).unwrap();
}

#[test]
fn unusable_images_are_refused_by_name() {
    let (method, mut data) = prepared(json!({"epochs": 1}));
    let detector = fitted(&method, &mut data);
    let wrong = Tensor::zeros((1, 3, 24, 32), DType::F32, &Device::Cpu).unwrap();
    let refused = detector.score(&Images::new(vec!["x".to_owned()], wrong).unwrap()).unwrap_err().to_string();
    assert!(refused.contains("32 x 32") && refused.contains("24 x 32"), "{refused}");
    let none = Tensor::zeros((0, 3, 32, 32), DType::F32, &Device::Cpu).unwrap();
    assert!(detector.score(&Images::new(vec![], none).unwrap()).unwrap().scores.is_empty());
    let one = SCENE.training().into_iter().take(1).collect::<Vec<_>>();
    let mut one = InMemoryData::new(&one, method.preprocess()).unwrap();
    let refused = method.fit(&mut one, &mut FitContext::new(Device::Cpu, 0)).err().unwrap().to_string();
    assert!(refused.contains("at least 2 training images"), "{refused}");
    let refused = AnoTrans::new(Config { image_size: 96, ..Config::default() }).unwrap_err();
    assert!(matches!(refused, Error::Config(_)) && refused.to_string().contains("64 or 128"), "{refused}");
}

#[test]
fn weights_that_the_reference_never_uses_are_kept_as_they_are() {
    let config: Config = parse_config(&small()).unwrap();
    let fresh = Trainer::new(&config, &Streams::new(0), &Device::Cpu).unwrap();
    let mut tensors: std::collections::HashMap<String, Tensor> =
        fresh.named_tensors().unwrap().into_iter().collect();
    let dead = Tensor::new(&[1.5_f32, -2.0], &Device::Cpu).unwrap();
    tensors.insert("generator.inc2.bn.weight".to_owned(), dead);
    let mut trainer = Trainer::from_tensors(&config, &tensors, &Device::Cpu).unwrap();
    let data = InMemoryData::new(&SCENE.training(), AnoTrans::new(config).unwrap().preprocess()).unwrap();
    trainer.step(data.get(&[0, 1]).unwrap().pixels(), None).unwrap();
    let after = trainer.named_tensors().unwrap();
    assert_eq!(after["generator.inc2.bn.weight"].to_vec1::<f32>().unwrap(), [1.5, -2.0]);
    assert_eq!(after.len(), tensors.len());
}

#[test]
fn selection_is_the_reference_s_and_an_honest_one() {
    let (method, _) = prepared(json!({}));
    let selection = method.selection();
    let best = Criterion::HighestOnTest { metric: TestMetric::ImageAuroc, decimals: None };
    assert_eq!(selection.faithful, best);
    let held_out = ValidationImages::HeldOut;
    let lowest = Criterion::LowestValidationLoss { on: held_out, batch: 16, min_delta: 0.0 };
    assert_eq!(selection.honest, lowest);
}
