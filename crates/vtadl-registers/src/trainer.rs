//! One training step after the other.

use anomaly_core::Stream;
use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor};
use density_heads::Likelihood;
use optim::{Optimizer, ParameterGroup, Schedule};
use vit_ops::{NamedTensors, NetworkWeights};

use crate::Error;
use crate::architecture::Architecture;
use crate::decoder::follow;
use crate::error::finite;
use crate::loss::{LossWeights, Losses, Values, density_loss};
use crate::network::Network;
use crate::optimizer::Settings;

/// What a step depends on beside the network.
#[derive(Debug, Clone)]
pub(crate) struct Objective {
    pub(crate) weights: LossWeights,
    pub(crate) likelihood: Likelihood,
    pub(crate) optimizer: Settings,
    pub(crate) learning_rate: f64,
    pub(crate) schedule: Schedule,
    pub(crate) dropout: f64,
}

/// A network in training.
pub(crate) struct Trainer {
    pub(crate) weights: NetworkWeights,
    network: Network,
    pub(crate) optimizer: Box<dyn Optimizer>,
    objective: Objective,
    /// The share of the old value in moving statistics.
    kept: f64,
    /// Steps done.
    pub(crate) steps: u64,
    device: Device,
}

/// What a step draws beforehand.
#[derive(Debug, Default)]
pub(crate) struct Draws {
    /// Registers `(B, R, D)`, if they are random.
    pub(crate) registers: Option<Tensor>,
    /// What is added to the density head's features, `(B, N, D)`.
    pub(crate) noise: Option<Tensor>,
}

/// The first half of a step.
pub(crate) struct Computed {
    pub(crate) values: Values,
    pub(crate) gradients: GradStore,
    #[cfg_attr(not(feature = "conformance"), allow(dead_code))]
    pub(crate) reconstruction: Tensor,
}

impl Trainer {
    /// Of first weights.
    pub(crate) fn new(
        architecture: &Architecture,
        named: &NamedTensors,
        objective: Objective,
        device: &Device,
    ) -> Result<Self, Error> {
        let weights = NetworkWeights::new(named)?;
        let network = Network::new(architecture, &weights.tracked())?;
        let vars = weights.trained().map(|(name, var)| (name.clone(), var.clone()));
        let optimizer = objective.optimizer.over(ParameterGroup::new(vars))?;
        let kept = architecture.norms.batch_kept;
        Ok(Self { weights, network, optimizer, objective, kept, steps: 0, device: device.clone() })
    }

    /// The learning rate of the next step.
    pub(crate) fn learning_rate(&self) -> f64 {
        self.objective.schedule.at(self.objective.learning_rate, self.steps)
    }

    /// One step on `images` `(B, 3, H, W)`; the losses before it. `dropout` draws the masks, if there is dropout.
    pub(crate) fn step(
        &mut self,
        images: &Tensor,
        draws: &Draws,
        dropout: &mut Stream,
    ) -> Result<Values, Error> {
        let computed = self.gradients(images, draws, dropout)?;
        self.apply(&computed.gradients)?;
        Ok(computed.values)
    }

    /// The second half of a step.
    pub(crate) fn apply(&mut self, gradients: &GradStore) -> Result<(), Error> {
        let rate = self.learning_rate();
        self.optimizer.set_learning_rate(rate);
        self.optimizer.step(gradients)?;
        self.steps += 1;
        Ok(())
    }

    /// The first half of a step: losses and gradients. Moving statistics move.
    pub(crate) fn gradients(
        &self,
        images: &Tensor,
        draws: &Draws,
        dropout: &mut Stream,
    ) -> Result<Computed, Error> {
        let images = images.to_device(&self.device)?;
        let drops = (self.objective.dropout > 0.0).then_some((self.objective.dropout, dropout));
        let (output, seen) = self.network.train(&images, draws.registers.as_ref(), drops)?;
        let density = match &self.network.density {
            None => None,
            Some(head) => {
                let features = match &draws.noise {
                    Some(noise) => (&output.features + noise)?,
                    None => output.features,
                };
                let form = self.objective.likelihood;
                Some(density_loss(&head.negative_log_likelihood(&features, form)?, form)?)
            }
        };
        let losses = Losses::new(&output.reconstruction, &images, density)?;
        let values = losses.values(&self.objective.weights)?;
        finite(|| "the training loss".to_owned(), values.total)?;
        let gradients = losses.total(&self.objective.weights)?.backward()?;
        let missing = self.optimizer.missing_gradients(&gradients);
        if !missing.is_empty() {
            return Err(Error::NoGradient(missing.join(", ")));
        }
        follow(&self.weights, &seen, self.kept)?;
        Ok(Computed { values, gradients, reconstruction: output.reconstruction.detach() })
    }
}
