//! Training from scratch.

use std::collections::BTreeMap;

use anomaly_core::{
    Checkpoint, Detector, EpochPlan, Event, FitContext, Flow, Images, MethodError, Offer, Order, Sample,
    Stream, StreamPosition, TrainingData,
};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::detector::AdvitDetector;
use crate::error::finite;
use crate::loss::Values;
use crate::trainer::{Objective, Trainer};
use crate::weights::{Named, Weights};
use crate::{Config, Error};

/// Trains on `data`; the last state.
pub(crate) fn fit(
    config: &Config,
    data: &dyn TrainingData,
    context: &mut FitContext<'_>,
) -> Result<Box<dyn Detector>, MethodError> {
    if data.is_empty() {
        return Err(Error::NoImages.into());
    }
    let mut training = Training::start(config, context)?;
    let outcome = training.run(data, context);
    if let Err(MethodError::Cancelled) = outcome {
        // What was done since the last epoch's end is kept: going on must lead to the same bits.
        training.save(context)?;
    }
    outcome?;
    training.candidate().detector()
}

impl Config {
    pub(crate) fn objective(&self) -> Objective {
        Objective {
            weights: self.loss_weights(),
            likelihood: self.likelihood.into(),
            zero_grad: self.zero_grad,
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
        }
    }
}

/// A run, with its place in the epochs.
struct Training<'a> {
    config: &'a Config,
    trainer: Trainer,
    shuffle: Stream,
    noise: Stream,
    place: Place,
    device: Device,
}

/// How far a run has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    /// Epochs that are over.
    epochs: usize,
    /// Steps of the epoch after them.
    steps: usize,
    /// The sums of these steps' losses.
    losses: Values,
    /// Where the shuffle stood when that epoch began.
    shuffle: StreamPosition,
    /// The harness asked to stop.
    stopped: bool,
}

/// What a checkpoint holds beside tensors.
#[derive(Serialize, Deserialize)]
struct Saved {
    config: Config,
    place: Place,
    noise: StreamPosition,
    batches: u64,
}

const NETWORK: &str = "network.";

impl<'a> Training<'a> {
    /// From the checkpoint in `context`, or from the beginning.
    fn start(config: &'a Config, context: &mut FitContext<'_>) -> Result<Self, MethodError> {
        let device = context.device.clone();
        let shape = config.architecture();
        let first = shape.init(&mut context.stream("init"), &device)?;
        let trainer = Trainer::new(&shape, &first, config.objective(), &device)?;
        let (shuffle, noise) = (context.stream("shuffle"), context.stream("noise"));
        let losses = Values::default();
        let place = Place { epochs: 0, steps: 0, losses, shuffle: shuffle.position(), stopped: false };
        let mut training = Self { config, trainer, shuffle, noise, place, device };
        if let Some(checkpoint) = context.checkpoints.latest(&training.device)? {
            training.restore(&checkpoint)?;
        }
        Ok(training)
    }

    fn run(&mut self, data: &dyn TrainingData, context: &mut FitContext<'_>) -> Result<(), MethodError> {
        let steps = data.len().div_ceil(self.config.batch_size);
        context.tell(&Event::Phase { name: "train".to_owned(), steps: Some(steps * self.config.epochs) });
        while self.place.epochs < self.config.epochs && !self.place.stopped {
            self.epoch(data, context)?;
            let epoch = self.place.epochs + 1;
            context.cancellation.check()?;
            let loss = self.tell_losses(epoch, context);
            let mut flow = Flow::Continue;
            if epoch.is_multiple_of(self.config.offer_every) || epoch == self.config.epochs {
                flow = context.offer(epoch, Some(loss), &mut self.candidate())?;
            }
            let (losses, shuffle) = (Values::default(), self.shuffle.position());
            self.place = Place { epochs: epoch, steps: 0, losses, shuffle, stopped: flow == Flow::Stop };
            // After the offer: a run that is killed in between offers once more, which changes nothing; the other way
            // round an offer could be lost.
            self.save(context)?;
        }
        Ok(())
    }

    /// Tells the epoch's mean losses; returns the whole.
    fn tell_losses(&self, epoch: usize, context: &FitContext<'_>) -> f64 {
        let (sums, steps) = (&self.place.losses, self.place.steps as f64);
        let parts = [
            ("loss", Some(sums.total)),
            ("mse", Some(sums.mse)),
            ("negative ssim", Some(sums.neg_ssim)),
            ("negative log-likelihood", Some(sums.nll)),
            ("association discrepancy", sums.d_prior),
        ];
        for (name, sum) in parts {
            if let Some(sum) = sum {
                context.tell(&Event::Metric { name: name.to_owned(), at: epoch as f64, value: sum / steps });
            }
        }
        let loss = sums.total / steps;
        tracing::debug!(epoch, loss, "an epoch is over");
        loss
    }

    /// The rest of the current epoch.
    fn epoch(&mut self, data: &dyn TrainingData, context: &FitContext<'_>) -> Result<(), MethodError> {
        // An epoch that was broken off draws its order again, and leaves out what it has seen.
        self.shuffle = Stream::at(&self.place.shuffle);
        let plan = EpochPlan {
            sample: Sample::All,
            order: Order::Shuffled,
            batch: self.config.batch_size,
            drop_last: false,
            stream: &mut self.shuffle,
        };
        let steps = data.len().div_ceil(self.config.batch_size);
        for batch in data.epoch(plan).skip(self.place.steps) {
            context.cancellation.check()?;
            let images = batch?.images;
            images.require_finite()?;
            let noise = self.draw_noise(images.len())?;
            let values = self.trainer.step(images.pixels(), noise.as_ref())?;
            self.place.losses.add(&values);
            context.tell(&Event::Step { step: self.place.epochs * steps + self.place.steps });
            self.place.steps += 1;
        }
        Ok(())
    }

    /// Noise for a batch, `(B, n, D)`.
    fn draw_noise(&mut self, batch: usize) -> Result<Option<Tensor>, Error> {
        if self.config.noise == 0.0 {
            return Ok(None);
        }
        let (rows, columns) = self.config.grid();
        let shape = (batch, rows * columns, self.config.dim);
        let deviation = self.config.noise;
        Ok(Some(vit_ops::init::normal(shape, 0.0, deviation, &mut self.noise, &self.device)?))
    }

    fn candidate(&self) -> Candidate<'_> {
        Candidate { config: self.config, weights: &self.trainer.weights, device: &self.device, made: None }
    }

    fn save(&self, context: &mut FitContext<'_>) -> Result<(), MethodError> {
        let mut tensors: BTreeMap<String, Tensor> = self.trainer.state()?;
        for (name, tensor) in self.trainer.weights.frozen()?.iter() {
            tensors.insert(format!("{NETWORK}{name}"), tensor.clone());
        }
        let state = Saved {
            config: self.config.clone(),
            place: self.place.clone(),
            noise: self.noise.position(),
            batches: self.trainer.batches,
        };
        let named = tensors.iter().map(|(name, tensor)| (name.clone(), tensor));
        context.checkpoints.save(&Checkpoint::new(named, &state)?)?;
        Ok(())
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), MethodError> {
        let saved: Saved = checkpoint.state()?;
        if saved.config != *self.config {
            let (expected, found) = (format!("{:?}", self.config), format!("{:?}", saved.config));
            return Err(Error::Checkpoint { field: "config", expected, found }.into());
        }
        let network: Named = checkpoint
            .tensors
            .iter()
            .filter_map(|(name, tensor)| Some((name.strip_prefix(NETWORK)?.to_owned(), tensor.clone())))
            .collect();
        self.trainer.weights.load(&network)?;
        self.trainer.load_state(&checkpoint.tensors)?;
        self.trainer.batches = saved.batches;
        self.noise = Stream::at(&saved.noise);
        self.shuffle = Stream::at(&saved.place.shuffle);
        self.place = saved.place;
        Ok(())
    }
}

/// The network as it stands, on offer.
struct Candidate<'a> {
    config: &'a Config,
    weights: &'a Weights,
    device: &'a Device,
    /// Made at the first need.
    made: Option<AdvitDetector>,
}

impl Candidate<'_> {
    fn make(&self) -> Result<AdvitDetector, Error> {
        AdvitDetector::new(self.config.clone(), self.weights.frozen()?, self.device)
    }
}

impl Offer for Candidate<'_> {
    fn validation_loss(&mut self, images: &Images) -> Result<Option<f64>, MethodError> {
        images.require_finite()?;
        let made = match self.made.take() {
            Some(made) => made,
            None => self.make()?,
        };
        let loss = self.made.insert(made).loss(images)?;
        Ok(Some(finite(|| "the validation loss".to_owned(), loss)?))
    }

    fn detector(&mut self) -> Result<Box<dyn Detector>, MethodError> {
        Ok(Box::new(match self.made.take() {
            Some(made) => made,
            None => self.make()?,
        }))
    }
}
