//! Image anomaly datasets: reading, protocols, checking and loading.
//!
//! A [`Dataset`] is a sorted list of items and their pixels on demand. A [`Protocol`] says who is normal; a [`Split`] is
//! what comes of both: lists of items to learn from, to hold out and to be judged by, the same on every machine, told
//! apart by a [`Fingerprint`]. [`TrainingSet`] serves a method (which never sees a label), [`TestSet`] serves a detector
//! its images and the harness its [`Truth`]. What can be found wrong is found when a data set is opened, all of it at
//! once and by its path; [`check`] also looks at every image, and at what training and test images have in common.
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

mod aircraft;
mod cars;
mod catalogue;
mod cats_dogs;
mod check;
mod cifar;
mod counts;
mod dataset;
mod dior;
mod error;
mod fashion_mnist;
mod file_set;
mod files;
mod folder;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod good_bad;
mod idx;
mod listing;
mod loader;
mod mat;
mod memory;
mod mnist;
mod mvtec;
mod normal_abnormal;
mod packed;
mod problem;
mod protocol;
mod rehearsal;
mod split;
mod stl10;
mod synthetic;
mod table;
mod test_set;
mod training;
#[cfg(feature = "conformance")]
mod units;
mod visa;
mod without;

pub use catalogue::{ENTRIES, Entry, open, open_unchecked};
pub use check::{CHECK_REVISION, CheckReport, check, check_content, content_fingerprint};
pub use counts::{PublishedCount, published_counts};
pub use dataset::{Card, Class, Dataset, Item, Part, Saturation};
pub use error::Error;
pub use loader::LoadOptions;
pub use memory::{InMemory, MemoryImage};
pub use problem::{Problem, ProblemKind};
pub use protocol::{
    ALL, AbnormalClass, Protocol, Selected, ShotDraw, Shots, Task, multimodal, one_class_abnormal, unimodal,
};
pub use rehearsal::rehearsal;
pub use split::{Fingerprint, Split, SplitOptions};
pub use synthetic::{Synthetic, SyntheticOptions};
pub use test_set::{TestSet, Truth};
pub use training::TrainingSet;
#[cfg(feature = "conformance")]
pub use units::conformance_units;
pub use without::without;

/// Raised whenever a change of this crate changes numbers; part of every cell's id.
pub const REVISION: u32 = 1;
