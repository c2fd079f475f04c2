//! The units of the numeric cases for method `metrics`, and those of other methods that are metrics and nothing else.

mod config;
mod fixed;
mod image;
mod methods;
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
        Unit { method: "generalad", unit: "metrics", run: methods::run_generalad },
        Unit { method: "simplenet", unit: "metrics", run: methods::run_generalad },
        Unit { method: "advit-gmdn", unit: "metrics", run: methods::run_advit },
        Unit { method: "vtadl-registers", unit: "metrics", run: methods::run_vtadl },
        Unit { method: "anogan-trans", unit: "metric", run: methods::run_anotrans },
    ]
}
