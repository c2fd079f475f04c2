//! Where a network's tensors come from: drawn, or given by name.

use std::collections::HashMap;

use anomaly_core::Stream;
use candle_core::{DType, Device, Tensor, Var};
use vit_ops::{Linear, init};

use crate::Error;

/// The standard deviation of everything that is drawn.
const STD: f64 = 0.02;

/// First values.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Initial {
    /// Normal around 0: weights of layers.
    Weight,
    /// Normal around 0, redrawn beyond 2, which is a hundred standard deviations away: tables of positions.
    Table,
    /// Normal around 1: the weight of a batch norm.
    AroundOne,
    Zeros,
    Ones,
}

impl Initial {
    fn draw(self, shape: &[usize], stream: &mut Stream, device: &Device) -> Result<Tensor, Error> {
        Ok(match self {
            Self::Weight => init::normal(shape, 0.0, STD, stream, device)?,
            Self::Table => init::truncated_normal(shape, (0.0, STD), (-2.0, 2.0), stream, device)?,
            Self::AroundOne => init::normal(shape, 1.0, STD, stream, device)?,
            Self::Zeros => Tensor::zeros(shape, DType::F32, device)?,
            Self::Ones => Tensor::ones(shape, DType::F32, device)?,
        })
    }
}

/// A network's tensors while it is built.
pub(crate) struct Parameters<'a> {
    values: Values<'a>,
    device: &'a Device,
    /// The variables made so far; `None` for a frozen network.
    vars: Option<Vec<(String, Var)>>,
}

enum Values<'a> {
    Drawn(&'a mut Stream),
    Given(&'a HashMap<String, Tensor>),
}

impl<'a> Parameters<'a> {
    /// First values for training.
    pub(crate) fn drawn(stream: &'a mut Stream, device: &'a Device) -> Self {
        Self { values: Values::Drawn(stream), device, vars: Some(Vec::new()) }
    }

    /// Given values to train on.
    pub(crate) fn trained(tensors: &'a HashMap<String, Tensor>, device: &'a Device) -> Self {
        Self { values: Values::Given(tensors), device, vars: Some(Vec::new()) }
    }

    /// Given values that stay.
    pub(crate) fn frozen(tensors: &'a HashMap<String, Tensor>, device: &'a Device) -> Self {
        Self { values: Values::Given(tensors), device, vars: None }
    }

    /// The tensor called `name`.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize], initial: Initial) -> Result<Tensor, Error> {
        let value = match &mut self.values {
            Values::Drawn(stream) => initial.draw(shape, stream, self.device)?,
            Values::Given(tensors) => given(tensors, name, shape, self.device)?,
        };
        match &mut self.vars {
            None => Ok(value),
            Some(vars) => {
                let var = Var::from_tensor(&value)?;
                vars.push((name.to_owned(), var.clone()));
                Ok(var.as_tensor().clone())
            }
        }
    }

    /// A tensor that is no parameter, if tensors are given at all.
    pub(crate) fn buffer(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor>, Error> {
        match &self.values {
            Values::Drawn(_) => Ok(None),
            Values::Given(tensors) => given(tensors, name, shape, self.device).map(Some),
        }
    }

    /// Where the tensors are.
    pub(crate) fn device(&self) -> &Device {
        self.device
    }

    /// All given tensors whose names `wanted` picks.
    pub(crate) fn others(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, Tensor)> {
        match &self.values {
            Values::Drawn(_) => Vec::new(),
            Values::Given(tensors) => {
                let picked = tensors.iter().filter(|(name, _)| wanted(name));
                let mut all: Vec<_> = picked.map(|(name, tensor)| (name.clone(), tensor.detach())).collect();
                all.sort_by(|a, b| a.0.cmp(&b.0));
                all
            }
        }
    }

    /// A linear layer `<name>.weight`, and `<name>.bias` if it has one.
    pub(crate) fn linear(
        &mut self,
        name: &str,
        (inputs, outputs): (usize, usize),
        bias: bool,
    ) -> Result<Linear, Error> {
        let weight = self.tensor(&format!("{name}.weight"), &[outputs, inputs], Initial::Weight)?;
        let bias =
            if bias { Some(self.tensor(&format!("{name}.bias"), &[outputs], Initial::Zeros)?) } else { None };
        Ok(Linear::new(weight, bias)?)
    }

    /// A layer norm `<name>.weight` and `<name>.bias`.
    pub(crate) fn norm(&mut self, name: &str, width: usize) -> Result<Norm, Error> {
        Ok(Norm {
            weight: self.tensor(&format!("{name}.weight"), &[width], Initial::Ones)?,
            bias: self.tensor(&format!("{name}.bias"), &[width], Initial::Zeros)?,
        })
    }

    /// The variables, in the order in which they were made.
    pub(crate) fn into_vars(self) -> Vec<(String, Var)> {
        self.vars.unwrap_or_default()
    }
}

/// A given tensor as f32 on `device`, without a graph.
fn given(
    tensors: &HashMap<String, Tensor>,
    name: &str,
    shape: &[usize],
    device: &Device,
) -> Result<Tensor, Error> {
    let tensor = tensors.get(name).ok_or_else(|| Error::MissingWeight(name.to_owned()))?;
    if tensor.dims() != shape {
        let (expected, found) = (shape.to_vec(), tensor.dims().to_vec());
        return Err(Error::WeightShape { name: name.to_owned(), expected, found });
    }
    Ok(tensor.detach().to_device(device)?.to_dtype(DType::F32)?)
}

/// A layer norm over the last axis.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    weight: Tensor,
    bias: Tensor,
}

impl Norm {
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        Ok(vit_ops::layer_norm(x, &self.weight, &self.bias, 1e-5)?)
    }
}

/// `prefix.name`, or `name` at the root.
pub(crate) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}
