//! The matrix engine of vitad: profiles, cells, runner and records.
//!
//! For programs that run a benchmark. A [`Profile`] (a TOML file) is methods times data sets times categories times seeds;
//! a [`Plan`] makes cells of it, each with an id that hashes all that can change its result; [`run_plan`] computes the
//! missing ones, each in a process of its own ([`run_child`]), and [`write_summary`] sums up what is there.
//!
//! A cell is finished in one step or not at all. A killed run leaves checkpoints from which the next one goes on to the
//! same numbers; a failed cell is recorded and stops no other; two runs on one output folder share the work.
//!
//! ```
//! use benchmark::{Layout, Plan, PlanOptions, Profile, PublishedFigures};
//!
//! let folder = std::env::temp_dir().join("vitad-benchmark-example");
//! std::fs::create_dir_all(&folder)?;
//! let file = folder.join("knn.toml");
//! std::fs::write(&file, r#"
//!     description = "nearest neighbours in raw pixels"
//!     [[entry]]
//!     method = "pixel-knn"
//!     dataset = "fashion-mnist-sample"
//!     categories = ["0", "Sneaker"]
//!     train_limit = 20
//!     test_limit = 50
//! "#)?;
//! let profile = Profile::read(&file)?;
//! let plan = Plan::new(&profile, &PublishedFigures::default(), &PlanOptions::default())?;
//! let names: Vec<String> = plan.cells.iter().map(|cell| cell.spec.identity.name()).collect();
//! assert_eq!(names[1], "pixel-knn/fashion-mnist-sample/unimodal/7/seed0");
//! assert!(plan.listing(&Layout::new(&folder.join("out")))?.contains("2 cells, 0 done, 2 to run"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cell_log;
mod child;
pub mod cluster;
mod data;
mod device;
mod error;
mod estimate;
mod evaluate;
mod execute;
mod features;
mod journal;
mod layout;
mod lock;
mod log_follower;
mod memory;
mod memory_needs;
mod message;
mod methods;
mod nearest;
mod pictures;
mod plan;
mod precision;
mod process;
mod profile;
mod progress;
mod published;
mod run_tracking;
mod runner;
mod score_images;
mod selection;
mod spec;
mod summary;
mod test_set;
mod toml_file;
mod tuning;
mod versions;

pub use anomaly_core::Cancellation;
pub use child::run_child;
pub use device::{DeviceChoice, gpu_count};
pub use error::Error;
pub use estimate::{Estimate, EstimateOptions, Pair, estimate};
pub use features::{FeatureFolder, FeatureOptions};
pub use layout::Layout;
pub use lock::Lock;
pub use memory::peak_bytes;
pub use memory_needs::bytes_in_words;
pub use plan::{Plan, PlanOptions, PlannedCell};
pub use process::keep_freed_memory;
pub use profile::{Entry, Profile};
pub use published::{PublishedFigure, PublishedFigures};
pub use report::terminal_table;
pub use run_tracking::Tracking;
pub use runner::{Outcome, RunOptions, recorded, run_plan};
pub use score_images::{ScoreOptions, ScoredImages, score_images};
pub use spec::{CellSpec, Identity, REVISION, Rehearsal};
pub use summary::write_summary;
pub use tuning::{
    Budget, Dimension, HELD_OUT_LOSS, NORMAL_MEAN, Pruner, Range, RunCells, Rung, Sampler, Search, Space,
    Study, StudySettings, Trial, TrialState, final_evaluation, tune,
};
pub use versions::locked_versions;
pub use vit_backbone::PrecisionSetting;
