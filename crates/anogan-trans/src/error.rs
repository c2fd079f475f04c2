use anomaly_core::{ConfigError, MethodError};

/// What can go wrong in `AnoTrans`.
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
    /// An optimiser refused.
    #[error(transparent)]
    Optimizer(#[from] optim::Error),
    /// A network's tensor is not among those given.
    #[error("expected a tensor `{0}` among the weights, found none")]
    MissingWeight(String),
    /// A network's tensor has another shape.
    #[error("expected weight `{name}` of shape {expected:?}, found {found:?}")]
    WeightShape {
        /// The tensor.
        name: String,
        /// Its shape in this network.
        expected: Vec<usize>,
        /// What was given.
        found: Vec<usize>,
    },
    /// The architecture can't take these sizes.
    #[error("{what}: expected {expected}, found {found}")]
    Size {
        /// Which size.
        what: &'static str,
        /// What it can take.
        expected: String,
        /// What was given.
        found: String,
    },
    /// There is nothing to train on.
    #[error("expected at least 2 training images, found {0}")]
    TooFewImages(usize),
    /// Images of another size than the networks were made for.
    #[error("expected images of {expected} x {expected} pixels, found {height} x {width}")]
    ImageSize {
        /// Height and width expected.
        expected: usize,
        /// Height found.
        height: usize,
        /// Width found.
        width: usize,
    },
    /// The training has run away.
    #[error("training diverged in step {step}: {what} is {value}; the checkpoint before it is kept")]
    Diverged {
        /// The step, counted from 1 over all epochs.
        step: usize,
        /// Which number.
        what: String,
        /// What was found.
        value: f64,
    },
    /// The discriminator has nothing left to say to the generator.
    #[error(
        "the discriminator collapsed: {what}, for {steps} steps up to step {step}; the checkpoint before it is kept"
    )]
    Collapsed {
        /// The step, counted from 1 over all epochs.
        step: usize,
        /// For how many steps in a row.
        steps: usize,
        /// What is the matter.
        what: &'static str,
    },
    /// A score is NaN or infinite.
    #[error("{what} is {value}; expected a finite number")]
    NotFinite {
        /// Which number.
        what: String,
        /// What was found.
        value: f64,
    },
    /// A parameter is cut off from the loss.
    #[error("parameter `{0}` got no gradient")]
    NoGradient(String),
}

impl From<Error> for MethodError {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(error) => Self::Config(error),
            other => Self::failed(crate::INFO.name, other),
        }
    }
}
