/// What can go wrong in a density head.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The tensor library refused.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// An operation refused.
    #[error(transparent)]
    Operation(#[from] vit_ops::Error),
    /// A tensor has another shape than it must have.
    #[error("{argument} of the density head: expected {expected}, found {found:?}")]
    Shape {
        /// The tensor.
        argument: &'static str,
        /// The shape expected.
        expected: String,
        /// The shape found.
        found: Vec<usize>,
    },
    /// A number is outside of its range.
    #[error("{argument} of the density head: expected {expected}, found {found}")]
    Range {
        /// The number.
        argument: &'static str,
        /// The values allowed.
        expected: &'static str,
        /// What was given.
        found: f64,
    },
}
