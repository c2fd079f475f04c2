//! The method as a whole: the numeric cases, and the checks that every method must pass.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use advit_gmdn::{Advit, AdvitDetector};
use anomaly_core::{
    Cancellation, Criterion, Detector, DetectorReader, FitContext, Images, Method, MethodError, TrainingData,
    parse_config,
};
use candle_core::{DType, Device, Tensor};
use method_testkit::{Defect, InMemoryData, Resume, Scene, SeedUse, Suite, Texture};
use serde_json::{Value, json};

const SCENE: Scene = Scene { texture: Texture::Part, defect: Defect::Spot, size: 32, training_images: 24 };

fn small() -> Value {
    json!({
        "image_size": 20, "patch_size": 4, "dim": 16, "depth": 1, "heads": 2, "mlp_dim": 16, "gaussians": 2,
        "capsule_dim": 4, "latent": [4, 5, 5], "decoder": [[4, 4, 4, 2, 1], [4, 3, 4, 2, 1]],
        "epochs": 15, "batch_size": 8, "learning_rate": 3e-3,
    })
}

#[test]
fn all_numeric_cases_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/advit-gmdn");
    let mut failures = Vec::new();
    let mut passed = 0;
    let mut see = |line: &conformance::CaseLine| match line.outcome {
        conformance::Outcome::Passed => passed += 1,
        // Image preparation and metrics have the folder's other units.
        conformance::Outcome::Skipped(_) => {}
        conformance::Outcome::Failed(_) => failures.push(format!("{line:?}")),
    };
    conformance::run_dir(&[folder], &advit_gmdn::conformance_units(), true, &mut see).unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(passed >= 18, "{passed}");
}

fn method(overrides: &Value) -> Result<Box<dyn Method>, MethodError> {
    Ok(Box::new(Advit::new(parse_config(overrides)?)?))
}

fn load(directory: &Path) -> Result<Box<dyn Detector>, MethodError> {
    let reader = DetectorReader::open(directory, &Device::Cpu)?;
    Ok(Box::new(AdvitDetector::load(&reader, &Device::Cpu)?))
}

/// The small settings with `more`.
fn with(more: Value) -> Value {
    let (Value::Object(mut all), Value::Object(more)) = (small(), more) else { unreachable!() };
    all.extend(more);
    Value::Object(all)
}

/// A fit with `more` over the small settings, and its data.
fn fitted(more: Value, seed: u64) -> (Box<dyn Detector>, InMemoryData) {
    let method = method(&with(more)).unwrap();
    let mut data = InMemoryData::new(&SCENE.training(), method.preprocess()).unwrap();
    let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, seed)).unwrap();
    (detector, data)
}

#[test]
fn it_passes_the_checks_of_every_method() {
    let mut suite = Suite::new("advit-gmdn", method, load);
    suite.config = small();
    suite.out_of_range =
        vec![("epochs", json!(0)), ("image_size", json!(19)), ("noise", json!(-1)), ("heads", json!(3))];
    suite.scene = SCENE;
    suite.reason =
        "patches whose tokens have an unlikely place in colour space: a spot in a colour that no part has";
    suite.seed_use = SeedUse::Draws;
    suite.resume = Resume::FromCheckpoint;
    suite.gradients = Some(Box::new(|| {
        let method = Advit::new(parse_config(&with(json!({})))?)?;
        let data = InMemoryData::new(&SCENE.training(), method.preprocess()).unwrap();
        advit_gmdn::parameter_gradients(&method, &data.get(&[0, 1, 2])?)
    }));
    if let Err(failures) = suite.run_all() {
        panic!("{failures}");
    }
}

#[test]
fn the_score_is_the_sum_of_its_terms_and_the_reference_s_has_one_sign_wrong() {
    let of = |kind: &str| {
        let (detector, data) = fitted(json!({"epochs": 1, "image_score": kind}), 5);
        detector.score(&data.get(&[0, 1]).unwrap()).unwrap()
    };
    let (fixed, reference) = (of("sign_fixed"), of("reference"));
    for i in 0..2 {
        let term = |name: &str| fixed.terms[name][i];
        let sum = term("mse") + term("dissimilarity") + term("likelihood");
        assert!((fixed.scores[i] - sum).abs() < 1e-9 * sum.abs().max(1.0));
        let wrong = term("mse") - term("dissimilarity") + term("likelihood");
        assert!((reference.scores[i] - wrong).abs() < 1e-9 * wrong.abs().max(1.0));
    }
    assert_eq!(fixed.pictures[0].name, "reconstruction");
}

#[test]
fn options_change_what_they_name() {
    let scores = |more: Value| {
        let (detector, data) = fitted(more, 5);
        let prediction = detector.score(&data.get(&[0, 1]).unwrap()).unwrap();
        (prediction.scores, prediction.maps.unwrap().data)
    };
    let plain = scores(json!({"epochs": 2}));
    for more in [
        json!({"noise": 0.0}),
        json!({"association": {"enabled": false}}),
        json!({"association": {"lambda": 100.0}}),
        json!({"association": {"distance": "index1d", "lambda": 100.0}}),
        json!({"attention_scale": "head"}),
        json!({"zero_grad": "autoencoder_only"}),
        json!({"likelihood": "mixture"}),
        json!({"weight_decay": 1.0}),
    ] {
        let Value::Object(mut more) = more else { unreachable!() };
        more.insert("epochs".to_owned(), json!(2));
        let found = scores(Value::Object(more.clone()));
        assert_ne!(found.0, plain.0, "{more:?}");
    }
    let weighted = scores(json!({"epochs": 2, "map": "association"}));
    assert_eq!(weighted.0, plain.0);
    assert_ne!(weighted.1, plain.1);
    assert_ne!(scores(json!({"epochs": 2, "map_sigma": 0.0})).1, plain.1);
}

/// Cancels after the fourth step, in the second epoch.
struct After(Cancellation);

impl anomaly_core::Observer for After {
    fn event(&self, event: &anomaly_core::Event) {
        if matches!(event, anomaly_core::Event::Step { step: 3 }) {
            self.0.cancel();
        }
    }
}

#[test]
fn the_accumulated_gradients_are_part_of_a_checkpoint() {
    let mut store = anomaly_core::MemoryCheckpoints::default();
    let method = method(&with(json!({"zero_grad": "autoencoder_only"}))).unwrap();
    let mut data = InMemoryData::new(&SCENE.training(), method.preprocess()).unwrap();
    let whole = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 5)).unwrap();
    let mut context = FitContext::new(Device::Cpu, 5);
    context.observer = std::sync::Arc::new(After(context.cancellation.clone()));
    context.checkpoints = Box::new(&mut store);
    assert!(method.fit(&mut data, &mut context).err().unwrap().is_cancelled());
    drop(context);
    let mut context = FitContext::new(Device::Cpu, 5);
    context.checkpoints = Box::new(&mut store);
    let resumed = method.fit(&mut data, &mut context).unwrap();
    let images = data.get(&[0, 1]).unwrap();
    assert_eq!(resumed.score(&images).unwrap().scores, whole.score(&images).unwrap().scores);
}

#[test]
fn selection_is_the_reference_s_and_an_honest_one() {
    let selection = method(&small()).unwrap().selection();
    assert_eq!(selection.faithful, Criterion::LowestTrainingLoss);
    assert!(matches!(selection.honest, Criterion::LowestValidationLoss { batch: 8, .. }));
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    let (detector, data) = fitted(json!({"epochs": 1}), 0);
    let wrong = Tensor::zeros((1, 3, 24, 32), DType::F32, &Device::Cpu).unwrap();
    let refused = detector.score(&Images::new(vec!["x".to_owned()], wrong).unwrap()).unwrap_err().to_string();
    assert!(refused.contains("20 x 20") && refused.contains("24 x 32"), "{refused}");
    let empty = data.get(&[0]).unwrap().pixels().narrow(0, 0, 0).unwrap();
    let none = detector.score(&Images::new(vec![], empty).unwrap()).unwrap();
    assert!(none.scores.is_empty() && none.maps.unwrap().data.is_empty());

    let method = method(&small()).unwrap();
    let mut nothing = InMemoryData::new(&[], method.preprocess()).unwrap();
    let refused = method.fit(&mut nothing, &mut FitContext::new(Device::Cpu, 0)).err().unwrap().to_string();
    assert!(refused.contains("training images"), "{refused}");
}

#[test]
fn a_checkpoint_of_other_settings_is_refused() {
    let mut store = anomaly_core::MemoryCheckpoints::default();
    let mut run = |more: Value, cancel: bool| {
        let method = method(&with(more)).unwrap();
        let mut data = InMemoryData::new(&SCENE.training(), method.preprocess()).unwrap();
        let mut context = FitContext::new(Device::Cpu, 5);
        let cancellation = Cancellation::default();
        if cancel {
            cancellation.cancel();
        }
        context.cancellation = cancellation;
        context.checkpoints = Box::new(&mut store);
        method.fit(&mut data, &mut context).map(|_| ())
    };
    assert!(run(json!({}), true).unwrap_err().is_cancelled());
    let refused = run(json!({"learning_rate": 0.5}), false).unwrap_err().to_string();
    assert!(refused.contains("config"), "{refused}");
    run(json!({}), false).unwrap();
}

#[test]
fn a_loss_that_is_not_finite_stops_the_fit() {
    let method = method(&with(json!({"epochs": 50, "learning_rate": 1e30}))).unwrap();
    let mut data = InMemoryData::new(&SCENE.training(), method.preprocess()).unwrap();
    let refused = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 0)).err().unwrap().to_string();
    assert!(refused.contains("finite number"), "{refused}");
}
