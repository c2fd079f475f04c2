//! `cargo xtask bench ops`: each operation by itself.

mod operation;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor, Var};
use random_streams::Streams;
use serde::{Deserialize, Serialize};

use super::backbone::{SCRIPT, normal};
use super::comparison::Comparison;
use super::contender::Contender;
use super::options::Options;
use super::table;
use super::work::{self, Work, open_device};
use operation::Operation;

/// Each operation of `vit-ops` at the sizes of a ViT, forward, and forward and backward with gradients of every input;
/// beside the same composed of candle's operations, and `PyTorch`'s operation.
#[derive(Debug, clap::Args)]
pub(crate) struct Ops {
    #[command(flatten)]
    options: Options,
}

/// What one contender does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    operation: Operation,
    form: Form,
    /// Forward and backward, not forward alone.
    backward: bool,
    device: String,
    /// The folder of `inputs.safetensors`: the operation's arguments, and `gradient`, that of its result.
    inputs: PathBuf,
}

/// Ours, or what one would write with candle alone. Peers have one form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    VitOps,
    Candle,
}

const INPUTS: &str = "inputs.safetensors";
const GRADIENT: &str = "gradient";

impl Ops {
    pub(crate) fn run(self) -> Result<ExitCode> {
        let items = Operation::ALL.into_iter().flat_map(|operation| {
            let name = operation.describe(self.options.smoke);
            [
                (format!("{name}, forward"), (operation, false)),
                (format!("{name}, backward"), (operation, true)),
            ]
        });
        let items: Vec<_> = items.collect();
        table::report(&self.options, items, |name, (operation, backward)| {
            self.comparison(name, operation, backward)
        })
    }

    fn comparison(
        &self,
        name: &str,
        operation: Operation,
        backward: bool,
    ) -> Result<(Comparison, tempfile::TempDir)> {
        let inputs = tempfile::tempdir().context("can't make a folder for inputs")?;
        let streams = Streams::new(0);
        let mut tensors = BTreeMap::new();
        for (argument, shape) in operation.arguments(self.options.smoke) {
            tensors.insert(argument.to_owned(), normal(shape, &mut streams.stream(argument))?);
        }
        let result = operation.with_candle(&tensors)?;
        let gradient = normal(result.shape(), &mut streams.stream(GRADIENT))?;
        tensors.insert(GRADIENT.to_owned(), gradient);
        work::write_tensors(&inputs.path().join(INPUTS), tensors)?;

        let device = self.options.device_name()?;
        let case = |form| {
            let inputs = inputs.path().to_owned();
            work::Case::Ops(Case { operation, form, backward, device: device.clone(), inputs })
        };
        let peer = "PyTorch f32";
        let contenders = vec![
            Contender::ours("ours f32", &case(Form::VitOps))?,
            Contender::candle("candle f32", &case(Form::Candle))?,
            Contender::peer(peer, SCRIPT, serde_json::to_value(case(Form::VitOps))?),
        ];
        Ok((Comparison { name: name.to_owned(), contenders, baseline: peer.to_owned() }, inputs))
    }
}

/// An operation and what it is applied to.
struct Applied {
    operation: Operation,
    form: Form,
    device: Device,
    /// Plain tensors, or the tensors of `vars`.
    arguments: BTreeMap<String, Tensor>,
    /// Of the backward pass; none forward.
    vars: BTreeMap<String, Var>,
    gradient: Tensor,
    /// Kept between iterations, for the comparison.
    results: Vec<Tensor>,
}

impl Case {
    pub(super) fn prepare(&self) -> Result<impl Work + use<>> {
        let device = open_device(&self.device)?;
        let mut tensors: BTreeMap<String, Tensor> =
            work::read_tensors(&self.inputs.join(INPUTS), &device)?.into_iter().collect();
        let gradient = tensors.remove(GRADIENT).context("no gradient among the inputs")?;
        let mut vars = BTreeMap::new();
        if self.backward {
            for (name, tensor) in &mut tensors {
                let var = Var::from_tensor(tensor)?;
                *tensor = var.as_tensor().clone();
                vars.insert(name.clone(), var);
            }
        }
        let (operation, form) = (self.operation, self.form);
        Ok(Applied { operation, form, device, arguments: tensors, vars, gradient, results: Vec::new() })
    }
}

impl Work for Applied {
    fn iterate(&mut self) -> Result<()> {
        self.results.clear();
        let result = match self.form {
            Form::VitOps => self.operation.with_vit_ops(&self.arguments)?,
            Form::Candle => self.operation.with_candle(&self.arguments)?,
        };
        if self.vars.is_empty() {
            self.results.push(result);
        } else {
            let gradients = started_with(&result, &self.gradient)?.backward()?;
            for (name, var) in &self.vars {
                let gradient = gradients.get(var).with_context(|| format!("`{name}` has no gradient"))?;
                self.results.push(gradient.clone());
            }
        }
        Ok(self.device.synchronize()?)
    }

    fn outcome(&mut self) -> Result<Vec<f64>> {
        let values = self.results.iter().map(work::values).collect::<Result<Vec<_>>>()?;
        Ok(values.concat())
    }
}

/// A scalar whose gradient with respect to `result` is `gradient`, at no cost of its own on the host, as `backward(gradient)` of
/// `PyTorch`. On a GPU it is the sum of their products.
fn started_with(result: &Tensor, gradient: &Tensor) -> candle_core::Result<Tensor> {
    if result.device().is_cpu() {
        result.apply_op1(Start(gradient.clone()))
    } else {
        (result * gradient)?.sum_all()
    }
}

struct Start(Tensor);

impl CustomOp1 for Start {
    fn name(&self) -> &'static str {
        "start of a backward pass"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![0.0]), Shape::from(())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, _: &Tensor) -> candle_core::Result<Option<Tensor>> {
        Ok(Some(self.0.clone()))
    }
}
