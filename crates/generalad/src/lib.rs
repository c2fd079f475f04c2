//! `GeneralAD`: anomaly detection across domains by attending to distorted features.
//!
//! After L. P. J. Sträter, M. Salehi, E. Gavves, C. G. M. Snoek and Y. M. Asano (ECCV 2024, arXiv 2407.12427). A frozen
//! Vision Transformer gives the features of an image's patches; anomalies are made among these features, by noise and by
//! moving patches, never in pixels; a small transformer that sees all patches together learns to tell which of them are
//! distorted. One recipe for textures, parts, logical constraints and whole objects: what changes is which anomalies are
//! made ([`FakeFeatures`]) and how many patches make the score ([`Config::top_k`]).
//!
//! The backbone's features of an image never change, so they are computed once and kept in the fit's feature store.
//!
//! ```
//! use std::sync::Arc;
//!
//! use anomaly_core::{FitContext, Method, TrainingData};
//! use candle_core::Device;
//! use generalad::{Amount, Config, GeneralAd};
//! use method_testkit::{Defect, InMemoryData, Scene, Texture, TinyVit};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A real run loads a checkpoint: `Vit::load("vit_large_patch14_dinov2.lvd142m", …)`.
//! let backbone = Arc::new(TinyVit::default().build(&Device::Cpu)?);
//! let config = Config {
//!     image_size: 32,
//!     epochs: 2,
//!     batch_size: 4,
//!     hidden_dim: 16,
//!     top_k: Amount::Of(3),
//!     ..Config::default()
//! };
//! let method = GeneralAd::new(config, backbone)?;
//!
//! let scene = Scene { texture: Texture::Part, defect: Defect::Spot, size: 32, training_images: 8 };
//! let mut normal = InMemoryData::new(&scene.training(), method.preprocess())?;
//! let detector = method.fit(&mut normal, &mut FitContext::new(Device::Cpu, 0))?;
//! let prediction = detector.score(&normal.get(&[0, 1])?)?;
//! let maps = prediction.maps.ok_or("it makes maps")?;
//! assert_eq!((prediction.scores.len(), maps.height, maps.width), (2, 32, 32));
//! # Ok(())
//! # }
//! ```

mod amount;
mod anomalies;
mod config;
mod detector;
mod error;
mod features;
mod fit;
mod loss;
mod method;
mod network;
mod score;
mod training;
#[cfg(feature = "conformance")]
mod units;

pub use amount::Amount;
pub use anomalies::{FakeFeatures, Operation};
pub use config::{Config, Honest, Monitor};
pub use detector::GeneralAdDetector;
pub use error::Error;
pub use method::GeneralAd;
#[cfg(feature = "conformance")]
pub use units::{conformance_units, discriminator_gradients};

use anomaly_core::{Info, Paper};

/// What the method is.
pub static INFO: Info = Info {
    name: "generalad",
    title: "GeneralAD",
    paper: Some(Paper {
        title: "GeneralAD: Anomaly Detection Across Domains by Attending to Distorted Features",
        year: 2024,
        url: "https://arxiv.org/abs/2407.12427",
    }),
    makes_maps: true,
    default_backbone: Some("vit_large_patch14_dinov2.lvd142m"),
    revision: 1,
};
