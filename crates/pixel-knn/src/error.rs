//! What can go wrong.

use anomaly_core::{ConfigError, MethodError};

use crate::INFO;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration can't be used, or not with this backbone or this many images.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is nothing to compare with.
    #[error("expected training images, found none")]
    NoImages,
    /// The images give vectors of another length than the training images did.
    #[error("expected images that give vectors of {expected} numbers, found {found}")]
    Width {
        /// Length of the training images' vectors.
        expected: usize,
        /// Length found.
        found: usize,
    },
    /// The backbone failed.
    #[error("backbone: {0}")]
    Backbone(#[from] vit_backbone::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// The preprocessing could not be written as JSON.
    #[error("preprocessing: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<Error> for MethodError {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(config) => Self::Config(config),
            other => Self::failed(INFO.name, other),
        }
    }
}
