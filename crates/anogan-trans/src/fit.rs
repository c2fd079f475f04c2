//! Training, epoch by epoch.

use std::collections::BTreeMap;

use anomaly_core::{
    Cancellation, Checkpoint, Detector, EpochPlan, Event, FitContext, Flow, Images, MethodError, Offer,
    Order, Sample, Stream, StreamPosition, TrainingData,
};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::config::Noise;
use crate::detector::AnoTransDetector;
use crate::divergence::Watch;
use crate::rate::Rate;
use crate::scoring::Networks;
use crate::trainer::{StepLosses, Trainer};
use crate::{Config, Error};

/// Trains on `data`; the result is the last state.
pub(crate) fn fit(
    config: &Config,
    data: &dyn TrainingData,
    context: &mut FitContext<'_>,
) -> Result<Box<dyn Detector>, MethodError> {
    if data.len() < 2 {
        return Err(Error::TooFewImages(data.len()).into());
    }
    let mut training = Training::start(config, data.len(), context)?;
    let outcome = training.run(data, context);
    if let Err(MethodError::Cancelled) = outcome {
        // What was done since the last epoch's end is kept: going on must lead to the same bits.
        training.save(context)?;
    }
    outcome?;
    Ok(Box::new(training.detector()?))
}

/// A run, with its place in the epochs.
struct Training<'a> {
    config: &'a Config,
    trainer: Trainer,
    /// Images a step.
    batch: usize,
    shuffle: Stream,
    noise: NoiseSource,
    place: Place,
}

/// Where noise comes from.
enum NoiseSource {
    None,
    /// The same every time; drawn again from the stream's start when a run goes on.
    Fixed(Tensor),
    Redrawn(Box<Stream>),
}

/// How far a run has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    /// Epochs that are over.
    epochs: usize,
    /// Steps of the epoch after them.
    steps: usize,
    /// Sums of these steps' losses.
    sums: Sums,
    /// Where the shuffle stood when that epoch began.
    shuffle: StreamPosition,
    /// Where the noise stands, if it is redrawn.
    noise: Option<StreamPosition>,
    rate: Rate,
    watch: Watch,
    /// The harness asked to stop.
    stopped: bool,
}

/// Sums of losses over steps.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Sums {
    generator: f64,
    adversarial: f64,
    reconstruction: f64,
    latent: f64,
    discriminator: f64,
}

impl Sums {
    fn add(&mut self, losses: &StepLosses) {
        self.generator += losses.generator;
        self.adversarial += losses.adversarial;
        self.reconstruction += losses.reconstruction;
        self.latent += losses.latent;
        self.discriminator += losses.discriminator;
    }
}

/// What a checkpoint holds beside tensors.
#[derive(Serialize, Deserialize)]
struct Saved {
    config: Config,
    place: Place,
}

impl<'a> Training<'a> {
    /// From the checkpoint in `context`, or from the beginning.
    fn start(config: &'a Config, images: usize, context: &mut FitContext<'_>) -> Result<Self, MethodError> {
        let trainer = Trainer::new(config, &context.streams, &context.device)?;
        let batch = config.batch_size.min(images);
        if batch < config.batch_size {
            context.tell(&Event::Warning(format!(
                "{images} training images are less than a batch of {}: each step takes all of them",
                config.batch_size
            )));
        }
        let mut stream = context.stream("noise");
        let noise = match config.noise {
            Noise::None => NoiseSource::None,
            Noise::Fixed => NoiseSource::Fixed(drawn(config, batch, &mut stream)?),
            Noise::Redrawn => NoiseSource::Redrawn(Box::new(stream)),
        };
        let shuffle = context.stream("shuffle");
        let place = Place {
            epochs: 0,
            steps: 0,
            sums: Sums::default(),
            shuffle: shuffle.position(),
            noise: None,
            rate: Rate::new(config)?,
            watch: Watch::default(),
            stopped: false,
        };
        let mut training = Self { config, trainer, batch, shuffle, noise, place };
        if let Some(checkpoint) = context.checkpoints.latest(&context.device)? {
            training.restore(&checkpoint)?;
        }
        Ok(training)
    }

    fn run(&mut self, data: &dyn TrainingData, context: &mut FitContext<'_>) -> Result<(), MethodError> {
        let steps = data.len() / self.batch;
        let name = "train both networks".to_owned();
        context.tell(&Event::Phase { name, steps: Some(steps * self.config.epochs) });
        while self.place.epochs < self.config.epochs && !self.place.stopped {
            self.trainer.set_learning_rate(self.place.rate.now());
            self.epoch(data, context)?;
            let epoch = self.place.epochs + 1;
            context.cancellation.check()?;
            self.require_finite_weights(epoch * steps)?;
            let mean = |sum: f64| sum / self.place.steps as f64;
            let Sums { generator, adversarial, reconstruction, latent, discriminator } = self.place.sums;
            for (name, sum) in [
                ("loss", generator),
                ("adversarial loss", adversarial),
                ("reconstruction loss", reconstruction),
                ("latent loss", latent),
                ("discriminator loss", discriminator),
            ] {
                let (name, value) = (name.to_owned(), mean(sum));
                context.tell(&Event::Metric { name, at: epoch as f64, value });
            }
            let (loss, difference) = (mean(generator), mean(reconstruction));
            tracing::debug!(epoch, loss, "an epoch is over");
            let mut flow = Flow::Continue;
            if epoch.is_multiple_of(self.config.eval_every) || epoch == self.config.epochs {
                let cancellation = context.cancellation.clone();
                let mut candidate = Candidate { training: self, cancellation: &cancellation, networks: None };
                flow = context.offer(epoch, Some(loss), &mut candidate)?;
            }
            let mut rate = self.place.rate.clone();
            rate.next(self.config, epoch, difference);
            self.place = Place {
                epochs: epoch,
                steps: 0,
                sums: Sums::default(),
                shuffle: self.shuffle.position(),
                rate,
                stopped: flow == Flow::Stop,
                ..self.place.clone()
            };
            // After the offer: a run that is killed in between offers once more, which changes nothing; the other way
            // round an offer could be lost.
            self.save(context)?;
        }
        Ok(())
    }

    /// The rest of the current epoch.
    fn epoch(&mut self, data: &dyn TrainingData, context: &FitContext<'_>) -> Result<(), MethodError> {
        // An epoch that was broken off draws its order again, and leaves out what it has seen.
        self.shuffle = Stream::at(&self.place.shuffle);
        let plan = EpochPlan {
            sample: Sample::All,
            order: Order::Shuffled,
            batch: self.batch,
            drop_last: true,
            stream: &mut self.shuffle,
        };
        let steps = data.len() / self.batch;
        for batch in data.epoch(plan).skip(self.place.steps) {
            context.cancellation.check()?;
            let images = batch?.images;
            images.require_finite()?;
            let noise = match &mut self.noise {
                NoiseSource::None => None,
                NoiseSource::Fixed(noise) => Some(noise.clone()),
                NoiseSource::Redrawn(stream) => Some(drawn(self.config, images.len(), stream)?),
            };
            let losses = self.trainer.step(images.pixels(), noise.as_ref())?;
            let step = self.place.epochs * steps + self.place.steps;
            self.place.watch.see(step + 1, &losses, self.config.collapse_after)?;
            self.place.sums.add(&losses);
            context.tell(&Event::Step { step });
            self.place.steps += 1;
        }
        Ok(())
    }

    /// Refuses weights that are no numbers: the losses of the next step would tell, after they were saved.
    fn require_finite_weights(&self, step: usize) -> Result<(), Error> {
        for (name, var) in self.trainer.vars().into_iter().flatten() {
            let value = f64::from(var.as_tensor().detach().abs()?.max_all()?.to_scalar::<f32>()?);
            // The largest of some numbers hides one that is none; their sum does not.
            let sum = f64::from(var.as_tensor().detach().sum_all()?.to_scalar::<f32>()?);
            if !(value.is_finite() && sum.is_finite()) {
                let value = if value.is_finite() { sum } else { value };
                return Err(Error::Diverged { step, what: format!("a weight of `{name}`"), value });
            }
        }
        Ok(())
    }

    fn detector(&self) -> Result<AnoTransDetector, Error> {
        AnoTransDetector::new(self.config, self.trainer.named_tensors()?, self.trainer.device())
    }

    fn save(&mut self, context: &mut FitContext<'_>) -> Result<(), MethodError> {
        self.place.noise = match &self.noise {
            NoiseSource::Redrawn(stream) => Some(stream.position()),
            _ => None,
        };
        let tensors: BTreeMap<String, Tensor> = self.trainer.state()?;
        let state = Saved { config: self.config.clone(), place: self.place.clone() };
        let named = tensors.iter().map(|(name, tensor)| (name.clone(), tensor));
        context.checkpoints.save(&Checkpoint::new(named, &state)?)?;
        Ok(())
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), MethodError> {
        let saved: Saved = checkpoint.state()?;
        if saved.config != *self.config {
            let text = |config: &Config| serde_json::to_string(config).unwrap_or_default();
            let (expected, found) = (text(self.config), text(&saved.config));
            return Err(Error::Checkpoint { field: "config", expected, found }.into());
        }
        self.trainer.load_state(&checkpoint.tensors)?;
        self.shuffle = Stream::at(&saved.place.shuffle);
        if let (NoiseSource::Redrawn(stream), Some(position)) = (&mut self.noise, &saved.place.noise) {
            **stream = Stream::at(position);
        }
        self.place = saved.place;
        Ok(())
    }
}

/// Standard normal numbers for a batch of images.
fn drawn(config: &Config, batch: usize, stream: &mut Stream) -> Result<Tensor, Error> {
    let shape = (batch, 3, config.image_size, config.image_size);
    Ok(vit_ops::init::normal(shape, 0.0, 1.0, stream, &Device::Cpu)?)
}

/// Both networks as they stand, on offer.
struct Candidate<'c, 'a> {
    training: &'c Training<'a>,
    cancellation: &'c Cancellation,
    /// Made at the first need.
    networks: Option<AnoTransDetector>,
}

impl Candidate<'_, '_> {
    fn frozen(&mut self) -> Result<&Networks, Error> {
        let detector = match self.networks.take() {
            Some(detector) => detector,
            None => self.training.detector()?,
        };
        Ok(self.networks.insert(detector).networks())
    }
}

impl Offer for Candidate<'_, '_> {
    fn validation_loss(&mut self, images: &Images) -> Result<Option<f64>, MethodError> {
        self.cancellation.check()?;
        images.require_finite()?;
        let value = self.frozen()?.reconstruction(images.pixels())?;
        if !value.is_finite() {
            return Err(Error::NotFinite { what: "the validation loss".to_owned(), value }.into());
        }
        Ok(Some(value))
    }

    fn detector(&mut self) -> Result<Box<dyn Detector>, MethodError> {
        Ok(Box::new(match self.networks.take() {
            Some(detector) => detector,
            None => self.training.detector()?,
        }))
    }
}
