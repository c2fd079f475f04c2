//! A small method that trains: one vector, moved towards the images batch by batch. And its broken variants.

use std::path::Path;

use anomaly_core::{
    Checkpoint, ConfigError, Detector, DetectorReader, DetectorWriter, EpochPlan, Error, Event, FitContext,
    Flow, Images, Info, Method, MethodConfig, MethodError, Offer, Order, Prediction, Sample, Stream,
    StreamPosition, TrainingData, parse_config,
};
use candle_core::{DType, Device, Tensor, Var};
use image_prep::{Filter, HALF, Preprocess};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Higher means more normal.
    FlippedSign,
    /// The seed has no effect.
    IgnoredSeed,
    /// Scores are relative to their batch.
    BatchDependentScore,
    /// Saves a part of the digits.
    LossySave,
    /// NaN and infinity are taken for zero.
    SwallowedNan,
    /// Looks at no checkpoint.
    RestartedResume,
    /// Takes the weights from the checkpoint but not the epoch.
    ForgetfulResume,
    /// Asks whether to stop only once it is done.
    DeafToCancellation,
    /// Unknown fields are taken.
    TolerantConfig,
    /// A parameter hangs on no loss.
    MissingGradient,
    /// Scores by file name.
    ReadsIds,
    /// Offers a view of the weights in training.
    MovingOffer,
    /// Loads a detector of any method.
    LoadsAnything,
}

const INFO: Info = Info {
    name: "prototype",
    title: "Distance to a prototype",
    paper: None,
    makes_maps: false,
    default_backbone: None,
    revision: 1,
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    side: usize,
    epochs: usize,
    rate: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { side: 16, epochs: 20, rate: 0.2 }
    }
}

impl MethodConfig for Config {
    const METHOD: &'static str = INFO.name;

    fn validate(&self) -> Result<(), ConfigError> {
        if self.side == 0 || self.epochs == 0 {
            let field = if self.side == 0 { "side" } else { "epochs" };
            return Err(ConfigError::field(Self::METHOD, field, "expected at least 1, found 0"));
        }
        if !(self.rate > 0.0 && self.rate <= 1.0) {
            let problem = format!("expected above 0 and at most 1, found {}", self.rate);
            return Err(ConfigError::field(Self::METHOD, "rate", problem));
        }
        Ok(())
    }
}

fn failed(error: candle_core::Error) -> MethodError {
    MethodError::failed(INFO.name, error)
}

pub(crate) struct Prototype {
    config: Config,
    preprocess: Preprocess,
    fault: Fault,
}

impl Prototype {
    pub(crate) fn new(overrides: &Value, fault: Fault) -> Result<Self, MethodError> {
        let mut overrides = overrides.clone();
        if let (Fault::TolerantConfig, Value::Object(fields)) = (fault, &mut overrides) {
            fields.retain(|field, _| ["side", "epochs", "rate"].contains(&field.as_str()));
        }
        let config: Config = parse_config(&overrides)?;
        let preprocess = Preprocess::square(config.side, Filter::Bilinear, HALF, HALF);
        Ok(Self { config, preprocess, fault })
    }
}

#[derive(Serialize, Deserialize)]
struct State {
    epoch: usize,
    shuffle: StreamPosition,
}

impl Method for Prototype {
    fn info(&self) -> &Info {
        &INFO
    }

    fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    fn config(&self) -> Value {
        serde_json::to_value(&self.config).unwrap()
    }

    fn fit(
        &self,
        data: &mut dyn TrainingData,
        context: &mut FitContext<'_>,
    ) -> Result<Box<dyn Detector>, MethodError> {
        if self.fault == Fault::IgnoredSeed {
            context.streams = anomaly_core::Streams::new(0);
        }
        let (config, fault) = (&self.config, self.fault);
        let width = 3 * config.side * config.side;
        let mut start = vec![0.0; width];
        context.stream("init").fill_normal(&mut start);
        let prototype = Var::from_vec(start, width, &context.device).map_err(failed)?;
        let mut shuffle = context.stream("shuffle");
        let mut first = 1;
        let latest = if fault == Fault::RestartedResume {
            None
        } else {
            context.checkpoints.latest(&context.device)?
        };
        if let Some(checkpoint) = latest {
            prototype.set(checkpoint.tensor("prototype")?).map_err(failed)?;
            let state: State = checkpoint.state()?;
            shuffle = Stream::at(&state.shuffle);
            first = if fault == Fault::ForgetfulResume { 2 } else { state.epoch + 1 };
        }
        for epoch in first..=config.epochs {
            let plan = EpochPlan {
                sample: Sample::All,
                order: Order::Shuffled,
                batch: 5,
                drop_last: false,
                stream: &mut shuffle,
            };
            for (step, batch) in data.epoch(plan).enumerate() {
                if fault != Fault::DeafToCancellation {
                    context.cancellation.check()?;
                }
                let mean = flat(&batch?.images, fault)?.mean(0).map_err(failed)?;
                let moved =
                    ((&mean - prototype.as_tensor()).map_err(failed)? * config.rate).map_err(failed)?;
                prototype.set(&(prototype.as_tensor() + moved).map_err(failed)?).map_err(failed)?;
                context.tell(&Event::Step { step });
            }
            let named = [("prototype".to_owned(), prototype.as_tensor())];
            let state = State { epoch, shuffle: shuffle.position() };
            context.checkpoints.save(&Checkpoint::new(named, &state)?)?;
            let mut offer = Current { prototype: &prototype, config, fault };
            let flow = if fault == Fault::DeafToCancellation {
                Flow::Continue
            } else {
                context.offer(epoch, Some(1.0 / epoch as f64), &mut offer)?
            };
            if flow == Flow::Stop {
                break;
            }
        }
        Current { prototype: &prototype, config, fault }.detector()
    }
}

/// Pixels as rows `(B, 3 side^2)`.
fn flat(images: &Images, fault: Fault) -> Result<Tensor, MethodError> {
    if fault != Fault::SwallowedNan {
        images.require_finite()?;
    }
    let pixels = images.pixels().flatten_from(1).map_err(failed)?;
    if fault != Fault::SwallowedNan {
        return Ok(pixels);
    }
    let values = pixels.flatten_all().and_then(|p| p.to_vec1::<f32>()).map_err(failed)?;
    let values = values.into_iter().map(|v| if v.is_finite() { v } else { 0.0 }).collect();
    Tensor::from_vec(values, pixels.shape(), pixels.device()).map_err(failed)
}

struct Current<'a> {
    prototype: &'a Var,
    config: &'a Config,
    fault: Fault,
}

impl Offer for Current<'_> {
    fn validation_loss(&mut self, images: &Images) -> Result<Option<f64>, MethodError> {
        let scores = self.detector()?.score(images)?.scores;
        Ok(Some(scores.iter().sum::<f64>() / scores.len() as f64))
    }

    fn detector(&mut self) -> Result<Box<dyn Detector>, MethodError> {
        let prototype = match self.fault {
            Fault::MovingOffer => self.prototype.as_tensor().clone(),
            _ => self.prototype.as_detached_tensor().force_contiguous().map_err(failed)?,
        };
        Ok(Box::new(Fitted { prototype, config: self.config.clone(), fault: self.fault }))
    }
}

struct Fitted {
    prototype: Tensor,
    config: Config,
    fault: Fault,
}

impl Detector for Fitted {
    fn info(&self) -> &Info {
        &INFO
    }

    fn score(&self, images: &Images) -> Result<Prediction, MethodError> {
        let pixels = flat(images, self.fault)?;
        let distances =
            pixels.broadcast_sub(&self.prototype).and_then(|d| d.sqr()?.mean(1)?.to_dtype(DType::F64));
        let mut scores = distances.and_then(|d| d.to_vec1::<f64>()).map_err(failed)?;
        match self.fault {
            Fault::FlippedSign => scores = scores.into_iter().map(std::ops::Neg::neg).collect(),
            Fault::BatchDependentScore => {
                let mean = scores.iter().sum::<f64>() / scores.len() as f64;
                for score in &mut scores {
                    *score -= mean;
                }
            }
            Fault::ReadsIds => {
                for (score, id) in scores.iter_mut().zip(images.ids()) {
                    *score += 1e-9 * id.len() as f64;
                }
            }
            _ => {}
        }
        Ok(Prediction::from_scores(scores))
    }

    fn save(&self, writer: &mut DetectorWriter) -> Result<(), MethodError> {
        writer.config(&self.config)?;
        let prototype = match self.fault {
            Fault::LossySave => self.prototype.to_dtype(DType::F16).map_err(failed)?,
            _ => self.prototype.clone(),
        };
        Ok(writer.tensor("prototype", &prototype)?)
    }
}

/// A saved detector.
pub(crate) fn load(directory: &Path, fault: Fault) -> Result<Box<dyn Detector>, MethodError> {
    let reader = DetectorReader::open(directory, &Device::Cpu)?;
    if fault != Fault::LoadsAnything {
        reader.expect_method(INFO.name)?;
    }
    let prototype =
        reader.tensor("prototype")?.to_dtype(DType::F32).map_err(|e| MethodError::from(Error::from(e)))?;
    Ok(Box::new(Fitted { prototype, config: reader.config()?, fault }))
}

/// Whether the prototype, and a parameter beside it, get a gradient.
pub(crate) fn gradients(fault: Fault) -> Vec<(String, bool)> {
    let parameter = |value: f32| Var::new(&[value], &Device::Cpu).unwrap();
    let (prototype, scale) = (parameter(1.0), parameter(2.0));
    let used = if fault == Fault::MissingGradient { scale.detach() } else { scale.as_tensor().clone() };
    let grads = (prototype.as_tensor() * used).and_then(|loss| loss.backward()).unwrap();
    [("prototype", &prototype), ("scale", &scale)]
        .map(|(name, var)| (name.to_owned(), grads.get(var).is_some()))
        .into()
}
