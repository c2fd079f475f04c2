//! The method as a whole: the numeric cases, and the checks that every method must pass.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use anomaly_core::{
    Cancellation, Criterion, Detector, DetectorReader, DetectorWriter, Event, FitContext, Images, Method,
    MethodError, Observer, Precision, TrainingData, ValidationImages, parse_config,
};
use candle_core::{Device, Tensor};
use method_testkit::{Defect, InMemoryData, Resume, Scene, SeedUse, Suite, Texture, TinyVit};
use serde_json::{Value, json};
use transformaly::{Config, Error, Transformaly, TransformalyDetector};
use vit_backbone::{Family, Vit};

/// A backbone of four blocks, so that two are scored.
fn tiny() -> TinyVit {
    TinyVit { depth: 4, ..TinyVit::default() }
}

fn backbone() -> Arc<Vit> {
    Arc::new(tiny().build(&Device::Cpu).unwrap())
}

fn method(overrides: &Value) -> Result<Box<dyn Method>, MethodError> {
    let config: Config = parse_config(overrides)?;
    Ok(Box::new(Transformaly::new(config, backbone())?))
}

fn small() -> Value {
    json!({"image_size": 32, "epochs": 3, "batch_size": 8, "eval_every": 2, "learning_rate": 1e-3})
}

const SCENE: Scene =
    Scene { texture: Texture::Part, defect: Defect::OtherTexture, size: 32, training_images: 40 };

#[test]
fn all_numeric_cases_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/transformaly");
    let mut failures = Vec::new();
    let mut see = |line: &conformance::CaseLine| {
        if line.outcome != conformance::Outcome::Passed {
            failures.push(format!("{line:?}"));
        }
    };
    let summary =
        conformance::run_dir(&[folder], &transformaly::conformance_units(), false, &mut see).unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(summary.passed >= 14, "{summary:?}");
}

#[test]
fn it_passes_the_checks_of_every_method() {
    let load = |directory: &Path| {
        let reader = DetectorReader::open(directory, &Device::Cpu)?;
        Ok(Box::new(TransformalyDetector::load(&reader, backbone())?) as Box<dyn Detector>)
    };
    let mut suite = Suite::new("transformaly", method, load);
    suite.config = small();
    suite.out_of_range = vec![
        ("epochs", json!(0)),
        ("dropout", json!(1.5)),
        ("whitening_threshold", json!(0)),
        ("image_size", json!(4)),
    ];
    suite.scene = SCENE;
    suite.reason = "a global score on random features: the whole texture must differ";
    suite.seed_use = SeedUse::Draws;
    suite.resume = Resume::FromCheckpoint;
    suite.gradients = Some(Box::new(|| {
        let method = Transformaly::new(parse_config(&small())?, backbone())?;
        let data = InMemoryData::new(&SCENE.training(), method.preprocess()).unwrap();
        transformaly::student_gradients(&method, &data.get(&[0, 1, 2])?)
    }));
    if let Err(failures) = suite.run_all() {
        panic!("{failures}");
    }
}

/// A method with `overrides` of the small settings, and data for it.
fn prepared(overrides: Value, backbone: Arc<Vit>) -> (Transformaly, InMemoryData) {
    let Value::Object(mut all) = small() else { unreachable!() };
    if let Value::Object(more) = overrides {
        all.extend(more);
    }
    let method = Transformaly::new(parse_config(&Value::Object(all)).unwrap(), backbone).unwrap();
    let data = InMemoryData::new(&SCENE.training(), method.preprocess()).unwrap();
    (method, data)
}

fn fitted(method: &Transformaly, data: &mut InMemoryData) -> Box<dyn Detector> {
    method.fit(data, &mut FitContext::new(Device::Cpu, 5)).unwrap()
}

#[test]
fn the_score_is_the_sum_of_its_terms() {
    let (method, mut data) = prepared(json!({"epochs": 1, "knn2": true}), backbone());
    let detector = fitted(&method, &mut data);
    let prediction = detector.score(&data.get(&[0, 1, 2]).unwrap()).unwrap();
    assert_eq!(prediction.terms.keys().collect::<Vec<_>>(), ["knn2", "pretrained", "teacher_student"]);
    for i in 0..3 {
        let sum = prediction.terms["pretrained"][i] + prediction.terms["teacher_student"][i];
        assert!((prediction.scores[i] - sum).abs() < 1e-9 * sum.abs().max(1.0));
        // A training image is its own nearest neighbour: what is left is the distance to the second.
        assert!(prediction.terms["knn2"][i] > 0.0);
    }

    let folder = tempfile::tempdir().unwrap();
    let mut writer = DetectorWriter::new(
        folder.path(),
        method.info(),
        method.preprocess(),
        Precision::F32,
        5,
        data.fingerprint().unwrap(),
    );
    detector.save(&mut writer).unwrap();
    writer.finish().unwrap();
    let reader = DetectorReader::open(folder.path(), &Device::Cpu).unwrap();
    let loaded = TransformalyDetector::load(&reader, backbone()).unwrap();
    let again = loaded.score(&data.get(&[0, 1, 2]).unwrap()).unwrap();
    assert_eq!(again.scores, prediction.scores);
    assert_eq!(again.terms, prediction.terms);
    let other = Arc::new(TinyVit { seed: 9, ..tiny() }.build(&Device::Cpu).unwrap());
    let refused = TransformalyDetector::load(&reader, other).unwrap_err().to_string();
    assert!(refused.contains("sha256"), "{refused}");
}

#[test]
fn dropout_in_the_teacher_changes_the_training_only_if_there_is_dropout() {
    let scores = |overrides: Value| {
        let (method, mut data) = prepared(overrides, backbone());
        fitted(&method, &mut data).score(&data.get(&[0, 1]).unwrap()).unwrap().scores
    };
    let noisy = scores(json!({"epochs": 1}));
    let clean = scores(json!({"epochs": 1, "teacher_dropout": false}));
    assert_ne!(noisy, clean);
    let still = |teacher| scores(json!({"epochs": 1, "dropout": 0.0, "teacher_dropout": teacher}));
    assert_eq!(still(true), still(false));
}

#[test]
fn training_makes_the_students_better() {
    #[derive(Default)]
    struct Losses(std::sync::Mutex<Vec<f64>>);
    impl Observer for Losses {
        fn event(&self, event: &Event) {
            if let Event::Metric { value, .. } = event {
                self.0.lock().unwrap().push(*value);
            }
        }
    }
    let (method, mut data) = prepared(json!({"epochs": 4, "dropout": 0.0}), backbone());
    let losses = Arc::new(Losses::default());
    let mut context = FitContext::new(Device::Cpu, 5);
    context.observer = losses.clone();
    method.fit(&mut data, &mut context).unwrap();
    let losses = losses.0.lock().unwrap();
    assert_eq!(losses.len(), 4);
    assert!(losses[3] < 0.7 * losses[0], "{losses:?}");
}

#[test]
fn a_checkpoint_of_other_settings_or_another_backbone_is_refused() {
    let mut store = anomaly_core::MemoryCheckpoints::default();
    let mut run = |overrides: Value, backbone, cancel: bool| {
        let (method, mut data) = prepared(overrides, backbone);
        let mut context = FitContext::new(Device::Cpu, 5);
        let cancellation = Cancellation::default();
        if cancel {
            cancellation.cancel();
        }
        context.cancellation = cancellation;
        context.checkpoints = Box::new(&mut store);
        method.fit(&mut data, &mut context).map(|_| ())
    };
    assert!(run(json!({}), backbone(), true).unwrap_err().is_cancelled());
    let settings = run(json!({"learning_rate": 0.5}), backbone(), false).unwrap_err().to_string();
    assert!(settings.contains("config"), "{settings}");
    let other = Arc::new(TinyVit { seed: 9, ..tiny() }.build(&Device::Cpu).unwrap());
    let weights = run(json!({}), other, false).unwrap_err().to_string();
    assert!(weights.contains("backbone"), "{weights}");
    run(json!({}), backbone(), false).unwrap();
}

#[test]
fn backbones_of_other_families_work() {
    for family in [Family::TimmDinov2Reg, Family::HfDinov3, Family::HfClipVision, Family::FbDinov2] {
        // Rotary positions need a head width that is a multiple of four.
        let vit = TinyVit { family, ..tiny() }.build(&Device::Cpu).unwrap();
        let (method, mut data) = prepared(json!({"epochs": 1, "image_size": 40}), Arc::new(vit));
        let scores = fitted(&method, &mut data).score(&data.get(&[0, 1]).unwrap()).unwrap().scores;
        assert!(scores.iter().all(|s| s.is_finite()), "{family:?}: {scores:?}");
    }
}

#[test]
fn unusable_backbones_and_sizes_are_refused_by_name() {
    let shallow = Arc::new(TinyVit { depth: 2, ..tiny() }.build(&Device::Cpu).unwrap());
    let config = |size| Config { image_size: size, ..Config::default() };
    let refused = Transformaly::new(config(32), shallow).unwrap_err();
    assert!(matches!(refused, Error::TooFewBlocks { depth: 2, skipped: 2, .. }), "{refused}");
    let refused = Transformaly::new(config(7), backbone()).unwrap_err();
    assert!(refused.to_string().contains("image_size"), "{refused}");

    let (method, mut data) = prepared(json!({"epochs": 1}), backbone());
    let detector = fitted(&method, &mut data);
    let wrong = Tensor::zeros((1, 3, 24, 32), candle_core::DType::F32, &Device::Cpu).unwrap();
    let refused = detector.score(&Images::new(vec!["x".to_owned()], wrong).unwrap()).unwrap_err().to_string();
    assert!(refused.contains("32 x 32") && refused.contains("24 x 32"), "{refused}");
    let none =
        Images::new(vec![], Tensor::zeros((0, 3, 32, 32), candle_core::DType::F32, &Device::Cpu).unwrap());
    assert!(detector.score(&none.unwrap()).unwrap().scores.is_empty());

    let one = SCENE.training().into_iter().take(1).collect::<Vec<_>>();
    let mut one = InMemoryData::new(&one, method.preprocess()).unwrap();
    let refused = method.fit(&mut one, &mut FitContext::new(Device::Cpu, 0)).err().unwrap().to_string();
    assert!(refused.contains("at least 2 training images"), "{refused}");
}

#[test]
fn selection_is_the_reference_s_and_an_honest_one() {
    let (method, _) = prepared(json!({}), backbone());
    let selection = method.selection();
    let of = |on| Criterion::LowestValidationLoss { on, batch: 8, min_delta: 0.001 };
    assert_eq!(selection.faithful, of(ValidationImages::TestNormals));
    assert_eq!(selection.honest, of(ValidationImages::HeldOut));
}

#[test]
fn a_loss_that_is_not_finite_stops_the_fit() {
    let (method, mut data) = prepared(json!({"epochs": 50, "learning_rate": 1e30}), backbone());
    let refused = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 0)).err().unwrap().to_string();
    assert!(refused.contains("finite number"), "{refused}");
}
