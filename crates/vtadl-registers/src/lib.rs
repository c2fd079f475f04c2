//! VT-ADL with registers: a Vision Transformer autoencoder, trained on normal images only, that shows defects by what it
//! reconstructs badly.
//!
//! After the public Keras repository of that name, which adds register tokens (Darcet et al., "Vision Transformers Need
//! Registers", 2023, arXiv 2309.16588) to a smaller relative of VT-ADL (Mishra et al. 2021, arXiv 2104.10036). The map is
//! the absolute residual, a structural dissimilarity at full size, the negative log-likelihood of a Gaussian mixture head
//! on the tokens, or the sum of several.
//!
//! ```
//! use anomaly_core::{ContentKey, DataError, FitContext, Images, Method, Streams, TrainingData};
//! use candle_core::{Device, Tensor};
//! use vtadl_registers::{Config, ImageSize, VtadlRegisters};
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
//! // The default is the published size, 512 pixels; this is a toy of 16 x 24.
//! let config = Config {
//!     image_size: ImageSize::Sides([16, 24]),
//!     patch_size: 4,
//!     embed_dim: 8,
//!     hidden_units: vec![8],
//!     epochs: 2,
//!     ..Config::default()
//! };
//! let method = VtadlRegisters::new(config)?;
//! let mut stream = Streams::new(0).stream("noise");
//! let mut data = Noise(vit_ops::init::uniform((4, 3, 16, 24), 0., 1., &mut stream, &Device::Cpu)?);
//! let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 0))?;
//! let prediction = detector.score(&data.get(&[0, 1])?)?;
//! assert_eq!(prediction.maps.map(|maps| (maps.height, maps.width)), Some((16, 24)));
//! # Ok(())
//! # }
//! ```

mod architecture;
mod calibration;
mod config;
mod decoder;
mod detector;
mod encoder;
mod error;
mod fit;
mod loss;
mod method;
mod network;
mod optimizer;
mod residual;
mod trainer;
#[cfg(feature = "conformance")]
mod units;

pub use architecture::{RegisterKind, Tap};
pub use config::{Config, DensityForm, ImageSize, MapKind, Threshold, VarianceGradient};
pub use detector::VtadlRegistersDetector;
pub use error::Error;
pub use method::VtadlRegisters;
pub use optimizer::OptimizerKind;
pub use residual::{l1_map, l1_mask_reference, mask, reference_gt_metric, ssim_map, ssim_map_channels};
#[cfg(feature = "conformance")]
pub use units::{conformance_units, parameter_gradients};

use anomaly_core::{Info, Paper};

/// What the method is.
pub static INFO: Info = Info {
    name: "vtadl-registers",
    title: "VT-ADL with registers",
    paper: Some(Paper {
        title: "VT-ADL: A Vision Transformer Network for Image Anomaly Detection and Localization",
        year: 2021,
        url: "https://arxiv.org/abs/2104.10036",
    }),
    makes_maps: true,
    default_backbone: None,
    revision: 2,
};
