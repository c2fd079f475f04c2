//! What can go wrong before, between and around cells. What goes wrong inside one is recorded, not returned.

use std::path::{Path, PathBuf};

/// Errors of profiles, plans and runs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: {problem}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done.
        problem: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A profile or a table of published figures can't be used.
    #[error("{}:{line}: {problem}", path.display())]
    Profile {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The field, what was expected and what was found.
        problem: String,
    },
    /// No profile has this name.
    #[error("no profile is called `{name}`{}; expected one of {known}, or the path of a file ending in .toml",
        nearest.as_ref().map(|n| format!(", did you mean `{n}`?")).unwrap_or_default())]
    UnknownProfile {
        /// The name that was given.
        name: String,
        /// The nearest name that exists.
        nearest: Option<String>,
        /// All names.
        known: String,
    },
    /// The pattern of `--only` can't be used, or fits no cell.
    #[error("--only `{pattern}`: {problem}")]
    Only {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The device that was asked for isn't there.
    #[error("device `{device}`: {problem}")]
    Device {
        /// What was asked for.
        device: String,
        /// Why it can't be used.
        problem: String,
    },
    /// Something that the parent and a cell's process tell each other has not the expected form.
    #[error("{what}: {source}")]
    Message {
        /// What was being read or written.
        what: &'static str,
        /// What was expected and found.
        source: serde_json::Error,
    },
    /// A detector or a checkpoint could not be written or read.
    #[error(transparent)]
    Contract(#[from] anomaly_core::Error),
    /// A method failed, or was asked to stop.
    #[error(transparent)]
    Method(#[from] anomaly_core::MethodError),
    /// Images could not be delivered.
    #[error(transparent)]
    Data(#[from] anomaly_core::DataError),
    /// There is no such method.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A backbone can't be had.
    #[error(transparent)]
    Backbone(#[from] vit_backbone::Error),
    /// A data set can't be opened or split.
    #[error(transparent)]
    Dataset(#[from] datasets::Error),
    /// A data set is not as it must be, and that was not accepted.
    #[error(
        "data set `{dataset}` has {faults} faults, the first: {first}; `cargo xtask data check {} --layout {dataset}` \
         lists them all, `--accept-data-problems` runs without what can't be used",
        root.as_ref().map_or_else(|| "PATH".to_owned(), |root| root.display().to_string())
    )]
    DataFaults {
        /// The data set's registered name.
        dataset: String,
        /// Where it lies; its usual place if `None`.
        root: Option<PathBuf>,
        /// How many faults it has.
        faults: usize,
        /// The first of them.
        first: String,
    },
    /// A figure is not defined for these test images.
    #[error("the test images give no figure: {0}")]
    Metric(#[from] metrics::Error),
    /// A mask or a map could not be brought to another size.
    #[error(transparent)]
    Pixels(#[from] image_prep::Error),
    /// The method does not do what its description says, or the profile asks for what it can't do.
    #[error("{what}: expected {expected}, found {found}")]
    Unfit {
        /// What was looked at.
        what: String,
        /// What it should have been.
        expected: String,
        /// What it was.
        found: String,
    },
    /// A cell's log could not be written or read.
    #[error(transparent)]
    Tracking(#[from] tracking::Error),
    /// Slurm can't be asked, or refused.
    #[error(transparent)]
    Slurm(#[from] slurm_array::Error),
    /// Cells can't be given to a cluster as they were to be, or not by this program.
    #[error("{0}")]
    Cluster(String),
    /// A record or a report could not be written or read.
    #[error(transparent)]
    Report(#[from] report::Error),
}

impl Error {
    pub(crate) fn io(path: &Path, problem: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), problem, source }
    }

    pub(crate) fn unfit(
        what: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Unfit { what: what.into(), expected: expected.into(), found: found.into() }
    }

    /// Whether this is the answer to a cancellation rather than a failure.
    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(self, Self::Method(e) if e.is_cancelled())
    }
}
