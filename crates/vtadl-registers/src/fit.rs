//! Training from scratch, and finishing a detector.

use std::collections::BTreeMap;

use anomaly_core::{
    Checkpoint, Detector, EpochShape, EpochTraining, Epochs, Event, FitContext, Flow, Images, MethodError,
    Offer, Progress, Stream, StreamPosition, TrainingData,
};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use vit_ops::{NamedTensors, NetworkWeights};

use crate::architecture::RegisterKind;
use crate::calibration::{Calibration, Sums, TokenNorms, chosen, threshold};
use crate::config::MapKind;
use crate::detector::{Finished, VtadlRegistersDetector, evaluation_registers};
use crate::error::finite;
use crate::loss::LossWeights;
use crate::network::{Network, draw_registers};
use crate::optimizer::warm_up;
use crate::trainer::{Draws, Objective, Trainer};
use crate::{Config, Error};

/// Trains on `data`; the last state.
pub(crate) fn fit(
    config: &Config,
    data: &dyn TrainingData,
    context: &mut FitContext<'_>,
) -> Result<Box<dyn Detector>, MethodError> {
    let split = Split::draw(config, data.len(), &mut context.stream("validation"))?;
    let mut training = Training::start(config, data, split, context)?;
    training.train(context)?;
    let mut last = training.candidate();
    let detector = last.finish()?;
    if let Some(norms) = last.norms {
        let at = training.epochs.current() as f64;
        for (name, value) in [
            ("token norm, largest", norms.largest),
            ("token norm, 99 %", norms.high),
            ("token norm, median", norms.median),
            ("token norms above three medians, share", norms.outliers),
        ] {
            context.tell(&Event::Metric { name: name.to_owned(), at, value });
        }
    }
    Ok(Box::new(detector))
}

impl Config {
    pub(crate) fn loss_weights(&self) -> LossWeights {
        LossWeights { mse: self.lambda_mse, ssim: self.lambda_ssim, density: self.density_weight() }
    }

    /// For a run of so many steps.
    pub(crate) fn objective(&self, steps: usize) -> Objective {
        Objective {
            weights: self.loss_weights(),
            likelihood: self.likelihood(),
            optimizer: self.optimizer.settings(self.learning_rate, self.weight_decay),
            learning_rate: self.learning_rate,
            schedule: warm_up(self.warmup_learning_rate, self.warm_up_steps(steps) as u64),
            dropout: self.dropout,
        }
    }
}

/// Which images are trained on, and which are looked at for scales and thresholds.
#[derive(Debug, Clone)]
struct Split {
    train: Vec<usize>,
    held_out: Vec<usize>,
}

impl Split {
    fn draw(config: &Config, count: usize, stream: &mut Stream) -> Result<Self, Error> {
        let held_out = (count as f64 * config.val_split).round() as usize;
        if config.val_split == 0.0 {
            return if count == 0 {
                Err(Error::TooFewImages { expected: 1, found: 0 })
            } else {
                Ok(Self { train: (0..count).collect(), held_out: (0..count).collect() })
            };
        }
        if held_out == 0 || held_out >= count {
            let expected = (1.0 / config.val_split.min(1.0 - config.val_split)).ceil() as usize;
            return Err(Error::TooFewImages { expected: expected.max(2), found: count });
        }
        let mut order = stream.permutation(count);
        let mut held_out = order.split_off(count - held_out);
        order.sort_unstable();
        held_out.sort_unstable();
        Ok(Self { train: order, held_out })
    }
}

/// A run, with its place in the epochs.
struct Training<'a> {
    config: &'a Config,
    data: &'a dyn TrainingData,
    split: Split,
    trainer: Trainer,
    epochs: Epochs,
    noise: Stream,
    registers: Stream,
    dropout: Stream,
    device: Device,
}

/// What a checkpoint holds beside tensors.
#[derive(Serialize, Deserialize)]
struct Saved {
    config: Config,
    images: usize,
    progress: Progress,
    noise: StreamPosition,
    registers: StreamPosition,
    dropout: StreamPosition,
    steps: u64,
}

const NETWORK: &str = "network.";
const OPTIMIZER: &str = "optimizer.";

impl<'a> Training<'a> {
    /// From the checkpoint in `context`, or from the beginning.
    fn start(
        config: &'a Config,
        data: &'a dyn TrainingData,
        split: Split,
        context: &mut FitContext<'_>,
    ) -> Result<Self, MethodError> {
        let device = context.device.clone();
        let architecture = config.architecture();
        let first = architecture.init(&mut context.stream("init"), &device)?;
        let shape = EpochShape::all(config.batch_size);
        let epochs = Epochs::new(config.epochs, shape, split.train.len(), context.stream("shuffle"));
        let trainer =
            Trainer::new(&architecture, &first, config.objective(epochs.steps() * epochs.count()), &device)?;
        let mut training = Self {
            config,
            data,
            split,
            trainer,
            epochs,
            noise: context.stream("noise"),
            registers: context.stream("registers"),
            dropout: context.stream("dropout"),
            device,
        };
        if let Some(checkpoint) = context.checkpoints.latest(&training.device)? {
            training.restore(&checkpoint)?;
        }
        Ok(training)
    }

    fn candidate(&self) -> Candidate<'_> {
        Candidate {
            config: self.config,
            weights: &self.trainer.weights,
            split: &self.split,
            data: self.data,
            device: &self.device,
            made: None,
            norms: None,
        }
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), MethodError> {
        let saved: Saved = checkpoint.state()?;
        Checkpoint::require_same("config", self.config, &saved.config)?;
        Checkpoint::require_same("training images", &self.split.train.len(), &saved.images)?;
        self.trainer
            .weights
            .load(&checkpoint.part(NETWORK).collect::<NamedTensors>())
            .map_err(Error::from)?;
        let optimizer = checkpoint.part(OPTIMIZER).collect();
        self.trainer.optimizer.load_state_tensors(optimizer).map_err(Error::from)?;
        self.trainer.steps = saved.steps;
        self.noise = Stream::at(&saved.noise);
        self.registers = Stream::at(&saved.registers);
        self.dropout = Stream::at(&saved.dropout);
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
        let mut plan = self.epochs.plan();
        let (data, train) = (self.data, &self.split.train);
        let batches: Box<dyn Iterator<Item = Result<Images, MethodError>>> = if train.len() == data.len() {
            Box::new(data.epoch(plan).map(|batch| Ok(batch?.images)))
        } else {
            let indices: Vec<Vec<usize>> = plan.batches(train.len());
            let of = |places: Vec<usize>| places.into_iter().map(|at| train[at]).collect::<Vec<_>>();
            Box::new(indices.into_iter().map(of).map(|indices| Ok(data.get(&indices)?)))
        };
        for images in batches.skip(done) {
            context.cancellation.check()?;
            let images = images?;
            images.require_finite()?;
            let draws =
                draws(self.config, images.len(), (&mut self.registers, &mut self.noise), &self.device)?;
            let values = self.trainer.step(images.pixels(), &draws, &mut self.dropout)?;
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
            images: self.split.train.len(),
            progress: self.epochs.progress().clone(),
            noise: self.noise.position(),
            registers: self.registers.position(),
            dropout: self.dropout.position(),
            steps: self.trainer.steps,
        };
        let mut checkpoint = Checkpoint::new([], &state)?;
        checkpoint.put(NETWORK, self.trainer.weights.frozen().map_err(Error::from)?)?;
        checkpoint.put(OPTIMIZER, self.trainer.optimizer.state_tensors().map_err(Error::from)?)?;
        context.checkpoints.save(&checkpoint)?;
        Ok(())
    }
}

/// What a step draws beforehand: registers, and noise for the density head's features.
pub(crate) fn draws(
    config: &Config,
    batch: usize,
    (registers, noise): (&mut Stream, &mut Stream),
    device: &Device,
) -> Result<Draws, Error> {
    let architecture = config.architecture();
    let random = config.registers > 0 && config.register_kind == RegisterKind::Random;
    let noisy = config.gaussians > 0 && config.density_noise > 0.0;
    let (rows, columns) = architecture.grid;
    let shape = (batch, rows * columns, architecture.dim);
    Ok(Draws {
        registers: if random { Some(draw_registers(&architecture, batch, registers, device)?) } else { None },
        noise: if noisy {
            Some(vit_ops::init::normal(shape, 0.0, config.density_noise, noise, device)?)
        } else {
            None
        },
    })
}

/// The network as it stands, on offer.
struct Candidate<'a> {
    config: &'a Config,
    weights: &'a NetworkWeights,
    split: &'a Split,
    data: &'a dyn TrainingData,
    device: &'a Device,
    /// Made at the first need.
    made: Option<Finished>,
    /// Of the tokens of the images that scales are taken from.
    norms: Option<TokenNorms>,
}

impl Candidate<'_> {
    fn make(&self) -> Result<Finished, MethodError> {
        let tensors = if self.config.bn_recalibrate {
            self.recalibrated()?
        } else {
            self.weights.frozen().map_err(Error::from)?
        };
        Ok(Finished::new(self.config.clone(), tensors, self.device)?)
    }

    fn finished(&mut self) -> Result<Finished, MethodError> {
        match self.made.take() {
            Some(made) => Ok(made),
            None => self.make(),
        }
    }

    /// The weights with statistics of batch norm from one pass over the training images: means over the batches, each
    /// weighted by its size.
    fn recalibrated(&self) -> Result<NamedTensors, MethodError> {
        let frozen = self.weights.frozen().map_err(Error::from)?;
        let network = Network::new(&self.config.architecture(), &frozen)?;
        let registers = evaluation_registers(self.config, self.device)?;
        let mut sums: BTreeMap<String, Tensor> = BTreeMap::new();
        for indices in self.split.train.chunks(self.config.batch_size) {
            let images = self.data.get(indices)?;
            images.require_finite()?;
            let share = indices.len() as f64 / self.split.train.len() as f64;
            let run = || -> Result<Vec<(String, Tensor)>, Error> {
                let pixels = images.pixels().to_device(self.device)?;
                let (_, seen) = network.train(&pixels, registers.as_ref(), None)?;
                let mut all = Vec::new();
                for (name, statistics) in seen {
                    all.push((format!("{name}.running_mean"), (statistics.mean * share)?));
                    all.push((format!("{name}.running_var"), (statistics.variance * share)?));
                }
                Ok(all)
            };
            for (name, part) in run()? {
                let sum = match sums.remove(&name) {
                    Some(sum) => (sum + part).map_err(Error::from)?,
                    None => part,
                };
                sums.insert(name, sum);
            }
        }
        let replaced =
            |(name, tensor): (&String, &Tensor)| (name.clone(), sums.get(name).unwrap_or(tensor).clone());
        Ok(frozen.iter().map(replaced).collect())
    }

    /// The detector, its scales and its threshold.
    fn finish(&mut self) -> Result<VtadlRegistersDetector, MethodError> {
        let finished = self.finished()?;
        let held_out: Vec<usize> =
            chosen(self.split.held_out.len()).into_iter().map(|at| self.split.held_out[at]).collect();
        let (mut sums, mut lengths) = (BTreeMap::<MapKind, Sums>::new(), Vec::new());
        let mut calibration = Calibration::default();
        for indices in held_out.chunks(self.config.batch_size) {
            let images = self.data.get(indices)?;
            images.require_finite()?;
            for (kind, map) in finished.maps_of(&images)? {
                sums.entry(kind).or_default().add(&values(&map)?);
            }
            lengths.extend(finished.token_lengths(&images)?);
        }
        self.norms = TokenNorms::of(lengths);
        calibration.scales = sums.into_iter().map(|(kind, sums)| (kind, sums.scale())).collect();
        // Again: a fused map needs the scales of all its parts first.
        let mut all = Vec::new();
        for indices in held_out.chunks(self.config.batch_size) {
            let maps = finished.maps_of(&self.data.get(indices)?)?;
            all.extend(values(&finished.chosen(&maps, &calibration)?)?);
        }
        calibration.threshold = threshold(self.config.threshold, &mut all);
        Ok(VtadlRegistersDetector::new(finished, calibration))
    }
}

fn values(map: &Tensor) -> Result<Vec<f32>, Error> {
    Ok(map.flatten_all()?.to_vec1::<f32>()?)
}

impl Offer for Candidate<'_> {
    fn validation_loss(&mut self, images: &Images) -> Result<Option<f64>, MethodError> {
        images.require_finite()?;
        let finished = self.finished()?;
        let loss = self.made.insert(finished).loss(images)?;
        Ok(Some(finite(|| "the validation loss".to_owned(), loss)?))
    }

    fn detector(&mut self) -> Result<Box<dyn Detector>, MethodError> {
        Ok(Box::new(self.finish()?))
    }
}
