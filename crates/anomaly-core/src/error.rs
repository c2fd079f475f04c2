//! What can go wrong between a harness and a method.

use std::path::{Path, PathBuf};

use crate::ConfigError;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Errors of this crate's own types: images, checkpoints, detector directories.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pixels are not `(B, 3, H, W)` f32, or there is not one id an image.
    #[error("images must be ({ids}, 3, H, W) f32 for {ids} ids, found {found}")]
    ImageShape {
        /// How many ids were given.
        ids: usize,
        /// Shape and type found.
        found: String,
    },
    /// A pixel is NaN or infinite.
    #[error("image `{id}` holds a pixel that is {value}; expected finite numbers")]
    NotFinite {
        /// The first image with such a pixel.
        id: String,
        /// What was found.
        value: f32,
    },
    /// A file could not be read or written.
    #[error("{}: {problem}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was being done.
        problem: &'static str,
        /// Why it failed.
        source: Source,
    },
    /// A file holds something else than expected.
    #[error("{}: expected {expected}, found {found}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A checkpoint of another fit.
    #[error("the checkpoint was written with {field} = {found}, but this fit has {expected}")]
    OtherFit {
        /// What differs.
        field: &'static str,
        /// This fit's.
        expected: String,
        /// The checkpoint's.
        found: String,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    pub(crate) fn file(path: &Path, problem: &'static str, source: impl Into<Source>) -> Self {
        Self::File { path: path.to_owned(), problem, source: source.into() }
    }

    pub(crate) fn content(path: &Path, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), expected: expected.into(), found: found.into() }
    }
}

/// Training or test data could not be delivered; the message names the file or item.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct DataError(pub Source);

impl DataError {
    /// Wraps a data set's own error.
    pub fn new(source: impl Into<Source>) -> Self {
        Self(source.into())
    }
}

/// What a method gives back instead of a result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MethodError {
    /// The fit was asked to stop, and did; its last checkpoint is kept.
    #[error("cancelled")]
    Cancelled,
    /// The configuration can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data could not be delivered.
    #[error("data: {0}")]
    Data(#[from] DataError),
    /// Images, checkpoints or detector files are not as they must be.
    #[error(transparent)]
    Contract(#[from] Error),
    /// The method itself failed.
    #[error("{method}: {source}")]
    Failed {
        /// The method's name.
        method: &'static str,
        /// The method crate's own error.
        source: Source,
    },
}

impl MethodError {
    /// Boxes a method crate's own error with the method's name.
    pub fn failed(method: &'static str, source: impl Into<Source>) -> Self {
        Self::Failed { method, source: source.into() }
    }

    /// Whether this is the answer to a cancellation rather than a failure.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled)
    }
}
