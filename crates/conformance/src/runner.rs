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
    each_case(paths, out, |case| {
        if let Some(unit) = find(case, units) {
            return run_case(case, unit);
        }
        let reason = format!("no unit for method `{}`, unit `{}`", case.method, case.unit);
        (if allow_missing { Outcome::Skipped(reason) } else { Outcome::Failed(vec![reason]) }, None)
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
                outcome: Outcome::Failed(vec![with_causes(&error)]),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::HostTensor;
    use safetensors::tensor::{Dtype, TensorView, serialize};
    use std::collections::HashMap;

    /// A case whose `in.x` is 1 and whose `out.y` is to be 2.
    fn write(path: &Path, unit: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let rules = r#"[{"tensors": ["*"], "atol": 0.5}]"#;
        let metadata: HashMap<String, String> = [
            ("method", "m"),
            ("unit", unit),
            ("case", "c"),
            ("kind", "forward"),
            ("config", "{}"),
            ("compare", rules),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
        let (one, two) = (1.0_f32.to_le_bytes(), 2.0_f32.to_le_bytes());
        let view = |bytes| TensorView::new(Dtype::F32, vec![1], bytes).unwrap();
        let file = serialize([("in.x", view(&one[..])), ("out.y", view(&two[..]))], Some(metadata)).unwrap();
        std::fs::write(path, file).unwrap();
    }

    fn scaled(case: &Case, factor: f32) -> Result<Outputs, UnitError> {
        let x = case.input("in.x")?.to_f32_vec()?;
        let y = x.iter().map(|x| factor * x).collect();
        Ok(Outputs::from([("out.y".to_owned(), HostTensor::f32([1], y))]))
    }

    fn refuse(case: &Case) -> Result<Outputs, UnitError> {
        let z = case.input("in.z")?;
        Ok(Outputs::from([("out.y".to_owned(), z.clone())]))
    }

    const UNITS: [Unit; 4] = [
        Unit { method: "m", unit: "right", run: |case| scaled(case, 1.75) },
        Unit { method: "m", unit: "wrong", run: |case| scaled(case, 3.0) },
        Unit { method: "m", unit: "refuses", run: refuse },
        Unit { method: "m", unit: "panics", run: |case| panic!("no {} here", case.unit) },
    ];

    fn run(path: &Path, allow_missing: bool) -> (Vec<CaseLine>, Summary) {
        let mut lines = Vec::new();
        let summary = run_dir(&[path], &UNITS, allow_missing, &mut |line| lines.push(line.clone())).unwrap();
        (lines, summary)
    }

    #[test]
    fn cases_run_in_order_and_failures_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(&root.join("b/deep/right.safetensors"), "right");
        write(&root.join("a/wrong.safetensors"), "wrong");
        write(&root.join("c/panics.safetensors"), "panics");
        write(&root.join("c/refuses.safetensors"), "refuses");
        write(&root.join("d/unknown.safetensors"), "unknown");
        std::fs::write(root.join("d/broken.safetensors"), b"no tensors").unwrap();
        std::fs::write(root.join("d/README.md"), b"prose").unwrap();
        let (lines, summary) = run(root, false);
        assert_eq!(summary, Summary { passed: 1, failed: 5, skipped: 0 });
        assert_eq!(summary.to_string(), "1 passed, 5 failed");
        let shown: Vec<String> = lines.iter().map(ToString::to_string).collect();
        for (line, says) in shown.iter().zip([
            "a/wrong.safetensors (m wrong), worst share of tolerance 2.000: out.y: 1 of 1 elements are off",
            "b/deep/right.safetensors (m right), worst share of tolerance 0.500",
            "the unit panicked: no panics here",
            "refuses.safetensors: no tensor `in.z`",
            "broken.safetensors: not a readable safetensors file",
            "no unit for method `m`, unit `unknown`",
        ]) {
            assert!(line.contains(says), "{line}");
        }
        let (_, summary) = run(&root.join("b/deep/right.safetensors"), false);
        assert_eq!(summary.to_string(), "1 passed, 0 failed");
        let (lines, summary) = run(&root.join("d/unknown.safetensors"), true);
        assert_eq!(summary.to_string(), "0 passed, 0 failed, 1 skipped");
        assert!(matches!(lines[0].outcome, Outcome::Skipped(_)));
    }

    #[test]
    fn what_is_missing_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("1.safetensors"), "unknown");
        write(&dir.path().join("2.safetensors"), "unknown");
        write(&dir.path().join("3.safetensors"), "right");
        let missing = missing_units(&[dir.path()], &UNITS).unwrap();
        assert_eq!(missing.into_iter().collect::<Vec<_>>(), [("m".to_owned(), "unknown".to_owned())]);
    }

    #[test]
    fn a_place_without_cases_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(case_files(&[dir.path()]), Err(Error::NoCase { .. })));
        assert!(matches!(case_files(&[dir.path().join("nowhere")]), Err(Error::Io { .. })));
        write(&dir.path().join("1.safetensors"), "right");
        assert_eq!(case_files(&[dir.path(), dir.path()]).unwrap().len(), 1);
    }
}
