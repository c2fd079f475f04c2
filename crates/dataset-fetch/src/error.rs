use std::path::PathBuf;
use std::time::Duration;

/// What can go wrong between a data set's name and its files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No data set of this name can be fetched.
    #[error("no data set `{name}` to fetch{}; known are {known}", did_you_mean(nearest.as_deref()))]
    Unknown {
        /// The name that was given.
        name: String,
        /// The nearest one that exists.
        nearest: Option<String>,
        /// All names.
        known: String,
    },
    /// The data set is given to those who accept its licence or log in, not to a program.
    #[error("`{name}` cannot be downloaded by a program: {steps}")]
    Manual {
        /// The data set.
        name: String,
        /// What to do.
        steps: String,
    },
    /// The server did not answer, or kept breaking off.
    #[error("{url}: gave up after {attempts} attempts without progress: {reason}{}", wants(*retry_after))]
    Unreachable {
        /// What was asked for.
        url: String,
        /// The last failure.
        reason: String,
        /// How many attempts were made since the last progress.
        attempts: u32,
        /// How long the server wanted to be left alone.
        retry_after: Option<Duration>,
    },
    /// The server refused.
    #[error("{url}: status {status}; the file may have moved: look at {page}, or name a mirror")]
    Refused {
        /// What was asked for.
        url: String,
        /// Its answer.
        status: u16,
        /// The data set's page.
        page: String,
    },
    /// The server's answer makes no sense.
    #[error("{url}: {reason}")]
    Protocol {
        /// What was asked for.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The file has another length than is stated.
    #[error("{url}: expected {expected} bytes, found {found}")]
    Length {
        /// What was asked for.
        url: String,
        /// As stated.
        expected: u64,
        /// As announced or received.
        found: u64,
    },
    /// The file has another digest than is stated.
    #[error("{url}: expected the {algorithm} {expected} ({stated_by}), found {found}; the file was removed")]
    Digest {
        /// What was asked for.
        url: String,
        /// The algorithm's name.
        algorithm: &'static str,
        /// As stated.
        expected: String,
        /// Who states it.
        stated_by: String,
        /// Of what was received.
        found: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The record of earlier fetches is not one.
    #[error("{path}: {reason}; remove it to record anew")]
    Lock {
        /// The record.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An archive is broken, or does what no data set's archive does.
    #[error("{archive}: entry `{entry}`: {reason}")]
    Archive {
        /// The archive.
        archive: PathBuf,
        /// The entry.
        entry: String,
        /// What is wrong.
        reason: String,
    },
    /// Something else is where the data set should go.
    #[error(
        "{path} is there and not empty, but was not fetched by this program: move it away, or use it as it is"
    )]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}

fn wants(wait: Option<Duration>) -> String {
    wait.map(|wait| format!(" (the server asks for {} s of patience)", wait.as_secs())).unwrap_or_default()
}
