use std::path::PathBuf;

/// What can go wrong between a file and its numbers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read at all.
    #[error("cannot read image file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are no image this crate decodes.
    #[error("cannot decode {origin}: {reason}")]
    Decode {
        /// The file's path, or `image bytes`.
        origin: String,
        /// What the decoder said.
        reason: String,
    },
    /// An image, plane or mask whose data does not fit its size, or has no pixels.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// Which thing.
        what: &'static str,
        /// What it should have been.
        expected: String,
        /// What it was.
        found: String,
    },
    /// A preprocessing description that means nothing.
    #[error("preprocess field `{field}`: expected {expected}, found {found}")]
    Config {
        /// The field, dotted: `resize.filter`.
        field: &'static str,
        /// What it should have been.
        expected: String,
        /// What it was.
        found: String,
    },
}

impl Error {
    /// The same error, saying which file it came from where it did not know.
    pub(crate) fn at(self, path: &std::path::Path) -> Self {
        match self {
            Self::Decode { reason, .. } => Self::Decode { origin: path.display().to_string(), reason },
            other => other,
        }
    }
}
