//! What can go wrong between a program and Slurm.

use std::path::{Path, PathBuf};

/// Errors of submitting and following.
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
    /// A file of the shared folder has not the expected form.
    #[error("{}: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        source: serde_json::Error,
    },
    /// One of Slurm's programs could not be started.
    #[error("{program}: can't start: {source}; are Slurm's programs installed, and on the PATH?")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// One of Slurm's programs did not answer in time: nothing is known.
    #[error("{program}: no answer within {seconds} s")]
    Silent {
        /// The program.
        program: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// One of Slurm's programs failed.
    #[error("{program} failed ({status}): {message}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// What it wrote to standard error.
        message: String,
    },
    /// Slurm refused a job.
    #[error("Slurm refused the job {name}: {message}")]
    Refused {
        /// The job's name.
        name: String,
        /// Why, in Slurm's words.
        message: String,
    },
    /// One of Slurm's programs said something unexpected.
    #[error("{program}: expected {expected}, found `{found}`")]
    Answer {
        /// The program.
        program: &'static str,
        /// What it should have said.
        expected: &'static str,
        /// What it said.
        found: String,
    },
    /// What was asked for can't be submitted.
    #[error("{field}: {problem}")]
    Request {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// This process is no task of an array.
    #[error("expected to run as a task of a Slurm job array, but {variable} is {found}")]
    NoTask {
        /// The variable of the environment.
        variable: &'static str,
        /// What it holds.
        found: String,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, problem: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), problem, source }
    }
}
