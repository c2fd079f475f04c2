//! `cargo xtask bench generalad`: a fit whose frozen features are computed anew in every epoch, and once.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anomaly_core::{
    ContentKey, DataError, Detector, DetectorWriter, DiskFeatureStore, FeaturePrecision, FeatureStore,
    FitContext, Images, MemoryFeatureStore, Method, Precision, TrainingData,
};
use anyhow::{Context, Result, ensure};
use benchmark::DeviceChoice;
use candle_core::{Device, Tensor};
use datasets::{Dataset, Part, Synthetic, SyntheticOptions};
use generalad::{Config, FakeFeatures};
use image_prep::Preprocess;
use serde::Serialize;
use vit_backbone::{LoadOptions, Outputs, Vit};

use super::conditions::Conditions;
use crate::say;

/// A fit of `GeneralAD` on synthetic textures with the embedded backbone: its frozen features computed anew in every
/// epoch as the reference does, and computed once, in turns. Beside the speed-up stands the most that is possible: what
/// the fit would take if the backbone ran once and everything else cost the same, by the times of this run.
#[derive(Debug, clap::Args)]
pub(crate) struct GeneralAd {
    /// How many times each way takes its turn.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Passes over the training images.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..))]
    epochs: u16,
    /// Where to compute: `auto`, `cpu`, `cuda` or `cuda:N`.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: DeviceChoice,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Tiny sizes: whether everything runs, not how fast.
    #[arg(long)]
    smoke: bool,
}

/// How a fit gets its features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Anew,
    Memory,
    Folder,
    HalfFolder,
}

const WAYS: [Way; 4] = [Way::Anew, Way::Memory, Way::Folder, Way::HalfFolder];

impl Way {
    fn words(self) -> &'static str {
        match self {
            Self::Anew => "anew in every epoch",
            Self::Memory => "once, kept in memory",
            Self::Folder => "once, kept in a folder",
            Self::HalfFolder => "once, kept in a folder as f16",
        }
    }

    /// An empty store.
    fn store(self, folder: &std::path::Path) -> Result<Arc<dyn FeatureStore>> {
        let disk = |precision| DiskFeatureStore::open(folder, 1 << 34, precision);
        Ok(match self {
            Self::Anew => Arc::new(MemoryFeatureStore::new(0)),
            Self::Memory => Arc::new(MemoryFeatureStore::new(1 << 34)),
            Self::Folder => Arc::new(disk(FeaturePrecision::F32)?),
            Self::HalfFolder => Arc::new(disk(FeaturePrecision::F16)?),
        })
    }
}

/// All that a run measured.
#[derive(Debug, Serialize)]
struct Report {
    conditions: Conditions,
    fits: Vec<Measured>,
}

/// One setting.
#[derive(Debug, Serialize)]
struct Measured {
    name: String,
    /// Median seconds of the backbone alone over one epoch's images.
    backbone_seconds: f64,
    /// What is left of an epoch that computes features anew.
    head_seconds: f64,
    /// How many times faster a fit could become at most.
    bound: f64,
    ways: Vec<Standing>,
}

#[derive(Debug, Serialize)]
struct Standing {
    way: &'static str,
    /// Median seconds of a fit.
    seconds: f64,
    /// By how much it is faster than with features computed anew: the median over rounds.
    speed_up: f64,
    /// The largest difference of a test image's score, as a share of the largest score; 0: the detector has the same bits.
    score_difference: f64,
    /// The image AUROC of the test images.
    image_auroc: f64,
}

impl GeneralAd {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let (device, found) = self.device.open()?;
        let conditions = Conditions::of(rayon::current_num_threads(), found.to_string(), self.rounds, None);
        if !self.json {
            say(&conditions.text())?;
        }
        let options = LoadOptions { device: device.clone(), ..LoadOptions::default() };
        let vit = Arc::new(Vit::load("dinov2-small-b9", &options)?);
        let mut fits = Vec::new();
        for kind in [FakeFeatures::Random, FakeFeatures::Base] {
            let measured = self.measure(kind, &vit, &device)?;
            if !self.json {
                say(&text(&measured))?;
            }
            fits.push(measured);
        }
        if self.json {
            say(&serde_json::to_string_pretty(&Report { conditions, fits })?)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn measure(&self, kind: FakeFeatures, vit: &Arc<Vit>, device: &Device) -> Result<Measured> {
        let (images, size, hidden) = if self.smoke { (4, 28, 16) } else { (48, 224, 2048) };
        let batch = if self.smoke { 2 } else { 16 };
        let epochs = usize::from(self.epochs);
        let config = Config {
            image_size: size,
            epochs,
            batch_size: batch,
            hidden_dim: hidden,
            fake_features: kind,
            ..Config::default()
        };
        let name = format!(
            "{kind:?}: {images} images of {size} px, {epochs} epochs, batch {batch}, hidden width {hidden}, {} of {} blocks",
            vit.identity().name,
            vit.depth()
        );
        let method = generalad::GeneralAd::new(config, Arc::clone(vit))?;
        let set = Synthetic::new(&SyntheticOptions { train: images, ..SyntheticOptions::default() })?;
        let mut training = Prepared::of(&set, Part::Train, images, method.preprocess())?;
        let test = Prepared::of(&set, Part::Test, if self.smoke { 80 } else { 200 }, method.preprocess())?;

        let mut seconds = WAYS.map(|_| Vec::new());
        let mut backbone = Vec::new();
        let mut detectors = Vec::new();
        for round in 0..self.rounds {
            for (way, times) in WAYS.into_iter().zip(&mut seconds) {
                tracing::info!("{name}: round {round}, features {}", way.words());
                let place = tempfile::tempdir().context("can't make a folder for features")?;
                let mut context = FitContext::new(device.clone(), 0);
                context.features = way.store(place.path())?;
                let before = Instant::now();
                let detector = method.fit(&mut training, &mut context)?;
                device.synchronize()?;
                times.push(before.elapsed().as_secs_f64());
                if round == 0 {
                    detectors.push(detector);
                }
            }
            let before = Instant::now();
            training.through(vit, batch)?;
            device.synchronize()?;
            backbone.push(before.elapsed().as_secs_f64());
        }
        self.judge(name, &seconds, &backbone, &detectors, (&method, &training, &test))
    }

    fn judge(
        &self,
        name: String,
        seconds: &[Vec<f64>; 4],
        backbone: &[f64],
        detectors: &[Box<dyn Detector>],
        (method, training, test): (&generalad::GeneralAd, &Prepared, &Prepared),
    ) -> Result<Measured> {
        let epochs = f64::from(self.epochs);
        let (anew, backbone_seconds) = (median(&seconds[0]), median(backbone));
        let head_seconds = anew / epochs - backbone_seconds;
        ensure!(
            head_seconds > 0.0,
            "the machine was disturbed: the backbone alone took longer than a whole epoch"
        );
        let (scores, bits) = (test.scores(&*detectors[0])?, saved(method, training, &*detectors[0])?);
        let largest = scores.iter().fold(0.0_f64, |largest, score| largest.max(score.abs()));
        let mut ways = Vec::new();
        for ((way, times), detector) in WAYS.into_iter().zip(seconds).zip(detectors) {
            if way != Way::HalfFolder {
                ensure!(
                    saved(method, training, &**detector)? == bits,
                    "with features {} the detector has other bits than with features {}",
                    way.words(),
                    WAYS[0].words()
                );
            }
            let own = test.scores(&**detector)?;
            let difference = own.iter().zip(&scores).fold(0.0_f64, |most, (a, b)| most.max((a - b).abs()));
            let ratios: Vec<f64> = seconds[0].iter().zip(times).map(|(anew, own)| anew / own).collect();
            ways.push(Standing {
                way: way.words(),
                seconds: median(times),
                speed_up: median(&ratios),
                score_difference: difference / largest,
                image_auroc: metrics::auroc(&own, &test.anomalous)?,
            });
        }
        let bound = anew / (backbone_seconds + epochs * head_seconds);
        Ok(Measured { name, backbone_seconds, head_seconds, bound, ways })
    }
}

/// The files of a saved detector.
fn saved(method: &generalad::GeneralAd, training: &Prepared, detector: &dyn Detector) -> Result<Vec<u8>> {
    let place = tempfile::tempdir().context("can't make a folder for a detector")?;
    let print = training.fingerprint()?;
    let mut writer =
        DetectorWriter::new(place.path(), method.info(), method.preprocess(), Precision::F32, 0, print);
    detector.save(&mut writer)?;
    writer.finish()?;
    std::fs::read(place.path().join("detector.safetensors")).context("can't read a saved detector")
}

/// Images of one category in memory, so that nothing but the method takes time.
struct Prepared {
    ids: Vec<String>,
    keys: Vec<ContentKey>,
    anomalous: Vec<bool>,
    pixels: Tensor,
}

/// The category fitted.
const CATEGORY: &str = "wood";

impl Prepared {
    /// At most `count` images of `part`.
    fn of(set: &Synthetic, part: Part, count: usize, preprocess: &Preprocess) -> Result<Self> {
        let class = set.class_index(CATEGORY)?;
        let chosen = set.items().iter().enumerate();
        let chosen = chosen.filter(|(_, item)| item.part == part && item.class == class).take(count);
        let (mut ids, mut keys, mut anomalous, mut pixels) = (vec![], vec![], vec![], vec![]);
        for (at, item) in chosen {
            let image = set.image(at)?;
            ids.push(item.id.clone());
            keys.push(ContentKey::of_pixels(image.height, image.width, &image.data));
            anomalous.push(item.defect.is_some());
            let planes = preprocess.apply(&image)?;
            pixels.push(Tensor::from_vec(planes.data, (3, planes.height, planes.width), &Device::Cpu)?);
        }
        Ok(Self { ids, keys, anomalous, pixels: Tensor::stack(&pixels, 0)? })
    }

    /// Runs all images through the backbone, as an epoch does.
    fn through(&self, vit: &Vit, batch: usize) -> Result<()> {
        let wanted = Outputs::normed_blocks([vit.depth() - 1]);
        for start in (0..self.ids.len()).step_by(batch) {
            let some = self.pixels.narrow(0, start, batch.min(self.ids.len() - start))?;
            vit.forward(&some.to_device(vit.device())?, &wanted)?;
        }
        Ok(())
    }

    fn scores(&self, detector: &dyn Detector) -> Result<Vec<f64>> {
        Ok(detector.score(&self.get(&(0..self.ids.len()).collect::<Vec<_>>())?)?.scores)
    }
}

impl TrainingData for Prepared {
    fn len(&self) -> usize {
        self.ids.len()
    }

    fn key(&self, index: usize) -> Result<ContentKey, DataError> {
        Ok(self.keys[index])
    }

    fn get(&self, indices: &[usize]) -> Result<Images, DataError> {
        let rows: Vec<u32> = indices.iter().map(|index| *index as u32).collect();
        let pixels = Tensor::new(rows, &Device::Cpu).and_then(|rows| self.pixels.index_select(&rows, 0));
        let ids = indices.iter().map(|index| self.ids[*index].clone()).collect();
        Images::new(ids, pixels.map_err(DataError::new)?).map_err(DataError::new)
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

fn text(measured: &Measured) -> String {
    let mut lines = vec![
        format!("\n{}", measured.name),
        format!(
            "an epoch: backbone {:.2} s, everything else {:.2} s; at most {:.2} times faster",
            measured.backbone_seconds, measured.head_seconds, measured.bound
        ),
        "features                        fit s   speed-up   of the bound   score difference   image AUROC"
            .to_owned(),
    ];
    for way in &measured.ways {
        lines.push(format!(
            "{:<29} {:>7.2} {:>10.2} {:>14.2} {:>18.1e} {:>13.4}",
            way.way,
            way.seconds,
            way.speed_up,
            way.speed_up / measured.bound,
            way.score_difference,
            way.image_auroc
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 8.0]), 3.0);
    }
}
