use anomaly_core::{ConfigError, MethodError};

/// What can go wrong in `ADViT`.
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
    /// The density network refused.
    #[error(transparent)]
    Density(#[from] density_heads::Error),
    /// The optimiser refused.
    #[error(transparent)]
    Optimizer(#[from] optim::Error),
    /// There is nothing to learn from.
    #[error("expected training images, found none")]
    NoImages,
    /// A tensor has another shape than it must have.
    #[error("{what}: expected {expected}, found {found:?}")]
    Shape {
        /// Which tensor.
        what: String,
        /// The shape expected.
        expected: String,
        /// The shape found.
        found: Vec<usize>,
    },
    /// A number is NaN or infinite.
    #[error("{what} is {value}; expected a finite number")]
    NotFinite {
        /// Which number.
        what: String,
        /// What was found.
        value: f64,
    },
    /// Parameters are cut off from the loss.
    #[error("parameters got no gradient: {0}")]
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

pub(crate) fn shape(what: impl Into<String>, expected: impl Into<String>, found: &[usize]) -> Error {
    Error::Shape { what: what.into(), expected: expected.into(), found: found.to_vec() }
}
