//! The method as a whole: the numeric cases, and the checks that every method must pass.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use anomaly_core::{
    Cancellation, Criterion, Detector, DetectorReader, FitContext, Images, Method, MethodError, TrainingData,
    parse_config,
};
use candle_core::{DType, Device, Tensor};
use method_testkit::{Defect, InMemoryData, Resume, Scene, SeedUse, Suite, Texture};
use serde_json::{Value, json};
use vtadl_registers::{VtadlRegisters, VtadlRegistersDetector};

const SCENE: Scene = Scene { texture: Texture::Part, defect: Defect::Spot, size: 32, training_images: 24 };

fn small() -> Value {
    json!({
        "image_size": 16, "patch_size": 4, "embed_dim": 16, "num_heads": 2, "hidden_units": [16], "registers": 2,
        "dropout": 0.01, "epochs": 40, "batch_size": 8, "learning_rate": 1e-2, "warmup_steps": 5,
        "bn_recalibrate": true, "map": "l1", "map_sigma": 1.0, "val_split": 0.25, "offer_every": 20,
    })
}

#[test]
fn all_numeric_cases_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/vtadl-registers");
    let mut failures = Vec::new();
    let mut passed = 0;
    let mut see = |line: &conformance::CaseLine| match line.outcome {
        conformance::Outcome::Passed => passed += 1,
        // Image preparation and metrics have the folder's other units.
        conformance::Outcome::Skipped(_) => {}
        conformance::Outcome::Failed(_) => failures.push(format!("{line:?}")),
    };
    conformance::run_dir(&[folder], &vtadl_registers::conformance_units(), true, &mut see).unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(passed >= 16, "{passed}");
}

fn method(overrides: &Value) -> Result<Box<dyn Method>, MethodError> {
    Ok(Box::new(VtadlRegisters::new(parse_config(overrides)?)?))
}

fn load(directory: &Path) -> Result<Box<dyn Detector>, MethodError> {
    let reader = DetectorReader::open(directory, &Device::Cpu)?;
    Ok(Box::new(VtadlRegistersDetector::load(&reader, &Device::Cpu)?))
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
    let mut suite = Suite::new("vtadl-registers", method, load);
    suite.config = small();
    suite.out_of_range = vec![
        ("epochs", json!(0)),
        ("image_size", json!(19)),
        ("dropout", json!(1.0)),
        ("patch_size", json!(3)),
    ];
    suite.scene = SCENE;
    suite.reason = "a part under a fixed camera: what a spot covers is reconstructed as the part";
    suite.seed_use = SeedUse::Draws;
    suite.resume = Resume::FromCheckpoint;
    suite.gradients = Some(Box::new(|| {
        let method = VtadlRegisters::new(parse_config(&with(json!({"gaussians": 2, "dropout": 0.0})))?)?;
        let data = InMemoryData::new(&SCENE.training(), method.preprocess()).unwrap();
        vtadl_registers::parameter_gradients(&method, &data.get(&[0, 1, 2])?)
    }));
    if let Err(failures) = suite.run_all() {
        panic!("{failures}");
    }
}

#[test]
fn the_score_is_the_map_s_largest_value_and_one_of_the_terms() {
    for (map, more) in [
        ("l1", json!({})),
        ("ssim", json!({})),
        ("gmdn", json!({"gaussians": 2})),
        ("fused", json!({"gaussians": 2, "fuse": ["l1", "ssim", "gmdn"]})),
    ] {
        let Value::Object(mut more) = more else { unreachable!() };
        more.extend([("map".to_owned(), json!(map)), ("epochs".to_owned(), json!(1))]);
        let (detector, data) = fitted(Value::Object(more), 5);
        let prediction = detector.score(&data.get(&[0, 1, 2]).unwrap()).unwrap();
        let maps = prediction.maps.unwrap();
        for i in 0..3 {
            let largest = maps.get(i).unwrap().iter().copied().fold(f32::MIN, f32::max);
            assert_eq!(prediction.scores[i], f64::from(largest), "{map}");
        }
        if map != "fused" {
            assert_eq!(prediction.terms[map], prediction.scores, "{map}");
        }
        let names: Vec<_> = prediction.pictures.iter().map(|picture| picture.name.as_str()).collect();
        assert_eq!(names, ["reconstruction", "mask"]);
    }
}

#[test]
fn any_number_of_registers_any_patch_and_any_sides_work() {
    for more in [
        json!({"registers": 0}),
        json!({"registers": 1}),
        json!({"registers": 4}),
        json!({"registers": 7}),
        json!({"registers": 3, "register_kind": "random"}),
        json!({"patch_size": 8}),
        json!({"patch_size": 2, "image_size": 12}),
        json!({"patch_size": 16}),
        json!({"image_size": [24, 16]}),
        json!({"image_size": [16, 32], "patch_size": 8}),
        json!({"key_dim": 5}),
        json!({"optimizer": "adamw"}),
        json!({"optimizer": "rmsprop"}),
        json!({"variance_gradient": "detached_mean"}),
        json!({"gaussians": 2, "density": "vtadl", "tap": "encoder"}),
        json!({"threshold": {"fixed": 0.2}}),
        json!({"val_split": 0.0}),
    ] {
        let Value::Object(mut more) = more else { unreachable!() };
        more.insert("epochs".to_owned(), json!(1));
        let (detector, data) = fitted(Value::Object(more.clone()), 5);
        let images = data.get(&[0, 1]).unwrap();
        let first = detector.score(&images).unwrap().scores;
        assert!(first.iter().all(|score| score.is_finite()), "{more:?}");
        // Random registers too: in evaluation they are always the same.
        assert_eq!(detector.score(&images).unwrap().scores, first, "{more:?}");
    }
}

#[test]
fn other_draws_of_random_registers_give_other_scores() {
    let scores = |seed: u64| {
        let (detector, data) =
            fitted(json!({"register_kind": "random", "register_seed": seed, "epochs": 1}), 5);
        detector.score(&data.get(&[0, 1]).unwrap()).unwrap().scores
    };
    assert_ne!(scores(0), scores(1));
}

#[test]
fn too_few_images_to_hold_some_out_are_refused() {
    let method = method(&with(json!({"val_split": 0.25}))).unwrap();
    let one: Vec<_> = SCENE.training().into_iter().take(1).collect();
    let mut one = InMemoryData::new(&one, method.preprocess()).unwrap();
    let refused = method.fit(&mut one, &mut FitContext::new(Device::Cpu, 0)).err().unwrap().to_string();
    assert!(refused.contains("at least 4 training images, found 1"), "{refused}");
}

#[test]
fn selection_is_the_reference_s_and_an_honest_one() {
    let selection = method(&small()).unwrap().selection();
    assert_eq!(selection.faithful, Criterion::Last);
    assert!(matches!(selection.honest, Criterion::LowestValidationLoss { batch: 8, .. }));
}

#[test]
fn what_cannot_be_used_is_refused_by_name() {
    let (detector, data) = fitted(json!({"epochs": 1}), 0);
    let wrong = Tensor::zeros((1, 3, 24, 32), DType::F32, &Device::Cpu).unwrap();
    let refused = detector.score(&Images::new(vec!["x".to_owned()], wrong).unwrap()).unwrap_err().to_string();
    assert!(refused.contains("16 x 16") && refused.contains("24 x 32"), "{refused}");
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
