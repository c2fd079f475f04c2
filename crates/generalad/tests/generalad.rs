//! The method as a whole: the numeric cases, and the checks that every method must pass.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use anomaly_core::{
    Criterion, Detector, DetectorReader, DiskFeatureStore, Event, FeatureKey, FeaturePrecision, FeatureStore,
    FitContext, Images, MemoryFeatureStore, Method, MethodError, Observer, TestMetric, TrainingData,
    ValidationImages, parse_config,
};
use candle_core::{DType, Device, Tensor};
use generalad::{Config, GeneralAd, GeneralAdDetector};
use method_testkit::{Defect, InMemoryData, Resume, Scene, SeedUse, Suite, Texture, TinyVit};
use serde_json::{Value, json};
use vit_backbone::{Family, Vit};

fn backbone() -> Arc<Vit> {
    Arc::new(TinyVit::default().build(&Device::Cpu).unwrap())
}

fn method(overrides: &Value) -> Result<Box<dyn Method>, MethodError> {
    let config: Config = parse_config(overrides)?;
    Ok(Box::new(GeneralAd::new(config, backbone())?))
}

fn small() -> Value {
    json!({
        "image_size": 32, "epochs": 8, "batch_size": 8, "hidden_dim": 32, "learning_rate": 0.01, "top_k": 3, "noise_std": 1.0,
        "smoothing_sigma": 2.0, "smoothing_radius": 4, "fake_features": "shuffle_and_random", "eval_every": 4,
    })
}

const SCENE: Scene = Scene { texture: Texture::Part, defect: Defect::Spot, size: 32, training_images: 40 };

#[test]
fn all_numeric_cases_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/generalad");
    let own: Vec<&str> = generalad::conformance_units().iter().map(|unit| unit.unit).collect();
    let mut failures = Vec::new();
    let mut see = |line: &conformance::CaseLine| {
        if matches!(line.outcome, conformance::Outcome::Failed(_)) {
            failures.push(format!("{line:?}"));
        }
    };
    // The folder also holds cases of two other methods, and of metrics and preprocessing.
    let summary = conformance::run_dir(&[folder], &generalad::conformance_units(), true, &mut see).unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(summary.passed >= 11, "{summary:?} of {own:?}");
}

#[test]
fn it_passes_the_checks_of_every_method() {
    let load = |directory: &Path| {
        let reader = DetectorReader::open(directory, &Device::Cpu)?;
        Ok(Box::new(GeneralAdDetector::load(&reader, backbone())?) as Box<dyn Detector>)
    };
    let mut suite = Suite::new("generalad", method, load);
    suite.config = small();
    suite.out_of_range = vec![
        ("epochs", json!(0)),
        ("dsc_dropout", json!(1.5)),
        ("top_k", json!(0)),
        ("dsc_heads", json!(5)),
        ("layers", json!([9])),
        ("image_size", json!(4)),
    ];
    suite.scene = SCENE;
    suite.reason =
        "a spot changes one patch or two of a part that is otherwise the same: the others must not hide them";
    suite.seed_use = SeedUse::Draws;
    suite.resume = Resume::FromCheckpoint;
    suite.gradients = Some(Box::new(|| {
        let method = GeneralAd::new(parse_config(&small())?, backbone())?;
        let data = InMemoryData::new(&SCENE.training(), method.preprocess()).unwrap();
        generalad::discriminator_gradients(&method, &data.get(&[0, 1, 2])?)
    }));
    if let Err(failures) = suite.run_all() {
        panic!("{failures}");
    }
}

/// A method with `overrides` of the small settings, and data for it.
fn prepared(overrides: Value, backbone: Arc<Vit>) -> (GeneralAd, InMemoryData) {
    let Value::Object(mut all) = small() else { unreachable!() };
    if let Value::Object(more) = overrides {
        all.extend(more);
    }
    let method = GeneralAd::new(parse_config(&Value::Object(all)).unwrap(), backbone).unwrap();
    let data = InMemoryData::new(&SCENE.training(), method.preprocess()).unwrap();
    (method, data)
}

/// Counts what is asked of a store.
struct Counting {
    store: Box<dyn FeatureStore>,
    hits: Mutex<usize>,
    misses: Mutex<usize>,
}

impl Counting {
    fn new(store: impl FeatureStore + 'static) -> Arc<Self> {
        Arc::new(Self { store: Box::new(store), hits: Mutex::default(), misses: Mutex::default() })
    }

    fn counts(&self) -> (usize, usize) {
        (*self.hits.lock().unwrap(), *self.misses.lock().unwrap())
    }
}

impl FeatureStore for Counting {
    fn get(&self, key: &FeatureKey) -> Result<Option<Tensor>, anomaly_core::Error> {
        let found = self.store.get(key)?;
        *if found.is_some() { &self.hits } else { &self.misses }.lock().unwrap() += 1;
        Ok(found)
    }
    fn put(&self, key: FeatureKey, feature: &Tensor) -> Result<bool, anomaly_core::Error> {
        self.store.put(key, feature)
    }
    fn room(&self) -> Result<u64, anomaly_core::Error> {
        self.store.room()
    }
    fn precision(&self) -> FeaturePrecision {
        self.store.precision()
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<Event>>);

impl Observer for Told {
    fn event(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

/// Scores of all training images after a fit with this store, and what the fit said.
fn fitted(overrides: Value, store: Arc<dyn FeatureStore>) -> (Vec<u64>, Vec<Event>) {
    let (method, mut data) = prepared(overrides, backbone());
    let mut context = FitContext::new(Device::Cpu, 5);
    context.features = store;
    let told = Arc::new(Told::default());
    context.observer = told.clone();
    let detector = method.fit(&mut data, &mut context).unwrap();
    let scores = detector.score(&data.all().unwrap()).unwrap().scores;
    let events = told.0.lock().unwrap().clone();
    (scores.into_iter().map(f64::to_bits).collect(), events)
}

fn warnings(events: &[Event]) -> Vec<&String> {
    events.iter().filter_map(|e| if let Event::Warning(text) = e { Some(text) } else { None }).collect()
}

#[test]
fn wherever_features_are_kept_the_detector_has_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let open = || DiskFeatureStore::open(folder.path(), 1 << 24, FeaturePrecision::F32).unwrap();
    for operations in ["shuffle_and_random", "base"] {
        let overrides = json!({"fake_features": operations});
        let (nowhere, said) = fitted(overrides.clone(), Arc::new(MemoryFeatureStore::new(0)));
        assert!(warnings(&said)[0].contains("40 images need"), "{said:?}");

        let memory = Counting::new(MemoryFeatureStore::default());
        let (in_memory, said) = fitted(overrides.clone(), memory.clone());
        assert_eq!(nowhere, in_memory, "{operations}");
        assert!(warnings(&said).is_empty(), "{said:?}");
        let stated = |e: &Event| matches!(e, Event::Note(text) if text.contains("features of 40 images"));
        assert!(stated(&said[0]), "{said:?}");
        // Each image is computed once, in eight epochs of five batches of eight.
        let (hits, misses) = memory.counts();
        let an_image = if operations == "base" { 1 } else { 2 };
        assert_eq!(misses, 40, "{hits} hits");
        assert!(hits >= 7 * 40 * an_image, "{hits} hits");

        // Part of it in memory: the rest is computed each time.
        let some = Arc::new(MemoryFeatureStore::new(20_000));
        assert_eq!(nowhere, fitted(overrides.clone(), some).0, "{operations}");
        assert_eq!(nowhere, fitted(overrides.clone(), Arc::new(open())).0, "{operations}");
        let second = Counting::new(open());
        assert_eq!(nowhere, fitted(overrides, second.clone()).0, "{operations}");
        assert_eq!(second.counts().1, 0, "the second run finds all on the disk");
    }
}

#[test]
fn rounded_features_change_a_little_and_say_so_by_the_store() {
    let scores = |precision| {
        let store = Arc::new(MemoryFeatureStore::with_precision(1 << 24, precision));
        fitted(json!({"epochs": 1, "learning_rate": 1e-3}), store)
            .0
            .into_iter()
            .map(f64::from_bits)
            .collect::<Vec<_>>()
    };
    let (exact, rounded) = (scores(FeaturePrecision::F32), scores(FeaturePrecision::F16));
    assert_ne!(exact, rounded);
    let spread = exact.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    assert!(exact.iter().zip(&rounded).all(|(a, b)| (a - b).abs() < 0.05 * spread), "{exact:?} {rounded:?}");
}

#[test]
fn the_score_is_of_the_logits_and_the_map_too() {
    let (method, mut data) = prepared(json!({"epochs": 1, "top_k": "all"}), backbone());
    let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 5)).unwrap();
    let images = data.get(&[0, 1, 2]).unwrap();
    let prediction = detector.score(&images).unwrap();
    let maps = prediction.maps.unwrap();
    for (at, score) in prediction.scores.iter().enumerate() {
        let map = maps.get(at).unwrap();
        let (low, high) = map.iter().fold((f32::MAX, f32::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
        assert!(f64::from(low) < *score && *score < f64::from(high), "{low} {score} {high}");
    }
}

#[test]
fn few_images_are_one_batch_and_none_are_refused() {
    let (method, _) = prepared(json!({"epochs": 2}), backbone());
    for count in [1, 3] {
        let some: Vec<_> = SCENE.training().into_iter().take(count).collect();
        let mut data = InMemoryData::new(&some, method.preprocess()).unwrap();
        let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 0)).unwrap();
        assert!(detector.score(&data.all().unwrap()).unwrap().scores.iter().all(|s| s.is_finite()));
    }
    let mut none = InMemoryData::new(&[], method.preprocess()).unwrap();
    let refused = method.fit(&mut none, &mut FitContext::new(Device::Cpu, 0)).err().unwrap().to_string();
    assert!(refused.contains("at least 1 training image"), "{refused}");
}

/// One image a batch makes the draw that covers all patches likely, where the reference's loss is NaN.
#[test]
fn a_batch_without_untouched_patches_does_no_harm() {
    let (method, mut data) = prepared(
        json!({"epochs": 2, "batch_size": 1, "fake_features": "randshuffle_and_random"}),
        backbone(),
    );
    let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 5)).unwrap();
    assert!(detector.score(&data.all().unwrap()).unwrap().scores.iter().all(|s| s.is_finite()));
}

#[test]
fn selection_is_the_reference_s_and_an_honest_one() {
    let (method, _) = prepared(json!({}), backbone());
    let highest = |metric| Criterion::HighestOnTest { metric, decimals: Some(3) };
    assert_eq!(method.selection().faithful, highest(TestMetric::ImageAuroc));
    assert_eq!(method.selection().honest, Criterion::Last);
    let (method, _) = prepared(json!({"monitor": "pixel_auroc", "honest": "held_out"}), backbone());
    assert_eq!(method.selection().faithful, highest(TestMetric::PixelAuroc));
    let on = ValidationImages::HeldOut;
    let lowest = Criterion::LowestValidationLoss { on, batch: 8, min_delta: 0.0 };
    assert_eq!(method.selection().honest, lowest);
}

#[test]
fn backbones_of_other_families_work_and_registers_are_no_patches() {
    for family in [Family::TimmDinov2Reg, Family::HfDinov3, Family::HfClipVision, Family::FbDinov2] {
        let vit = TinyVit { family, ..TinyVit::default() }.build(&Device::Cpu).unwrap();
        let (method, mut data) =
            prepared(json!({"epochs": 1, "image_size": 40, "layers": [3, 1]}), Arc::new(vit));
        let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 5)).unwrap();
        let prediction = detector.score(&data.get(&[0, 1]).unwrap()).unwrap();
        assert!(prediction.scores.iter().all(|s| s.is_finite()), "{family:?}: {prediction:?}");
        assert_eq!(prediction.maps.unwrap().data.len(), 2 * 40 * 40);
    }
}

#[test]
fn what_does_not_fit_the_backbone_is_refused_by_its_field() {
    let field = |overrides: Value| method(&overrides).err().unwrap().to_string();
    assert!(field(json!({"layers": [4]})).contains("`layers`: expected blocks 1 to 3, found 4"));
    assert!(
        field(json!({"dsc_heads": 3})).contains("`dsc_heads`: expected a divisor of the features' width 32")
    );
    assert!(field(json!({"image_size": 7})).contains("`image_size`"));

    let (method, mut data) = prepared(json!({"epochs": 1}), backbone());
    let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 5)).unwrap();
    let of = |count: usize, height: usize| {
        let pixels = Tensor::zeros((count, 3, height, 32), DType::F32, &Device::Cpu).unwrap();
        Images::new((0..count).map(|i| i.to_string()).collect(), pixels).unwrap()
    };
    let refused = detector.score(&of(1, 24)).unwrap_err().to_string();
    assert!(refused.contains("32 x 32") && refused.contains("24 x 32"), "{refused}");
    assert!(detector.score(&of(0, 32)).unwrap().scores.is_empty());
}

#[test]
fn a_loss_that_is_not_finite_stops_the_fit() {
    let (method, mut data) = prepared(json!({"epochs": 50, "learning_rate": 1e30}), backbone());
    let refused = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 0)).err().unwrap().to_string();
    assert!(refused.contains("finite number"), "{refused}");
}

#[test]
fn training_lowers_the_loss() {
    let (_, said) = fitted(json!({"dsc_dropout": 0.0}), Arc::new(MemoryFeatureStore::default()));
    let losses: Vec<f64> = said
        .iter()
        .filter_map(|e| if let Event::Metric { value, .. } = e { Some(*value) } else { None })
        .collect();
    assert_eq!(losses.len(), 8);
    assert!(losses[7] < 0.8 * losses[0], "{losses:?}");
}
