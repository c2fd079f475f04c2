//! `AnoTrans`: image anomaly detection with a generator of windowed attention against a convolutional discriminator.
//!
//! After C. Yang, S. Lan et al., "A Transformer-Based GAN for Anomaly Detection" (ICANN 2022), and its public code. The generator, a U-Net
//! of Swin-like blocks whose skips pass through attention too, learns to reconstruct normal images; the discriminator
//! tells images from reconstructions, and gives a vector of features of both. The score of an image is the squared error
//! of its reconstruction plus that of its features; maps show the error of each pixel. It is trained from scratch, at
//! small sizes.
//!
//! ```
//! use anogan_trans::{AnoTrans, Config};
//! use anomaly_core::{ContentKey, DataError, FitContext, Images, Method, Streams, TrainingData};
//! use candle_core::{Device, Tensor};
//!
//! /// Four pictures of noise; a real data set reads files.
//! struct Pictures(Tensor);
//!
//! impl TrainingData for Pictures {
//!     fn len(&self) -> usize {
//!         4
//!     }
//!     fn key(&self, index: usize) -> Result<ContentKey, DataError> {
//!         Ok(ContentKey::of_pixels(1, 1, &[index as u8]))
//!     }
//!     fn get(&self, indices: &[usize]) -> Result<Images, DataError> {
//!         let rows = Tensor::new(indices.iter().map(|i| *i as u32).collect::<Vec<_>>(), &Device::Cpu);
//!         let pixels = rows.and_then(|rows| self.0.index_select(&rows, 0)).map_err(DataError::new)?;
//!         Images::new(indices.iter().map(usize::to_string).collect(), pixels).map_err(DataError::new)
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The published settings are `Config::default()`; these are small ones.
//! let config = Config {
//!     image_size: 16, dim: 8, discriminator_width: 8, feature_size: 8, epochs: 1, batch_size: 2, ..Config::default()
//! };
//! let method = AnoTrans::new(config)?;
//! let pixels = vit_ops::init::normal((4, 3, 16, 16), 0., 1., &mut Streams::new(0).stream("noise"), &Device::Cpu)?;
//! let mut data = Pictures(pixels);
//! let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 0))?;
//! let prediction = detector.score(&data.get(&[0, 1])?)?;
//! assert_eq!(prediction.scores.len(), 2);
//! assert!(prediction.terms.contains_key("pixel") && prediction.terms.contains_key("feature"));
//! # Ok(())
//! # }
//! ```

mod config;
mod detector;
mod discriminator;
mod divergence;
mod error;
mod fit;
mod generator;
mod heat;
mod loss;
mod method;
mod parameters;
mod rate;
mod scoring;
mod sizes;
mod trainer;
#[cfg(feature = "conformance")]
mod units;

pub use config::{Config, LatentGradient, MapKind, Noise, RatePolicy, RunningUpdates, Scoring};
pub use detector::AnoTransDetector;
pub use error::Error;
pub use generator::{AttentionKind, HeadLayout};
pub use method::AnoTrans;
pub use sizes::check_sizes;
pub use trainer::{StepLosses, Trainer};
#[cfg(feature = "conformance")]
pub use units::{conformance_units, step_gradients};

use anomaly_core::{Info, Paper};

/// What the method is.
pub static INFO: Info = Info {
    name: "anogan-trans",
    title: "AnoTrans",
    paper: Some(Paper {
        title: "A Transformer-Based GAN for Anomaly Detection",
        year: 2022,
        url: "https://openresearch.surrey.ac.uk/permalink/44SUR_INST/15d8lgh/alma99678164202346",
    }),
    makes_maps: true,
    default_backbone: None,
    revision: 1,
};
