//! What runs did: as JSON lines always, and from those as TensorBoard event files and MLflow runs.
//!
//! For programs that run experiments. [`EventLog`] is an observer of a fit that appends every event to the run's log; the log is
//! the truth and needs nothing but its file. A [`Tracker`] shows logs elsewhere: [`TensorBoard`], [`MlflowFiles`],
//! [`MlflowServer`]. Each can be brought up to date at any time, by another process than the one that runs, as often as one likes:
//! a killed and resumed run is there once and whole, and a server that is down costs a run nothing.
//!
//! ```
//! use anomaly_core::{Event, Observer};
//! use tracking::{Ending, EventLog, MlflowFiles, Run, RunView, TensorBoard, Tracker, close_log, read_log};
//!
//! let folder = std::env::temp_dir().join(format!("vitad-tracking-{}", std::process::id()));
//! std::fs::create_dir_all(&folder)?;
//! let log = EventLog::open(&folder.join("events.jsonl"), &Run { id: "a".into(), name: "toy".into(), ..Run::default() })?;
//! log.event(&Event::Metric { name: "loss".into(), at: 1.0, value: 0.5 });
//! close_log(log.path(), &[("last/image_auroc".to_owned(), 0.9)].into(), Ending::Finished, None)?;
//!
//! let lines = read_log(log.path())?;
//! let run = RunView { key: "a", parent: None, experiment: "toys", lines: &lines, artifacts: &[] };
//! let mut trackers: Vec<Box<dyn Tracker>> =
//!     vec![Box::new(TensorBoard::new(&folder.join("tb"))), Box::new(MlflowFiles::new(&folder.join("mlruns")))];
//! for tracker in &mut trackers {
//!     tracker.update(&run)?;
//! }
//! assert!(folder.join("tb/toys").is_dir());
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod destination;
mod error;
#[cfg(test)]
mod example;
mod hex;
mod line;
mod log;
mod mlflow;
mod names;
mod number;
mod tensorboard;
mod tracker;

pub use destination::Destination;
pub use error::Error;
pub use line::{Ending, Line, Run, What, flattened};
pub use log::{EventLog, LogReader, close_log, read_log};
pub use mlflow::MlflowFiles;
#[cfg(feature = "server")]
pub use mlflow::{MlflowServer, ServerAccess};
pub use number::Number;
pub use tensorboard::TensorBoard;
pub use tracker::{Artifact, RunView, Tracker};
