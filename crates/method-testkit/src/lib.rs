//! The generic tests that every anomaly-detection method of vitad must pass.
//!
//! For whoever writes a method as a crate of their own: a [`Suite`] says how to build and load the method and which
//! small settings, images and planted defects fit it; [`Suite::run_all`] then checks everything that the contract of
//! `anomaly-core` promises and that a type can't enforce. Each [`Check`] can be run alone with [`Suite::run`], and a
//! [`Failure`] names the check, the method and what was found.
//!
//! The images are drawn here from a seed ([`Texture`], [`Defect`]): no files, no network.
//!
//! ```
//! use anomaly_core::{ContentKey, TrainingData};
//! use image_prep::{Filter, HALF, Preprocess};
//! use method_testkit::{Defect, InMemoryData, Scene, Texture};
//!
//! let scene = Scene { texture: Texture::Part, defect: Defect::Spot, size: 24, training_images: 8 };
//! let normal = scene.training();
//! let tests = scene.tests();
//! assert_eq!((normal.len(), tests.len()), (8, 64));
//! assert_eq!(tests.iter().filter(|test| test.defective).count(), 32);
//!
//! let preprocess = Preprocess::square(16, Filter::Bilinear, HALF, HALF);
//! let data = InMemoryData::new(&normal, &preprocess)?;
//! assert_eq!(data.get(&[0, 5])?.pixels().dims(), [2, 3, 16, 16]);
//! assert_eq!(data.key(5)?, ContentKey::of_pixels(24, 24, &normal[5].data));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod check;
mod checks;
mod data;
mod defect;
mod failure;
mod fitting;
mod scene;
mod suite;
mod texture;
mod tiny_vit;
mod watch;

pub use check::Check;
pub use data::InMemoryData;
pub use defect::Defect;
pub use failure::{Error, Failure, Failures};
pub use scene::{Scene, TestImage};
pub use suite::{Build, Gradients, Load, Resume, SeedUse, Suite};
pub use texture::Texture;
pub use tiny_vit::TinyVit;
