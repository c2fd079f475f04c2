//! Image anomaly datasets: reading, protocols, checking and loading.
//!
//! A [`Dataset`] is a sorted list of items and their pixels on demand. A [`Protocol`] says who is normal; a [`Split`] is
//! what comes of both: lists of items to learn from, to hold out and to be judged by, the same on every machine, told
//! apart by a [`Fingerprint`]. [`TrainingSet`] serves a method (which never sees a label), [`TestSet`] serves a detector
//! its images and the harness its [`Truth`]. What can be found wrong is found when a data set is opened, and named by
//! its path.
//!
//! ```
//! # #[cfg(feature = "sample")] {
//! use std::sync::Arc;
//! use anomaly_core::TrainingData;
//! use datasets::{Dataset, Protocol, Split, SplitOptions, TestSet, TrainingSet};
//! use image_prep::{Filter, HALF, Preprocess};
//!
//! let dataset: Arc<dyn Dataset> = datasets::open("fashion-mnist-sample", None)?.into();
//! let options = SplitOptions { train_limit: Some(50), test_limit: Some(100), ..SplitOptions::default() };
//! let split = Split::new(&*dataset, Protocol::Unimodal, "Trouser", &options)?;
//!
//! let preprocess = Preprocess::square(56, Filter::Bilinear, HALF, HALF);
//! let normals = TrainingSet::new(dataset.clone(), split.train.clone(), preprocess.clone())?;
//! assert_eq!(normals.get(&[0, 1])?.pixels().dims(), [2, 3, 56, 56]);
//!
//! let test = TestSet::new(dataset, &split, preprocess)?;
//! assert_eq!(test.batches(32).count(), 4);
//! assert_eq!(test.truth().anomalous().iter().filter(|&&anomalous| !anomalous).count(), 11);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod catalogue;
mod cifar;
mod dataset;
mod error;
mod fashion_mnist;
mod file_set;
mod files;
mod folder;
mod idx;
mod loader;
mod memory;
mod mvtec;
mod packed;
mod protocol;
mod split;
mod test_set;
mod training;

pub use catalogue::{ENTRIES, Entry, open};
pub use dataset::{Card, Class, Dataset, Item, Part};
pub use error::Error;
pub use memory::{InMemory, MemoryImage};
pub use protocol::{Protocol, Selected, multimodal, unimodal};
pub use split::{Fingerprint, Split, SplitOptions};
pub use test_set::{TestSet, Truth};
pub use training::TrainingSet;

/// Raised whenever a change of this crate changes numbers; part of every cell's id.
pub const REVISION: u32 = 1;
