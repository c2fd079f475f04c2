//! `cargo xtask bench anogan-trans`: a training step of both networks.

use std::path::PathBuf;
use std::process::ExitCode;

use anogan_trans::{Config, LatentGradient, RunningUpdates, StepLosses, Trainer};
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use random_streams::Streams;
use serde::{Deserialize, Serialize};

use super::backbone::normal;
use super::comparison::Comparison;
use super::contender::Contender;
use super::options::Options;
use super::table;
use super::work::{self, Work, open_device};

/// A training step of `AnoTrans`' two networks at the published size, with the gradients of the reference's step; beside
/// the same networks in plain `PyTorch` (eager) from the same weights, whose losses are compared: once with each
/// network's work done once as ours does it, and once in the order of the public code.
#[derive(Debug, clap::Args)]
pub(crate) struct AnoganTrans {
    #[command(flatten)]
    options: Options,
}

/// What one contender does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    config: Config,
    /// In which of two equal orders `PyTorch` works.
    order: Order,
    /// Of how many of the first steps losses are compared.
    losses: usize,
    device: String,
    /// The folder of `weights.safetensors` (`generator.<name>`, `discriminator.<name>`) and `images.safetensors`
    /// (`images`, `(B, 3, S, S)`).
    inputs: PathBuf,
}

/// Which work of a step is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// All that can be.
    Shared,
    /// None, as in the public code.
    Reference,
}

const SCRIPT: &str = "bench_anogan_trans.py";
const WEIGHTS: &str = "weights.safetensors";
const IMAGES: &str = "images.safetensors";

impl AnoganTrans {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let reference = Config {
            latent_gradient: LatentGradient::Twice,
            discriminator_latent: true,
            running_updates: RunningUpdates::Five,
            ..Config::default()
        };
        let config = if self.options.smoke {
            Config { dim: 8, discriminator_width: 4, feature_size: 6, batch_size: 2, ..reference }
        } else {
            reference
        };
        let Config { image_size, patch_size, dim, batch_size, .. } = config;
        let name = format!("{image_size} px, patch {patch_size}, width {dim}, batch {batch_size}, Adam");
        table::report(&self.options, [(name, config)], |name, config| self.comparison(name, &config))
    }

    fn comparison(&self, name: &str, config: &Config) -> Result<(Comparison, tempfile::TempDir)> {
        let inputs = tempfile::tempdir().context("can't make a folder for inputs")?;
        let streams = Streams::new(0);
        let fresh = Trainer::new(config, &streams, &Device::Cpu)?;
        work::write_tensors(&inputs.path().join(WEIGHTS), fresh.named_tensors()?)?;
        let shape = (config.batch_size, 3, config.image_size, config.image_size);
        let images = normal(shape, &mut streams.stream("images"))?;
        work::write_tensors(&inputs.path().join(IMAGES), [("images".to_owned(), images)])?;

        let device = self.options.device_name()?;
        let case = |order| {
            let (config, inputs) = (config.clone(), inputs.path().to_owned());
            work::Case::AnoganTrans(Box::new(Case {
                config,
                order,
                losses: 4,
                device: device.clone(),
                inputs,
            }))
        };
        let baseline = "PyTorch f32";
        let in_order = format!("{baseline}, the public code's order");
        let peer = |label: &str, order| -> Result<Contender> {
            Ok(Contender::peer(label, SCRIPT, serde_json::to_value(case(order))?))
        };
        let contenders = vec![
            Contender::ours("ours f32", &case(Order::Shared))?,
            peer(baseline, Order::Shared)?,
            peer(&in_order, Order::Reference)?,
        ];
        Ok((Comparison { name: name.to_owned(), contenders, baseline: baseline.to_owned() }, inputs))
    }
}

/// Both networks in training.
struct Training {
    trainer: Trainer,
    images: Tensor,
    /// Of the first steps: the generator's and the discriminator's, in turns.
    losses: Vec<f64>,
}

impl Case {
    pub(super) fn prepare(&self) -> Result<impl Work + use<>> {
        let device = open_device(&self.device)?;
        let weights = work::read_tensors(&self.inputs.join(WEIGHTS), &device)?;
        let images = work::read_tensors(&self.inputs.join(IMAGES), &device)?
            .remove("images")
            .context("no `images` among the inputs")?;
        let trainer = Trainer::from_tensors(&self.config, &weights, &device)?;
        let mut training = Training { trainer, images, losses: Vec::new() };
        for _ in 0..self.losses {
            let StepLosses { generator, discriminator, .. } = training.step()?;
            training.losses.extend([generator, discriminator]);
        }
        Ok(training)
    }
}

impl Training {
    fn step(&mut self) -> Result<StepLosses> {
        Ok(self.trainer.step(&self.images, None)?)
    }
}

impl Work for Training {
    fn iterate(&mut self) -> Result<()> {
        self.step()?;
        Ok(self.images.device().synchronize()?)
    }

    fn outcome(&mut self) -> Result<Vec<f64>> {
        Ok(self.losses.clone())
    }
}
