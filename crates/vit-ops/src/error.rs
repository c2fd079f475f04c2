use candle_core::{DType, Shape};

/// What can go wrong in an operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tensor library refused: mismatched devices, types or an allocation that failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A tensor has a shape that the operation cannot take.
    #[error("{operation}: {argument} should be {expected}, but has shape {found:?}")]
    Shape {
        /// The operation, as it is called in this crate.
        operation: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// What would have been right, in words or symbols.
        expected: String,
        /// What was given.
        found: Shape,
    },
    /// A tensor is not of a floating-point type.
    #[error("{operation}: {argument} should be of a floating-point type, but is {}", found.as_str())]
    Type {
        /// The operation, as it is called in this crate.
        operation: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// What was given.
        found: DType,
    },
    /// A number is outside of its range.
    #[error("{operation}: {argument} should be {expected}, but is {found}")]
    Range {
        /// The operation, as it is called in this crate.
        operation: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// The values allowed.
        expected: &'static str,
        /// What was given.
        found: f64,
    },
    /// A network lacks a tensor.
    #[error("the network's tensor `{0}` is missing")]
    MissingTensor(String),
    /// A word that is none of those known.
    #[error("{what} should be {expected}, but is `{found}`")]
    Name {
        /// What the word stands for.
        what: &'static str,
        /// The words known.
        expected: &'static str,
        /// What was given.
        found: String,
    },
}

impl Error {
    pub(crate) fn shape(
        operation: &'static str,
        argument: &'static str,
        expected: impl Into<String>,
        found: &Shape,
    ) -> Self {
        Self::Shape { operation, argument, expected: expected.into(), found: found.clone() }
    }
}

/// The result of an operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl From<Error> for candle_core::Error {
    /// For callers that live among candle's own results.
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            other => candle_core::Error::wrap(other),
        }
    }
}
