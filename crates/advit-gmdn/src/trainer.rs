//! One training step after the other.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use density_heads::Likelihood;
use optim::{Adam, AdamOptions, Optimizer, ParameterGroup};
use serde::{Deserialize, Serialize};
use vit_ops::{NamedTensors, NetworkWeights};

use crate::Error;
use crate::architecture::Architecture;
use crate::decoder::follow;
use crate::error::finite;
use crate::loss::{LossWeights, Losses, Values};
use crate::network::Network;

/// Which gradients are cleared before a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ZeroGrad {
    /// All.
    #[default]
    All,
    /// The autoencoder's only, as in the reference: the density network's are never cleared, so that each of its steps
    /// goes along the sum over the whole training.
    AutoencoderOnly,
}

/// The density network's tensors begin so.
const DENSITY: &str = "mdn.";

/// What a step depends on beside the network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Objective {
    pub(crate) weights: LossWeights,
    pub(crate) likelihood: Likelihood,
    pub(crate) zero_grad: ZeroGrad,
    pub(crate) learning_rate: f64,
    /// Added to the gradient times the weight, for all parameters alike.
    pub(crate) weight_decay: f64,
}

/// A network in training.
pub(crate) struct Trainer {
    pub(crate) weights: NetworkWeights,
    network: Network,
    pub(crate) adam: Adam,
    objective: Objective,
    /// The density network's gradients so far, where they are never cleared.
    accumulated: BTreeMap<String, Tensor>,
    /// Batches that batch norm has seen.
    pub(crate) batches: u64,
    device: Device,
}

impl Trainer {
    /// Of first weights.
    pub(crate) fn new(
        shape: &Architecture,
        named: &NamedTensors,
        objective: Objective,
        device: &Device,
    ) -> Result<Self, Error> {
        let weights = NetworkWeights::new(named)?;
        let network = Network::new(shape, &weights.tracked())?;
        let vars = weights.trained().map(|(name, var)| (name.clone(), var.clone()));
        let options = AdamOptions {
            learning_rate: objective.learning_rate,
            weight_decay: objective.weight_decay,
            ..AdamOptions::default()
        };
        let adam = Adam::new(vec![ParameterGroup::new(vars)], options)?;
        let accumulated = BTreeMap::new();
        Ok(Self { weights, network, adam, objective, accumulated, batches: 0, device: device.clone() })
    }

    /// One step on `images` `(B, 3, H, W)` with `noise` `(B, n, D)`; the losses before it.
    pub(crate) fn step(&mut self, images: &Tensor, noise: Option<&Tensor>) -> Result<Values, Error> {
        let (values, gradients) = self.gradients(images, noise)?;
        self.adam.step(&gradients)?;
        Ok(values)
    }

    /// The first half of a step: losses and gradients, as the step goes along them. Running statistics move.
    pub(crate) fn gradients(
        &mut self,
        images: &Tensor,
        noise: Option<&Tensor>,
    ) -> Result<(Values, GradStore), Error> {
        let images = images.to_device(&self.device)?;
        let trained = self.network.train(&images, noise, self.objective.likelihood)?;
        let losses =
            Losses::new(&images, &trained.reconstruction, &trained.likelihood, &trained.associations)?;
        let values = losses.values(&self.objective.weights)?;
        finite(|| "the training loss".to_owned(), values.total)?;
        let mut gradients = losses.total(&self.objective.weights)?.backward()?;
        let missing = self.adam.missing_gradients(&gradients);
        if !missing.is_empty() {
            return Err(Error::NoGradient(missing.join(", ")));
        }
        if self.objective.zero_grad == ZeroGrad::AutoencoderOnly {
            self.accumulate(&mut gradients)?;
        }
        follow(&self.weights, &trained.seen)?;
        self.batches += 1;
        Ok((values, gradients))
    }

    fn accumulate(&mut self, gradients: &mut GradStore) -> Result<(), Error> {
        for (name, var) in self.weights.trained().filter(|(name, _)| name.starts_with(DENSITY)) {
            let Some(own) = gradients.get(var) else { continue };
            let sum = match self.accumulated.get(name) {
                Some(before) => (before + own)?,
                None => own.clone(),
            }
            .detach();
            gradients.insert(var, sum.clone());
            self.accumulated.insert(name.clone(), sum);
        }
        Ok(())
    }

    /// The optimiser's and the accumulated gradients' tensors.
    pub(crate) fn state(&self) -> Result<BTreeMap<String, Tensor>, Error> {
        let mut all = BTreeMap::new();
        for (name, tensor) in self.adam.state_tensors()? {
            all.insert(format!("{ADAM}{name}"), tensor);
        }
        for (name, tensor) in &self.accumulated {
            all.insert(format!("{ACCUMULATED}{name}"), tensor.clone());
        }
        Ok(all)
    }

    /// Goes on from [`Trainer::state`]; other tensors are passed over.
    pub(crate) fn load_state<'t>(
        &mut self,
        tensors: impl IntoIterator<Item = (&'t String, &'t Tensor)>,
    ) -> Result<(), Error> {
        let mut adam = BTreeMap::new();
        self.accumulated.clear();
        for (name, tensor) in tensors {
            if let Some(name) = name.strip_prefix(ADAM) {
                adam.insert(name.to_owned(), tensor.clone());
            } else if let Some(name) = name.strip_prefix(ACCUMULATED) {
                self.accumulated.insert(name.to_owned(), tensor.clone());
            }
        }
        Ok(self.adam.load_state_tensors(adam)?)
    }
}

const ADAM: &str = "adam.";
const ACCUMULATED: &str = "accumulated.";
