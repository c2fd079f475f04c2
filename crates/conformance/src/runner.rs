//! Running all cases below some directories.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::{Case, Error, Outputs, compare};

/// Why a unit gave no outputs. Any error type boxes into it with `?`.
pub type UnitError = Box<dyn std::error::Error + Send + Sync>;

/// The code for the cases of one `method` and `unit`.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    /// The crate under test, as in the file.
    pub method: &'static str,
    /// What is built, as in the file.
    pub unit: &'static str,
    /// Reads the case's inputs and configuration and computes its outputs.
    pub run: fn(&Case) -> Result<Outputs, UnitError>,
}

/// What became of one file; [`fmt::Display`] gives the line to show.
#[derive(Clone, Debug)]
pub struct CaseLine {
    /// The file.
    pub path: PathBuf,
    /// `method` of the file, empty if it could not be read.
    pub method: String,
    /// `unit` of the file, empty if it could not be read.
    pub unit: String,
    /// Passed, failed or skipped.
    pub outcome: Outcome,
    /// The largest share of a tolerance that was used, where a comparison took place.
    pub worst_share: Option<f64>,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every expected tensor met its rule.
    Passed,
    /// For these reasons it did not pass.
    Failed(Vec<String>),
    /// It was not run, for this reason.
    Skipped(String),
}

impl fmt::Display for CaseLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        let word = match self.outcome {
            Outcome::Passed => "passed ",
            Outcome::Failed(_) => "FAILED ",
            Outcome::Skipped(_) => "skipped",
        };
        write!(f, "{word} {} ({} {})", self.path.display(), self.method, self.unit)?;
        if let Some(share) = self.worst_share {
            write!(f, ", worst share of tolerance {share:.3}")?;
        }
        match &self.outcome {
            Outcome::Passed => {}
            Outcome::Skipped(reason) => write!(f, ": {reason}")?,
            Outcome::Failed(reasons) => {
                write!(f, ": {}", reasons[..reasons.len().min(SHOWN)].join("; "))?;
                if reasons.len() > SHOWN {
                    write!(f, "; and {} more", reasons.len() - SHOWN)?;
                }
            }
        }
        Ok(())
    }
}

/// How many cases passed, failed and were skipped; [`fmt::Display`] gives `N passed, M failed`, with `, K skipped`
/// where some were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Cases that met their rules.
    pub passed: usize,
    /// Cases that did not, or could not be run.
    pub failed: usize,
    /// Cases that were not run.
    pub skipped: usize,
}

impl Summary {
    pub(crate) fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Skipped(_) => self.skipped += 1,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// The files of all cases below `paths`, sorted by path, each once: a directory is searched with everything below it
/// for `*.safetensors`, a file is taken as it is.
///
/// # Errors
/// [`Error::Io`] if a path cannot be read, [`Error::NoCase`] if there is no case below one.
pub fn case_files(paths: &[impl AsRef<Path>]) -> Result<Vec<PathBuf>, Error> {
    let mut files = BTreeSet::new();
    for path in paths {
        let before = files.len();
        let path = path.as_ref();
        collect(path, true, &mut files)?;
        if files.len() == before && !files.iter().any(|file| file.starts_with(path)) {
            return Err(Error::NoCase { path: path.to_owned() });
        }
    }
    Ok(files.into_iter().collect())
}

fn collect(path: &Path, named: bool, files: &mut BTreeSet<PathBuf>) -> Result<(), Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(io)?.is_dir() {
        for entry in std::fs::read_dir(path).map_err(io)? {
            collect(&entry.map_err(io)?.path(), false, files)?;
        }
    } else if named || path.extension().is_some_and(|extension| extension == "safetensors") {
        files.insert(path.to_owned());
    }
    Ok(())
}

/// The `(method, unit)` pairs below `paths` that no entry of `units` is for, sorted.
///
/// # Errors
/// As [`case_files`] and [`Case::load`].
pub fn missing_units(
    paths: &[impl AsRef<Path>],
    units: &[Unit],
) -> Result<BTreeSet<(String, String)>, Error> {
    let mut missing = BTreeSet::new();
    for path in case_files(paths)? {
        let case = Case::load(&path)?;
        if find(&case, units).is_none() {
            missing.insert((case.method, case.unit));
        }
    }
    Ok(missing)
}

fn find<'a>(case: &Case, units: &'a [Unit]) -> Option<&'a Unit> {
    units.iter().find(|unit| unit.method == case.method && unit.unit == case.unit)
}

/// Runs every case below `paths` (directories or single files, see [`case_files`]) with the one of `units` that its
/// `method` and `unit` name, and calls `out` with each as it is done, in the order of the paths.
///
/// A case fails if its file cannot be read, if its unit returns an error or panics, if no unit is for it (it is
/// skipped instead with `allow_missing`), or if an expected tensor misses its rule.
///
/// # Errors
/// As [`case_files`]; what is wrong with a single case is in its line.
pub fn run_dir(
    paths: &[impl AsRef<Path>],
    units: &[Unit],
    allow_missing: bool,
    out: &mut dyn FnMut(&CaseLine),
) -> Result<Summary, Error> {
    each_case(paths, out, |case| match find(case, units) {
        Some(unit) => run_case(case, unit),
        None => {
            let reason = format!("no unit for method `{}`, unit `{}`", case.method, case.unit);
            let outcome =
                if allow_missing { Outcome::Skipped(reason) } else { Outcome::Failed(vec![reason]) };
            (outcome, None)
        }
    })
}

/// Calls `judge` with every case below `paths` and `out` with its line, and counts.
pub(crate) fn each_case(
    paths: &[impl AsRef<Path>],
    out: &mut dyn FnMut(&CaseLine),
    mut judge: impl FnMut(&Case) -> (Outcome, Option<f64>),
) -> Result<Summary, Error> {
    let mut summary = Summary::default();
    for path in case_files(paths)? {
        let line = match Case::load(&path) {
            Err(error) => CaseLine {
                path,
                method: String::new(),
                unit: String::new(),
                outcome: Outcome::Failed(vec![error.to_string()]),
                worst_share: None,
            },
            Ok(case) => {
                let (outcome, worst_share) = judge(&case);
                CaseLine { path, method: case.method, unit: case.unit, outcome, worst_share }
            }
        };
        summary.count(&line.outcome);
        out(&line);
    }
    Ok(summary)
}

fn run_case(case: &Case, unit: &Unit) -> (Outcome, Option<f64>) {
    match catch_unwind(AssertUnwindSafe(|| (unit.run)(case))) {
        Err(panic) => {
            let said = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("without a message");
            (Outcome::Failed(vec![format!("the unit panicked: {said}")]), None)
        }
        Ok(Err(error)) => (Outcome::Failed(vec![with_causes(error.as_ref())]), None),
        Ok(Ok(outputs)) => {
            let comparison = compare(case, &outputs);
            let failures: Vec<String> = comparison.failures().collect();
            let outcome = if failures.is_empty() { Outcome::Passed } else { Outcome::Failed(failures) };
            (outcome, Some(comparison.worst_share()))
        }
    }
}

/// An error's message followed by those of its causes.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Transparent errors repeat their cause.
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}
