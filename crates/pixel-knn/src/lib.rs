//! The baseline of vitad: how far an image is from its nearest normal neighbours.
//!
//! For whoever wants to know what a number is worth: a method that does not beat this has learned nothing that raw
//! pixels, or a frozen backbone, did not know before. Nothing is trained and nothing is drawn.
//!
//! An image becomes one vector (its pixels, or the mean of its patch tokens in a frozen ViT), all vectors of the
//! normal images are kept, and a score is the mean distance to the `k` nearest of them: DN2 of Bergman, Cohen and
//! Hoshen ("Deep Nearest Neighbor Anomaly Detection", arXiv 2002.10445), whose k = 2 is the default.
//!
//! ```
//! use anomaly_core::{FitContext, Method, TrainingData};
//! use candle_core::Device;
//! use method_testkit::{Defect, InMemoryData, Scene, Texture};
//! use pixel_knn::{Config, PixelKnn};
//!
//! let scene = Scene { texture: Texture::Part, defect: Defect::Missing, size: 24, training_images: 10 };
//! let method = PixelKnn::new(Config { image_size: Some(12), ..Config::default() }, None)?;
//! let mut normal = InMemoryData::new(&scene.training(), method.preprocess())?;
//! let detector = method.fit(&mut normal, &mut FitContext::new(Device::Cpu, 0))?;
//!
//! // Each of these images is its own nearest neighbour at distance 0; the second nearest is not.
//! let known = detector.score(&normal.all()?)?;
//! assert!(known.scores.iter().all(|score| *score > 0.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod detector;
mod error;
mod features;
mod fit;
mod neighbours;

use anomaly_core::Info;

pub use config::{Config, Features, Metric};
pub use detector::load;
pub use error::Error;
pub use fit::PixelKnn;

/// What this method is.
pub const INFO: Info = Info {
    name: "pixel-knn",
    title: "k nearest neighbours",
    paper: None,
    makes_maps: false,
    default_backbone: None,
    revision: 1,
};
