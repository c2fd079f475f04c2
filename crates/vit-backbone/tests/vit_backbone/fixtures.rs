//! The numbers of the public reference implementations.

use conformance::{Case, compare, run_dir};
use vit_backbone::conformance_units;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/vit-backbone");

#[test]
fn every_reference_case_passes() {
    let mut lines = Vec::new();
    let summary =
        run_dir(&[CASES], &conformance_units(), false, &mut |line| lines.push(line.to_string())).unwrap();
    assert!(summary.failed == 0 && summary.passed >= 18, "{}", lines.join("\n"));
}

/// A parser that shrugs at an unknown key or value would compare something else than the case means.
#[test]
fn configurations_are_read_strictly() {
    let unit = conformance_units().into_iter().find(|unit| unit.unit == "forward").unwrap();
    let case = Case::load(format!("{CASES}/timm_vit_cls.safetensors")).unwrap();
    assert!(compare(&case, &(unit.run)(&case).unwrap()).passed());
    for (key, value) in [
        ("surprise", serde_json::json!(1)),
        ("act", serde_json::json!("gelu_tanh")),
        ("pool", serde_json::json!("max")),
        ("depth", serde_json::json!("three")),
        ("patch_bias", serde_json::json!(true)),
        ("weight_names", serde_json::json!("hf_hub")),
        ("scalar", serde_json::json!("norm_dot_cotangent")),
        ("num_heads", serde_json::json!(5)),
        ("trained_image_size", serde_json::json!([40, 32])),
    ] {
        let mut changed = case.clone();
        changed.config[key] = value;
        assert!((unit.run)(&changed).is_err(), "{key} went through");
    }
}
