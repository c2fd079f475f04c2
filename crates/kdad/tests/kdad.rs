//! The method as a whole: the numeric cases, and the checks that every method must pass.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use anomaly_core::{
    Cancellation, Criterion, Detector, DetectorReader, Event, FitContext, Images, MemoryFeatureStore, Method,
    MethodError, Observer, TestMetric, TrainingData, ValidationImages, parse_config,
};
use candle_core::{DType, Device, Tensor};
use kdad::{Config, Kdad, KdadDetector, StudentKind};
use method_testkit::{Defect, InMemoryData, Resume, Scene, SeedUse, Suite, Texture, TinyVit};
use serde_json::{Value, json};
use vit_backbone::{Family, Vit};

fn backbone() -> Arc<Vit> {
    Arc::new(TinyVit::default().build(&Device::Cpu).unwrap())
}

fn method(overrides: &Value) -> Result<Box<dyn Method>, MethodError> {
    let config: Config = parse_config(overrides)?;
    Ok(Box::new(Kdad::new(config, backbone())?))
}

fn small(student: &str) -> Value {
    json!({"student": student, "image_size": 32, "epochs": 8, "batch_size": 8, "hidden_dim": 32, "layers": 1,
           "heads": 2, "dropout": 0.1, "learning_rate": 3e-3, "milestones": [6]})
}

const SCENE: Scene =
    Scene { texture: Texture::Part, defect: Defect::OtherTexture, size: 32, training_images: 40 };

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
    conformance::run_dir(&[folder], &kdad::conformance_units(), true, &mut see).unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(passed >= 2, "{passed}");
}

#[test]
fn both_students_pass_the_checks_of_every_method() {
    let load = |directory: &Path| {
        let reader = DetectorReader::open(directory, &Device::Cpu)?;
        Ok(Box::new(KdadDetector::load(&reader, backbone())?) as Box<dyn Detector>)
    };
    for student in ["vit", "mlp"] {
        let mut suite = Suite::new("kdad", method, load);
        suite.config = small(student);
        suite.out_of_range = vec![
            ("epochs", json!(0)),
            ("dropout", json!(1.5)),
            ("image_size", json!(33)),
            ("gamma", json!(-1)),
        ];
        suite.scene = SCENE;
        suite.reason = "a student of random features imitates them on any image like those it saw: the texture must differ";
        suite.seed_use = SeedUse::Draws;
        suite.resume = Resume::FromCheckpoint;
        suite.gradients = Some(Box::new(move || {
            let method = Kdad::new(parse_config(&small(student))?, backbone())?;
            let data = InMemoryData::new(&SCENE.training(), method.preprocess()).unwrap();
            kdad::student_gradients(&method, &data.get(&[0, 1, 2])?)
        }));
        if let Err(failures) = suite.run_all() {
            panic!("{student}: {failures}");
        }
    }
}

fn prepared(overrides: Value) -> (Kdad, InMemoryData) {
    let Value::Object(mut all) = small("vit") else { unreachable!() };
    if let Value::Object(more) = overrides {
        all.extend(more);
    }
    let method = Kdad::new(parse_config(&Value::Object(all)).unwrap(), backbone()).unwrap();
    let data = InMemoryData::new(&SCENE.training(), method.preprocess()).unwrap();
    (method, data)
}

/// Losses of epochs and how many steps there were, and warnings.
#[derive(Default)]
struct Told(std::sync::Mutex<(Vec<f64>, usize)>, std::sync::Mutex<Vec<String>>);

impl Observer for Told {
    fn event(&self, event: &Event) {
        let mut told = self.0.lock().unwrap();
        match event {
            Event::Metric { value, .. } => told.0.push(*value),
            Event::Step { .. } => told.1 += 1,
            Event::Warning(text) => self.1.lock().unwrap().push(text.clone()),
            _ => {}
        }
    }
}

fn losses_and_steps(overrides: Value) -> (Vec<f64>, usize) {
    let (told, warnings) = told_with(overrides, MemoryFeatureStore::default());
    assert!(warnings.is_empty(), "{warnings:?}");
    told
}

fn told_with(overrides: Value, store: MemoryFeatureStore) -> ((Vec<f64>, usize), Vec<String>) {
    let (method, mut data) = prepared(overrides);
    let told = Arc::new(Told::default());
    let mut context = FitContext::new(Device::Cpu, 5);
    context.features = Arc::new(store);
    context.observer = told.clone();
    method.fit(&mut data, &mut context).unwrap();
    (told.0.lock().unwrap().clone(), told.1.lock().unwrap().clone())
}

#[test]
fn without_room_for_the_teachers_tokens_the_losses_are_the_same() {
    let (told, warnings) = told_with(json!({"epochs": 2}), MemoryFeatureStore::new(0));
    assert!(warnings[0].contains("40 images need"), "{warnings:?}");
    assert_eq!(told, losses_and_steps(json!({"epochs": 2})));
}

#[test]
fn training_makes_the_student_better() {
    let (losses, steps) = losses_and_steps(json!({"dropout": 0.0}));
    assert_eq!((losses.len(), steps), (8, 8 * 5));
    assert!(losses[7] < 0.7 * losses[0], "{losses:?}");
}

#[test]
fn epochs_can_be_samples_and_are_never_empty() {
    let (_, steps) = losses_and_steps(json!({"images_per_epoch": 19, "epochs": 2}));
    assert_eq!(steps, 2 * 2);
    // Fewer images than a batch: one step an epoch, where the reference would do none.
    let (_, steps) = losses_and_steps(json!({"images_per_epoch": 3, "epochs": 2}));
    assert_eq!(steps, 2);
    let (_, steps) = losses_and_steps(json!({"batch_size": 100, "epochs": 2}));
    assert_eq!(steps, 2);
}

#[test]
fn selection_is_the_reference_s_and_an_honest_one() {
    let (method, _) = prepared(json!({}));
    let selection = method.selection();
    let best = Criterion::HighestOnTest { metric: TestMetric::ImageAuroc, decimals: Some(3) };
    assert_eq!(selection.faithful, best);
    let held_out =
        Criterion::LowestValidationLoss { on: ValidationImages::HeldOut, batch: 8, min_delta: 0.0 };
    assert_eq!(selection.honest, held_out);
}

#[test]
fn teachers_with_registers_work_and_what_does_not_fit_is_named() {
    let vit = TinyVit { family: Family::TimmDinov2Reg, ..TinyVit::default() }.build(&Device::Cpu).unwrap();
    let config: Config = parse_config(&small("vit")).unwrap();
    let method = Kdad::new(Config { epochs: 1, ..config.clone() }, Arc::new(vit)).unwrap();
    let mut data = InMemoryData::new(&SCENE.training(), method.preprocess()).unwrap();
    let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 5)).unwrap();
    assert!(detector.score(&data.get(&[0]).unwrap()).unwrap().scores[0].is_finite());

    let refused = |config| Kdad::new(config, backbone()).unwrap_err().to_string();
    let heads = refused(Config { heads: 5, ..config.clone() });
    assert!(heads.contains("`heads`") && heads.contains("32"), "{heads}");
    // An MLP has no heads.
    Kdad::new(Config { heads: 5, student: StudentKind::Mlp, ..config.clone() }, backbone()).unwrap();
    let size = refused(Config { image_size: Some(36), ..config });
    assert!(size.contains("`image_size`"), "{size}");
    assert_eq!(Kdad::new(Config::default(), backbone()).unwrap().settings().image_size, Some(32));

    let wrong = Tensor::zeros((1, 3, 24, 32), DType::F32, &Device::Cpu).unwrap();
    let message = detector.score(&Images::new(vec!["x".to_owned()], wrong).unwrap()).unwrap_err().to_string();
    assert!(message.contains("32 x 32") && message.contains("24 x 32"), "{message}");
    let none = Tensor::zeros((0, 3, 32, 32), DType::F32, &Device::Cpu).unwrap();
    assert!(detector.score(&Images::new(vec![], none).unwrap()).unwrap().scores.is_empty());
    let mut empty = InMemoryData::new(&[], method.preprocess()).unwrap();
    let message = method.fit(&mut empty, &mut FitContext::new(Device::Cpu, 0)).err().unwrap().to_string();
    assert!(message.contains("found none"), "{message}");
}

#[test]
fn a_checkpoint_of_other_settings_is_refused() {
    let mut store = anomaly_core::MemoryCheckpoints::default();
    let mut run = |overrides: Value, cancel: bool| {
        let (method, mut data) = prepared(overrides);
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
