//! Cells as the tasks of a Slurm job array over a shared folder.
//!
//! A plan file, written once, says which cells make up which task; [`submit`] gives Slurm what has no result and is not in
//! its hands already; each task ([`run_task`]) computes its cells as the local runner does, in processes of their own;
//! [`follow`] watches, and can be ended and begun again; [`conclude`] writes the report. What counts are the records in the
//! output folder; Slurm is only asked whether a missing one may still come.

mod conclude;
mod follow;
mod plan_file;
mod program;
mod submit;
mod task;

pub use conclude::{conclude, note_ends};
pub use follow::{FollowOptions, Followed, News, TaskState, follow};
pub use plan_file::submitted_plan;
pub use submit::{ClusterOptions, Submitted, submit};
pub use task::run_task;
