//! Adaptor and discriminator.

use std::collections::BTreeMap;

use anomaly_core::Stream;
use candle_core::{DType, Device, Tensor, Var};
use vit_ops::Linear;

use crate::Error;
use crate::batch_norm::{Options, Running, by_batch, by_running};

/// Name of the adaptor's weight in the reference's state dict.
pub(crate) const ADAPTOR: &str = "feature_adaptor.linear.weight";
const FINAL: &str = "discriminator.layers.final_linear.weight";

/// Name of a part of the hidden layer `index`.
pub(crate) fn linear(index: usize, part: &str) -> String {
    format!("discriminator.layers.linear{index}.{part}")
}

/// Name of a part of the batch norm `index`.
pub(crate) fn batch_norm(index: usize, part: &str) -> String {
    format!("discriminator.layers.batch_norm{index}.{part}")
}

/// All sizes and options of adaptor and discriminator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sizes {
    /// Width D of features.
    pub(crate) width: usize,
    /// Width of hidden layers.
    pub(crate) hidden: usize,
    /// Hidden layers: one less than the discriminator's layers.
    pub(crate) hidden_layers: usize,
    /// Of the leaky `ReLU`.
    pub(crate) slope: f64,
    pub(crate) batch_norm: Options,
}

/// The slope that the reference's leaky `ReLU` has.
pub(crate) const SLOPE: f64 = 0.2;

impl Sizes {
    fn inputs(&self, layer: usize) -> usize {
        if layer == 0 { self.width } else { self.hidden }
    }

    /// Names and shapes of the trained weights, the adaptor's first, and the fan in that each starts from; 0 for norms.
    fn weights(&self) -> Vec<(String, Vec<usize>, usize)> {
        let mut all = vec![(ADAPTOR.to_owned(), vec![self.width, self.width], self.width)];
        for layer in 0..self.hidden_layers {
            let inputs = self.inputs(layer);
            all.push((linear(layer, "weight"), vec![self.hidden, inputs], inputs));
            all.push((linear(layer, "bias"), vec![self.hidden], inputs));
            all.push((batch_norm(layer, "weight"), vec![self.hidden], 0));
            all.push((batch_norm(layer, "bias"), vec![self.hidden], 0));
        }
        let inputs = self.inputs(self.hidden_layers);
        all.push((FINAL.to_owned(), vec![1, inputs], inputs));
        all
    }
}

/// All weights by their names in the reference's state dict, and the batch norms' running statistics.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) weights: BTreeMap<String, Tensor>,
    pub(crate) running: Vec<Running>,
}

impl State {
    /// Fresh: linear layers as `PyTorch` starts them, drawn in the order of the forward pass.
    pub(crate) fn fresh(sizes: &Sizes, stream: &mut Stream, device: &Device) -> Result<Self, Error> {
        let mut weights = BTreeMap::new();
        for (name, shape, inputs) in sizes.weights() {
            let tensor = match inputs {
                0 if name.ends_with("weight") => Tensor::ones(shape, DType::F32, device)?,
                0 => Tensor::zeros(shape, DType::F32, device)?,
                _ => vit_ops::init::fan_in_uniform(shape, inputs, stream, device)?,
            };
            weights.insert(name, tensor);
        }
        let running = || -> Result<Running, Error> {
            Ok(Running {
                mean: Tensor::zeros(sizes.hidden, DType::F32, device)?,
                variance: Tensor::ones(sizes.hidden, DType::F32, device)?,
                batches: 0,
            })
        };
        Ok(Self { weights, running: (0..sizes.hidden_layers).map(|_| running()).collect::<Result<_, _>>()? })
    }

    /// From tensors under the reference's names, on `device`; others are passed over.
    pub(crate) fn read(
        sizes: &Sizes,
        tensors: &BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self, Error> {
        let get = |name: String, expected: Vec<usize>| {
            let tensor = tensors.get(&name);
            match tensor {
                Some(tensor) if tensor.dims() == expected => Ok(tensor.detach().to_device(device)?),
                _ => {
                    let found = tensor.map(|tensor| tensor.dims().to_vec());
                    Err(Error::Weight { name, expected, found })
                }
            }
        };
        let weights = sizes
            .weights()
            .into_iter()
            .map(|(name, shape, _)| Ok((name.clone(), get(name, shape)?)))
            .collect::<Result<_, Error>>()?;
        let running = |layer: usize| {
            let batches = get(batch_norm(layer, "num_batches_tracked"), vec![1])?;
            Ok(Running {
                mean: get(batch_norm(layer, "running_mean"), vec![sizes.hidden])?,
                variance: get(batch_norm(layer, "running_var"), vec![sizes.hidden])?,
                batches: batches.to_dtype(DType::I64)?.to_vec1::<i64>()?.first().copied().unwrap_or(0),
            })
        };
        Ok(Self { weights, running: (0..sizes.hidden_layers).map(running).collect::<Result<_, Error>>()? })
    }

    /// Everything under the reference's names.
    pub(crate) fn tensors(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        let mut all = self.weights.clone();
        for (layer, running) in self.running.iter().enumerate() {
            all.insert(batch_norm(layer, "running_mean"), running.mean.clone());
            all.insert(batch_norm(layer, "running_var"), running.variance.clone());
            let batches = Tensor::new(&[running.batches], running.mean.device())?;
            all.insert(batch_norm(layer, "num_batches_tracked"), batches);
        }
        Ok(all)
    }
}

/// Adaptor and discriminator as functions. Weights with a graph keep it.
#[derive(Debug)]
pub(crate) struct Network {
    adaptor: Linear,
    hidden: Vec<Hidden>,
    last: Linear,
    sizes: Sizes,
}

#[derive(Debug)]
struct Hidden {
    linear: Linear,
    weight: Tensor,
    bias: Tensor,
}

impl Network {
    pub(crate) fn new(sizes: &Sizes, weights: &BTreeMap<String, Tensor>) -> Result<Self, Error> {
        for (name, expected, _) in sizes.weights() {
            let found = weights.get(&name).map(|tensor| tensor.dims().to_vec());
            if found.as_ref() != Some(&expected) {
                return Err(Error::Weight { name, expected, found });
            }
        }
        let get = |name: &str| {
            let missing = || Error::Weight { name: name.to_owned(), expected: vec![], found: None };
            weights.get(name).cloned().ok_or_else(missing)
        };
        let hidden = |layer: usize| {
            let bias = get(&linear(layer, "bias"))?;
            Ok(Hidden {
                linear: Linear::new(get(&linear(layer, "weight"))?, Some(bias))?,
                weight: get(&batch_norm(layer, "weight"))?,
                bias: get(&batch_norm(layer, "bias"))?,
            })
        };
        Ok(Self {
            adaptor: Linear::new(get(ADAPTOR)?, None)?,
            hidden: (0..sizes.hidden_layers).map(hidden).collect::<Result<_, Error>>()?,
            last: Linear::new(get(FINAL)?, None)?,
            sizes: *sizes,
        })
    }

    /// Features `(.., D)` moved by the adaptor.
    pub(crate) fn adapt(&self, features: &Tensor) -> Result<Tensor, Error> {
        Ok(self.adaptor.forward(features)?)
    }

    /// One number a row of `x` `(rows, D)`, normalised by the rows together: `(rows,)`. `running` follows.
    pub(crate) fn discriminate_batch(&self, x: &Tensor, running: &mut [Running]) -> Result<Tensor, Error> {
        let mut x = x.clone();
        for (hidden, running) in self.hidden.iter().zip(running) {
            let parts = (&hidden.weight, &hidden.bias);
            let y = by_batch(&hidden.linear.forward(&x)?, parts, running, self.sizes.batch_norm)?;
            x = vit_ops::leaky_relu(&y, self.sizes.slope)?;
        }
        Ok(self.last.forward(&x)?.squeeze(1)?)
    }

    /// The same by the running statistics: each row by itself.
    pub(crate) fn discriminate(&self, x: &Tensor, running: &[Running]) -> Result<Tensor, Error> {
        let mut x = x.clone();
        for (hidden, running) in self.hidden.iter().zip(running) {
            let parts = (&hidden.weight, &hidden.bias);
            let y = by_running(&hidden.linear.forward(&x)?, parts, running, self.sizes.batch_norm)?;
            x = vit_ops::leaky_relu(&y, self.sizes.slope)?;
        }
        Ok(self.last.forward(&x)?.squeeze(1)?)
    }

    /// The output at each place of features `(B, N, D)`, `(B, N)`: higher = more anomalous.
    pub(crate) fn scores(&self, features: &Tensor, running: &[Running]) -> Result<Tensor, Error> {
        let (batch, places, width) = features.dims3()?;
        let adapted = self.adapt(&features.reshape((batch * places, width))?)?;
        Ok(self.discriminate(&adapted, running)?.reshape((batch, places))?)
    }
}

/// Trainable weights under the reference's names.
#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) vars: BTreeMap<String, Var>,
}

impl Weights {
    /// Copies of `weights`.
    pub(crate) fn new(weights: &BTreeMap<String, Tensor>) -> Result<Self, Error> {
        let copy = |(name, tensor): (&String, &Tensor)| {
            Ok((name.clone(), Var::from_tensor(&tensor.detach().copy()?)?))
        };
        Ok(Self { vars: weights.iter().map(copy).collect::<Result<_, Error>>()? })
    }

    /// The tensors with their graph.
    pub(crate) fn tracked(&self) -> BTreeMap<String, Tensor> {
        self.vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect()
    }

    /// Copies as they are now.
    pub(crate) fn copies(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        self.vars.iter().map(|(name, var)| Ok((name.clone(), var.as_detached_tensor().copy()?))).collect()
    }

    /// Sets the weights.
    pub(crate) fn load(&self, weights: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        for (name, var) in &self.vars {
            if let Some(tensor) = weights.get(name) {
                var.set(&tensor.detach().to_device(var.device())?)?;
            }
        }
        Ok(())
    }
}
