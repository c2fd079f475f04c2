//! What can be wrong with a case, before anything is compared.

use std::path::PathBuf;

/// Why a case could not be read or asked for something it does not hold.
///
/// A computed tensor that misses its tolerance is no error: it is a [`crate::Comparison`] that did not pass.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory could not be read.
    #[error("{}: cannot be read", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no safetensors file, or one this crate does not read.
    #[error("{}: not a readable safetensors file: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A key of the file's metadata is missing or malformed.
    #[error("{}: metadata key `{key}`: {reason}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The metadata key.
        key: &'static str,
        /// What was expected and what was found.
        reason: String,
    },
    /// A rule of `compare` is not one of those that exist.
    #[error("{}: rule {index} of `compare`: {reason}", path.display())]
    Rule {
        /// The file.
        path: PathBuf,
        /// Position of the rule in the list, from 0.
        index: usize,
        /// What was expected and what was found.
        reason: String,
    },
    /// The configuration does not fit what the unit reads.
    #[error("{}: case `{case}`: config field `{field}`: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The case's name.
        case: String,
        /// The path of the offending field inside the configuration.
        field: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// A tensor that the unit reads is not in the file.
    #[error("{}: no tensor `{name}`", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's full name.
        name: String,
    },
    /// A tensor holds another element type than the one asked for.
    #[error("expected elements of type {expected}, found {found}")]
    Type {
        /// What was asked for.
        expected: &'static str,
        /// What the tensor holds.
        found: &'static str,
    },
    /// A value does not fit the type asked for.
    #[error("element {index} is {value}, which does not fit into {expected}")]
    Range {
        /// Position in row-major order.
        index: usize,
        /// The value.
        value: String,
        /// The type asked for.
        expected: &'static str,
    },
    /// There is no case below a path.
    #[error("{}: no *.safetensors file there", path.display())]
    NoCase {
        /// The file or directory that was searched.
        path: PathBuf,
    },
}
