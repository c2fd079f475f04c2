//! What a check says when it is not content.

use std::fmt;

use crate::Check;

/// Errors of the testkit's own tools: images that can't be prepared, a tiny network that can't be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An image could not be preprocessed.
    #[error("synthetic image {index}: {source}")]
    Image {
        /// Which one.
        index: usize,
        /// Why not.
        source: image_prep::Error,
    },
    /// The tiny network could not be made.
    #[error("tiny network: {0}")]
    Network(#[from] vit_backbone::Error),
}

/// A check that a method did not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{method}: {check}: {problem}")]
pub struct Failure {
    /// The check.
    pub check: Check,
    /// The method's name.
    pub method: String,
    /// What was expected and what was found.
    pub problem: String,
}

/// All checks that a method did not pass; at least one.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub struct Failures(pub Vec<Failure>);

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} checks failed", self.0.len(), Check::ALL.len())?;
        self.0.iter().try_for_each(|failure| write!(f, "\n  {failure}"))
    }
}

/// The same words as `Display`: a test that returns `Result<(), Failures>` prints them.
impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A [`Failure`] in the making: the words alone.
#[derive(Debug)]
pub(crate) struct Problem(pub(crate) String);

impl<E: std::error::Error> From<E> for Problem {
    fn from(error: E) -> Self {
        Self(format!("failed where it must not: {error}"))
    }
}

/// A problem in these words.
pub(crate) fn problem<T>(words: impl Into<String>) -> Result<T, Problem> {
    Err(Problem(words.into()))
}
