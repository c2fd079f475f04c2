//! The project's own cases, without any unit.
#![allow(clippy::unwrap_used)]

use std::path::Path;

#[test]
fn a_deviation_would_be_seen_in_every_case() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let mut failed = Vec::new();
    let summary = conformance::self_test(&[&fixtures], &mut |line| {
        if matches!(line.outcome, conformance::Outcome::Failed(_)) {
            failed.push(line.to_string());
        }
    })
    .unwrap();
    assert!(failed.is_empty(), "{failed:#?}");
    // Only a case of refusals expects no number.
    assert!(summary.skipped * 20 < summary.passed, "{summary}");
}
