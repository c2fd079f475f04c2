//! Transformaly: image anomaly detection from two feature spaces of one Vision Transformer.
//!
//! After M. J. Cohen and S. Avidan, "Transformaly: Two (Feature Spaces) Are Better Than One" (2022, arXiv 2112.04185).
//! A frozen, pre-trained ViT gives each image's class token; student blocks, trained on normal images only, imitate its
//! blocks, and how badly they do is the second descriptor. One Gaussian is fitted to each on the normal images; the
//! score is minus the sum of both log densities. There is no map.
//!
//! ```
//! use std::sync::Arc;
//!
//! use anomaly_core::{ContentKey, DataError, FitContext, Images, Method, Streams, TrainingData};
//! use candle_core::{Device, Tensor};
//! use transformaly::{Config, Transformaly};
//! use vit_backbone::{Family, Vit, VitConfig};
//!
//! /// Eight pictures of noise; a real data set reads files.
//! struct Noise(Tensor);
//!
//! impl TrainingData for Noise {
//!     fn len(&self) -> usize {
//!         8
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
//! // A real run loads a checkpoint: `Vit::load("vit_base_patch16_384.orig_in21k_ft_in1k", …)`.
//! let tiny = VitConfig::new(Family::TimmVit, (8, 4, 2), 4, 8);
//! let backbone = Vit::random(tiny, &mut Streams::new(0).stream("backbone"), &Device::Cpu)?;
//! let config = Config { image_size: 8, epochs: 1, batch_size: 4, ..Config::default() };
//! let method = Transformaly::new(config, Arc::new(backbone))?;
//!
//! let mut stream = Streams::new(0).stream("noise");
//! let pixels = vit_ops::init::normal((8, 3, 8, 8), 0., 1., &mut stream, &Device::Cpu)?;
//! let mut data = Noise(pixels);
//! let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 0))?;
//! let prediction = detector.score(&data.get(&[0, 1])?)?;
//! assert_eq!(prediction.scores.len(), 2);
//! assert!(prediction.terms.contains_key("pretrained") && prediction.terms.contains_key("teacher_student"));
//! # Ok(())
//! # }
//! ```

mod config;
mod density;
mod detector;
mod error;
mod fit;
mod loss;
mod method;
mod network;
mod selection;
#[cfg(feature = "conformance")]
mod units;
mod whitening;

pub use config::Config;
pub use detector::TransformalyDetector;
pub use error::Error;
pub use method::Transformaly;
#[cfg(feature = "conformance")]
pub use units::{conformance_units, student_gradients};

use anomaly_core::{Info, Paper};

/// What the method is.
pub static INFO: Info = Info {
    name: "transformaly",
    title: "Transformaly",
    paper: Some(Paper {
        title: "Transformaly: Two (Feature Spaces) Are Better Than One",
        year: 2022,
        url: "https://arxiv.org/abs/2112.04185",
    }),
    makes_maps: false,
    default_backbone: Some("vit_base_patch16_384.orig_in21k_ft_in1k"),
    revision: 2,
};
