//! The numeric cases of `tests/fixtures/datasets`, and what they say about the crate's own variants.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use conformance::{Case, run_dir};
use image_prep::{Filter, Rgb8, conformance_units, resize};

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/datasets")
}

#[test]
fn every_case_is_met() {
    let mut failures = Vec::new();
    let units = conformance_units();
    let summary = run_dir(&[fixtures()], &units, false, &mut |line| {
        if !matches!(line.outcome, conformance::Outcome::Passed) {
            failures.push(line.to_string());
        }
    })
    .unwrap();
    assert_eq!(failures, Vec::<String>::new());
    assert_eq!((summary.passed, summary.failed, summary.skipped), (units.len(), 0, 0));
}

#[test]
fn unknown_configuration_is_refused() {
    let unit = conformance_units().into_iter().find(|unit| unit.unit == "pil_bilinear").unwrap();
    let mut case = Case::load(fixtures().join("pil_bilinear.safetensors")).unwrap();
    (unit.run)(&case).unwrap();
    case.config["antialias"] = false.into();
    assert!((unit.run)(&case).unwrap_err().to_string().contains("antialias"));
}

/// The cases allow one level for uint8 tensors; torch's 16-bit weights are reproduced to the level.
#[test]
fn uint8_tensors_are_met_without_the_allowed_level() {
    let case = Case::load(fixtures().join("tensor_uint8.safetensors")).unwrap();
    let input = case.input("in.image").unwrap();
    let image = Rgb8::new(input.shape[0], input.shape[1], input.as_u8().unwrap().to_vec()).unwrap();
    for (name, filter) in
        [("out.resized_bilinear", Filter::Bilinear), ("out.resized_bicubic", Filter::Bicubic)]
    {
        let wanted = case.input(name).unwrap();
        let resized = resize::tensor_u8(&image, wanted.shape[0], wanted.shape[1], filter).unwrap();
        let apart = resized.data.iter().zip(wanted.as_u8().unwrap()).filter(|(a, b)| a != b).count();
        assert_eq!(apart, 0, "{name}");
    }
}
