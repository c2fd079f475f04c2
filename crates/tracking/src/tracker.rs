//! What a place that runs are tracked in has to do.

use std::path::PathBuf;

use crate::{Ending, Error, Line, Run, What};

/// A file that belongs to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its name in the run, with `/` between its parts.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
}

/// A run as far as it has come.
#[derive(Debug, Clone, Copy)]
pub struct RunView<'a> {
    /// What the run is known by, the same for its whole life and different from every other run's.
    pub key: &'a str,
    /// The key of the run that this one is part of.
    pub parent: Option<&'a str>,
    /// Runs of one experiment are shown together.
    pub experiment: &'a str,
    /// All lines of its log so far, the first of them [`What::Run`].
    pub lines: &'a [Line],
    /// Its files, once it has ended.
    pub artifacts: &'a [Artifact],
}

impl<'a> RunView<'a> {
    /// The run as its log names it last; `None` for a log that does not begin with one.
    pub fn run(&self) -> Option<&'a Run> {
        self.lines.iter().rev().find_map(|line| match &line.what {
            What::Run(run) => Some(run),
            _ => None,
        })
    }

    /// When it began, in milliseconds since 1970.
    pub fn start(&self) -> u64 {
        self.lines.first().map_or(0, |line| line.time)
    }

    /// How and when it ended; `None` while it goes on.
    pub fn ending(&self) -> Option<(Ending, u64)> {
        let last = self.lines.last()?;
        match last.what {
            What::End { status, .. } => Some((status, last.time)),
            _ => None,
        }
    }
}

/// A place that runs are tracked in: a view of their logs, which stay the truth.
///
/// [`Tracker::update`] brings one run up to date and may be called any number of times, by any number of processes one after the
/// other, also after one that was killed in the middle: nothing is there twice, and nothing is left out for good.
pub trait Tracker: Send {
    /// What it is and where, for messages.
    fn name(&self) -> String;

    /// Brings what is known about a run up to date. A parent comes before its children.
    ///
    /// # Errors
    /// What could not be written or reached. The run is not hurt by it, and the next call makes up for it.
    fn update(&mut self, run: &RunView<'_>) -> Result<(), Error>;
}
