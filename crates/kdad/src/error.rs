use anomaly_core::{ConfigError, MethodError};

/// What can go wrong in KDAD.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration can't be used, or not with this backbone.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// An operation refused.
    #[error(transparent)]
    Operation(#[from] vit_ops::Error),
    /// The backbone refused.
    #[error("backbone: {0}")]
    Backbone(#[from] vit_backbone::Error),
    /// The optimiser refused.
    #[error(transparent)]
    Optimizer(#[from] optim::Error),
    /// The preprocessing could not be written as JSON.
    #[error("preprocessing: {0}")]
    Json(#[from] serde_json::Error),
    /// There is nothing to learn from.
    #[error("expected training images, found none")]
    NoImages,
    /// A number is NaN or infinite.
    #[error("{what} is {value}; expected a finite number")]
    NotFinite {
        /// Which number.
        what: String,
        /// What was found.
        value: f64,
    },
    /// Parameters of the student are cut off from the loss.
    #[error("no gradient reaches {}", .0.join(", "))]
    NoGradient(Vec<String>),
    /// Images of another size than the detector was trained with.
    #[error("expected images of {expected} x {expected} pixels, found {height} x {width}")]
    ImageSize {
        /// Height and width expected.
        expected: usize,
        /// Height found.
        height: usize,
        /// Width found.
        width: usize,
    },
    /// A weight of the student is missing or of another shape.
    #[error("weight `{name}` of the student: expected {expected:?}, found {}",
        found.as_ref().map_or_else(|| "none".to_owned(), |shape| format!("{shape:?}")))]
    Weight {
        /// Its name in the reference's state dict.
        name: String,
        /// The shape it must have.
        expected: Vec<usize>,
        /// The shape found, if there is one.
        found: Option<Vec<usize>>,
    },
}

impl From<Error> for MethodError {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(error) => Self::Config(error),
            other => Self::failed(crate::INFO.name, other),
        }
    }
}

/// A finite number, or an error that names it.
pub(crate) fn finite(what: impl FnOnce() -> String, value: f64) -> Result<f64, Error> {
    if value.is_finite() { Ok(value) } else { Err(Error::NotFinite { what: what(), value }) }
}
