//! `cargo xtask bench optimizers`: an optimiser's step by itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer as _, ParamsAdamW};
use optim::{Adam, AdamOptions, Optimizer, ParameterGroup, Sgd, SgdOptions};
use random_streams::Streams;
use serde::{Deserialize, Serialize};
use vit_backbone::{Family, TrainableBlock, VitConfig};

use super::backbone::{SCRIPT, normal};
use super::comparison::Comparison;
use super::contender::Contender;
use super::options::Options;
use super::table;
use super::work::{self, Work, open_device};

/// A step of each optimiser over the weights of twelve blocks of a ViT-S, with given gradients; beside candle's where it has one,
/// and `PyTorch`'s, as it is by default and `fused`. The weights after the first steps are compared.
#[derive(Debug, clap::Args)]
pub(crate) struct Optimizers {
    #[command(flatten)]
    options: Options,
}

/// What one contender does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    rule: Rule,
    form: Form,
    learning_rate: f64,
    weight_decay: f64,
    momentum: f64,
    /// After how many steps weights are compared.
    steps: usize,
    device: String,
    /// The folder of `weights.safetensors` and, under the same names, `gradients.safetensors`.
    inputs: PathBuf,
}

/// An optimiser.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Rule {
    Adam,
    AdamW,
    Sgd,
}

/// Ours, or candle's. Peers have one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    Optim,
    Candle,
}

const WEIGHTS: &str = "weights.safetensors";
const GRADIENTS: &str = "gradients.safetensors";

impl Rule {
    const ALL: [Self; 3] = [Self::Adam, Self::AdamW, Self::Sgd];

    fn title(self) -> &'static str {
        match self {
            Self::Adam => "Adam with L2",
            Self::AdamW => "AdamW",
            Self::Sgd => "SGD with momentum",
        }
    }
}

impl Optimizers {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let (dim, heads, blocks) = if self.options.smoke { (24, 3, 2) } else { (384, 6, 12) };
        let items = Rule::ALL.map(|rule| {
            (format!("{}, {blocks} blocks of width {dim}", rule.title()), (rule, dim, heads, blocks))
        });
        table::report(&self.options, items, |name, (rule, dim, heads, blocks)| {
            let block = VitConfig::new(Family::TimmVit, (dim, 1, heads), 16, 224).block();
            let inputs = tempfile::tempdir().context("can't make a folder for inputs")?;
            let mut stream = Streams::new(0).stream("weights and gradients");
            let (mut weights, mut gradients) = (Vec::new(), Vec::new());
            for index in 0..blocks {
                let student = TrainableBlock::student(&block, &mut stream, &Device::Cpu)?;
                for (name, tensor) in student.named_tensors()? {
                    let name = format!("{index}.{name}");
                    gradients.push((name.clone(), normal(tensor.shape(), &mut stream)?));
                    weights.push((name, tensor));
                }
            }
            work::write_tensors(&inputs.path().join(WEIGHTS), weights)?;
            work::write_tensors(&inputs.path().join(GRADIENTS), gradients)?;
            Ok((self.comparison(name, rule, &inputs)?, inputs))
        })
    }

    fn comparison(&self, name: &str, rule: Rule, inputs: &tempfile::TempDir) -> Result<Comparison> {
        let device = self.options.device_name()?;
        let case = |form| {
            work::Case::Optimizers(Case {
                rule,
                form,
                learning_rate: 1e-3,
                weight_decay: 0.01,
                momentum: 0.9,
                steps: 4,
                device: device.clone(),
                inputs: inputs.path().to_owned(),
            })
        };
        let mut contenders = vec![Contender::ours("ours f32", &case(Form::Optim))?];
        if rule == Rule::AdamW {
            contenders.push(Contender::candle("candle f32", &case(Form::Candle))?);
        }
        let peer = "PyTorch f32";
        let plain = serde_json::to_value(case(Form::Optim))?;
        let mut fused = plain.clone();
        fused["optimizers"]["fused"] = true.into();
        contenders.push(Contender::peer(peer, SCRIPT, plain));
        contenders.push(Contender::peer("PyTorch f32, fused", SCRIPT, fused));
        Ok(Comparison { name: name.to_owned(), contenders, baseline: peer.to_owned() })
    }
}

/// One of either library.
enum Any {
    Ours(Box<dyn Optimizer>),
    Candle(Box<AdamW>),
}

/// Weights, and what changes them by the same gradients again and again.
struct Stepping {
    optimizer: Any,
    gradients: GradStore,
    device: Device,
    /// A few of each weight, after the first steps.
    weights: Vec<f64>,
}

impl Case {
    pub(super) fn prepare(&self) -> Result<impl Work + use<>> {
        let device = open_device(&self.device)?;
        let read = |name| -> Result<BTreeMap<String, Tensor>> {
            Ok(work::read_tensors(&self.inputs.join(name), &device)?.into_iter().collect())
        };
        let given = read(GRADIENTS)?;
        let mut vars = Vec::new();
        for (name, tensor) in read(WEIGHTS)? {
            vars.push((name, Var::from_tensor(&tensor)?));
        }
        // The gradient of a sum of products is the other factor.
        let mut loss = Tensor::zeros((), DType::F32, &device)?;
        for (name, var) in &vars {
            let gradient = given.get(name).with_context(|| format!("no gradient of `{name}`"))?;
            loss = (loss + (var.as_tensor() * gradient)?.sum_all()?)?;
        }
        let gradients = loss.backward()?;
        let optimizer = self.optimizer(vars.clone())?;
        let mut stepping = Stepping { optimizer, gradients, device, weights: Vec::new() };
        for _ in 0..self.steps {
            stepping.iterate()?;
        }
        for (_, var) in &vars {
            stepping.weights.extend(work::values(&var.flatten_all()?.narrow(0, 0, 8)?)?);
        }
        Ok(stepping)
    }

    fn optimizer(&self, vars: Vec<(String, Var)>) -> Result<Any> {
        let Self { learning_rate, weight_decay, momentum, .. } = *self;
        if self.form == Form::Candle {
            let vars = vars.into_iter().map(|(_, var)| var).collect();
            let params = ParamsAdamW { lr: learning_rate, weight_decay, ..ParamsAdamW::default() };
            return Ok(Any::Candle(Box::new(AdamW::new(vars, params)?)));
        }
        let groups = vec![ParameterGroup::new(vars)];
        let adam = AdamOptions { learning_rate, weight_decay, ..AdamOptions::default() };
        Ok(Any::Ours(match self.rule {
            Rule::Adam => Box::new(Adam::new(groups, adam)?),
            Rule::AdamW => Box::new(Adam::adam_w(groups, learning_rate, weight_decay)?),
            Rule::Sgd => Box::new(Sgd::new(
                groups,
                SgdOptions { learning_rate, weight_decay, momentum, ..SgdOptions::default() },
            )?),
        }))
    }
}

impl Work for Stepping {
    fn iterate(&mut self) -> Result<()> {
        match &mut self.optimizer {
            Any::Ours(optimizer) => optimizer.step(&self.gradients)?,
            Any::Candle(optimizer) => optimizer.step(&self.gradients)?,
        }
        Ok(self.device.synchronize()?)
    }

    fn outcome(&mut self) -> Result<Vec<f64>> {
        Ok(self.weights.clone())
    }
}
