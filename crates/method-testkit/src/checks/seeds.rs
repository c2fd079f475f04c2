//! One seed, one detector.

use anomaly_core::KeepNothing;

use crate::failure::{Problem, problem};
use crate::fitting::{Plan, SEED, files};
use crate::{SeedUse, Suite};

pub(crate) fn check(suite: &Suite<'_>) -> Result<(), Problem> {
    let reference = suite.reference()?;
    let fitted = |seed| {
        let plan = Plan { seed, ..Plan::WHOLE };
        let outcome = suite.fit(&*reference.method, &reference.training, plan, KeepNothing)?;
        match outcome.detector {
            Some(detector) => files(&*reference.method, &reference.training, &*detector, seed),
            None => problem("a fit that nobody cancelled said that it was cancelled"),
        }
    };
    if let Some(what) = reference.files.difference(&fitted(SEED)?)? {
        return problem(format!("two fits with seed {SEED} gave detectors that differ in {what}"));
    }
    let other = SEED + 1;
    match (suite.seed_use, reference.files.tensor_difference(&fitted(other)?)?) {
        (SeedUse::Draws, None) => {
            problem(format!("the fit draws, but seeds {SEED} and {other} gave the same tensors"))
        }
        (SeedUse::NoDraws, Some(what)) => problem(format!(
            "the fit does not draw, but seeds {SEED} and {other} gave detectors that differ in {what}"
        )),
        _ => Ok(()),
    }
}
