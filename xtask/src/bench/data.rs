//! `cargo xtask bench data`: from image files to normalised tensors.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anomaly_core::{EpochPlan, Order, Sample, Stream, Streams, TrainingData};
use anyhow::{Context, Result, ensure};
use datasets::{Dataset, LoadOptions, Part, Synthetic, SyntheticOptions, TrainingSet};
use image_prep::{Filter, IMAGENET_MEAN, IMAGENET_STD, Preprocess};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::comparison::Comparison;
use super::contender::Contender;
use super::options::Options;
use super::table;
use super::work::{self, Work};

const SCRIPT: &str = "data_bench.py";

/// A folder of PNG or JPEG files, decoded, resized (bilinear, as Pillow does), normalised and batched; beside torchvision
/// and Pillow in a `DataLoader` with as many workers. The tensors of the first images are compared: those of PNG files
/// must be equal to the bit, JPEG decoders differ by some levels.
#[derive(Debug, clap::Args)]
pub(crate) struct Data {
    #[command(flatten)]
    options: Options,
}

/// What one contender does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// The folder with `train/<class>` and `test/<class>`; what is read is `train`.
    folder: PathBuf,
    /// Side of the tensors.
    size: usize,
    batch: usize,
    workers: usize,
    mean: [f32; 3],
    std: [f32; 3],
    /// How many of the first images are compared.
    compared: usize,
}

/// The files of one comparison.
#[derive(Debug)]
struct Setting {
    extension: &'static str,
    side: usize,
    images: usize,
}

impl Data {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let (sides, images): (&[usize], usize) =
            if self.options.smoke { (&[64], 6) } else { (&[256, 1024], 64) };
        let mut settings = Vec::new();
        for extension in ["png", "jpg"] {
            for &side in sides {
                let name =
                    format!("{images} {extension} files of {side} x {side} to 224 x 224, batches of 16");
                settings.push((name, Setting { extension, side, images }));
            }
        }
        table::report(&self.options, settings, |name, setting| self.comparison(name, &setting))
    }

    fn comparison(&self, name: &str, setting: &Setting) -> Result<(Comparison, tempfile::TempDir)> {
        let inputs = tempfile::tempdir().context("can't make a folder for inputs")?;
        write_images(inputs.path(), setting)?;
        let case = work::Case::Data(Case {
            folder: inputs.path().to_owned(),
            size: 224,
            batch: 16,
            workers: self.options.threads(),
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
            compared: setting.images.min(8),
        });
        let peer = "torchvision, Pillow";
        let contenders = vec![
            Contender::ours("ours", &case)?,
            Contender::peer(peer, SCRIPT, serde_json::to_value(&case)?),
        ];
        Ok((Comparison { name: name.to_owned(), contenders, baseline: peer.to_owned() }, inputs))
    }
}

/// Synthetic textures as files: all categories, with and without defects.
fn write_images(folder: &Path, setting: &Setting) -> Result<()> {
    let categories = 8;
    let options = SyntheticOptions {
        size: setting.side,
        train: setting.images.div_ceil(categories),
        test_good: 1,
        test_each: 1,
        ..SyntheticOptions::default()
    };
    let set = Synthetic::new(&options)?;
    let train: Vec<usize> =
        (0..set.items().len()).filter(|&at| set.items()[at].part == Part::Train).collect();
    ensure!(train.len() >= setting.images, "expected {} images, made {}", setting.images, train.len());
    for part in ["train/all", "test/all"] {
        std::fs::create_dir_all(folder.join(part)).context("can't make a folder for inputs")?;
    }
    // Evenly from the list, so that every category comes.
    let chosen = (0..setting.images).map(|number| (number, train[number * train.len() / setting.images]));
    let chosen: Vec<_> = chosen.collect();
    chosen.into_par_iter().try_for_each(|(number, index)| -> Result<()> {
        let pixels = set.image(index)?;
        let image = image::RgbImage::from_raw(pixels.width as u32, pixels.height as u32, pixels.data)
            .context("an image of another size than it says")?;
        let path = folder.join(format!("train/all/{number:04}.{}", setting.extension));
        image.save(&path).with_context(|| format!("can't write {}", path.display()))?;
        if number == 0 {
            // The layout wants a test part.
            image.save(folder.join(format!("test/all/0.{}", setting.extension)))?;
        }
        Ok(())
    })
}

/// A folder that is read again and again.
struct Reading {
    images: TrainingSet,
    case: Case,
    stream: Stream,
}

impl Case {
    pub(super) fn prepare(&self) -> Result<impl Work + use<>> {
        let dataset: Arc<dyn Dataset> = datasets::open("folder", Some(&self.folder))?.into();
        let train =
            (0..dataset.items().len()).filter(|&at| dataset.items()[at].part == Part::Train).collect();
        let preprocess = Preprocess::square(self.size, Filter::Bilinear, self.mean, self.std);
        let options = LoadOptions { threads: Some(self.workers), ..LoadOptions::default() };
        let images = TrainingSet::new(dataset, train, preprocess)?.with_options(options)?;
        Ok(Reading { images, case: self.clone(), stream: Streams::new(0).stream("shuffle") })
    }
}

impl Work for Reading {
    fn iterate(&mut self) -> Result<()> {
        let plan = EpochPlan {
            sample: Sample::All,
            order: Order::InOrder,
            batch: self.case.batch,
            drop_last: false,
            stream: &mut self.stream,
        };
        let mut count = 0;
        for batch in self.images.epoch(plan) {
            count += batch?.images.len();
        }
        ensure!(count == self.images.len(), "expected {} images, read {count}", self.images.len());
        Ok(())
    }

    fn outcome(&mut self) -> Result<Vec<f64>> {
        let first: Vec<usize> = (0..self.case.compared).collect();
        work::values(self.images.get(&first)?.pixels())
    }
}
