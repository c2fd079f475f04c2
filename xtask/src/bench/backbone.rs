//! `cargo xtask bench backbone`: a frozen network's forward pass.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use random_streams::{Stream, Streams};
use serde::{Deserialize, Serialize};
use vit_backbone::{Family, LoadOptions, NameScheme, Outputs, Vit, VitConfig};

use super::comparison::Comparison;
use super::contender::Contender;
use super::options::Options;
use super::table;
use super::work::{self, Work, open_device};

/// The forward pass of frozen backbones with random weights, beside the same network in plain `PyTorch` (eager,
/// `scaled_dot_product_attention`) on the same weights and images.
#[derive(Debug, clap::Args)]
pub(crate) struct Backbone {
    #[command(flatten)]
    options: Options,
    /// Precisions of ours, each a contender.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "f32")]
    precision: Vec<Precision>,
}

/// How exact products are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Precision {
    /// Single precision throughout.
    F32,
    /// Each product as three of bf16.
    Bf16x3,
    /// Products of bf16.
    Bf16,
    /// What suits this machine: `bf16x3` or `f32`.
    Auto,
}

impl Precision {
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16x3 => "bf16x3",
            Self::Bf16 => "bf16",
            Self::Auto => "auto",
        }
    }
}

/// What one contender does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    network: VitConfig,
    precision: Precision,
    device: String,
    /// The folder of `weights.safetensors` (timm's names) and `images.safetensors` (`images`, `(B, 3, H, W)`).
    inputs: PathBuf,
}

const WEIGHTS: &str = "weights.safetensors";
const IMAGES: &str = "images.safetensors";
/// The script that does the same with `PyTorch`.
pub(super) const SCRIPT: &str = "bench_torch.py";

/// A network and its images.
#[derive(Debug)]
struct Setting {
    network: VitConfig,
    size: usize,
    batch: usize,
}

impl Backbone {
    pub(crate) fn run(self) -> Result<ExitCode> {
        table::report(&self.options, settings(self.options.smoke), |name, setting| {
            self.comparison(name, &setting)
        })
    }

    fn comparison(&self, name: &str, setting: &Setting) -> Result<(Comparison, tempfile::TempDir)> {
        let inputs = tempfile::tempdir().context("can't make a folder for inputs")?;
        let streams = Streams::new(0);
        let vit = Vit::random(setting.network.clone(), &mut streams.stream("init"), &Device::Cpu)?;
        work::write_tensors(&inputs.path().join(WEIGHTS), vit.named_tensors()?)?;
        let shape = (setting.batch, 3, setting.size, setting.size);
        let images = normal(shape, &mut streams.stream("images"))?;
        work::write_tensors(&inputs.path().join(IMAGES), [("images".to_owned(), images)])?;

        let device = self.options.device_name()?;
        let case = |precision| Case {
            network: setting.network.clone(),
            precision,
            device: device.clone(),
            inputs: inputs.path().to_owned(),
        };
        let mut contenders = Vec::new();
        for &precision in &self.precision {
            let label = format!("ours {}", precision.name());
            contenders.push(Contender::ours(label, &work::Case::Backbone(case(precision)))?);
        }
        for precision in ["f32", "bf16"] {
            let mut case = serde_json::to_value(work::Case::Backbone(case(Precision::F32)))?;
            case["backbone"]["precision"] = precision.into();
            contenders.push(Contender::peer(format!("PyTorch {precision}"), SCRIPT, case));
        }
        let comparison = Comparison { name: name.to_owned(), contenders, baseline: "PyTorch f32".to_owned() };
        Ok((comparison, inputs))
    }
}

/// The networks, at their sizes, and their names.
fn settings(smoke: bool) -> Vec<(String, Setting)> {
    let vit_b = VitConfig::new(Family::TimmVit, (768, 12, 12), 16, 224);
    let dinov2_s = VitConfig::new(Family::TimmDinov2, (384, 12, 6), 14, 392);
    let tiny = VitConfig::new(Family::TimmDinov2, (48, 2, 3), 8, 32);
    let networks = if smoke {
        vec![("tiny DINOv2, 32 px", tiny, 32)]
    } else {
        vec![("ViT-B/16, 224 px", vit_b, 224), ("DINOv2-S/14, 392 px", dinov2_s, 392)]
    };
    let mut settings = Vec::new();
    for (name, network, size) in networks {
        for batch in if smoke { vec![2] } else { vec![1, 8] } {
            settings
                .push((format!("{name}, batch {batch}"), Setting { network: network.clone(), size, batch }));
        }
    }
    settings
}

/// Normal values.
pub(super) fn normal(shape: impl Into<candle_core::Shape>, stream: &mut Stream) -> Result<Tensor> {
    let shape = shape.into();
    let mut values = vec![0.0_f32; shape.elem_count()];
    stream.fill_normal(&mut values);
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// A network that is ready.
struct Forward {
    vit: Vit,
    images: Tensor,
    last: Option<Tensor>,
}

impl Case {
    pub(super) fn prepare(&self) -> Result<impl Work + use<>> {
        let device = open_device(&self.device)?;
        let options = LoadOptions {
            device: device.clone(),
            precision: self.precision.name().parse()?,
            described: Some((self.network.clone(), NameScheme::Timm)),
            ..LoadOptions::default()
        };
        let weights = self.inputs.join(WEIGHTS);
        let vit = Vit::load(weights.to_str().context("a folder's name is no text")?, &options)?;
        let images = work::read_tensors(&self.inputs.join(IMAGES), &device)?;
        let images = images.get("images").context("no `images` among the inputs")?.clone();
        Ok(Forward { vit, images, last: None })
    }
}

impl Work for Forward {
    fn iterate(&mut self) -> Result<()> {
        // Not held during the next pass, as a caller would not.
        self.last = None;
        let features = self.vit.forward(&self.images, &Outputs::norm())?;
        self.vit.device().synchronize()?;
        self.last = features.norm;
        Ok(())
    }

    fn outcome(&mut self) -> Result<Vec<f64>> {
        if self.last.is_none() {
            self.iterate()?;
        }
        work::values(self.last.as_ref().context("no result")?)
    }

    fn versions(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("precision".to_owned(), self.vit.precision().to_string())])
    }
}
