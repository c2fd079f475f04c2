//! `ADViT` / VT-ADL: a Vision Transformer autoencoder with a Gaussian mixture density network over its patch tokens.
//!
//! After P. Mishra, R. Verk, D. Fornasier, C. Piciarelli and G. L. Foresti, "VT-ADL: A Vision Transformer Network for
//! Image Anomaly Detection and Localization" (2021, arXiv 2104.10036), and `ADViT`, the authors' later repository, whose
//! description adds an association discrepancy that its code does not have. Trained on normal images only; the density
//! network's negative log-likelihood of each patch's token is the anomaly map, and with the reconstruction's errors the
//! image's score.
//!
//! ```
//! use advit_gmdn::{Advit, Config};
//! use anomaly_core::{ContentKey, DataError, FitContext, Images, Method, Streams, TrainingData};
//! use candle_core::{Device, Tensor};
//!
//! /// Four pictures of noise; a real data set reads files.
//! struct Noise(Tensor);
//!
//! impl TrainingData for Noise {
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
//! // The default is the published size, 512 pixels; this is a toy of 20.
//! let config = Config {
//!     image_size: 20,
//!     patch_size: 4,
//!     dim: 8,
//!     depth: 1,
//!     heads: 2,
//!     mlp_dim: 8,
//!     gaussians: 2,
//!     capsule_dim: 4,
//!     latent: [2, 5, 5],
//!     decoder: vec![[2, 4, 4, 2, 1], [4, 3, 4, 2, 1]],
//!     epochs: 1,
//!     ..Config::default()
//! };
//! let method = Advit::new(config)?;
//! let mut stream = Streams::new(0).stream("noise");
//! let mut data = Noise(vit_ops::init::uniform((4, 3, 20, 20), 0., 1., &mut stream, &Device::Cpu)?);
//! let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 0))?;
//! let prediction = detector.score(&data.get(&[0, 1])?)?;
//! assert_eq!(prediction.maps.map(|maps| (maps.height, maps.width)), Some((20, 20)));
//! # Ok(())
//! # }
//! ```

mod architecture;
mod association;
mod capsule;
mod config;
mod decoder;
mod detector;
mod encoder;
mod error;
mod fit;
mod loss;
mod method;
mod network;
mod trainer;
#[cfg(feature = "conformance")]
mod units;

pub use architecture::AttentionScale;
pub use association::Distance;
pub use config::{AssociationConfig, Config, DensityForm, ImageScore, MapScore};
pub use detector::AdvitDetector;
pub use error::Error;
pub use method::Advit;
pub use trainer::ZeroGrad;
#[cfg(feature = "conformance")]
pub use units::{conformance_units, parameter_gradients};

use anomaly_core::{Info, Paper};

/// What the method is.
pub static INFO: Info = Info {
    name: "advit-gmdn",
    title: "ADViT",
    paper: Some(Paper {
        title: "VT-ADL: A Vision Transformer Network for Image Anomaly Detection and Localization",
        year: 2021,
        url: "https://arxiv.org/abs/2104.10036",
    }),
    makes_maps: true,
    default_backbone: None,
    revision: 1,
};
