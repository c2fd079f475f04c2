//! Training: features, noise, epochs, offers.

use std::collections::BTreeMap;
use std::sync::Arc;

use anomaly_core::{
    Checkpoint, Detector, EpochPlan, Event, FeatureStore, FitContext, Flow, Images, MethodError, Offer,
    Order, Precision, Sample, Stream, StreamPosition, TrainingData,
};
use candle_core::Tensor;
use cnn_backbone::RunningStatistics;
use optim::{AdamOptions, Optimizer, OptimizerState};
use serde::{Deserialize, Serialize};

use crate::batch_norm::Options;
use crate::detector::SimpleNetDetector;
use crate::error::finite;
use crate::features::Extractor;
use crate::loss::loss;
use crate::network::{Network, SLOPE, Sizes, State};
use crate::trainer::{Rates, Trainer};
use crate::{Config, Error};

/// What the noise's standard deviation is multiplied by in the reference.
const NOISE_FACTOR: f64 = 1.1;

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
    let outcome = training.run(data, context);
    if let Err(MethodError::Cancelled) = outcome {
        // What was done since the last epoch's end is kept: going on must lead to the same bits.
        training.save(context)?;
    }
    outcome?;
    Ok(Box::new(training.detector()?))
}

/// The sizes of adaptor and discriminator on these features.
pub(crate) fn sizes(config: &Config, extractor: &Extractor) -> Sizes {
    Sizes {
        width: extractor.width(),
        hidden: config.hidden_dim,
        hidden_layers: config.discriminator_layers.saturating_sub(1),
        slope: SLOPE,
        batch_norm: Options::default(),
    }
}

/// Noise of the shape of `features`.
pub(crate) fn noise(config: &Config, features: &Tensor, stream: &mut Stream) -> Result<Tensor, Error> {
    let deviation = NOISE_FACTOR * config.noise_std;
    Ok(vit_ops::init::normal(features.shape().clone(), 0.0, deviation, stream, features.device())?)
}

/// A run, with its place in the epochs.
struct Training<'a> {
    config: &'a Config,
    extractor: &'a Extractor,
    sizes: Sizes,
    trainer: Trainer,
    /// Of the residual network, where its batch norms are in training mode; else none.
    drifted: RunningStatistics,
    /// Where features are kept, of the test images too.
    store: Arc<dyn FeatureStore>,
    precision: Precision,
    shuffle: Stream,
    noise: Stream,
    /// Where the noise of validation losses starts: the same for every epoch.
    validation: StreamPosition,
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

const NETWORK: &str = "network.";
const DISCRIMINATOR: &str = "adam.discriminator.";
const ADAPTOR: &str = "adam.adaptor.";
const MEAN: &str = "backbone.mean.";
const VARIANCE: &str = "backbone.variance.";

/// Running statistics of a backbone as tensors.
pub(crate) fn statistics_tensors(running: &RunningStatistics) -> impl Iterator<Item = (String, &Tensor)> {
    running.0.iter().flat_map(|(name, (mean, variance))| {
        [(format!("{MEAN}{name}"), mean), (format!("{VARIANCE}{name}"), variance)]
    })
}

/// The inverse of [`statistics_tensors`]; other tensors are passed over.
pub(crate) fn statistics_of(tensors: &BTreeMap<String, Tensor>) -> RunningStatistics {
    let pair = |(name, mean): (&String, &Tensor)| {
        let norm = name.strip_prefix(MEAN)?;
        let variance = tensors.get(&format!("{VARIANCE}{norm}"))?;
        Some((norm.to_owned(), (mean.clone(), variance.clone())))
    };
    RunningStatistics(tensors.iter().filter_map(pair).collect())
}

impl<'a> Training<'a> {
    /// From the checkpoint in `context`, or from the beginning.
    fn start(
        config: &'a Config,
        extractor: &'a Extractor,
        context: &mut FitContext<'_>,
    ) -> Result<Self, MethodError> {
        let device = extractor.backbone.device();
        let sizes = sizes(config, extractor);
        let state = State::fresh(&sizes, &mut context.stream("init"), device)?;
        let rates = Rates {
            discriminator: config.learning_rate,
            discriminator_decay: config.weight_decay,
            lowest: config.lowest_rate,
            epochs: config.epochs,
            adaptor: config.adaptor_learning_rate,
            adaptor_decay: config.adaptor_weight_decay,
            adam: AdamOptions::adam_w(),
        };
        let shuffle = context.stream("shuffle");
        let place = Place { epochs: 0, steps: 0, loss: 0.0, shuffle: shuffle.position(), stopped: false };
        let mut training = Self {
            config,
            extractor,
            sizes,
            trainer: Trainer::new(sizes, &state, rates)?,
            drifted: RunningStatistics::default(),
            store: Arc::clone(&context.features),
            precision: context.precision,
            shuffle,
            noise: context.stream("noise"),
            validation: context.stream("validation-noise").position(),
            place,
        };
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
                let name = "train adaptor and discriminator".to_owned();
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
            let features = self.features(indices, data, context)?;
            let noise = noise(self.config, &features, &mut self.noise)?;
            let (loss, gradients) = self.trainer.gradients(&features, &noise)?;
            self.trainer.apply(&gradients)?;
            self.place.loss += loss;
            context.tell(&Event::Step { step: self.place.epochs * batches.len() + self.place.steps });
            self.place.steps += 1;
        }
        Ok(())
    }

    fn features(
        &mut self,
        indices: &[usize],
        data: &dyn TrainingData,
        context: &FitContext<'_>,
    ) -> Result<Tensor, MethodError> {
        if !self.config.batch_statistics {
            let keys = indices.iter().map(|index| data.key(*index)).collect::<Result<Vec<_>, _>>()?;
            return self.extractor.once(&*context.features, context.precision, &keys, &mut |places| {
                let images = data.get(&places.iter().map(|at| indices[*at]).collect::<Vec<_>>())?;
                images.require_finite()?;
                Ok(images.pixels().clone())
            });
        }
        let images = data.get(indices)?;
        images.require_finite()?;
        Ok(self.extractor.features_of_batch(images.pixels(), &mut self.drifted)?)
    }

    fn detector(&self) -> Result<SimpleNetDetector, Error> {
        let extractor = self.extractor.with_statistics(&self.drifted)?;
        let state = self.trainer.state()?;
        let mut detector =
            SimpleNetDetector::new(self.config.clone(), extractor, state, self.drifted.clone())?;
        // A store that rounds would give other scores than the same detector has once it is loaded, and drifted
        // statistics are no part of a feature's key.
        if self.store.is_exact() && self.drifted.0.is_empty() {
            detector.keep_features_in(Arc::clone(&self.store), self.precision);
        }
        Ok(detector)
    }

    fn save(&self, context: &mut FitContext<'_>) -> Result<(), MethodError> {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in self.trainer.state()?.tensors()? {
            tensors.insert(format!("{NETWORK}{name}"), tensor);
        }
        for (prefix, adam) in [(DISCRIMINATOR, &self.trainer.discriminator), (ADAPTOR, &self.trainer.adaptor)]
        {
            let state = adam.state().and_then(|state| state.to_tensors()).map_err(Error::from)?;
            tensors.extend(state.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
        }
        tensors.extend(statistics_tensors(&self.drifted).map(|(name, tensor)| (name, tensor.clone())));
        let state = Saved {
            config: self.config.clone(),
            backbone: self.extractor.backbone.identity().1.to_owned(),
            place: self.place.clone(),
            noise: self.noise.position(),
        };
        let named = tensors.iter().map(|(name, tensor)| (name.clone(), tensor));
        context.checkpoints.save(&Checkpoint::new(named, &state)?)?;
        Ok(())
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), MethodError> {
        let saved: Saved = checkpoint.state()?;
        let (_, backbone) = self.extractor.backbone.identity();
        if saved.backbone != backbone {
            let (expected, found) = (backbone.to_owned(), saved.backbone);
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
        let state = State::read(&self.sizes, &part(NETWORK), self.extractor.backbone.device())?;
        self.trainer.weights.load(&state.weights)?;
        self.trainer.running = state.running;
        for (prefix, adam) in
            [(DISCRIMINATOR, &mut self.trainer.discriminator), (ADAPTOR, &mut self.trainer.adaptor)]
        {
            let state = OptimizerState::from_tensors(part(prefix)).map_err(Error::from)?;
            adam.load_state(&state).map_err(Error::from)?;
        }
        self.drifted = statistics_of(&checkpoint.tensors);
        self.noise = Stream::at(&saved.noise);
        self.shuffle = Stream::at(&saved.place.shuffle);
        self.place = saved.place;
        Ok(())
    }
}

/// Adaptor and discriminator as they stand, on offer.
struct Candidate<'a, 'b>(&'a Training<'b>);

impl Offer for Candidate<'_, '_> {
    fn validation_loss(&mut self, images: &Images) -> Result<Option<f64>, MethodError> {
        images.require_finite()?;
        let Training { config, extractor, sizes, trainer, drifted, validation, .. } = self.0;
        let run = || -> Result<f64, Error> {
            let features = extractor.with_statistics(drifted)?.features(images.pixels())?;
            let noise = noise(config, &features, &mut Stream::at(validation))?;
            let state = trainer.state()?;
            let network = Network::new(sizes, &state.weights)?;
            let adapted = network.adapt(&features)?;
            let scores = |x: &Tensor| network.discriminate(&x.flatten_to(1)?, &state.running);
            let loss = loss(&scores(&adapted)?, &scores(&(&adapted + noise)?)?)?;
            finite(|| "the validation loss".to_owned(), f64::from(loss.to_scalar::<f32>()?))
        };
        Ok(Some(run()?))
    }

    fn detector(&mut self) -> Result<Box<dyn Detector>, MethodError> {
        Ok(Box::new(self.0.detector()?))
    }
}
