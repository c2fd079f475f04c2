//! `SimpleNet`: image anomaly detection with maps, from frozen features and a discriminator of noise.
//!
//! After Z. Liu et al., "`SimpleNet`: A Simple Network for Image Anomaly Detection and Localization" (CVPR 2023, arXiv
//! 2303.15140), in the form in which the repository of `GeneralAD` (arXiv 2407.12427) compares with it. A frozen network
//! gives a vector for each place of an image: a `ResNet`'s maps averaged over neighbours, or a Vision Transformer's patch
//! tokens. A linear adaptor moves them; a small discriminator, which sees one place at a time, learns to tell them from
//! themselves with noise added. Its output at each place is the map, the largest of an image its score.
//!
//! ```
//! use anomaly_core::{FitContext, Method, Streams, TrainingData};
//! use candle_core::Device;
//! use cnn_backbone::{BlockKind, ResNet, ResNetConfig};
//! use method_testkit::{Defect, InMemoryData, Scene, Texture};
//! use simplenet::{Backbone, Config, SimpleNet};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A real run loads a checkpoint: `ResNet::load("wide_resnet50_2.tv_in1k", …)`, or `Vit::load(…)`.
//! let tiny = ResNetConfig { kind: BlockKind::Basic, blocks: [1; 4], stem: 4, width: 4 };
//! let network = ResNet::random(tiny, &mut Streams::new(0).stream("backbone"), &Device::Cpu)?;
//! let config = Config { image_size: Some(32), epochs: 1, batch_size: 4, hidden_dim: 8, ..Config::default() };
//! let method = SimpleNet::new(config, Backbone::from(network))?;
//!
//! let scene = Scene { texture: Texture::Weave, defect: Defect::Spot, size: 32, training_images: 8 };
//! let mut data = InMemoryData::new(&scene.training(), method.preprocess())?;
//! let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 0))?;
//! let prediction = detector.score(&data.get(&[0, 1])?)?;
//! assert_eq!(prediction.scores.len(), 2);
//! assert_eq!(prediction.maps.ok_or("it makes maps")?.data.len(), 2 * 32 * 32);
//! # Ok(())
//! # }
//! ```

mod backbone;
mod batch_norm;
mod config;
mod detector;
mod error;
mod features;
mod fit;
mod loss;
mod method;
mod network;
mod trainer;
#[cfg(feature = "conformance")]
mod units;

pub use backbone::Backbone;
pub use config::{Config, Monitor};
pub use detector::SimpleNetDetector;
pub use error::Error;
pub use method::SimpleNet;
#[cfg(feature = "conformance")]
pub use units::{conformance_units, training_gradients};

use anomaly_core::{Info, Paper};

/// What the method is.
pub static INFO: Info = Info {
    name: "simplenet",
    title: "SimpleNet",
    paper: Some(Paper {
        title: "SimpleNet: A Simple Network for Image Anomaly Detection and Localization",
        year: 2023,
        url: "https://arxiv.org/abs/2303.15140",
    }),
    makes_maps: true,
    default_backbone: Some("wide_resnet50_2.tv_in1k"),
    revision: 1,
};
