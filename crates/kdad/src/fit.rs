//! Training the student.

use std::collections::BTreeMap;
use std::sync::Arc;

use anomaly_core::{
    Checkpoint, Detector, EpochPlan, Event, FeatureStore, FitContext, Flow, Images, MethodError, Offer,
    Order, Precision, Sample, Stream, StreamPosition, TrainingData,
};
use candle_core::Tensor;
use optim::{Adam, AdamOptions, Optimizer, OptimizerState, Schedule};
use serde::{Deserialize, Serialize};

use crate::detector::KdadDetector;
use crate::error::finite;
use crate::network::Network;
use crate::student::Student;
use crate::teacher::{Teacher, chosen};
use crate::{Config, Error, loss};

/// Trains on `data` and finishes the last state.
pub(crate) fn fit(
    config: &Config,
    teacher: &Teacher,
    data: &dyn TrainingData,
    context: &mut FitContext<'_>,
) -> Result<Box<dyn Detector>, MethodError> {
    if data.is_empty() {
        return Err(Error::NoImages.into());
    }
    let mut training = Training::start(config, teacher, context)?;
    let outcome = training.run(data, context);
    if let Err(MethodError::Cancelled) = outcome {
        // What was done since the last epoch's end is kept: going on must lead to the same bits.
        training.save(context)?;
    }
    outcome?;
    Ok(Box::new(training.detector()?))
}

/// The student with its optimiser and its noise.
pub(crate) struct Trainer {
    pub(crate) student: Student,
    pub(crate) adam: Adam,
    schedule: Schedule,
    base_rate: f64,
    dropout: f64,
    noise: Stream,
}

impl Trainer {
    /// `AdamW` over all of the student's weights; the rate is multiplied by `gamma` at each milestone.
    pub(crate) fn new(
        student: Student,
        options: AdamOptions,
        (milestones, gamma): (Vec<u64>, f64),
        (dropout, noise): (f64, Stream),
    ) -> Result<Self, Error> {
        let base_rate = options.learning_rate;
        let adam = Adam::new(vec![student.parameters()], options)?;
        let schedule = Schedule::MultiStep { milestones, factor: gamma };
        Ok(Self { student, adam, schedule, base_rate, dropout, noise })
    }

    /// Sets the learning rate of `epoch`, counted from 0.
    pub(crate) fn enter(&mut self, epoch: usize) {
        self.adam.set_learning_rate(self.schedule.at(self.base_rate, epoch as u64));
    }

    /// One step on `images` `(B, 3, S, S)` towards the teacher's `tokens` `(B, N, D)`; returns the loss before it.
    pub(crate) fn step(&mut self, images: &Tensor, tokens: &Tensor) -> Result<f64, Error> {
        let mut noise = (self.dropout > 0.0).then_some((self.dropout, &mut self.noise));
        let imitated = self.student.network()?.forward(images, &mut noise)?;
        let loss = loss::loss(&imitated, tokens)?;
        let value = finite(|| "the training loss".to_owned(), f64::from(loss.to_scalar::<f32>()?))?;
        let gradients = loss.backward()?;
        let missing = self.adam.missing_gradients(&gradients);
        if !missing.is_empty() {
            return Err(Error::NoGradient(missing));
        }
        self.adam.step(&gradients)?;
        Ok(value)
    }
}

/// A run, with its place in the epochs.
struct Training<'a> {
    config: &'a Config,
    teacher: &'a Teacher,
    trainer: Trainer,
    /// Where the teacher's tokens are kept, of the test images too.
    store: Arc<dyn FeatureStore>,
    precision: Precision,
    shuffle: Stream,
    place: Place,
}

/// How far a run has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    /// Epochs that are over.
    epochs: usize,
    /// Steps of the epoch after them.
    steps: usize,
    /// The sum of these steps' losses.
    loss: f64,
    /// Where the shuffle stood when that epoch began.
    shuffle: StreamPosition,
    /// The harness asked to stop.
    stopped: bool,
}

/// What a checkpoint holds beside tensors.
#[derive(Serialize, Deserialize)]
struct Saved {
    config: Config,
    backbone: String,
    place: Place,
    noise: StreamPosition,
}

const STUDENT: &str = "student.";
const ADAM: &str = "adam.";

impl<'a> Training<'a> {
    /// From the checkpoint in `context`, or from the beginning.
    fn start(
        config: &'a Config,
        teacher: &'a Teacher,
        context: &mut FitContext<'_>,
    ) -> Result<Self, MethodError> {
        let device = teacher.vit.device();
        let student = Student::new(teacher.student(config), &mut context.stream("init"), device)?;
        let options = AdamOptions {
            learning_rate: config.learning_rate,
            weight_decay: config.weight_decay,
            ..AdamOptions::adam_w()
        };
        let steps = (config.milestones.clone(), config.gamma);
        let trainer = Trainer::new(student, options, steps, (config.dropout, context.stream("dropout")))?;
        let shuffle = context.stream("shuffle");
        let place = Place { epochs: 0, steps: 0, loss: 0.0, shuffle: shuffle.position(), stopped: false };
        let store = Arc::clone(&context.features);
        let precision = context.precision;
        let mut training = Self { config, teacher, trainer, store, precision, shuffle, place };
        if let Some(checkpoint) = context.checkpoints.latest(device)? {
            training.restore(&checkpoint)?;
        }
        Ok(training)
    }

    /// The batches of the current epoch.
    fn batches(&mut self, images: usize) -> Vec<Vec<usize>> {
        // An epoch that was broken off draws its order again.
        self.shuffle = Stream::at(&self.place.shuffle);
        let sample = self.config.images_per_epoch.map_or(Sample::All, Sample::WithoutReplacement);
        let batch = self.config.batch_size.min(images).min(self.config.images_per_epoch.unwrap_or(images));
        EpochPlan { sample, order: Order::Shuffled, batch, drop_last: true, stream: &mut self.shuffle }
            .batches(images)
    }

    fn run(&mut self, data: &dyn TrainingData, context: &mut FitContext<'_>) -> Result<(), MethodError> {
        let mut announced = false;
        while self.place.epochs < self.config.epochs && !self.place.stopped {
            let batches = self.batches(data.len());
            if !announced {
                let name = "train the student".to_owned();
                context.tell(&Event::Phase { name, steps: Some(batches.len() * self.config.epochs) });
                announced = true;
            }
            self.epoch(&batches, data, context)?;
            let epoch = self.place.epochs + 1;
            context.cancellation.check()?;
            let loss = self.place.loss / self.place.steps as f64;
            context.tell(&Event::Metric { name: "loss".to_owned(), at: epoch as f64, value: loss });
            tracing::debug!(epoch, loss, "an epoch is over");
            let flow = context.offer(epoch, Some(loss), &mut Candidate(self))?;
            let shuffle = self.shuffle.position();
            self.place = Place { epochs: epoch, steps: 0, loss: 0.0, shuffle, stopped: flow == Flow::Stop };
            // After the offer: a run that is killed in between offers once more, which changes nothing; the other way
            // round an offer could be lost.
            self.save(context)?;
        }
        Ok(())
    }

    /// The rest of the current epoch.
    fn epoch(
        &mut self,
        batches: &[Vec<usize>],
        data: &dyn TrainingData,
        context: &FitContext<'_>,
    ) -> Result<(), MethodError> {
        self.trainer.enter(self.place.epochs);
        for indices in batches.iter().skip(self.place.steps) {
            context.cancellation.check()?;
            let images = data.get(indices)?;
            images.require_finite()?;
            let keys = indices.iter().map(|index| data.key(*index)).collect::<Result<Vec<_>, _>>()?;
            let tokens = self.teacher.once(&*context.features, context.precision, &keys, &mut |places| {
                Ok(chosen(images.pixels(), places)?)
            })?;
            let pixels = images.pixels().to_device(self.teacher.vit.device()).map_err(Error::from)?;
            self.place.loss += self.trainer.step(&pixels, &tokens)?;
            context.tell(&Event::Step { step: self.place.epochs * batches.len() + self.place.steps });
            self.place.steps += 1;
        }
        Ok(())
    }

    fn detector(&self) -> Result<KdadDetector, Error> {
        let weights = self.trainer.student.weights()?;
        let mut detector = KdadDetector::new(self.config.clone(), self.teacher.clone(), weights)?;
        // A store that rounds would give other scores than the same detector has once it is loaded.
        if self.store.is_exact() {
            detector.keep_tokens_in(Arc::clone(&self.store), self.precision);
        }
        Ok(detector)
    }

    fn save(&self, context: &mut FitContext<'_>) -> Result<(), MethodError> {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in self.trainer.student.weights()? {
            tensors.insert(format!("{STUDENT}{name}"), tensor);
        }
        let adam = self.trainer.adam.state().and_then(|state| state.to_tensors()).map_err(Error::from)?;
        for (name, tensor) in adam {
            tensors.insert(format!("{ADAM}{name}"), tensor);
        }
        let state = Saved {
            config: self.config.clone(),
            backbone: self.teacher.vit.identity().sha256.clone(),
            place: self.place.clone(),
            noise: self.trainer.noise.position(),
        };
        let named = tensors.iter().map(|(name, tensor)| (name.clone(), tensor));
        context.checkpoints.save(&Checkpoint::new(named, &state)?)?;
        Ok(())
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), MethodError> {
        let saved: Saved = checkpoint.state()?;
        let backbone = &self.teacher.vit.identity().sha256;
        if saved.backbone != *backbone {
            let (expected, found) = (backbone.clone(), saved.backbone);
            return Err(Error::Checkpoint { field: "backbone", expected, found }.into());
        }
        if saved.config != *self.config {
            let (expected, found) = (format!("{:?}", self.config), format!("{:?}", saved.config));
            return Err(Error::Checkpoint { field: "config", expected, found }.into());
        }
        let part = |prefix: &str| -> BTreeMap<String, Tensor> {
            let own =
                |(name, t): (&String, &Tensor)| Some((name.strip_prefix(prefix)?.to_owned(), t.clone()));
            checkpoint.tensors.iter().filter_map(own).collect()
        };
        self.trainer.student.load(&part(STUDENT))?;
        let adam = OptimizerState::from_tensors(part(ADAM)).map_err(Error::from)?;
        self.trainer.adam.load_state(&adam).map_err(Error::from)?;
        self.trainer.noise = Stream::at(&saved.noise);
        self.shuffle = Stream::at(&saved.place.shuffle);
        self.place = saved.place;
        Ok(())
    }
}

/// The student as it stands, on offer.
struct Candidate<'a, 'b>(&'a Training<'b>);

impl Offer for Candidate<'_, '_> {
    fn validation_loss(&mut self, images: &Images) -> Result<Option<f64>, MethodError> {
        images.require_finite()?;
        let Training { teacher, trainer, .. } = self.0;
        let run = || -> Result<f64, Error> {
            let tokens = teacher.tokens(images.pixels())?;
            let sizes = teacher.student(self.0.config);
            let network = Network::new(&sizes, &trainer.student.weights()?)?;
            let imitated = network.forward(&images.pixels().to_device(teacher.vit.device())?, &mut None)?;
            let scores = loss::image_scores(&imitated, &tokens)?;
            finite(|| "the validation loss".to_owned(), scores.iter().sum::<f64>() / scores.len() as f64)
        };
        Ok(Some(run()?))
    }

    fn detector(&mut self) -> Result<Box<dyn Detector>, MethodError> {
        Ok(Box::new(self.0.detector()?))
    }
}
