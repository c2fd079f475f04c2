//! Training the discriminator, epoch by epoch.

use std::collections::HashMap;
use std::sync::Arc;

use anomaly_core::{
    Checkpoint, ContentKey, Detector, EpochShape, EpochTraining, Epochs, FeatureStore, FitContext, Flow,
    Images, MethodError, Offer, Progress, Stream, StreamPosition, TrainingData,
};
use optim::Optimizer;
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
    let mut features =
        Features { extractor, data, store: Arc::clone(&context.features), keys: HashMap::new() };
    let numbers = extractor.numbers_an_image(config);
    context.state_features(data.len(), numbers, &mut |index| features.is_kept(index))?;
    let mut training = Training::start(config, extractor, features, context)?;
    training.train(context)?;
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

    /// Whether the features of the image at `index` are kept already.
    fn is_kept(&mut self, index: usize) -> Result<bool, MethodError> {
        let key = self.key(index)?;
        self.extractor.is_kept(&*self.store, key)
    }
}

/// A run, with its place in the epochs.
struct Training<'a> {
    config: &'a Config,
    extractor: &'a Extractor,
    features: Features<'a>,
    store: Arc<dyn FeatureStore>,
    trainer: Trainer,
    epochs: Epochs,
    anomalies: Source,
    dropout: Stream,
    /// The draws of a validation, every time from here.
    validation: Source,
}

/// What a checkpoint holds beside tensors.
#[derive(Serialize, Deserialize)]
struct Saved {
    config: Config,
    backbone: String,
    progress: Progress,
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
        features: Features<'a>,
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
        // The reference makes no step at all if there are fewer images than a batch has, except in its few-shot runs, which
        // do as is done here.
        let shape = EpochShape::full_batches(
            match config.images_per_epoch {
                Amount::All => None,
                Amount::Of(count) => Some(count),
            },
            config.batch_size,
        );
        let images = features.data.len();
        let mut training = Self {
            config,
            extractor,
            features,
            store: Arc::clone(&context.features),
            trainer,
            epochs: Epochs::new(config.epochs, shape, images, context.stream("shuffle")),
            anomalies: source("anomalies"),
            dropout: context.stream("dropout"),
            validation: source("validation"),
        };
        if let Some(checkpoint) = context.checkpoints.latest(device)? {
            training.restore(&checkpoint)?;
        }
        Ok(training)
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

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), MethodError> {
        let saved: Saved = checkpoint.state()?;
        Checkpoint::require_same("backbone", &self.extractor.vit().identity().sha256, &saved.backbone)?;
        Checkpoint::require_same("config", self.config, &saved.config)?;
        let tensors = &checkpoint.tensors;
        self.trainer.discriminator.load(|name| tensors.get(&format!("{DISCRIMINATOR}{name}")).cloned())?;
        let adam = checkpoint.part(ADAM).collect();
        self.trainer.adam.load_state_tensors(adam).map_err(Error::from)?;
        self.anomalies.choices = Stream::at(&saved.anomalies);
        self.dropout = Stream::at(&saved.dropout);
        self.epochs.go_on(saved.progress);
        Ok(())
    }
}

impl EpochTraining for Training<'_> {
    const PHASE: &'static str = "train the discriminator";

    fn epochs(&mut self) -> &mut Epochs {
        &mut self.epochs
    }

    fn epoch(&mut self, context: &FitContext<'_>) -> Result<(), MethodError> {
        let done = self.epochs.steps_done();
        let images = self.features.data.len();
        let batches = self.epochs.plan().batches(images);
        self.trainer.begin_epoch(self.epochs.current());
        for indices in batches.into_iter().skip(done) {
            context.cancellation.check()?;
            let clean = self.features.of(&indices)?;
            let rate = self.config.dsc_dropout;
            let dropout = (rate > 0.0).then_some((rate, &mut self.dropout));
            let anomalies = &mut self.anomalies;
            let terms = self.trainer.step(
                &clean,
                self.config.fake_features.operations(),
                &mut |operation, clean| anomalies.draw(operation, clean),
                dropout,
            )?;
            self.epochs.step_done(&[("loss", terms.iter().sum())], context);
        }
        Ok(())
    }

    fn offer(
        &mut self,
        epoch: usize,
        loss: Option<f64>,
        context: &mut FitContext<'_>,
    ) -> Result<Flow, MethodError> {
        if self.epochs.is_due(epoch, self.config.eval_every) {
            let mut candidate = Candidate { training: self, draws: self.validation.clone() };
            return context.offer(epoch, loss, &mut candidate);
        }
        Ok(Flow::Continue)
    }

    fn save(&mut self, context: &mut FitContext<'_>) -> Result<(), MethodError> {
        let state = Saved {
            config: self.config.clone(),
            backbone: self.extractor.vit().identity().sha256.clone(),
            progress: self.epochs.progress().clone(),
            anomalies: self.anomalies.choices.position(),
            dropout: self.dropout.position(),
        };
        let mut checkpoint = Checkpoint::new([], &state)?;
        checkpoint.put(DISCRIMINATOR, self.trainer.discriminator.named_tensors()?)?;
        checkpoint.put(ADAM, self.trainer.adam.state_tensors().map_err(Error::from)?)?;
        context.checkpoints.save(&checkpoint)?;
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
