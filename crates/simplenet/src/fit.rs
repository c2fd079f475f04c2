//! Training: features, noise, epochs, offers.

use std::collections::BTreeMap;
use std::sync::Arc;

use anomaly_core::{
    Checkpoint, Detector, EpochShape, EpochTraining, Epochs, FeatureStore, FitContext, Flow, Images,
    MethodError, Offer, Precision, Progress, Stream, StreamPosition, TrainingData,
};
use candle_core::Tensor;
use cnn_backbone::RunningStatistics;
use optim::{AdamOptions, Optimizer};
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
    // Where batch norms are in training mode, features change from step to step.
    if !config.batch_statistics {
        let (rows, columns) = extractor.grid();
        let source = extractor.source(context.precision)?;
        context.state_features(data.len(), rows * columns * extractor.width(), &mut |index| {
            Ok(source.is_kept(&*context.features, data.key(index)?)?)
        })?;
    }
    let mut training = Training::start(config, extractor, data, context)?;
    training.train(context)?;
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
    data: &'a dyn TrainingData,
    sizes: Sizes,
    trainer: Trainer,
    /// Of the residual network, where its batch norms are in training mode; else none.
    drifted: RunningStatistics,
    /// Where features are kept, of the test images too.
    store: Arc<dyn FeatureStore>,
    precision: Precision,
    noise: Stream,
    /// Where the noise of validation losses starts: the same for every epoch.
    validation: StreamPosition,
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
        data: &'a dyn TrainingData,
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
        let shape = EpochShape::full_batches(config.images_per_epoch, config.batch_size);
        let mut training = Self {
            config,
            extractor,
            data,
            sizes,
            trainer: Trainer::new(sizes, &state, rates)?,
            drifted: RunningStatistics::default(),
            store: Arc::clone(&context.features),
            precision: context.precision,
            noise: context.stream("noise"),
            validation: context.stream("validation-noise").position(),
            epochs: Epochs::new(config.epochs, shape, data.len(), context.stream("shuffle")),
        };
        if let Some(checkpoint) = context.checkpoints.latest(device)? {
            training.restore(&checkpoint)?;
        }
        Ok(training)
    }

    fn features(&mut self, indices: &[usize], context: &FitContext<'_>) -> Result<Tensor, MethodError> {
        let data = self.data;
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

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), MethodError> {
        let saved: Saved = checkpoint.state()?;
        let (_, backbone) = self.extractor.backbone.identity();
        Checkpoint::require_same("backbone", &backbone, &saved.backbone.as_str())?;
        Checkpoint::require_same("config", self.config, &saved.config)?;
        let network = checkpoint.part(NETWORK).collect();
        let state = State::read(&self.sizes, &network, self.extractor.backbone.device())?;
        self.trainer.weights.load(&state.weights)?;
        self.trainer.running = state.running;
        for (prefix, adam) in
            [(DISCRIMINATOR, &mut self.trainer.discriminator), (ADAPTOR, &mut self.trainer.adaptor)]
        {
            adam.load_state_tensors(checkpoint.part(prefix).collect()).map_err(Error::from)?;
        }
        self.drifted = statistics_of(&checkpoint.tensors);
        self.noise = Stream::at(&saved.noise);
        self.epochs.go_on(saved.progress);
        Ok(())
    }
}

impl EpochTraining for Training<'_> {
    const PHASE: &'static str = "train adaptor and discriminator";

    fn epochs(&mut self) -> &mut Epochs {
        &mut self.epochs
    }

    fn epoch(&mut self, context: &FitContext<'_>) -> Result<(), MethodError> {
        self.trainer.enter(self.epochs.current());
        let done = self.epochs.steps_done();
        let batches = self.epochs.plan().batches(self.data.len());
        for indices in batches.iter().skip(done) {
            context.cancellation.check()?;
            let features = self.features(indices, context)?;
            let noise = noise(self.config, &features, &mut self.noise)?;
            let (loss, gradients) = self.trainer.gradients(&features, &noise)?;
            self.trainer.apply(&gradients)?;
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
            backbone: self.extractor.backbone.identity().1.to_owned(),
            progress: self.epochs.progress().clone(),
            noise: self.noise.position(),
        };
        let mut checkpoint = Checkpoint::new([], &state)?;
        checkpoint.put(NETWORK, self.trainer.state()?.tensors()?)?;
        for (prefix, adam) in [(DISCRIMINATOR, &self.trainer.discriminator), (ADAPTOR, &self.trainer.adaptor)]
        {
            checkpoint.put(prefix, adam.state_tensors().map_err(Error::from)?)?;
        }
        let drifted = statistics_tensors(&self.drifted);
        checkpoint.put("", drifted.map(|(name, tensor)| (name, tensor.clone())))?;
        context.checkpoints.save(&checkpoint)?;
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
