//! Training steps of adaptor and discriminator.

use candle_core::Tensor;
use candle_core::backprop::GradStore;
use optim::{Adam, AdamOptions, Optimizer, ParameterGroup, Schedule};

use crate::Error;
use crate::batch_norm::Running;
use crate::error::finite;
use crate::loss::loss;
use crate::network::{ADAPTOR, Network, Sizes, State, Weights};

/// Learning rates and weight decays.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    /// The discriminator's in the first epoch.
    pub(crate) discriminator: f64,
    pub(crate) discriminator_decay: f64,
    /// Where the discriminator's goes, as a share of the first.
    pub(crate) lowest: f64,
    /// In how many epochs.
    pub(crate) epochs: usize,
    /// The adaptor's, which stays.
    pub(crate) adaptor: f64,
    pub(crate) adaptor_decay: f64,
    /// Everything else of both optimisers.
    pub(crate) adam: AdamOptions,
}

/// Weights with their optimisers.
#[derive(Debug)]
pub(crate) struct Trainer {
    sizes: Sizes,
    pub(crate) weights: Weights,
    pub(crate) running: Vec<Running>,
    pub(crate) discriminator: Adam,
    pub(crate) adaptor: Adam,
    schedule: Schedule,
    first_rate: f64,
}

impl Trainer {
    /// Two `AdamW`: the discriminator's rate goes down half a cosine, epoch by epoch, the adaptor's stays.
    pub(crate) fn new(sizes: Sizes, state: &State, rates: Rates) -> Result<Self, Error> {
        let weights = Weights::new(&state.weights)?;
        let adam = |of_adaptor: bool, learning_rate, weight_decay| {
            let own = weights.vars.iter().filter(|(name, _)| (name.as_str() == ADAPTOR) == of_adaptor);
            let group = ParameterGroup::new(own.map(|(name, var)| (name.clone(), var.clone())));
            let options = AdamOptions { learning_rate, weight_decay, ..rates.adam };
            Adam::new(vec![group], options)
        };
        let length = rates.epochs as u64;
        Ok(Self {
            discriminator: adam(false, rates.discriminator, rates.discriminator_decay)?,
            adaptor: adam(true, rates.adaptor, rates.adaptor_decay)?,
            schedule: Schedule::Cosine { length, floor: rates.lowest * rates.discriminator },
            first_rate: rates.discriminator,
            sizes,
            running: state.running.clone(),
            weights,
        })
    }

    /// Sets the discriminator's rate of `epoch`, counted from 0.
    pub(crate) fn enter(&mut self, epoch: usize) {
        self.discriminator.set_learning_rate(self.schedule.at(self.first_rate, epoch as u64));
    }

    /// The loss on `features` and their copies with `noise` added after the adaptor, both `(B, N, D)`, and its
    /// gradients. The discriminator sees both as one batch; its running statistics follow.
    pub(crate) fn gradients(&mut self, features: &Tensor, noise: &Tensor) -> Result<(f64, GradStore), Error> {
        let (batch, places, width) = features.dims3()?;
        let rows = batch * places;
        let network = Network::new(&self.sizes, &self.weights.tracked())?;
        let real = network.adapt(&features.reshape((rows, width))?)?;
        let fake = (&real + noise.reshape((rows, width))?)?;
        let both = Tensor::cat(&[&real, &fake], 0)?;
        let scores = network.discriminate_batch(&both, &mut self.running)?;
        let loss = loss(&scores.narrow(0, 0, rows)?, &scores.narrow(0, rows, rows)?)?;
        let value = finite(|| "the training loss".to_owned(), f64::from(loss.to_scalar::<f32>()?))?;
        let gradients = loss.backward()?;
        let mut missing = self.discriminator.missing_gradients(&gradients);
        missing.extend(self.adaptor.missing_gradients(&gradients));
        if missing.is_empty() { Ok((value, gradients)) } else { Err(Error::NoGradient(missing)) }
    }

    /// Steps both optimisers.
    pub(crate) fn apply(&mut self, gradients: &GradStore) -> Result<(), Error> {
        self.discriminator.step(gradients)?;
        self.adaptor.step(gradients)?;
        Ok(())
    }

    /// Everything as it is now.
    pub(crate) fn state(&self) -> Result<State, Error> {
        Ok(State { weights: self.weights.copies()?, running: self.running.clone() })
    }
}
