//! The baseline against the testkit, in each of its forms.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use anomaly_core::{Detector, DetectorReader, FitContext, Method, MethodError, TrainingData, parse_config};
use candle_core::Device;
use image_prep::Rgb8;
use method_testkit::{Defect, Failures, InMemoryData, Scene, Suite, Texture, TinyVit};
use pixel_knn::{Config, Features, Metric, PixelKnn};
use serde_json::{Value, json};
use vit_backbone::Vit;

fn suite(vit: Option<Arc<Vit>>) -> Suite<'static> {
    let other = vit.clone();
    let build = move |overrides: &Value| -> Result<Box<dyn Method>, MethodError> {
        let config: Config = parse_config(overrides)?;
        Ok(Box::new(PixelKnn::new(config, vit.clone())?))
    };
    let load = move |directory: &Path| -> Result<Box<dyn Detector>, MethodError> {
        pixel_knn::load(&DetectorReader::open(directory, &Device::Cpu)?, other.clone(), &Device::Cpu)
    };
    let mut suite = Suite::new("pixel-knn", build, load);
    suite.out_of_range =
        vec![("k", json!(0)), ("k", json!(-1)), ("batch", json!(0)), ("image_size", json!(0))];
    suite
}

#[test]
fn pixels_pass_the_testkit() -> Result<(), Failures> {
    let mut suite = suite(None);
    suite.config = json!({"image_size": 16, "batch": 5});
    suite.scene = Scene { texture: Texture::Part, defect: Defect::Spot, size: 32, training_images: 24 };
    suite.reason = "pixels are compared place by place: a part under a fixed camera";
    suite.run_all()
}

#[test]
fn tokens_pass_the_testkit() -> Result<(), Failures> {
    let vit = Arc::new(TinyVit::default().build(&Device::Cpu).unwrap());
    for config in
        [json!({"features": "tokens"}), json!({"features": "tokens", "metric": "cosine", "block": 1})]
    {
        let mut suite = suite(Some(Arc::clone(&vit)));
        suite.config = config;
        suite.out_of_range.push(("block", json!(3)));
        suite.scene =
            Scene { texture: Texture::Weave, defect: Defect::OtherTexture, size: 32, training_images: 24 };
        suite.reason = "a mean over patches does not mind where things are: textures that may shift";
        suite.run_all()?;
    }
    Ok(())
}

fn score(config: Config, normal: &[Rgb8], test: &Rgb8) -> f64 {
    let method = PixelKnn::new(config, None).unwrap();
    let mut data = InMemoryData::new(normal, method.preprocess()).unwrap();
    let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 0)).unwrap();
    let images = InMemoryData::new(std::slice::from_ref(test), method.preprocess()).unwrap();
    detector.score(&images.all().unwrap()).unwrap().scores[0]
}

#[test]
fn a_score_is_the_mean_distance_to_the_k_nearest() {
    // Grey levels 0, 51, 255 are -1, -0.6, 1 in each of 3 * 4 samples; the image at 102 is at -0.2.
    let normal = [0_u8, 51, 255].map(|level| Rgb8::filled(2, 2, [level; 3]));
    let test = Rgb8::filled(2, 2, [102; 3]);
    let config = |k| Config { image_size: Some(2), k, ..Config::default() };
    let side = 12_f64.sqrt();
    for (k, expected) in [(1, 0.4 * side), (2, 0.6 * side), (3, 0.8 * side)] {
        let found = score(config(k), &normal, &test);
        assert!((found - expected).abs() < 1e-6, "k = {k}: {found}, expected {expected}");
    }
}

#[test]
fn the_cosine_sees_directions_only() {
    let normal = [Rgb8::filled(2, 2, [255, 0, 0])];
    let config = Config { image_size: Some(2), k: 1, metric: Metric::Cosine, ..Config::default() };
    // (1, -1, -1) against (1, 1, -1): the cosine is 1/3. Against itself, none of its digits are lost.
    let found = score(config.clone(), &normal, &Rgb8::filled(2, 2, [255, 255, 0]));
    assert!((found - 2.0 / 3.0).abs() < 1e-6, "{found}");
    assert_eq!(score(config, &normal, &normal[0]), 0.0);
}

#[test]
fn what_does_not_fit_together_is_named() {
    let message = |config: Config| PixelKnn::new(config, None).err().unwrap().to_string();
    let tokens = Config { features: Features::Tokens, ..Config::default() };
    assert!(message(tokens).contains("need a backbone"));
    assert!(message(Config { block: Some(1), ..Config::default() }).contains("`block`"));

    let method = PixelKnn::new(Config { k: 3, ..Config::default() }, None).unwrap();
    let images = [Rgb8::filled(2, 2, [0; 3]), Rgb8::filled(2, 2, [9; 3])];
    let fit = |count: usize| {
        let mut data = InMemoryData::new(&images[..count], method.preprocess()).unwrap();
        method.fit(&mut data, &mut FitContext::new(Device::Cpu, 0)).err().unwrap().to_string()
    };
    assert!(fit(2).contains("`k`") && fit(2).contains("at most 2"), "{}", fit(2));
    assert!(fit(0).contains("found none"), "{}", fit(0));
}

#[test]
fn tokens_are_computed_once_a_feature_store() {
    let scene = Scene { texture: Texture::Weave, defect: Defect::Patch, size: 32, training_images: 7 };
    let vit = Arc::new(TinyVit::default().build(&Device::Cpu).unwrap());
    let config = Config { features: Features::Tokens, batch: 3, ..Config::default() };
    let method = PixelKnn::new(config, Some(vit)).unwrap();
    let mut data = InMemoryData::new(&scene.training(), method.preprocess()).unwrap();
    let mut context = FitContext::new(Device::Cpu, 0);
    let first = method.fit(&mut data, &mut context).unwrap();
    let images = data.all().unwrap();
    let mut unreadable = Unreadable(data);
    let again = method.fit(&mut unreadable, &mut context).unwrap();
    assert_eq!(first.score(&images).unwrap().scores, again.score(&images).unwrap().scores);
}

/// Data whose images can't be read any more, though their keys are known.
struct Unreadable(InMemoryData);

impl TrainingData for Unreadable {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn key(&self, index: usize) -> Result<anomaly_core::ContentKey, anomaly_core::DataError> {
        self.0.key(index)
    }

    fn get(&self, _: &[usize]) -> Result<anomaly_core::Images, anomaly_core::DataError> {
        Err(anomaly_core::DataError::new("the images are gone"))
    }
}
