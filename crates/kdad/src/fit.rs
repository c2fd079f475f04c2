//! Training the student.

use std::sync::Arc;

use anomaly_core::{
    Checkpoint, Detector, EpochShape, EpochTraining, Epochs, FeatureStore, FitContext, Flow, Images,
    MethodError, Offer, Precision, Progress, Stream, StreamPosition, TrainingData,
};
use candle_core::Tensor;
use optim::{Adam, AdamOptions, Optimizer, Schedule};
use serde::{Deserialize, Serialize};

use crate::detector::KdadDetector;
use crate::error::finite;
use crate::network::{Network, Sizes};
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
    let Sizes { patches, dim, .. } = teacher.student(config);
    let source = teacher.source(context.precision)?;
    context.state_features(data.len(), patches * dim, &mut |index| {
        Ok(source.is_kept(&*context.features, data.key(index)?)?)
    })?;
    let mut training = Training::start(config, teacher, data, context)?;
    training.train(context)?;
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
    data: &'a dyn TrainingData,
    trainer: Trainer,
    /// Where the teacher's tokens are kept, of the test images too.
    store: Arc<dyn FeatureStore>,
    precision: Precision,
    epochs: Epochs,
}

/// What a checkpoint holds beside tensors.
#[derive(Serialize, Deserialize)]
struct Saved {
    config: Config,
    backbone: String,
    progress: Progress,
    noise: StreamPosition,
}

const STUDENT: &str = "student.";
const ADAM: &str = "adam.";

impl<'a> Training<'a> {
    /// From the checkpoint in `context`, or from the beginning.
    fn start(
        config: &'a Config,
        teacher: &'a Teacher,
        data: &'a dyn TrainingData,
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
        let shape = EpochShape::full_batches(config.images_per_epoch, config.batch_size);
        let mut training = Self {
            config,
            teacher,
            data,
            trainer,
            store: Arc::clone(&context.features),
            precision: context.precision,
            epochs: Epochs::new(config.epochs, shape, data.len(), context.stream("shuffle")),
        };
        if let Some(checkpoint) = context.checkpoints.latest(device)? {
            training.restore(&checkpoint)?;
        }
        Ok(training)
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

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), MethodError> {
        let saved: Saved = checkpoint.state()?;
        Checkpoint::require_same("backbone", &self.teacher.vit.identity().sha256, &saved.backbone)?;
        Checkpoint::require_same("config", self.config, &saved.config)?;
        self.trainer.student.load(&checkpoint.part(STUDENT).collect())?;
        let adam = checkpoint.part(ADAM).collect();
        self.trainer.adam.load_state_tensors(adam).map_err(Error::from)?;
        self.trainer.noise = Stream::at(&saved.noise);
        self.epochs.go_on(saved.progress);
        Ok(())
    }
}

impl EpochTraining for Training<'_> {
    const PHASE: &'static str = "train the student";

    fn epochs(&mut self) -> &mut Epochs {
        &mut self.epochs
    }

    fn epoch(&mut self, context: &FitContext<'_>) -> Result<(), MethodError> {
        self.trainer.enter(self.epochs.current());
        let done = self.epochs.steps_done();
        let data = self.data;
        let batches = self.epochs.plan().batches(data.len());
        for indices in batches.iter().skip(done) {
            context.cancellation.check()?;
            let images = data.get(indices)?;
            images.require_finite()?;
            let keys = indices.iter().map(|index| data.key(*index)).collect::<Result<Vec<_>, _>>()?;
            let tokens = self.teacher.once(&*context.features, context.precision, &keys, &mut |places| {
                Ok(chosen(images.pixels(), places)?)
            })?;
            let pixels = images.pixels().to_device(self.teacher.vit.device()).map_err(Error::from)?;
            let loss = self.trainer.step(&pixels, &tokens)?;
            self.epochs.step_done(&[("loss", loss)], context);
        }
        Ok(())
    }

    fn offer(
        &mut self,
        epoch: usize,
        loss: Option<f64>,
        context: &mut FitContext<'_>,
    ) -> Result<Flow, MethodError> {
        context.offer(epoch, loss, &mut Candidate(self))
    }

    fn save(&mut self, context: &mut FitContext<'_>) -> Result<(), MethodError> {
        let state = Saved {
            config: self.config.clone(),
            backbone: self.teacher.vit.identity().sha256.clone(),
            progress: self.epochs.progress().clone(),
            noise: self.trainer.noise.position(),
        };
        let mut checkpoint = Checkpoint::new([], &state)?;
        checkpoint.put(STUDENT, self.trainer.student.weights()?)?;
        checkpoint.put(ADAM, self.trainer.adam.state_tensors().map_err(Error::from)?)?;
        context.checkpoints.save(&checkpoint)?;
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
