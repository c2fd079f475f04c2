//! `cargo xtask bench` as a program, at its smallest sizes and without Python.

use end_to_end::xtask;
use serde_json::Value;

/// What a benchmark prints as JSON, with a Python that is not there.
fn measured(arguments: &[&str]) -> Value {
    let output = xtask()
        .arg("bench")
        .args(arguments)
        .args(["--smoke", "--rounds", "2", "--seconds", "0.001", "--threads", "1", "--json"])
        .args(["--python", "no-such-python"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The only contender of ours has figures, and each peer says why it has none.
fn ours_alone(measured: &Value) {
    assert_eq!(measured["conditions"]["threads"], 1);
    let comparisons = measured["comparisons"].as_array().unwrap();
    assert_eq!(comparisons.len(), 1, "{measured:#}");
    assert_eq!(comparisons[0]["baseline"], Value::Null);
    for standing in comparisons[0]["standings"].as_array().unwrap() {
        if standing["contender"].as_str().unwrap().starts_with("PyTorch") {
            assert!(standing["left_out"].as_str().unwrap().contains("no-such-python"), "{standing}");
            assert_eq!(standing["seconds"], Value::Null);
        } else {
            assert!(standing["seconds"]["iterations"].as_u64().unwrap() >= 2, "{standing}");
            let (best, median) = (&standing["seconds"]["best"], &standing["seconds"]["median"]);
            assert!(best.as_f64().unwrap() > 0.0 && best.as_f64() <= median.as_f64(), "{standing}");
            assert!(standing["versions"]["allocator"].is_string(), "{standing}");
            if cfg!(target_os = "linux") {
                let [base, peak] = ["base_bytes", "peak_bytes"].map(|name| standing[name].as_u64().unwrap());
                assert!(0 < base && base < peak, "{standing}");
            }
        }
    }
}

#[test]
fn a_backbone_is_measured() {
    let measured = measured(&["backbone", "--precision", "auto"]);
    ours_alone(&measured);
    // What it came to.
    let precision = &measured["comparisons"][0]["standings"][0]["versions"]["precision"];
    assert!(precision == "f32" || precision == "bf16x3", "{precision}");
}

#[test]
fn a_training_step_is_measured() {
    ours_alone(&measured(&["train-step"]));
}

#[test]
fn operations_are_measured_and_chosen_by_name() {
    ours_alone(&measured(&["ops", "--filter", "SSIM (1, 3, 40, 40), backward"]));
    let output = xtask().args(["bench", "ops", "--filter", "no such operation"]).output().unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("no such operation") && told.contains("layer norm"), "{told}");
}

#[test]
fn optimisers_are_measured_beside_candle_s() {
    let measured = measured(&["optimizers", "--filter", "AdamW"]);
    ours_alone(&measured);
    let standings = measured["comparisons"][0]["standings"].as_array().unwrap();
    let named: Vec<_> = standings.iter().map(|standing| standing["contender"].as_str().unwrap()).collect();
    assert_eq!(named, ["ours f32", "candle f32", "PyTorch f32", "PyTorch f32, fused"]);
}

#[test]
fn another_build_is_compared_with() {
    let itself = xtask().get_program().to_str().unwrap().to_owned();
    let measured = measured(&["train-step", "--against", &itself]);
    let comparison = &measured["comparisons"][0];
    assert_eq!(comparison["baseline"], "ours f32, other build");
    let ours = &comparison["standings"][0];
    assert!(ours["ratio"]["best"].as_f64().unwrap() > 0.0, "{ours}");
    // The same program computes the same losses.
    assert_eq!(ours["difference"], 0.0);
}

#[test]
fn a_build_that_is_not_there_fails_the_run_and_leaves_the_figures() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("figures.json");
    let mut bench = xtask();
    bench.args(["bench", "train-step", "--smoke", "--rounds", "1", "--seconds", "0.001", "--threads", "1"]);
    bench.args(["--python", "no-such-python", "--against", "no-such-build", "--json-file"]).arg(&file);
    let output = bench.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains("no-such-build"), "{told}");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("base MiB") && table.contains("comparisons: 1; left out: PyTorch f32"), "{table}");
    let written: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let standings = written["comparisons"][0]["standings"].as_array().unwrap();
    assert!(standings[0]["seconds"]["best"].as_f64().unwrap() > 0.0, "{written:#}");
    assert!(standings[2]["left_out"].as_str().unwrap().contains("no-such-build"), "{written:#}");
    assert_eq!(written["failures"].as_array().unwrap().len(), 1, "{written:#}");
}
