//! Training in epochs that can be broken off anywhere and gone on with to the same bits.

use random_streams::{Stream, StreamPosition};
use serde::{Deserialize, Serialize};

use crate::{EpochPlan, Event, FitContext, Flow, MethodError, Order, Sample};

/// How far a run has come: part of what a checkpoint says beside tensors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs that are over.
    epochs: usize,
    /// Steps of the epoch after them.
    steps: usize,
    /// The sums of these steps' losses.
    losses: Vec<(String, f64)>,
    /// Where the shuffle stood when that epoch began.
    shuffle: StreamPosition,
    /// The harness asked to stop.
    stopped: bool,
}

/// What an epoch takes of the training images, in random order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochShape {
    /// Which images.
    pub sample: Sample,
    /// Images a batch; all of the epoch's if there are fewer.
    pub batch: usize,
    /// Whether a short last batch is left out.
    pub drop_last: bool,
}

impl EpochShape {
    /// Every image once, a short last batch included.
    pub fn all(batch: usize) -> Self {
        Self { sample: Sample::All, batch, drop_last: false }
    }

    /// Full batches of this many images that are chosen anew for every epoch, of every image for `None`.
    pub fn full_batches(images: Option<usize>, batch: usize) -> Self {
        Self { sample: images.map_or(Sample::All, Sample::WithoutReplacement), batch, drop_last: true }
    }

    fn images(&self, images: usize) -> usize {
        match self.sample {
            Sample::All => images,
            Sample::WithoutReplacement(count) => count.min(images),
        }
    }
}

/// The epochs of a run, with the run's place in them.
#[derive(Debug)]
pub struct Epochs {
    count: usize,
    shape: EpochShape,
    steps: usize,
    shuffle: Stream,
    progress: Progress,
}

impl Epochs {
    /// `count` epochs over `images` training images, whose samples and order are drawn from `shuffle`.
    pub fn new(count: usize, mut shape: EpochShape, images: usize, shuffle: Stream) -> Self {
        let taken = shape.images(images);
        shape.batch = shape.batch.min(taken).max(1);
        let steps = if shape.drop_last { taken / shape.batch } else { taken.div_ceil(shape.batch) };
        let position = shuffle.position();
        let progress =
            Progress { epochs: 0, steps: 0, losses: Vec::new(), shuffle: position, stopped: false };
        Self { count, shape, steps, shuffle, progress }
    }

    /// The run's place, for a checkpoint.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Goes on at a checkpoint's place.
    pub fn go_on(&mut self, progress: Progress) {
        self.shuffle = Stream::at(&progress.shuffle);
        self.progress = progress;
    }

    /// How many epochs there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether what is done every `every` epochs is due after the `epoch`-th (from 1): the last epoch always ends with it.
    pub fn is_due(&self, epoch: usize, every: usize) -> bool {
        epoch.is_multiple_of(every) || epoch == self.count
    }

    /// How many steps an epoch has.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// How many images a batch has, the last of an epoch perhaps fewer.
    pub fn batch(&self) -> usize {
        self.shape.batch
    }

    /// How many epochs are over; the current one's number, from 0.
    pub fn current(&self) -> usize {
        self.progress.epochs
    }

    /// How many steps of the current epoch are done: batches of [`Epochs::plan`] to leave out.
    pub fn steps_done(&self) -> usize {
        self.progress.steps
    }

    /// The current epoch's plan, the same however often it is asked for, so that an epoch that was broken
    /// off draws its order again.
    pub fn plan(&mut self) -> EpochPlan<'_> {
        self.shuffle = Stream::at(&self.progress.shuffle);
        let EpochShape { sample, batch, drop_last } = self.shape;
        EpochPlan { sample, order: Order::Shuffled, batch, drop_last, stream: &mut self.shuffle }
    }

    /// Counts a step of the current epoch, tells of it, and adds up its losses: the whole first, then its parts, always
    /// under the same names.
    pub fn step_done(&mut self, losses: &[(&str, f64)], context: &FitContext<'_>) {
        context.tell(&Event::Step { step: self.progress.epochs * self.steps + self.progress.steps });
        self.progress.steps += 1;
        for &(name, loss) in losses {
            match self.progress.losses.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += loss,
                None => self.progress.losses.push((name.to_owned(), loss)),
            }
        }
    }

    /// The mean of a loss over the steps of the current epoch that are done; none for a name that no step gave.
    pub fn mean_loss(&self, name: &str) -> Option<f64> {
        let (_, sum) = self.progress.losses.iter().find(|(known, _)| known == name)?;
        Some(sum / self.progress.steps as f64)
    }

    fn is_over(&self) -> bool {
        self.progress.epochs >= self.count || self.progress.stopped
    }

    /// Tells the current epoch's mean losses; the first one's.
    fn tell_losses(&self, context: &FitContext<'_>) -> Option<f64> {
        let epoch = self.progress.epochs + 1;
        let mean = |sum: f64| sum / self.progress.steps as f64;
        for (name, sum) in &self.progress.losses {
            context.tell(&Event::Metric { name: name.clone(), at: epoch as f64, value: mean(*sum) });
        }
        let loss = self.progress.losses.first().map(|(_, sum)| mean(*sum));
        tracing::debug!(epoch, loss, "an epoch is over");
        loss
    }

    fn begin_next(&mut self, flow: Flow) {
        self.progress = Progress {
            epochs: self.progress.epochs + 1,
            steps: 0,
            losses: Vec::new(),
            shuffle: self.shuffle.position(),
            stopped: flow == Flow::Stop,
        };
    }
}

/// A method's side of a training in epochs; [`train`](EpochTraining::train) is the other.
pub trait EpochTraining {
    /// What is trained, in words, for whoever watches.
    const PHASE: &'static str;

    /// The run's epochs.
    fn epochs(&mut self) -> &mut Epochs;

    /// The rest of the current epoch: takes the batches of [`Epochs::plan`] but the first [`Epochs::steps_done`], checks for
    /// cancellation before each, and calls [`Epochs::step_done`] after it.
    ///
    /// # Errors
    /// [`MethodError::Cancelled`] between two steps; otherwise what a step gave.
    fn epoch(&mut self, context: &FitContext<'_>) -> Result<(), MethodError>;

    /// An epoch is over, the `epoch`-th (from 1), with this mean of its first loss: offers what stands, if it is time.
    ///
    /// # Errors
    /// As [`FitContext::offer`].
    fn offer(
        &mut self,
        epoch: usize,
        loss: Option<f64>,
        context: &mut FitContext<'_>,
    ) -> Result<Flow, MethodError>;

    /// Keeps all that going on takes, [`Epochs::progress`] included, as a checkpoint.
    ///
    /// # Errors
    /// If the state can't be read or the checkpoint not be written.
    fn save(&mut self, context: &mut FitContext<'_>) -> Result<(), MethodError>;

    /// Runs the epochs that are left, with a checkpoint after each and after a cancellation.
    ///
    /// # Errors
    /// [`MethodError::Cancelled`] after a checkpoint was kept; otherwise what the method gave.
    fn train(&mut self, context: &mut FitContext<'_>) -> Result<(), MethodError> {
        let outcome = run(self, context);
        if let Err(MethodError::Cancelled) = outcome {
            // What was done since the last epoch's end is kept: going on must lead to the same bits.
            self.save(context)?;
        }
        outcome
    }
}

fn run<T: EpochTraining + ?Sized>(training: &mut T, context: &mut FitContext<'_>) -> Result<(), MethodError> {
    let steps = training.epochs().steps * training.epochs().count;
    context.tell(&Event::Phase { name: T::PHASE.to_owned(), steps: Some(steps) });
    while !training.epochs().is_over() {
        training.epoch(context)?;
        context.cancellation.check()?;
        let loss = training.epochs().tell_losses(context);
        let epoch = training.epochs().current() + 1;
        let flow = training.offer(epoch, loss, context)?;
        training.epochs().begin_next(flow);
        // After the offer: a run that is killed in between offers once more, which changes nothing; the other way round
        // an offer could be lost.
        training.save(context)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Cancellation, Checkpoint};
    use candle_core::Device;

    /// Writes down what it sees, and is cancelled or stopped after so many steps or epochs.
    struct Recorder {
        epochs: Epochs,
        seen: Vec<Vec<usize>>,
        offers: Vec<(usize, Option<f64>)>,
        cancel_after: usize,
        stop_after: usize,
        saved: Option<Checkpoint>,
    }

    impl Recorder {
        fn new(context: &FitContext<'_>) -> Self {
            let epochs = Epochs::new(3, EpochShape::all(4), 12, context.stream("shuffle"));
            let (seen, offers) = (Vec::new(), Vec::new());
            Self { epochs, seen, offers, cancel_after: usize::MAX, stop_after: usize::MAX, saved: None }
        }
    }

    impl EpochTraining for Recorder {
        const PHASE: &'static str = "record";

        fn epochs(&mut self) -> &mut Epochs {
            &mut self.epochs
        }

        fn epoch(&mut self, context: &FitContext<'_>) -> Result<(), MethodError> {
            let batches = self.epochs.plan().batches(12);
            for batch in batches.into_iter().skip(self.epochs.steps_done()) {
                context.cancellation.check()?;
                self.epochs.step_done(&[("loss", batch[0] as f64), ("part", 1.0)], context);
                self.seen.push(batch);
                if self.seen.len() == self.cancel_after {
                    context.cancellation.cancel();
                }
            }
            Ok(())
        }

        fn offer(
            &mut self,
            epoch: usize,
            loss: Option<f64>,
            _: &mut FitContext<'_>,
        ) -> Result<Flow, MethodError> {
            assert_eq!(loss, self.epochs.mean_loss("loss"));
            assert_eq!(self.epochs.mean_loss("part"), Some(1.0));
            assert_eq!(self.epochs.mean_loss("other"), None);
            self.offers.push((epoch, loss));
            Ok(if epoch == self.stop_after { Flow::Stop } else { Flow::Continue })
        }

        fn save(&mut self, _: &mut FitContext<'_>) -> Result<(), MethodError> {
            self.saved = Some(Checkpoint::new([], self.epochs.progress())?);
            Ok(())
        }
    }

    fn progress(recorder: &Recorder) -> Progress {
        recorder.saved.as_ref().unwrap().state().unwrap()
    }

    #[test]
    fn a_run_that_is_broken_off_anywhere_sees_the_same_batches() {
        let mut context = FitContext::new(Device::Cpu, 7);
        let mut whole = Recorder::new(&context);
        whole.train(&mut context).unwrap();
        assert_eq!((whole.seen.len(), whole.offers.len()), (9, 3));
        assert_ne!(whole.seen[..3], whole.seen[3..6]);
        for cancel_after in 1..9 {
            let mut first = Recorder { cancel_after, ..Recorder::new(&context) };
            let cancelled = first.train(&mut context).unwrap_err();
            assert!(cancelled.is_cancelled());
            context.cancellation = Cancellation::default();
            let mut second = Recorder::new(&context);
            second.epochs.go_on(progress(&first));
            second.train(&mut context).unwrap();
            first.seen.extend(second.seen);
            first.offers.extend(second.offers);
            assert_eq!((first.seen, first.offers), (whole.seen.clone(), whole.offers.clone()));
        }
    }

    #[test]
    fn an_epoch_has_as_many_steps_as_its_plan_has_batches() {
        let stream = || random_streams::Streams::new(0).stream("shuffle");
        for (sample, taken) in
            [(Sample::All, 7), (Sample::WithoutReplacement(5), 5), (Sample::WithoutReplacement(9), 7)]
        {
            for (batch, drop_last) in [(2, false), (2, true), (100, false), (100, true)] {
                let mut epochs = Epochs::new(1, EpochShape { sample, batch, drop_last }, 7, stream());
                let batches = epochs.plan().batches(7);
                assert_eq!((epochs.steps(), epochs.batch()), (batches.len(), batch.min(taken)));
                let images: usize = batches.iter().map(Vec::len).sum();
                assert_eq!(images, if drop_last && batch == 2 { taken / 2 * 2 } else { taken });
            }
        }
    }

    #[test]
    fn what_is_done_now_and_then_is_done_in_the_end() {
        let stream = random_streams::Streams::new(0).stream("shuffle");
        let epochs = Epochs::new(7, EpochShape::all(4), 12, stream);
        let due: Vec<usize> = (1..=7).filter(|&epoch| epochs.is_due(epoch, 3)).collect();
        assert_eq!(due, [3, 6, 7]);
    }

    #[test]
    fn a_run_that_was_told_to_stop_stays_stopped() {
        let mut context = FitContext::new(Device::Cpu, 7);
        let mut first = Recorder { stop_after: 2, ..Recorder::new(&context) };
        first.train(&mut context).unwrap();
        assert_eq!(first.seen.len(), 6);
        let mut second = Recorder::new(&context);
        second.epochs.go_on(progress(&first));
        second.train(&mut context).unwrap();
        assert!(second.seen.is_empty() && second.offers.is_empty());
    }
}
