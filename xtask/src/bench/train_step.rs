//! `cargo xtask bench train-step`: forward, backward and the optimiser's step.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use optim::{Adam, Optimizer, ParameterGroup};
use random_streams::Streams;
use serde::{Deserialize, Serialize};
use vit_backbone::{BlockConfig, BlockContext, Family, TrainableBlock, VitConfig};

use super::backbone::{SCRIPT, normal};
use super::comparison::Comparison;
use super::contender::Contender;
use super::options::Options;
use super::table;
use super::work::{self, Work, open_device};

/// A training step of two pre-norm blocks: mean squared error to a target, `AdamW`; beside the same in plain `PyTorch`
/// (eager, `scaled_dot_product_attention`) from the same weights, whose losses are compared.
#[derive(Debug, clap::Args)]
pub(crate) struct TrainStep {
    #[command(flatten)]
    options: Options,
}

/// What one contender does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    block: BlockConfig,
    blocks: usize,
    learning_rate: f64,
    weight_decay: f64,
    /// How many of the first losses are compared.
    losses: usize,
    device: String,
    /// The folder of `weights.safetensors` (`<block>.<timm's name>`) and `data.safetensors` (`tokens` and `target`,
    /// `(B, N, D)`).
    inputs: PathBuf,
}

const WEIGHTS: &str = "weights.safetensors";
const DATA: &str = "data.safetensors";

/// Sizes.
#[derive(Debug)]
struct Setting {
    dim: usize,
    heads: usize,
    tokens: usize,
    batch: usize,
}

impl TrainStep {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let setting = if self.options.smoke {
            Setting { dim: 24, heads: 3, tokens: 10, batch: 2 }
        } else {
            Setting { dim: 384, heads: 6, tokens: 784, batch: 4 }
        };
        let Setting { dim, heads, tokens, batch } = setting;
        let name = format!("two blocks, width {dim}, {heads} heads, {tokens} tokens, batch {batch}, AdamW");
        table::report(&self.options, [(name, setting)], |name, setting| self.comparison(name, &setting))
    }

    fn comparison(&self, name: &str, setting: &Setting) -> Result<(Comparison, tempfile::TempDir)> {
        let inputs = tempfile::tempdir().context("can't make a folder for inputs")?;
        let streams = Streams::new(0);
        // Without `LayerScale`: the plain pre-norm block.
        let block = VitConfig::new(Family::TimmVit, (setting.dim, 1, setting.heads), 16, 224).block();
        let blocks = 2;
        let mut weights = Vec::new();
        for index in 0..blocks {
            let student = TrainableBlock::student(&block, &mut streams.stream("init"), &Device::Cpu)?;
            weights
                .extend(student.named_tensors()?.into_iter().map(|(name, t)| (format!("{index}.{name}"), t)));
        }
        work::write_tensors(&inputs.path().join(WEIGHTS), weights)?;
        let shape = (setting.batch, setting.tokens, setting.dim);
        let data = ["tokens", "target"]
            .map(|name| normal(shape, &mut streams.stream(name)).map(|tensor| (name.to_owned(), tensor)));
        work::write_tensors(&inputs.path().join(DATA), data.into_iter().collect::<Result<Vec<_>>>()?)?;

        let case = work::Case::TrainStep(Case {
            block,
            blocks,
            learning_rate: 1e-3,
            weight_decay: 0.01,
            losses: 6,
            device: self.options.device_name()?,
            inputs: inputs.path().to_owned(),
        });
        let peer = "PyTorch f32";
        let contenders = vec![
            Contender::ours("ours f32", &case)?,
            Contender::peer(peer, SCRIPT, serde_json::to_value(&case)?),
        ];
        Ok((Comparison { name: name.to_owned(), contenders, baseline: peer.to_owned() }, inputs))
    }
}

/// Blocks in training.
struct Training {
    blocks: Vec<TrainableBlock>,
    adam: Adam,
    tokens: Tensor,
    target: Tensor,
    /// Of the first steps.
    losses: Vec<f64>,
}

impl Case {
    pub(super) fn prepare(&self) -> Result<impl Work + use<>> {
        let device = open_device(&self.device)?;
        let weights = work::read_tensors(&self.inputs.join(WEIGHTS), &device)?;
        let mut blocks = Vec::new();
        for index in 0..self.blocks {
            let prefix = format!("{index}.");
            let own = weights
                .iter()
                .filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor.clone())))
                .collect();
            blocks.push(TrainableBlock::from_tensors(&self.block, &own)?);
        }
        let vars = blocks.iter().enumerate().flat_map(|(index, block)| {
            block.vars().iter().map(move |(name, var)| (format!("{index}.{name}"), var.clone()))
        });
        let group = ParameterGroup::new(vars);
        let adam = Adam::adam_w(vec![group], self.learning_rate, self.weight_decay)?;
        let data = work::read_tensors(&self.inputs.join(DATA), &device)?;
        let given =
            |name: &str| data.get(name).cloned().with_context(|| format!("no `{name}` among the inputs"));
        let (tokens, target) = (given("tokens")?, given("target")?);
        let mut training = Training { blocks, adam, tokens, target, losses: Vec::new() };
        for _ in 0..self.losses {
            let loss = training.step()?;
            training.losses.push(loss);
        }
        Ok(training)
    }
}

impl Training {
    /// One step; the loss before it.
    fn step(&mut self) -> Result<f64> {
        let mut tokens = self.tokens.clone();
        for block in &self.blocks {
            (tokens, _) = block.forward(&tokens, &mut BlockContext::default())?;
        }
        let loss = vit_ops::squared_error(&tokens, &self.target)?.mean_all()?;
        let gradients = loss.backward()?;
        self.adam.step(&gradients)?;
        Ok(f64::from(loss.to_scalar::<f32>()?))
    }
}

impl Work for Training {
    fn iterate(&mut self) -> Result<()> {
        self.step()?;
        Ok(self.tokens.device().synchronize()?)
    }

    fn outcome(&mut self) -> Result<Vec<f64>> {
        Ok(self.losses.clone())
    }
}
