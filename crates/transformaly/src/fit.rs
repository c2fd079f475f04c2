//! Training the students, and finishing a detector from them.

use std::sync::Arc;

use anomaly_core::{
    Cancellation, Checkpoint, Detector, EpochPlan, EpochShape, EpochTraining, Epochs, Event, FitContext,
    Flow, Images, MethodError, Offer, Order, Progress, Sample, Stream, StreamPosition, TrainingData,
};
use candle_core::Tensor;
use optim::{Adam, AdamOptions, Optimizer, ParameterGroup};
use serde::{Deserialize, Serialize};
use vit_backbone::{Block, BlockDropout, Vit};

use crate::detector::TransformalyDetector;
use crate::error::finite;
use crate::network::{Descriptors, Imitation, Student, evaluation_loss};
use crate::selection::is_evaluated;
use crate::{Config, Error};

/// Trains on `data` and finishes the last state.
pub(crate) fn fit(
    config: &Config,
    teacher: &Arc<Vit>,
    data: &dyn TrainingData,
    context: &mut FitContext<'_>,
) -> Result<Box<dyn Detector>, MethodError> {
    if data.len() < 2 {
        return Err(Error::TooFewImages(data.len()).into());
    }
    let mut training = Training::start(config, teacher, data, context)?;
    training.train(context)?;
    context.tell(&Event::Phase { name: "fit the Gaussians".to_owned(), steps: None });
    training.candidate(&context.cancellation).detector()
}

/// The students, their optimiser and their noise.
pub(crate) struct Trainer<'a> {
    teacher: &'a Vit,
    pub(crate) student: Student,
    adam: Adam,
    dropout: f64,
    teacher_dropout: bool,
    teacher_noise: Stream,
    student_noise: Stream,
}

impl<'a> Trainer<'a> {
    /// Adam over all `student` blocks of `teacher`.
    pub(crate) fn new(
        teacher: &'a Vit,
        student: Student,
        options: AdamOptions,
        (dropout, teacher_dropout): (f64, bool),
        (teacher_noise, student_noise): (Stream, Stream),
    ) -> Result<Self, Error> {
        let vars = student.blocks.iter().enumerate().flat_map(|(index, block)| {
            block.vars().iter().map(move |(name, var)| (format!("{index}.{name}"), var.clone()))
        });
        let adam = Adam::new(vec![ParameterGroup::new(vars)], options)?;
        Ok(Self { teacher, student, adam, dropout, teacher_dropout, teacher_noise, student_noise })
    }

    /// One step on `images` `(B, 3, H, W)`; returns the loss before it.
    ///
    /// No gradient crosses blocks, so each is stepped from its own backward pass as soon as it has been run: the same
    /// numbers as one step over all, with the activations of one block in memory.
    pub(crate) fn step(&mut self, images: &Tensor) -> Result<f64, Error> {
        let images = images.to_device(self.teacher.device())?;
        let (_, _, height, width) = images.dims4()?;
        let rope = self.teacher.rope(height, width)?;
        let rate = self.dropout;
        let depth = self.teacher.depth();
        let mut tokens = self.teacher.embed(&images)?;
        let mut sum = 0.0;
        for (index, (block, student)) in self.teacher.blocks().iter().zip(&self.student.blocks).enumerate() {
            let drawn = |on: bool, stream| (on && rate > 0.0).then_some(BlockDropout::Drawn { rate, stream });
            let dropout =
                (drawn(self.teacher_dropout, &mut self.teacher_noise), drawn(true, &mut self.student_noise));
            let imitation = Imitation::new(block, student, &tokens, rope.as_ref(), dropout)?;
            let loss = imitation.loss()?;
            let value = f64::from(loss.to_scalar::<f32>()?);
            sum += finite(|| format!("the training loss of block {index}"), value)?;
            // The loss is the mean over all blocks.
            let gradients = (loss / depth as f64)?.backward()?;
            if let Some((name, _)) = student.vars().iter().find(|(_, var)| gradients.get(var).is_none()) {
                return Err(Error::NoGradient(format!("{index}.{name}")));
            }
            self.adam.step(&gradients)?;
            tokens = imitation.teacher;
        }
        Ok(sum / depth as f64)
    }
}

/// A run, with its place in the epochs.
struct Training<'a> {
    config: &'a Config,
    teacher: &'a Arc<Vit>,
    data: &'a dyn TrainingData,
    trainer: Trainer<'a>,
    epochs: Epochs,
}

/// What a checkpoint holds beside tensors.
#[derive(Serialize, Deserialize)]
struct Saved {
    config: Config,
    backbone: String,
    progress: Progress,
    teacher_noise: StreamPosition,
    student_noise: StreamPosition,
}

const STUDENT: &str = "student.";
const ADAM: &str = "adam.";

impl<'a> Training<'a> {
    /// From the checkpoint in `context`, or from the beginning.
    fn start(
        config: &'a Config,
        teacher: &'a Arc<Vit>,
        data: &'a dyn TrainingData,
        context: &mut FitContext<'_>,
    ) -> Result<Self, MethodError> {
        let student = Student::new(teacher, &mut context.stream("init"))?;
        let options = AdamOptions { learning_rate: config.learning_rate, ..AdamOptions::default() };
        let noise = (context.stream("teacher-dropout"), context.stream("student-dropout"));
        let dropout = (config.dropout, config.teacher_dropout);
        let trainer = Trainer::new(teacher, student, options, dropout, noise)?;
        let epochs = Epochs::new(
            config.epochs,
            EpochShape::all(config.batch_size),
            data.len(),
            context.stream("shuffle"),
        );
        let mut training = Self { config, teacher, data, trainer, epochs };
        if let Some(checkpoint) = context.checkpoints.latest(teacher.device())? {
            training.restore(&checkpoint)?;
        }
        Ok(training)
    }

    fn candidate<'c>(&'c self, cancellation: &'c Cancellation) -> Candidate<'c> {
        Candidate {
            config: self.config,
            teacher: self.teacher,
            student: &self.trainer.student,
            data: self.data,
            cancellation,
            frozen: None,
        }
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), MethodError> {
        let saved: Saved = checkpoint.state()?;
        Checkpoint::require_same("backbone", &self.teacher.identity().sha256, &saved.backbone)?;
        Checkpoint::require_same("config", self.config, &saved.config)?;
        self.trainer.student.load(&checkpoint.part(STUDENT).collect())?;
        let adam = checkpoint.part(ADAM).collect();
        self.trainer.adam.load_state_tensors(adam).map_err(Error::from)?;
        self.trainer.teacher_noise = Stream::at(&saved.teacher_noise);
        self.trainer.student_noise = Stream::at(&saved.student_noise);
        self.epochs.go_on(saved.progress);
        Ok(())
    }
}

impl EpochTraining for Training<'_> {
    const PHASE: &'static str = "train the students";

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
            let loss = self.trainer.step(images.pixels())?;
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
        if is_evaluated(epoch, self.config.eval_every) {
            let cancellation = context.cancellation.clone();
            return context.offer(epoch, loss, &mut self.candidate(&cancellation));
        }
        Ok(Flow::Continue)
    }

    fn save(&mut self, context: &mut FitContext<'_>) -> Result<(), MethodError> {
        let state = Saved {
            config: self.config.clone(),
            backbone: self.teacher.identity().sha256.clone(),
            progress: self.epochs.progress().clone(),
            teacher_noise: self.trainer.teacher_noise.position(),
            student_noise: self.trainer.student_noise.position(),
        };
        let mut checkpoint = Checkpoint::new([], &state)?;
        checkpoint.put(STUDENT, self.trainer.student.named_tensors()?)?;
        checkpoint.put(ADAM, self.trainer.adam.state_tensors().map_err(Error::from)?)?;
        context.checkpoints.save(&checkpoint)?;
        Ok(())
    }
}

/// The students as they stand, on offer.
struct Candidate<'a> {
    config: &'a Config,
    teacher: &'a Arc<Vit>,
    student: &'a Student,
    data: &'a dyn TrainingData,
    cancellation: &'a Cancellation,
    /// Made at the first need.
    frozen: Option<Vec<Block>>,
}

impl Candidate<'_> {
    fn frozen(&mut self) -> Result<&[Block], Error> {
        let frozen = match self.frozen.take() {
            Some(frozen) => frozen,
            None => self.student.frozen()?,
        };
        Ok(self.frozen.insert(frozen))
    }
}

impl Offer for Candidate<'_> {
    fn validation_loss(&mut self, images: &Images) -> Result<Option<f64>, MethodError> {
        self.cancellation.check()?;
        images.require_finite()?;
        let teacher = self.teacher;
        let loss = evaluation_loss(teacher, self.frozen()?, images.pixels())?;
        Ok(Some(finite(|| "the validation loss".to_owned(), loss)?))
    }

    fn detector(&mut self) -> Result<Box<dyn Detector>, MethodError> {
        let (config, teacher) = (self.config, self.teacher);
        let students = self.frozen()?[config.skip_blocks..].to_vec();
        let descriptors = describe(config, teacher, &students, self.data, self.cancellation)?;
        Ok(Box::new(TransformalyDetector::fit(config.clone(), teacher.clone(), students, &descriptors)?))
    }
}

/// The descriptors of all training images, in order.
fn describe(
    config: &Config,
    teacher: &Vit,
    students: &[Block],
    data: &dyn TrainingData,
    cancellation: &Cancellation,
) -> Result<Descriptors, MethodError> {
    // In order, all of them: nothing is drawn.
    let mut unused = anomaly_core::Streams::new(0).stream("in-order");
    let plan = EpochPlan {
        sample: Sample::All,
        order: Order::InOrder,
        batch: config.batch_size,
        drop_last: false,
        stream: &mut unused,
    };
    let mut all = Descriptors::default();
    for batch in data.epoch(plan) {
        cancellation.check()?;
        let images = batch?.images;
        images.require_finite()?;
        all.append(Descriptors::of(teacher, students, images.pixels())?);
    }
    Ok(all)
}
