//! NaN and infinity are refused.

use anomaly_core::{KeepNothing, TrainingData};

use crate::Suite;
use crate::failure::{Problem, problem};
use crate::fitting::Plan;

pub(crate) fn check(suite: &Suite<'_>) -> Result<(), Problem> {
    let reference = suite.reference()?;
    for (value, index) in [(f32::NAN, 0), (f32::INFINITY, reference.training.len().saturating_sub(1))] {
        let spoiled = reference.training.clone().spoiled(index, value);
        let said = suite.attempt(&*reference.method, &spoiled, Plan::WHOLE, KeepNothing).map(|_| ());
        refused(said.err(), "fit", value, &format!("image-{index}"))?;
    }
    let few: Vec<usize> = (0..4).collect();
    for (value, index) in [(f32::NAN, 1), (f32::INFINITY, 3), (f32::NEG_INFINITY, 0)] {
        let images = reference.tests.clone().spoiled(index, value).get(&few)?;
        let said = reference.detector.score(&images).map(|_| ());
        refused(said.err(), "score", value, &format!("image-{index}"))?;
    }
    Ok(())
}

fn refused(
    said: Option<anomaly_core::MethodError>,
    place: &str,
    value: f32,
    id: &str,
) -> Result<(), Problem> {
    match said.map(|e| e.to_string()) {
        Some(message) if message.contains(id) => Ok(()),
        Some(message) => {
            problem(format!("`{place}` must name `{id}`, which holds {value}; found: {message}"))
        }
        None => problem(format!("`{place}` took `{id}`, which holds {value}")),
    }
}
