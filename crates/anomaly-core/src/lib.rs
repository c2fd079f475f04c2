//! The contract that every anomaly-detection method of vitad implements.
//!
//! A **method** ([`Method`]) is a value with its resources injected; [`Method::fit`] turns normal images into a
//! **detector** ([`Detector`]), and a detector turns images into raw scores. This crate knows no method, no data set
//! and no network: it only says how they meet.
//!
//! Three rules are built into the types:
//!
//! - **No leakage.** All that a method ever sees is [`Images`]: ids and pixels. Labels and masks stay with the
//!   harness, in `fit` as in `score`.
//! - **Higher = more anomalous, and raw.** A [`Prediction`] is never normalised or clamped; metrics see it as it is.
//! - **The same draws everywhere.** All randomness comes from the named streams of [`FitContext`], never from a
//!   library's global generator.
//!
//! While it trains, a method *offers* what it has ([`FitContext::offer`]); the harness evaluates the offers by the
//! method's [`Selection`] and keeps, from one fit, the reference's choice, an honest one and the last.
//!
//! ```
//! use anomaly_core::{Detector, DetectorWriter, Images, Info, MethodError, Prediction};
//! use candle_core::{Device, Tensor};
//!
//! /// Scores an image by its mean brightness.
//! struct Brightness;
//!
//! impl Detector for Brightness {
//!     fn info(&self) -> &Info {
//!         static INFO: Info = Info {
//!             name: "brightness", title: "Mean brightness", paper: None, makes_maps: false,
//!             default_backbone: None, revision: 1,
//!         };
//!         &INFO
//!     }
//!     fn score(&self, images: &Images) -> Result<Prediction, MethodError> {
//!         images.require_finite()?;
//!         let mean = images.pixels().mean((1, 2, 3)).and_then(|m| m.to_vec1::<f32>());
//!         let scores = mean.map_err(|e| MethodError::failed("brightness", e))?;
//!         Ok(Prediction::from_scores(scores.into_iter().map(f64::from).collect()))
//!     }
//!     fn save(&self, _: &mut DetectorWriter) -> Result<(), MethodError> {
//!         Ok(())
//!     }
//! }
//!
//! let dark = Tensor::zeros((1, 3, 4, 4), candle_core::DType::F32, &Device::Cpu)?;
//! let images = Images::new(vec!["dark".into()], dark)?;
//! assert_eq!(Brightness.score(&images)?.scores, [0.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod atomic_write;
mod checkpoint;
mod config;
mod context;
mod data;
mod detector_dir;
mod epochs;
mod error;
mod eval_spec;
mod feature_store;
mod hex;
mod images;
mod method;
mod observer;
mod offer;
mod precision;
mod prediction;
mod safetensors_file;

pub use atomic_write::{remove_torn_writes, write_atomic};
pub use checkpoint::{Checkpoint, CheckpointStore, DirectoryCheckpoints, MemoryCheckpoints};
pub use config::{ConfigError, MethodConfig, parse_config};
pub use context::{Cancellation, FitContext};
pub use data::{Batch, ContentKey, EpochPlan, Order, Sample, TrainingData, TrainingFingerprint};
pub use detector_dir::{BackboneRef, DetectorManifest, DetectorReader, DetectorWriter};
pub use epochs::{EpochShape, EpochTraining, Epochs, Progress};
pub use error::{DataError, Error, MethodError};
pub use eval_spec::{EvalSpec, MaskRule, Resolution};
pub use feature_store::{
    DiskFeatureStore, FeatureKey, FeaturePrecision, FeatureSource, FeatureStore, MemoryFeatureStore,
    TieredFeatureStore,
};
pub use hex::hex;
pub use images::Images;
pub use method::{Detector, Info, Method, Paper};
pub use observer::{Event, NoObserver, Observer};
pub use offer::{Criterion, Flow, Harness, KeepNothing, Offer, Selection, TestMetric, ValidationImages};
pub use precision::Precision;
pub use prediction::{Maps, Picture, Prediction};
pub use random_streams::{Stream, StreamPosition, Streams};

/// Raised whenever a change of this crate, or of `random-streams` below it, changes numbers; part of the id of every
/// benchmark cell. (A change of `optim` raises the revisions of the methods that train with it.)
pub const REVISION: u32 = 1;
