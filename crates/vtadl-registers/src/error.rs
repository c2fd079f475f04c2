use anomaly_core::{ConfigError, MethodError};

/// What can go wrong in VT-ADL with registers.
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
    /// There is nothing to learn from, or nothing left beside what is held out.
    #[error("expected at least {expected} training images, found {found}")]
    TooFewImages {
        /// The least number that these settings need.
        expected: usize,
        /// The number found.
        found: usize,
    },
    /// A map that the score asks for was not made.
    #[error("the score needs {0}, which was not made")]
    MissingMap(String),
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
    #[error("expected images of {} x {} pixels, found {height} x {width}", expected.0, expected.1)]
    ImageSize {
        /// Height and width expected.
        expected: (usize, usize),
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
