//! A training step, and the loss of a batch without one.

use anomaly_core::Stream;
use candle_core::Tensor;
use optim::{Adam, AdamOptions, Decay, Optimizer, ParameterGroup, Schedule};

use crate::anomalies::{Draw, Operation};
use crate::error::finite;
use crate::features::PatchFeatures;
use crate::loss::{accumulate, balanced, plain};
use crate::network::{Discriminator, Trained};
use crate::{Config, Error};

/// Gives what an operation draws for these features.
pub(crate) type Drawing<'a> = dyn FnMut(Operation, &PatchFeatures) -> Result<Draw, Error> + 'a;

/// The discriminator, its optimiser and its rate.
pub(crate) struct Trainer {
    pub(crate) discriminator: Trained,
    pub(crate) adam: Adam,
    pub(crate) schedule: Schedule,
    base_rate: f64,
}

/// How a discriminator is optimised.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Optimisation {
    pub(crate) learning_rate: f64,
    /// Share of it that the cosine goes down to.
    pub(crate) floor: f64,
    pub(crate) epochs: usize,
    pub(crate) weight_decay: f64,
    pub(crate) betas: (f64, f64),
    pub(crate) epsilon: f64,
}

impl Optimisation {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            learning_rate: config.learning_rate,
            floor: config.lr_decay_factor,
            epochs: config.epochs,
            weight_decay: config.weight_decay,
            betas: (0.9, 0.999),
            epsilon: 1e-8,
        }
    }
}

impl Trainer {
    /// `AdamW` over every parameter, biases and positions among them.
    pub(crate) fn new(discriminator: Trained, how: &Optimisation) -> Result<Self, Error> {
        let options = AdamOptions {
            learning_rate: how.learning_rate,
            beta1: how.betas.0,
            beta2: how.betas.1,
            epsilon: how.epsilon,
            weight_decay: how.weight_decay,
            decay: Decay::Decoupled,
            ..AdamOptions::default()
        };
        let group = ParameterGroup::new(discriminator.vars().to_vec());
        let adam = Adam::new(vec![group], options)?;
        let floor = how.floor * how.learning_rate;
        let schedule = Schedule::Cosine { length: how.epochs as u64, floor };
        Ok(Self { discriminator, adam, schedule, base_rate: how.learning_rate })
    }

    /// The learning rate of an epoch, 0-based.
    pub(crate) fn rate(&self, epoch: usize) -> f64 {
        self.schedule.at(self.base_rate, epoch as u64)
    }

    /// Sets the learning rate of an epoch, 0-based.
    pub(crate) fn begin_epoch(&mut self, epoch: usize) {
        let rate = self.rate(epoch);
        self.adam.set_learning_rate(rate);
    }

    /// One step; the loss's terms before it.
    pub(crate) fn step(
        &mut self,
        clean: &PatchFeatures,
        operations: &[Operation],
        drawing: &mut Drawing<'_>,
        dropout: Option<(f64, &mut Stream)>,
    ) -> Result<Vec<f64>, Error> {
        let (gradients, terms) = gradients(&self.discriminator, clean, operations, drawing, dropout)?;
        if let Some(name) = self.adam.missing_gradients(&gradients).into_iter().next() {
            return Err(Error::NoGradient(name));
        }
        self.adam.step(&gradients)?;
        Ok(terms)
    }
}

/// The gradients of the loss to every parameter, and its terms. Each pass goes back by itself, so that the activations
/// of one are in memory at a time.
pub(crate) fn gradients(
    discriminator: &Trained,
    clean: &PatchFeatures,
    operations: &[Operation],
    drawing: &mut Drawing<'_>,
    dropout: Option<(f64, &mut Stream)>,
) -> Result<(candle_core::backprop::GradStore, Vec<f64>), Error> {
    let network = discriminator.network()?;
    let mut sum = None;
    let terms = passes(&network, clean, operations, drawing, dropout, &mut |loss| {
        sum = Some(accumulate(sum.take(), loss, discriminator.vars())?);
        Ok(())
    })?;
    // The clean pass has a loss whatever is drawn.
    sum.map(|sum| (sum, terms)).ok_or(Error::NoImages)
}

/// The terms of the loss, in order: clean patches, noise on all, and of every further operation its untouched and its
/// touched patches (0 where there are none). `see` is given the loss of each pass, with its graph.
pub(crate) fn passes(
    network: &Discriminator,
    clean: &PatchFeatures,
    operations: &[Operation],
    drawing: &mut Drawing<'_>,
    mut dropout: Option<(f64, &mut Stream)>,
    see: &mut dyn FnMut(&Tensor) -> Result<(), Error>,
) -> Result<Vec<f64>, Error> {
    let mut terms = Vec::new();
    let mut logits = |features: &Tensor| {
        network.logits(features, dropout.as_mut().map(|(rate, stream)| (*rate, &mut **stream)))
    };
    let mut over = |parts: &[Option<Tensor>]| -> Result<(), Error> {
        let mut loss: Option<Tensor> = None;
        for part in parts {
            let Some(part) = part else {
                terms.push(0.0);
                continue;
            };
            let at = terms.len();
            terms.push(finite(|| format!("term {at} of the loss"), f64::from(part.to_scalar::<f32>()?))?);
            loss = Some(match loss {
                Some(loss) => (loss + part)?,
                None => part.clone(),
            });
        }
        loss.map_or(Ok(()), |loss| see(&loss))
    };
    over(&[Some(plain(&logits(&clean.features)?, 0.0)?)])?;
    let all = drawing(Operation::NoiseAll, clean)?.apply(Operation::NoiseAll, clean)?;
    over(&[Some(plain(&logits(&all.features)?, 1.0)?)])?;
    drop(all);
    for &operation in operations {
        let fake = drawing(operation, clean)?.apply(operation, clean)?;
        over(&balanced(&logits(&fake.features)?, &fake.labels)?)?;
    }
    Ok(terms)
}
