//! What can go wrong.

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No method has this name.
    #[error("no method is called `{name}`{}; the methods are {known}", nearest.as_ref().map(|n| format!(", did you mean `{n}`?")).unwrap_or_default())]
    UnknownMethod {
        /// The name that was given.
        name: String,
        /// The nearest name that exists, if one is near.
        nearest: Option<String>,
        /// All names.
        known: String,
    },
}
