//! What can go wrong, in one type.

/// Why a network could not be named, read, built or run.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// An operation refused.
    #[error(transparent)]
    Operation(#[from] vit_ops::Error),
    /// Weights could not be found or read.
    #[error(transparent)]
    Pretrained(#[from] pretrained::Error),
    /// The name is no catalogue entry, hub id, directory or file.
    #[error(
        "no residual network is called {name:?}: it is no catalogue name, no hub id (owner/name) and no existing \
         directory or file; nearest catalogue names: {}", nearest.join(", ")
    )]
    UnknownName {
        /// The name asked for.
        name: String,
        /// Catalogue names that look most like it.
        nearest: Vec<String>,
    },
    /// A size that no network has.
    #[error("{field}: expected {expected}, found {found}")]
    Config {
        /// The field.
        field: &'static str,
        /// What was expected there.
        expected: &'static str,
        /// What was found there.
        found: usize,
    },
    /// A tensor is not there, or of another shape.
    #[error("tensor {tensor} of {origin}: expected shape {expected:?}, found {}",
        found.as_ref().map_or_else(|| "none of this name".to_owned(), |shape| format!("{shape:?}")))]
    Weight {
        /// Its name in the checkpoint.
        tensor: String,
        /// Where it was looked for.
        origin: String,
        /// The shape it must have; empty where any would have done.
        expected: Vec<usize>,
        /// The shape found, if there is such a tensor.
        found: Option<Vec<usize>>,
    },
    /// An input does not have the shape or range asked for.
    #[error("{what}: expected {expected}, found {found}")]
    Input {
        /// The argument.
        what: &'static str,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
}
