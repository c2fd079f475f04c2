//! Training from scratch.

use anomaly_core::{
    Checkpoint, Detector, EpochShape, EpochTraining, Epochs, FitContext, Flow, Images, MethodError, Offer,
    Progress, Stream, StreamPosition, TrainingData,
};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use vit_ops::{NamedTensors, NetworkWeights};

use crate::detector::AdvitDetector;
use crate::error::finite;
use crate::trainer::{Objective, Trainer};
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
    let mut training = Training::start(config, data, context)?;
    training.train(context)?;
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
    data: &'a dyn TrainingData,
    trainer: Trainer,
    epochs: Epochs,
    noise: Stream,
    device: Device,
}

/// What a checkpoint holds beside tensors.
#[derive(Serialize, Deserialize)]
struct Saved {
    config: Config,
    progress: Progress,
    noise: StreamPosition,
    batches: u64,
}

const NETWORK: &str = "network.";

impl<'a> Training<'a> {
    /// From the checkpoint in `context`, or from the beginning.
    fn start(
        config: &'a Config,
        data: &'a dyn TrainingData,
        context: &mut FitContext<'_>,
    ) -> Result<Self, MethodError> {
        let device = context.device.clone();
        let shape = config.architecture();
        let first = shape.init(&mut context.stream("init"), &device)?;
        let trainer = Trainer::new(&shape, &first, config.objective(), &device)?;
        let epochs = Epochs::new(
            config.epochs,
            EpochShape::all(config.batch_size),
            data.len(),
            context.stream("shuffle"),
        );
        let mut training = Self { config, data, trainer, epochs, noise: context.stream("noise"), device };
        if let Some(checkpoint) = context.checkpoints.latest(&training.device)? {
            training.restore(&checkpoint)?;
        }
        Ok(training)
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

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), MethodError> {
        let saved: Saved = checkpoint.state()?;
        Checkpoint::require_same("config", self.config, &saved.config)?;
        self.trainer
            .weights
            .load(&checkpoint.part(NETWORK).collect::<NamedTensors>())
            .map_err(Error::from)?;
        self.trainer.load_state(&checkpoint.tensors)?;
        self.trainer.batches = saved.batches;
        self.noise = Stream::at(&saved.noise);
        self.epochs.go_on(saved.progress);
        Ok(())
    }
}

impl EpochTraining for Training<'_> {
    const PHASE: &'static str = "train";

    fn epochs(&mut self) -> &mut Epochs {
        &mut self.epochs
    }

    fn epoch(&mut self, context: &FitContext<'_>) -> Result<(), MethodError> {
        let done = self.epochs.steps_done();
        let plan = self.epochs.plan();
        for batch in self.data.epoch(plan).skip(done) {
            context.cancellation.check()?;
            let images = batch?.images;
            images.require_finite()?;
            let noise = self.draw_noise(images.len())?;
            let values = self.trainer.step(images.pixels(), noise.as_ref())?;
            self.epochs.step_done(&values.named(), context);
        }
        Ok(())
    }

    fn offer(
        &mut self,
        epoch: usize,
        loss: Option<f64>,
        context: &mut FitContext<'_>,
    ) -> Result<Flow, MethodError> {
        if self.epochs.is_due(epoch, self.config.offer_every) {
            return context.offer(epoch, loss, &mut self.candidate());
        }
        Ok(Flow::Continue)
    }

    fn save(&mut self, context: &mut FitContext<'_>) -> Result<(), MethodError> {
        let state = Saved {
            config: self.config.clone(),
            progress: self.epochs.progress().clone(),
            noise: self.noise.position(),
            batches: self.trainer.batches,
        };
        let mut checkpoint = Checkpoint::new([], &state)?;
        checkpoint.put("", self.trainer.state()?)?;
        checkpoint.put(NETWORK, self.trainer.weights.frozen().map_err(Error::from)?)?;
        context.checkpoints.save(&checkpoint)?;
        Ok(())
    }
}

/// The network as it stands, on offer.
struct Candidate<'a> {
    config: &'a Config,
    weights: &'a NetworkWeights,
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
