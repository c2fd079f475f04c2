//! Training the discriminator, epoch by epoch.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use anomaly_core::{
    Checkpoint, ContentKey, Detector, EpochPlan, Event, FeatureStore, FitContext, Flow, Images, MethodError,
    Offer, Order, Sample, Stream, StreamPosition, TrainingData,
};
use candle_core::Tensor;
use optim::{Optimizer, OptimizerState};
use serde::{Deserialize, Serialize};

use crate::anomalies::Source;
use crate::detector::GeneralAdDetector;
use crate::features::{Extractor, PatchFeatures};
use crate::network::{Sizes, Trained};
use crate::training::{Optimisation, Trainer, passes};
use crate::{Amount, Config, Error};

/// Epsilon of the discriminator's norms.
pub(crate) const NORM_EPS: f64 = 1e-5;

/// The sizes of the discriminator over what `extractor` gives.
pub(crate) fn sizes(config: &Config, extractor: &Extractor) -> Sizes {
    let (rows, columns) = extractor.grid(config);
    Sizes {
        patches: rows * columns,
        width: extractor.width(),
        blocks: config.dsc_layers,
        heads: config.dsc_heads,
        hidden: config.hidden_dim,
        norm_eps: NORM_EPS,
    }
}

/// Trains on `data` and finishes the last state.
pub(crate) fn fit(
    config: &Config,
    extractor: &Extractor,
    data: &dyn TrainingData,
    context: &mut FitContext<'_>,
) -> Result<Box<dyn Detector>, MethodError> {
    if data.is_empty() {
        return Err(Error::NoImages.into());
    }
    let mut training = Training::start(config, extractor, context)?;
    let mut features =
        Features { extractor, data, store: Arc::clone(&context.features), keys: HashMap::new() };
    features.state_size(config, context)?;
    let outcome = training.run(&mut features, context);
    if let Err(MethodError::Cancelled) = outcome {
        // What was done since the last epoch's end is kept: going on must lead to the same bits.
        training.save(context)?;
    }
    outcome?;
    Ok(training.detector()?)
}

/// The training images' features, computed at their first use and then taken from the store.
struct Features<'a> {
    extractor: &'a Extractor,
    data: &'a dyn TrainingData,
    store: Arc<dyn FeatureStore>,
    /// Finding a key means reading the image.
    keys: HashMap<usize, ContentKey>,
}

impl Features<'_> {
    fn key(&mut self, index: usize) -> Result<ContentKey, MethodError> {
        if let Some(key) = self.keys.get(&index) {
            return Ok(*key);
        }
        let key = self.data.key(index)?;
        self.keys.insert(index, key);
        Ok(key)
    }

    /// Of the images at `indices`, in this order.
    fn of(&mut self, indices: &[usize]) -> Result<PatchFeatures, MethodError> {
        let keys = indices.iter().map(|index| self.key(*index)).collect::<Result<Vec<_>, _>>()?;
        let data = self.data;
        self.extractor.features_once(&*self.store, &keys, &mut |places| {
            let missing: Vec<usize> = places.iter().map(|place| indices[*place]).collect();
            let images = data.get(&missing)?;
            images.require_finite()?;
            Ok(images.pixels().clone())
        })
    }

    /// Says before anything is computed how much is to be kept, and warns if there is no room for it.
    fn state_size(&mut self, config: &Config, context: &FitContext<'_>) -> Result<(), MethodError> {
        let an_image = self.store.bytes_of(self.extractor.numbers_an_image(config) as u64);
        let images = self.data.len();
        let room = self.store.room()?;
        let all = an_image * images as u64;
        context.tell(&Event::Note(format!(
            "features of {images} images, computed once: {} of {} free",
            megabytes(all),
            megabytes(room)
        )));
        if all <= room {
            return Ok(());
        }
        // What is kept already needs no room. Only now: it takes a look at every image.
        let mut missing = 0;
        for index in 0..images {
            context.cancellation.check()?;
            let key = self.key(index)?;
            missing += u64::from(!self.extractor.is_kept(&*self.store, key)?);
        }
        if missing * an_image > room {
            let (needed, room) = (megabytes(missing * an_image), megabytes(room));
            context.tell(&Event::Warning(format!(
                "features of {missing} images need {needed}, but the feature store has room for {room}: what does not fit \
                 is computed anew every time"
            )));
        }
        Ok(())
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// A run, with its place in the epochs.
struct Training<'a> {
    config: &'a Config,
    extractor: &'a Extractor,
    store: Arc<dyn FeatureStore>,
    trainer: Trainer,
    anomalies: Source,
    dropout: Stream,
    shuffle: Stream,
    /// The draws of a validation, every time from here.
    validation: Source,
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
    anomalies: StreamPosition,
    dropout: StreamPosition,
}

/// In front of the discriminator's tensors, in checkpoints and in detectors.
pub(crate) const DISCRIMINATOR: &str = "discriminator.";
const ADAM: &str = "adam.";

impl<'a> Training<'a> {
    /// From the checkpoint in `context`, or from the beginning.
    fn start(
        config: &'a Config,
        extractor: &'a Extractor,
        context: &mut FitContext<'_>,
    ) -> Result<Self, MethodError> {
        let device = extractor.vit().device();
        let fresh = Trained::new(sizes(config, extractor), &mut context.stream("init"), device)?;
        let trainer = Trainer::new(fresh, &Optimisation::of(config))?;
        let source = |name: &str| Source {
            choices: context.stream(name),
            deviation: config.noise_std,
            most: config.most_fake_patches,
        };
        let shuffle = context.stream("shuffle");
        let place = Place { epochs: 0, steps: 0, loss: 0.0, shuffle: shuffle.position(), stopped: false };
        let mut training = Self {
            config,
            extractor,
            store: Arc::clone(&context.features),
            trainer,
            anomalies: source("anomalies"),
            dropout: context.stream("dropout"),
            shuffle,
            validation: source("validation"),
            place,
        };
        if let Some(checkpoint) = context.checkpoints.latest(device)? {
            training.restore(&checkpoint)?;
        }
        Ok(training)
    }

    fn run(&mut self, features: &mut Features<'_>, context: &mut FitContext<'_>) -> Result<(), MethodError> {
        let steps = self.steps_an_epoch(features.data.len());
        let name = "train the discriminator".to_owned();
        context.tell(&Event::Phase { name, steps: Some(steps * self.config.epochs) });
        while self.place.epochs < self.config.epochs && !self.place.stopped {
            self.epoch(features, context)?;
            let epoch = self.place.epochs + 1;
            context.cancellation.check()?;
            let loss = self.place.loss / self.place.steps as f64;
            context.tell(&Event::Metric { name: "loss".to_owned(), at: epoch as f64, value: loss });
            tracing::debug!(epoch, loss, "an epoch is over");
            let mut flow = Flow::Continue;
            if epoch.is_multiple_of(self.config.eval_every) || epoch == self.config.epochs {
                let mut candidate = Candidate { training: self, draws: self.validation.clone() };
                flow = context.offer(epoch, Some(loss), &mut candidate)?;
            }
            let shuffle = self.shuffle.position();
            self.place = Place { epochs: epoch, steps: 0, loss: 0.0, shuffle, stopped: flow == Flow::Stop };
            // After the offer: a run that is killed in between offers once more, which changes nothing; the other way
            // round an offer could be lost.
            self.save(context)?;
        }
        Ok(())
    }

    /// Images of an epoch and of a batch. The reference makes no step at all if there are fewer images than a batch has,
    /// except in its few-shot runs, which do as is done here.
    fn epoch_and_batch(&self, images: usize) -> (usize, usize) {
        let epoch = self.config.images_per_epoch.of(images);
        (epoch, self.config.batch_size.min(epoch))
    }

    fn steps_an_epoch(&self, images: usize) -> usize {
        let (epoch, batch) = self.epoch_and_batch(images);
        epoch / batch
    }

    /// The rest of the current epoch.
    fn epoch(&mut self, features: &mut Features<'_>, context: &FitContext<'_>) -> Result<(), MethodError> {
        // An epoch that was broken off draws its order again, and leaves out what it has seen.
        self.shuffle = Stream::at(&self.place.shuffle);
        let images = features.data.len();
        let (_, batch) = self.epoch_and_batch(images);
        let sample = match self.config.images_per_epoch {
            Amount::All => Sample::All,
            Amount::Of(count) => Sample::WithoutReplacement(count),
        };
        let shuffle = &mut self.shuffle;
        let mut plan = EpochPlan { sample, order: Order::Shuffled, batch, drop_last: true, stream: shuffle };
        let batches = plan.batches(images);
        let steps = batches.len();
        self.trainer.begin_epoch(self.place.epochs);
        for indices in batches.into_iter().skip(self.place.steps) {
            context.cancellation.check()?;
            let clean = features.of(&indices)?;
            let rate = self.config.dsc_dropout;
            let dropout = (rate > 0.0).then_some((rate, &mut self.dropout));
            let anomalies = &mut self.anomalies;
            let terms = self.trainer.step(
                &clean,
                self.config.fake_features.operations(),
                &mut |operation, clean| anomalies.draw(operation, clean),
                dropout,
            )?;
            self.place.loss += terms.iter().sum::<f64>();
            context.tell(&Event::Step { step: self.place.epochs * steps + self.place.steps });
            self.place.steps += 1;
        }
        Ok(())
    }

    /// The detector as it stands.
    fn detector(&self) -> Result<Box<dyn Detector>, Error> {
        let discriminator = self.trainer.discriminator.named_tensors()?.into_iter().collect();
        let mut detector =
            GeneralAdDetector::new(self.config.clone(), self.extractor.clone(), discriminator)?;
        // A store that rounds would give other scores than the same detector has once it is loaded.
        if self.store.is_exact() {
            detector.keep_features_in(Arc::clone(&self.store));
        }
        Ok(Box::new(detector))
    }

    fn save(&self, context: &mut FitContext<'_>) -> Result<(), MethodError> {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in self.trainer.discriminator.named_tensors()? {
            tensors.insert(format!("{DISCRIMINATOR}{name}"), tensor);
        }
        let adam = self.trainer.adam.state().and_then(|state| state.to_tensors()).map_err(Error::from)?;
        for (name, tensor) in adam {
            tensors.insert(format!("{ADAM}{name}"), tensor);
        }
        let state = Saved {
            config: self.config.clone(),
            backbone: self.extractor.vit().identity().sha256.clone(),
            place: self.place.clone(),
            anomalies: self.anomalies.choices.position(),
            dropout: self.dropout.position(),
        };
        let named = tensors.iter().map(|(name, tensor)| (name.clone(), tensor));
        context.checkpoints.save(&Checkpoint::new(named, &state)?)?;
        Ok(())
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), MethodError> {
        let saved: Saved = checkpoint.state()?;
        let backbone = &self.extractor.vit().identity().sha256;
        if saved.backbone != *backbone {
            let (expected, found) = (backbone.clone(), saved.backbone);
            return Err(Error::Checkpoint { field: "backbone", expected, found }.into());
        }
        if saved.config != *self.config {
            let (expected, found) = (format!("{:?}", self.config), format!("{:?}", saved.config));
            return Err(Error::Checkpoint { field: "config", expected, found }.into());
        }
        let tensors = &checkpoint.tensors;
        self.trainer.discriminator.load(|name| tensors.get(&format!("{DISCRIMINATOR}{name}")).cloned())?;
        let own =
            |(name, tensor): (&String, &Tensor)| Some((name.strip_prefix(ADAM)?.to_owned(), tensor.clone()));
        let adam = OptimizerState::from_tensors(tensors.iter().filter_map(own)).map_err(Error::from)?;
        self.trainer.adam.load_state(&adam).map_err(Error::from)?;
        self.anomalies.choices = Stream::at(&saved.anomalies);
        self.dropout = Stream::at(&saved.dropout);
        self.shuffle = Stream::at(&saved.place.shuffle);
        self.place = saved.place;
        Ok(())
    }
}

/// The discriminator as it stands, on offer.
struct Candidate<'t, 'a> {
    training: &'t Training<'a>,
    /// Batch after batch of one validation.
    draws: Source,
}

impl Offer for Candidate<'_, '_> {
    /// The training loss, without dropout, over images that the fit never sees and anomalies made of them.
    fn validation_loss(&mut self, images: &Images) -> Result<Option<f64>, MethodError> {
        images.require_finite()?;
        let training = self.training;
        let clean = training.extractor.features(images.pixels())?;
        let operations = training.config.fake_features.operations();
        let network = training.trainer.discriminator.frozen()?;
        let draws = &mut self.draws;
        let terms = passes(
            &network,
            &clean,
            operations,
            &mut |operation, clean| draws.draw(operation, clean),
            None,
            &mut |_| Ok(()),
        )?;
        Ok(Some(terms.iter().sum()))
    }

    fn detector(&mut self) -> Result<Box<dyn Detector>, MethodError> {
        Ok(self.training.detector()?)
    }
}
