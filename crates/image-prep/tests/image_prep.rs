//! The numeric cases of `tests/fixtures/datasets`, and what they say about the crate's own variants.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use conformance::{Case, run_dir};
use image_prep::{Filter, Rgb8, conformance_units, resize};

fn all_fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn fixtures() -> std::path::PathBuf {
    all_fixtures().join("datasets")
}

/// What the methods do with their images.
const METHODS: [(&str, &str); 3] = [
    ("advit-gmdn", "preprocess_rgb.safetensors"),
    ("generalad", "preprocess.safetensors"),
    ("vtadl-registers", "preprocess_a.safetensors"),
];

#[test]
fn every_case_is_met() {
    let mut failures = Vec::new();
    let units = conformance_units();
    let mut paths = vec![fixtures()];
    paths.extend(METHODS.map(|(method, file)| all_fixtures().join(method).join(file)));
    let summary = run_dir(&paths, &units, false, &mut |line| {
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

#[test]
fn unknown_configuration_of_methods_is_refused() {
    for (method, file) in METHODS {
        let unit = conformance_units().into_iter().find(|unit| unit.method == method).unwrap();
        let mut case = Case::load(all_fixtures().join(method).join(file)).unwrap();
        (unit.run)(&case).unwrap();
        case.config["antialias"] = false.into();
        assert!((unit.run)(&case).unwrap_err().to_string().contains("antialias"), "{method}");
    }
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
