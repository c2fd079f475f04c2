//! What a reader finds below a root: items, their files, and everything that is wrong with them.

use std::path::Path;

use crate::Error;
use crate::dataset::{Class, Item};
use crate::file_set::Files;
use crate::problem::{Problem, ProblemKind};

/// Items with their files, and what is wrong. A reader goes on after a fault, so that all are told at once.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) classes: Vec<Class>,
    pub(crate) entries: Vec<(Item, Files)>,
    pub(crate) problems: Vec<Problem>,
    /// Whether every anomalous item is meant to have a mask.
    pub(crate) has_masks: bool,
}

impl Listing {
    /// A listing of these classes, without masks.
    pub(crate) fn of(classes: Vec<Class>) -> Self {
        Self { classes, ..Self::default() }
    }

    pub(crate) fn add(&mut self, item: Item, files: Files) {
        self.entries.push((item, files));
    }

    pub(crate) fn problem(&mut self, kind: ProblemKind, path: &Path, message: impl Into<String>) {
        self.problems.push(Problem::new(kind, path, message));
    }

    /// An empty class, or one that a part lacks.
    pub(crate) fn empty(&mut self, path: &Path, class: &str) {
        self.problem(ProblemKind::EmptyClass, path, format!("class `{class}` has no images"));
    }

    /// What `found` holds, or nothing and a problem if it can't be read.
    pub(crate) fn take<T: Default>(&mut self, path: &Path, found: Result<T, Error>) -> T {
        found.unwrap_or_else(|error| {
            self.problem(ProblemKind::Layout, path, error.to_string());
            T::default()
        })
    }
}
