//! The given cases of this crate.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use conformance::{Outcome, run_dir};

#[test]
fn the_given_cases_pass() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/metrics");
    let mut failed = Vec::new();
    let summary = run_dir(&[fixtures], &metrics::units::conformance_units(), false, &mut |line| {
        if matches!(line.outcome, Outcome::Failed(_)) {
            failed.push(line.to_string());
        }
    })
    .unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(summary.to_string(), "16 passed, 0 failed");
}
