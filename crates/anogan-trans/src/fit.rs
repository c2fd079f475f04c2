//! Training, epoch by epoch.

use anomaly_core::{
    Cancellation, Checkpoint, Detector, EpochShape, EpochTraining, Epochs, Event, FitContext, Flow, Images,
    MethodError, Offer, Progress, Sample, Stream, StreamPosition, TrainingData,
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
    let mut training = Training::start(config, data, context)?;
    training.train(context)?;
    Ok(Box::new(training.detector()?))
}

/// A run, with its place in the epochs.
struct Training<'a> {
    config: &'a Config,
    data: &'a dyn TrainingData,
    trainer: Trainer,
    epochs: Epochs,
    noise: NoiseSource,
    rate: Rate,
    watch: Watch,
}

/// Where noise comes from.
enum NoiseSource {
    None,
    /// The same every time; drawn again from the stream's start when a run goes on.
    Fixed(Tensor),
    Redrawn(Box<Stream>),
}

/// The losses that are told of, under their names.
fn named(losses: &StepLosses) -> [(&'static str, f64); 5] {
    [
        ("loss", losses.generator),
        ("adversarial loss", losses.adversarial),
        (RECONSTRUCTION, losses.reconstruction),
        ("latent loss", losses.latent),
        ("discriminator loss", losses.discriminator),
    ]
}

const RECONSTRUCTION: &str = "reconstruction loss";

/// What a checkpoint holds beside tensors.
#[derive(Serialize, Deserialize)]
struct Saved {
    config: Config,
    progress: Progress,
    /// Where the noise stands, if it is redrawn.
    noise: Option<StreamPosition>,
    rate: Rate,
    watch: Watch,
}

impl<'a> Training<'a> {
    /// From the checkpoint in `context`, or from the beginning.
    fn start(
        config: &'a Config,
        data: &'a dyn TrainingData,
        context: &mut FitContext<'_>,
    ) -> Result<Self, MethodError> {
        let images = data.len();
        let trainer = Trainer::new(config, &context.streams, &context.device)?;
        let shape = EpochShape { sample: Sample::All, batch: config.batch_size, drop_last: true };
        let epochs = Epochs::new(config.epochs, shape, images, context.stream("shuffle"));
        let batch = epochs.batch();
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
        let (rate, watch) = (Rate::new(config)?, Watch::default());
        let mut training = Self { config, data, trainer, epochs, noise, rate, watch };
        if let Some(checkpoint) = context.checkpoints.latest(&context.device)? {
            training.restore(&checkpoint)?;
        }
        Ok(training)
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

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), MethodError> {
        let saved: Saved = checkpoint.state()?;
        Checkpoint::require_same("config", self.config, &saved.config)?;
        self.trainer.load_state(&checkpoint.tensors)?;
        if let (NoiseSource::Redrawn(stream), Some(position)) = (&mut self.noise, &saved.noise) {
            **stream = Stream::at(position);
        }
        (self.rate, self.watch) = (saved.rate, saved.watch);
        self.epochs.go_on(saved.progress);
        Ok(())
    }
}

impl EpochTraining for Training<'_> {
    const PHASE: &'static str = "train both networks";

    fn epochs(&mut self) -> &mut Epochs {
        &mut self.epochs
    }

    fn epoch(&mut self, context: &FitContext<'_>) -> Result<(), MethodError> {
        self.trainer.set_learning_rate(self.rate.now());
        let (epoch, done, steps) = (self.epochs.current(), self.epochs.steps_done(), self.epochs.steps());
        let plan = self.epochs.plan();
        for (step, batch) in self.data.epoch(plan).enumerate().skip(done) {
            context.cancellation.check()?;
            let images = batch?.images;
            images.require_finite()?;
            let noise = match &mut self.noise {
                NoiseSource::None => None,
                NoiseSource::Fixed(noise) => Some(noise.clone()),
                NoiseSource::Redrawn(stream) => Some(drawn(self.config, images.len(), stream)?),
            };
            let losses = self.trainer.step(images.pixels(), noise.as_ref())?;
            self.watch.see(epoch * steps + step + 1, &losses, self.config.collapse_after)?;
            self.epochs.step_done(&named(&losses), context);
        }
        context.cancellation.check()?;
        Ok(self.require_finite_weights((epoch + 1) * steps)?)
    }

    fn offer(
        &mut self,
        epoch: usize,
        loss: Option<f64>,
        context: &mut FitContext<'_>,
    ) -> Result<Flow, MethodError> {
        let mut flow = Flow::Continue;
        if self.epochs.is_due(epoch, self.config.eval_every) {
            let cancellation = context.cancellation.clone();
            let mut candidate = Candidate { training: self, cancellation: &cancellation, networks: None };
            flow = context.offer(epoch, loss, &mut candidate)?;
        }
        if let Some(difference) = self.epochs.mean_loss(RECONSTRUCTION) {
            self.rate.next(self.config, epoch, difference);
        }
        Ok(flow)
    }

    fn save(&mut self, context: &mut FitContext<'_>) -> Result<(), MethodError> {
        let noise = match &self.noise {
            NoiseSource::Redrawn(stream) => Some(stream.position()),
            _ => None,
        };
        let state = Saved {
            config: self.config.clone(),
            progress: self.epochs.progress().clone(),
            noise,
            rate: self.rate.clone(),
            watch: self.watch.clone(),
        };
        let mut checkpoint = Checkpoint::new([], &state)?;
        checkpoint.put("", self.trainer.state()?)?;
        context.checkpoints.save(&checkpoint)?;
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
