//! All given numeric cases, those of crates that do not exist yet among them.

use std::collections::BTreeSet;

use end_to_end::root;

/// `method unit` a line: cases that are there before the code is. It may only shrink.
const MISSING: &str = include_str!("../../fixtures/missing-units.txt");

fn units() -> Vec<conformance::Unit> {
    [
        advit_gmdn::conformance_units(),
        anogan_trans::conformance_units(),
        datasets::conformance_units(),
        generalad::conformance_units(),
        image_prep::conformance_units(),
        kdad::conformance_units(),
        metrics::units::conformance_units(),
        simplenet::conformance_units(),
        transformaly::conformance_units(),
        vit_backbone::conformance_units(),
        vtadl_registers::conformance_units(),
    ]
    .concat()
}

#[test]
fn the_missing_units_are_exactly_those_listed() {
    let listed: BTreeSet<(String, String)> = MISSING
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap_or_else(|| panic!("expected `method unit`, found `{line}`")))
        .map(|(method, unit)| (method.to_owned(), unit.to_owned()))
        .collect();
    let missing = conformance::missing_units(&[root().join("tests/fixtures")], &units()).unwrap();
    let gone: Vec<_> = listed.difference(&missing).collect();
    assert!(gone.is_empty(), "these units exist now, take them off the list: {gone:?}");
    let new: Vec<_> = missing.difference(&listed).collect();
    assert!(new.is_empty(), "no unit is for these cases any more: {new:?}");
}

#[test]
fn every_case_of_a_unit_that_exists_passes() {
    let mut failed = Vec::new();
    let summary = conformance::run_dir(&[root().join("tests/fixtures")], &units(), true, &mut |line| {
        if matches!(line.outcome, conformance::Outcome::Failed(_)) {
            failed.push(line.to_string());
        }
    })
    .unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(summary.passed >= 50, "{summary}");
}

#[test]
fn every_case_sees_values_that_are_off() {
    let mut failed = Vec::new();
    conformance::self_test(&[root().join("tests/fixtures")], &mut |line| {
        if matches!(line.outcome, conformance::Outcome::Failed(_)) {
            failed.push(line.to_string());
        }
    })
    .unwrap();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
