//! Whether training teaches where defects are: pixel AUROC on synthetic textures, beside the same network untrained and
//! beside the distance to the mean training image.

use anomaly_core::{FitContext, TrainingData};
use candle_core::Device;
use datasets::{Dataset, Part, Synthetic, SyntheticOptions};
use image_prep::{Mask, Rgb8};
use method_testkit::InMemoryData;
use metrics::ScoredMap;
use serde_json::{Value, json};

use super::method;

/// Side of the images in pixels, which is the network's: nothing is resized.
const SIDE: usize = 32;

/// Surfaces that are never in one place, so that the mean image says little.
const CATEGORIES: [&str; 2] = ["cloth", "wood"];
const SEEDS: [u64; 3] = [0, 1, 2];

/// One category's images.
struct Category {
    training: Vec<Rgb8>,
    tests: Vec<Rgb8>,
    /// Beside each test image; `None` for a normal one.
    masks: Vec<Option<Mask>>,
}

impl Category {
    fn read(name: &str) -> Self {
        let options = SyntheticOptions { size: SIDE, train: 60, test_good: 15, test_each: 6, seed: 0 };
        let set = Synthetic::new(&options).unwrap();
        let class = set.classes().iter().position(|class| class.key == name).unwrap();
        let of = |part| {
            let items = set.items().iter().enumerate();
            items.filter(move |(_, item)| item.class == class && item.part == part).map(|(index, _)| index)
        };
        Self {
            training: of(Part::Train).map(|index| set.image(index).unwrap()).collect(),
            tests: of(Part::Test).map(|index| set.image(index).unwrap()).collect(),
            masks: of(Part::Test).map(|index| set.masks(index).unwrap().pop()).collect(),
        }
    }

    /// Of maps `(SIDE, SIDE)`, one a test image.
    fn pixel_auroc(&self, maps: &[Vec<f32>]) -> f64 {
        let scored: Vec<ScoredMap<'_>> = maps
            .iter()
            .zip(&self.masks)
            .map(|(map, mask)| {
                ScoredMap::new(SIDE, SIDE, map, mask.as_ref().map(|mask| mask.data.as_slice())).unwrap()
            })
            .collect();
        metrics::pixel_auroc(&scored).unwrap()
    }

    /// What a fit with these settings and this seed gives.
    fn fitted(&self, settings: &Value, seed: u64) -> f64 {
        let method = method(settings).unwrap();
        let mut data = InMemoryData::new(&self.training, method.preprocess()).unwrap();
        let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, seed)).unwrap();
        let tests = InMemoryData::new(&self.tests, method.preprocess()).unwrap();
        let maps = detector.score(&tests.all().unwrap()).unwrap().maps.unwrap();
        let maps: Vec<Vec<f32>> = (0..tests.len()).map(|index| maps.get(index).unwrap().to_vec()).collect();
        self.pixel_auroc(&maps)
    }

    /// The mean over the channels of the distance to the mean training image, smoothed as the method's map.
    fn mean_image(&self, sigma: f64) -> f64 {
        let mut mean = vec![0.0_f32; SIDE * SIDE * 3];
        for image in &self.training {
            for (sum, sample) in mean.iter_mut().zip(&image.data) {
                *sum += f32::from(*sample) / self.training.len() as f32;
            }
        }
        let maps: Vec<Vec<f32>> = self
            .tests
            .iter()
            .map(|image| {
                let far: Vec<f32> = image
                    .data
                    .iter()
                    .zip(&mean)
                    .map(|(sample, mean)| (f32::from(*sample) - mean).abs())
                    .collect();
                let map: Vec<f32> = far.chunks(3).map(|pixel| pixel.iter().sum()).collect();
                let map = candle_core::Tensor::from_vec(map, (1, SIDE, SIDE), &Device::Cpu).unwrap();
                let smoothing = density_heads::TokenMap { sigma, ..density_heads::TokenMap::default() };
                smoothing.smooth(&map).unwrap().flatten_all().unwrap().to_vec1().unwrap()
            })
            .collect();
        self.pixel_auroc(&maps)
    }
}

/// `settings` with a learning rate that moves nothing.
fn untrained(settings: &Value) -> Value {
    let mut settings = settings.clone();
    settings["learning_rate"] = json!(1e-30);
    settings["epochs"] = json!(1);
    settings
}

fn settings() -> Value {
    json!({
        "image_size": SIDE, "patch_size": 4, "embed_dim": 32, "num_heads": 2, "key_dim": 16, "hidden_units": [64, 64],
        "dropout": 0.0, "epochs": 60, "batch_size": 8, "learning_rate": 4e-3, "bn_recalibrate": true, "map": "ssim",
        "map_sigma": 1.0,
    })
}

/// Pixel AUROC over two categories and three seeds, at least 0.05 above both.
#[test]
fn training_localises_better_than_no_training_and_the_mean_image() {
    let settings = settings();
    let sigma = settings["map_sigma"].as_f64().unwrap();
    let (mut trained, mut idle, mut mean_image) = (0.0, 0.0, 0.0);
    for name in CATEGORIES {
        let category = Category::read(name);
        mean_image += category.mean_image(sigma) / CATEGORIES.len() as f64;
        for seed in SEEDS {
            let share = 1.0 / (CATEGORIES.len() * SEEDS.len()) as f64;
            trained += category.fitted(&settings, seed) * share;
            idle += category.fitted(&untrained(&settings), seed) * share;
        }
    }
    let said = format!("trained {trained:.3}, untrained {idle:.3}, mean image {mean_image:.3}");
    assert!(trained >= idle.max(mean_image) + 0.05, "{said}");
}
