//! The student's trainable weights.

use std::collections::BTreeMap;

use anomaly_core::Stream;
use candle_core::{DType, Device, Tensor, Var};
use optim::ParameterGroup;

use crate::Error;
use crate::network::{Network, Sizes, Start};

/// A student in training.
#[derive(Debug)]
pub(crate) struct Student {
    sizes: Sizes,
    /// In the order of the forward pass, under the names of the reference's state dict.
    vars: Vec<(String, Var)>,
}

impl Student {
    /// Fresh weights, drawn in the order of the forward pass.
    pub(crate) fn new(sizes: Sizes, stream: &mut Stream, device: &Device) -> Result<Self, Error> {
        use vit_ops::init;

        let draw = |(name, shape, start): (String, Vec<usize>, Start)| {
            let tensor = match start {
                Start::FanIn(inputs) => init::fan_in_uniform(shape, inputs, stream, device)?,
                Start::Xavier(inputs, outputs) => {
                    init::xavier_uniform(shape, (inputs, outputs), stream, device)?
                }
                Start::Normal => init::normal(shape, 0.0, 1.0, stream, device)?,
                Start::Zeros => Tensor::zeros(shape, DType::F32, device)?,
                Start::Ones => Tensor::ones(shape, DType::F32, device)?,
            };
            Ok((name, Var::from_tensor(&tensor)?))
        };
        let vars = sizes.weights().into_iter().map(draw).collect::<Result<_, Error>>()?;
        Ok(Self { sizes, vars })
    }

    /// With these weights.
    #[cfg(feature = "conformance")]
    pub(crate) fn of(sizes: Sizes, weights: &BTreeMap<String, Tensor>) -> Result<Self, Error> {
        // Names and shapes are checked there.
        Network::new(&sizes, weights)?;
        let copy = |(name, ..): (String, Vec<usize>, Start)| {
            let tensor = weights.get(&name).ok_or(Error::Weight {
                name: name.clone(),
                expected: vec![],
                found: None,
            })?;
            Ok((name, Var::from_tensor(&tensor.detach().copy()?)?))
        };
        let vars = sizes.weights().into_iter().map(copy).collect::<Result<_, Error>>()?;
        Ok(Self { sizes, vars })
    }

    pub(crate) fn vars(&self) -> &[(String, Var)] {
        &self.vars
    }

    pub(crate) fn parameters(&self) -> ParameterGroup {
        ParameterGroup::new(self.vars.iter().cloned())
    }

    /// The layers with a graph to the weights; made anew for each pass, so that they follow the weights' changes.
    pub(crate) fn network(&self) -> Result<Network, Error> {
        let weights = self.vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        Network::new(&self.sizes, &weights)
    }

    /// Copies of the weights as they are now.
    pub(crate) fn weights(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        self.vars.iter().map(|(name, var)| Ok((name.clone(), var.as_detached_tensor().copy()?))).collect()
    }

    /// Sets the weights.
    pub(crate) fn load(&self, weights: &BTreeMap<String, Tensor>) -> Result<(), Error> {
        Network::new(&self.sizes, weights)?;
        for (name, var) in &self.vars {
            if let Some(tensor) = weights.get(name) {
                var.set(&tensor.detach().to_device(var.device())?)?;
            }
        }
        Ok(())
    }
}
