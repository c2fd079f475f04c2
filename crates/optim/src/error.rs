/// What can go wrong in an optimiser.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tensor library refused.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// An option is outside of its range.
    #[error("{option} should be {expected}, but is {found}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// The values allowed.
        expected: &'static str,
        /// What was given.
        found: f64,
    },
    /// Two parameters have one name, so that their states could not be told apart.
    #[error("two parameters are called `{0}`")]
    Duplicate(String),
    /// One parameter was given twice, so that it would be stepped twice.
    #[error("`{first}` and `{second}` are one parameter")]
    Twice {
        /// Its first name.
        first: String,
        /// Its second name.
        second: String,
    },
    /// A gradient does not fit its parameter.
    #[error("the gradient of `{name}` should be {expected}, but is {found}")]
    Gradient {
        /// The parameter.
        name: String,
        /// Type and shape of the parameter, or where it is.
        expected: String,
        /// Type and shape of the gradient, or where it is.
        found: String,
    },
    /// A gradient holds NaN or an infinity.
    #[error("the gradients' norm is {0}: the loss or an operation gave NaN or infinity")]
    NotFinite(f64),
    /// A saved state does not fit this optimiser.
    #[error("the saved optimiser state does not fit: {0}")]
    State(String),
}

/// The result of an optimiser's operation.
pub type Result<T> = std::result::Result<T, Error>;
