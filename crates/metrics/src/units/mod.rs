//! The units of the numeric cases for method `metrics`.

mod config;
mod fixed;
mod image;
mod pimo;
mod pixel;
mod set;
mod spro;

use conformance::Unit;

/// One unit per kind of case.
pub fn conformance_units() -> Vec<Unit> {
    vec![
        Unit { method: "metrics", unit: "image", run: image::run },
        Unit { method: "metrics", unit: "pixel", run: pixel::run },
        Unit { method: "metrics", unit: "spro", run: spro::run },
        Unit { method: "metrics", unit: "aupimo", run: pimo::run_areas },
        Unit { method: "metrics", unit: "aupimo_refusals", run: pimo::run_areas },
        Unit { method: "metrics", unit: "pimo_curve", run: pimo::run_curve },
        Unit { method: "metrics", unit: "threshold_and_normalise", run: fixed::run_normalise },
        Unit { method: "metrics", unit: "fixed_threshold", run: fixed::run_threshold },
    ]
}
