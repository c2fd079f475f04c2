//! What can go wrong.

use std::path::{Path, PathBuf};

/// Why something could not be noted or passed on.
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
    /// A line of a log is none.
    #[error("{}:{line}: expected an event as JSON: {source}", path.display())]
    Line {
        /// The log.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What was expected and found.
        source: serde_json::Error,
    },
    /// A log is not of the run that it is to go on with.
    #[error("{}: expected the log of `{expected}`, found that of `{found}`", path.display())]
    OtherRun {
        /// The log.
        path: PathBuf,
        /// The run that was to be logged.
        expected: String,
        /// The run that the log begins with.
        found: String,
    },
    /// A file could not be put in place in one step.
    #[error(transparent)]
    Write(#[from] anomaly_core::Error),
    /// Where runs are to be tracked is not said in a form that is understood.
    #[error("`{found}`: expected {expected}")]
    Destination {
        /// What was expected.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// How a server is to be asked can't be used. What is secret is not repeated.
    #[error("{what}: {problem}")]
    Access {
        /// A variable of the environment, or what else it is.
        what: &'static str,
        /// What was expected and found.
        problem: String,
    },
    /// A server could not be reached, or did not answer as one of its kind.
    #[error("{url}: {problem}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What happened.
        problem: String,
    },
    /// A server said no.
    #[error("{url}: status {status}, {code}: {message}")]
    Refused {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The server's word for it, such as `RESOURCE_DOES_NOT_EXIST`.
        code: String,
        /// Its explanation.
        message: String,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, problem: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), problem, source }
    }
}
