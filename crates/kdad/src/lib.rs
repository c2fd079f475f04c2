//! KDAD on a Vision Transformer: image anomaly detection by knowledge distillation.
//!
//! The baseline of that name in the paper of `GeneralAD` (Sträter et al., "`GeneralAD`: Anomaly Detection Across Domains by
//! Attending to Distorted Features", ECCV 2024, arXiv 2407.12427). A frozen ViT's patch tokens are the teacher; a student
//! network without pre-training, a small ViT or an MLP on single patches, learns to give the same tokens for normal
//! images. Where it fails, on images unlike those, the mean squared difference of both, each scaled to unit length, is
//! the score. There is no map.
//!
//! ```
//! use std::sync::Arc;
//!
//! use anomaly_core::{FitContext, Method, Streams, TrainingData};
//! use candle_core::Device;
//! use kdad::{Config, Kdad};
//! use method_testkit::{Defect, InMemoryData, Scene, Texture};
//! use vit_backbone::{Family, Vit, VitConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A real run loads a checkpoint: `Vit::load("vit_base_patch14_dinov2.lvd142m", …)`.
//! let tiny = VitConfig::new(Family::TimmVit, (8, 2, 2), 8, 16);
//! let backbone = Vit::random(tiny, &mut Streams::new(0).stream("backbone"), &Device::Cpu)?;
//! let config = Config { epochs: 1, batch_size: 4, hidden_dim: 16, layers: 1, heads: 2, ..Config::default() };
//! let method = Kdad::new(config, Arc::new(backbone))?;
//!
//! let scene = Scene { texture: Texture::Weave, defect: Defect::Spot, size: 16, training_images: 8 };
//! let mut data = InMemoryData::new(&scene.training(), method.preprocess())?;
//! let detector = method.fit(&mut data, &mut FitContext::new(Device::Cpu, 0))?;
//! let scores = detector.score(&data.get(&[0, 1])?)?.scores;
//! assert!(scores.len() == 2 && scores.iter().all(|score| *score > 0.0));
//! # Ok(())
//! # }
//! ```

mod config;
mod detector;
mod error;
mod fit;
mod loss;
mod method;
mod network;
mod student;
mod teacher;
#[cfg(feature = "conformance")]
mod units;

pub use config::{Config, StudentKind};
pub use detector::KdadDetector;
pub use error::Error;
pub use method::Kdad;
#[cfg(feature = "conformance")]
pub use units::{conformance_units, student_gradients};

use anomaly_core::{Info, Paper};

/// What the method is.
pub static INFO: Info = Info {
    name: "kdad",
    title: "KDAD",
    paper: Some(Paper {
        title: "GeneralAD: Anomaly Detection Across Domains by Attending to Distorted Features",
        year: 2024,
        url: "https://arxiv.org/abs/2407.12427",
    }),
    makes_maps: false,
    default_backbone: Some("vit_base_patch14_dinov2.lvd142m"),
    revision: 1,
};
