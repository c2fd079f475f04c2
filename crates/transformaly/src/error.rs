use anomaly_core::{ConfigError, MethodError};

/// What can go wrong in Transformaly.
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
    /// Every block of the backbone would be left out of the score.
    #[error("backbone `{name}` has {depth} blocks; expected more than the {skipped} that are not scored")]
    TooFewBlocks {
        /// The backbone.
        name: String,
        /// Its blocks.
        depth: usize,
        /// Blocks not scored.
        skipped: usize,
    },
    /// A Gaussian needs a spread.
    #[error("expected at least 2 training images, found {0}")]
    TooFewImages(usize),
    /// All training images have one and the same descriptor.
    #[error("the {0} training descriptors are all the same: no direction to whiten")]
    NoSpread(usize),
    /// A number is NaN or infinite.
    #[error("{what} is {value}; expected a finite number")]
    NotFinite {
        /// Which number.
        what: String,
        /// What was found.
        value: f64,
    },
    /// A parameter of the student is cut off from the loss.
    #[error("parameter `{0}` of the student got no gradient")]
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
    /// A descriptor has another length than the fit.
    #[error("expected a descriptor of {expected} numbers, found {found}")]
    Width {
        /// Length of the training descriptors.
        expected: usize,
        /// Length found.
        found: usize,
    },
    /// A matrix could not be decomposed.
    #[error("the {what} could not be decomposed: {problem}")]
    Decomposition {
        /// The matrix.
        what: &'static str,
        /// What the solver said.
        problem: String,
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
