use anomaly_core::{ConfigError, MethodError};

use crate::Operation;

/// What can go wrong in `GeneralAD`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// An operation refused.
    #[error(transparent)]
    Operation(#[from] vit_ops::Error),
    /// The backbone refused.
    #[error(transparent)]
    Backbone(#[from] vit_backbone::Error),
    /// The optimiser refused.
    #[error(transparent)]
    Optimizer(#[from] optim::Error),
    /// A map could not be made.
    #[error(transparent)]
    Map(#[from] image_prep::Error),
    /// The preprocessing has no JSON form.
    #[error("the preprocessing can't be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// There is nothing to learn from.
    #[error("expected at least 1 training image, found none")]
    NoImages,
    /// An operation looks at attention, and the backbone gives none.
    #[error("{0:?} needs the class token's attention, which this backbone does not give")]
    NoAttention(Operation),
    /// What an operation drew does not fit the features.
    #[error("{operation:?}: the {what} drawn does not fit the features")]
    Draws {
        /// The operation.
        operation: Operation,
        /// Which draw.
        what: &'static str,
    },
    /// Features of another shape than the discriminator was made for.
    #[error("expected features (B, {}, {}), found {found:?}", expected.0, expected.1)]
    Features {
        /// Patches and width.
        expected: (usize, usize),
        /// The shape found.
        found: Vec<usize>,
    },
    /// A parameter of the discriminator is missing or has another shape.
    #[error("parameter `{name}` of the discriminator: expected shape {expected:?}, found {}", found.as_ref().map_or_else(|| "none".to_owned(), |shape| format!("{shape:?}")))]
    Parameter {
        /// Its name.
        name: String,
        /// The shape expected.
        expected: Vec<usize>,
        /// The shape found.
        found: Option<Vec<usize>>,
    },
    /// A number is NaN or infinite.
    #[error("{what} is {value}; expected a finite number")]
    NotFinite {
        /// Which number.
        what: String,
        /// What was found.
        value: f64,
    },
    /// A parameter is cut off from the loss.
    #[error("parameter `{0}` of the discriminator got no gradient")]
    NoGradient(String),
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
