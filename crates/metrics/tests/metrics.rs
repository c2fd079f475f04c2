//! The given cases of this crate, and those of the methods that are metrics and nothing else.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use conformance::{Outcome, run_dir};

/// Runs the cases of some folders, those without a unit here if `allow_missing`; how many passed.
fn passed(folders: &[&str], allow_missing: bool) -> usize {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let folders: Vec<PathBuf> = folders.iter().map(|folder| fixtures.join(folder)).collect();
    let mut failed = Vec::new();
    let units = metrics::units::conformance_units();
    let summary = run_dir(&folders, &units, allow_missing, &mut |line| {
        if matches!(line.outcome, Outcome::Failed(_)) {
            failed.push(line.to_string());
        }
    })
    .unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
    summary.passed
}

#[test]
fn the_given_cases_pass() {
    assert_eq!(passed(&["metrics"], false), 16);
}

#[test]
fn the_metrics_of_the_methods_pass() {
    let folders = ["generalad", "advit-gmdn", "vtadl-registers", "anogan-trans"];
    assert_eq!(passed(&folders, true), 6);
}

/// Whoever depends on this crate alone gets no machine-learning framework with it.
#[test]
fn the_library_needs_two_crates() {
    let manifest = include_str!("../Cargo.toml");
    let (_, rest) = manifest.split_once("[dependencies]\n").unwrap();
    let (section, _) = rest.split_once("\n\n").unwrap();
    let needed: Vec<&str> = section.lines().filter(|line| !line.contains("optional = true")).collect();
    assert_eq!(needed, ["rayon.workspace = true", "thiserror.workspace = true"]);
}
