//! What can go wrong, in one type.

/// Why a backbone could not be named, read, built or run.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A ViT operation failed.
    #[error(transparent)]
    Operation(#[from] vit_ops::Error),
    /// Weights could not be found or read.
    #[error(transparent)]
    Pretrained(#[from] pretrained::Error),
    /// The name is no catalogue entry, hub id or directory.
    #[error(
        "no backbone is called {name:?}: it is no catalogue name, no hub id (org/name) and no existing directory or file; \
         nearest catalogue names: {}", nearest.join(", ")
    )]
    UnknownName {
        /// The name asked for.
        name: String,
        /// Catalogue names that look most like it.
        nearest: Vec<String>,
    },
    /// A checkpoint, architecture or setting this crate does not implement.
    #[error("{what} is not supported: {reason}")]
    Unsupported {
        /// The checkpoint, architecture or setting.
        what: String,
        /// Why not, and what to do instead.
        reason: String,
    },
    /// A field of a configuration has a value that cannot be used.
    #[error("{field}: expected {expected}, found {found}")]
    Config {
        /// The field, with the file or structure it stands in.
        field: String,
        /// What was expected there.
        expected: String,
        /// What was found there.
        found: String,
    },
    /// The checkpoint has no tensor of that name.
    #[error("tensor {tensor} is missing from {checkpoint}; expected {expected}")]
    MissingTensor {
        /// The name in the checkpoint.
        tensor: String,
        /// Where it was looked for.
        checkpoint: String,
        /// The shape it should have, or why it is needed.
        expected: String,
    },
    /// The checkpoint has a tensor in a block in use that the configuration has no place for.
    #[error("tensor {tensor} of {checkpoint} has no place in this configuration: {reason}")]
    UnexpectedTensor {
        /// The name in the checkpoint.
        tensor: String,
        /// Where it was found.
        checkpoint: String,
        /// What the configuration says.
        reason: String,
    },
    /// A tensor's shape disagrees with the configuration.
    #[error("tensor {tensor} of {checkpoint}: expected shape {expected}, found {found:?}")]
    Shape {
        /// The name in the checkpoint.
        tensor: String,
        /// Where it was found.
        checkpoint: String,
        /// The shape the configuration asks for.
        expected: String,
        /// The shape found.
        found: Vec<usize>,
    },
    /// No naming scheme fits the tensors of a checkpoint.
    #[error("{checkpoint}: the tensor names follow none of the known schemes (seen: {})", seen.join(", "))]
    UnknownNames {
        /// The checkpoint.
        checkpoint: String,
        /// A few of its names.
        seen: Vec<String>,
    },
    /// An input tensor does not have the shape or type asked for.
    #[error("{what}: expected {expected}, found {found}")]
    Input {
        /// The argument.
        what: &'static str,
        /// What was expected.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A block was asked for that the network does not have.
    #[error("block {index} was asked for; the blocks in use are 0 to {}", depth.saturating_sub(1))]
    NoSuchBlock {
        /// The block asked for, counted from 0.
        index: usize,
        /// How many blocks there are.
        depth: usize,
    },
    /// The position table must not be resampled, and the image has another grid than the table.
    #[error(
        "the position table belongs to a grid of {}x{} patches and resampling is off; the image gives {}x{}",
        trained.0, trained.1, found.0, found.1
    )]
    FixedGrid {
        /// Grid of the table, rows by columns.
        trained: (usize, usize),
        /// Grid of the image, rows by columns.
        found: (usize, usize),
    },
    /// An output was asked for that this network does not have.
    #[error("output {output} was asked for: {reason}")]
    NoSuchOutput {
        /// The output.
        output: &'static str,
        /// Why there is none.
        reason: &'static str,
    },
}
