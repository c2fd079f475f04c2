use std::path::PathBuf;

use crate::problem::Problem;

/// What can go wrong between a data set's name and its images.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No data set has this name.
    #[error("unknown data set `{name}`{}; known are {known}", did_you_mean(nearest.as_deref()))]
    UnknownDataset {
        /// The name that was given.
        name: String,
        /// The nearest name that exists.
        nearest: Option<String>,
        /// All names.
        known: String,
    },
    /// No protocol has this name.
    #[error(
        "unknown protocol `{name}`{}; known are {known}, each also as `PROTOCOL-4-shot` or `PROTOCOL-4-shot-consecutive`",
        did_you_mean(nearest.as_deref())
    )]
    UnknownProtocol {
        /// The name that was given.
        name: String,
        /// The nearest name that exists.
        nearest: Option<String>,
        /// All names.
        known: String,
    },
    /// The data set has no such category.
    #[error("data set `{dataset}` has no category `{category}`{}; it has {known}", did_you_mean(nearest.as_deref()))]
    UnknownCategory {
        /// The data set.
        dataset: String,
        /// The category that was asked for.
        category: String,
        /// The nearest one that exists.
        nearest: Option<String>,
        /// All of them.
        known: String,
    },
    /// The data set lies in a directory, and none was given or found.
    #[error("data set `{dataset}` needs a root directory with {expected}{}", looked_in(looked_in_default.as_deref()))]
    NoRoot {
        /// The data set.
        dataset: String,
        /// What the directory holds.
        expected: &'static str,
        /// The default place, if it has one, where it was not found.
        looked_in_default: Option<PathBuf>,
    },
    /// The data set is embedded, and a root was given.
    #[error("data set `{dataset}` is embedded and takes no root, found {root}")]
    UnusedRoot {
        /// The data set.
        dataset: String,
        /// What was given.
        root: PathBuf,
    },
    /// A file or directory cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file or directory holds something else than it should.
    #[error("{path}: expected {expected}, found {found}")]
    Content {
        /// The file or directory.
        path: PathBuf,
        /// What it should hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// The data set is not as it must be. All that was found wrong on opening it is here; `datasets::check` looks further.
    #[error("data set `{dataset}` has {}{}", count(problems.len()), lines(problems))]
    Problems {
        /// The data set.
        dataset: String,
        /// What is wrong, in the order it was found.
        problems: Vec<Problem>,
    },
    /// A class without images.
    #[error("{path}: class `{class}` has no images")]
    EmptyClass {
        /// Where its images should be.
        path: PathBuf,
        /// The class.
        class: String,
    },
    /// An image cannot be decoded or preprocessed.
    #[error("image `{id}`: {source}")]
    Image {
        /// The image's id in its data set.
        id: String,
        /// What went wrong, with the path where it was decoded from a file.
        source: image_prep::Error,
    },
    /// Several images of one batch cannot be read.
    #[error("{first}; of the same batch also `{others}`")]
    Several {
        /// What is wrong with the first of them.
        first: Box<Error>,
        /// The ids of the others.
        others: String,
    },
    /// Images of one batch come out of the preprocessing with different sizes.
    #[error(
        "image `{id}` is {found} after preprocessing, expected {expected} as `{first}`: give the preprocessing an exact size or a crop"
    )]
    MixedSizes {
        /// The image that differs.
        id: String,
        /// Its `H x W`.
        found: String,
        /// The first image of the batch.
        first: String,
        /// Its `H x W`.
        expected: String,
    },
    /// The protocol or the limits leave nothing to train on or to tell apart.
    #[error("data set `{dataset}`, category `{category}`: {field}: expected {expected}, found {found}")]
    Split {
        /// The data set.
        dataset: String,
        /// The category.
        category: String,
        /// Which part or option.
        field: &'static str,
        /// What is needed.
        expected: String,
        /// What there is.
        found: String,
    },
    /// An option of a made-up data set, or of loading, is not one of those that make sense.
    #[error("`{field}`: expected {expected}, found {found}")]
    Option {
        /// The option.
        field: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The thread that reads ahead could not be started, or ended early.
    #[error("reading ahead: {0}")]
    ReadAhead(String),
    /// A batch could not be made of the images.
    #[error(transparent)]
    Batch(#[from] anomaly_core::Error),
}

impl Error {
    pub(crate) fn content(
        path: impl Into<PathBuf>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Content { path: path.into(), expected: expected.into(), found: found.into() }
    }
}

impl From<Error> for anomaly_core::DataError {
    fn from(error: Error) -> Self {
        Self::new(error)
    }
}

fn count(problems: usize) -> String {
    format!("{problems} problem{}", if problems == 1 { "" } else { "s" })
}

/// The most problems that one message tells.
const TOLD: usize = 20;

fn lines(problems: &[Problem]) -> String {
    let mut lines: Vec<String> = problems.iter().take(TOLD).map(ToString::to_string).collect();
    if problems.len() > TOLD {
        lines.push(format!("and {} more", problems.len() - TOLD));
    }
    lines.insert(0, String::new());
    lines.join("\n  ")
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(", did you mean `{name}`?")).unwrap_or_default()
}

fn looked_in(place: Option<&std::path::Path>) -> String {
    place.map(|place| format!(" (none was given, and nothing is at {})", place.display())).unwrap_or_default()
}

/// The known name nearest to `name`, if any is near.
pub(crate) fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<String> {
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(k, name), k))
        .min()
        .filter(|(distance, k)| *distance <= k.len().max(name.len()) / 2)
        .map(|(_, k)| k.to_owned())
}
