//! Units `pimo_curve`, `aupimo` and `aupimo_refusals`.

use conformance::{Case, HostTensor, Outputs, UnitError};

use super::config::Config;
use super::set::{Set, count, maps, masks, one, scored_maps, sets};
use crate::{Error, Pimo};

/// Stands for a normal image, which has no value.
const NORMAL: f64 = -1.0;

fn pimo(set: &Set<'_>) -> Result<Result<Pimo, Error>, UnitError> {
    let (maps, masks) = (maps(set.input("maps")?)?, masks(set.input("masks")?)?);
    let thresholds = set.num_thresholds()?;
    Ok(scored_maps(&maps, &masks).and_then(|images| Pimo::new(&images, thresholds)))
}

fn image_class(pimo: &Pimo) -> HostTensor {
    let classes: Vec<i64> = pimo.is_anomalous().map(i64::from).collect();
    HostTensor::i64([classes.len()], classes)
}

pub(super) fn run_curve(case: &Case) -> Result<Outputs, UnitError> {
    let config: Config = case.config()?;
    let mut outputs = Outputs::new();
    for set in sets(case, &config) {
        let pimo = pimo(&set)?;
        let pimo = || pimo.as_ref().map_err(Error::clone);
        let mut record = |metric, figure| set.record(&mut outputs, metric, figure);
        let thresholds = |pimo: &Pimo| HostTensor::f32([pimo.thresholds().len()], pimo.thresholds().to_vec());
        record("thresholds", pimo().map(thresholds))?;
        let shared = |pimo: &Pimo| HostTensor::f64([pimo.shared_fpr().len()], pimo.shared_fpr().to_vec());
        record("shared_fpr", pimo().map(shared))?;
        record("image_class", pimo().map(image_class))?;
        let per_image = |pimo: &Pimo| {
            let (images, points) = (pimo.is_anomalous().count(), pimo.thresholds().len());
            let rates = (0..images).flat_map(|image| pimo.tpr(image).unwrap_or_else(|| vec![NORMAL; points]));
            HostTensor::f64([images, points], rates.collect())
        };
        record("per_image_tpr", pimo().map(per_image))?;
    }
    Ok(outputs)
}

pub(super) fn run_areas(case: &Case) -> Result<Outputs, UnitError> {
    let config: Config = case.config()?;
    let Some([lower, upper]) = config.fpr_bounds else {
        return Err("config field `fpr_bounds` is missing".into());
    };
    let mut outputs = Outputs::new();
    for set in sets(case, &config) {
        let pimo = pimo(&set)?;
        let pimo = || pimo.as_ref().map_err(Error::clone);
        let areas = pimo().and_then(|pimo| pimo.area(lower, upper, false));
        let mut record = |metric, figure| set.record(&mut outputs, metric, figure);
        let per_image = areas.clone().map(|areas| {
            let values: Vec<f64> = areas.per_image.iter().map(|area| area.unwrap_or(NORMAL)).collect();
            HostTensor::f64([values.len()], values)
        });
        record("aupimo", per_image)?;
        record("aupimo_mean", areas.clone().map(|areas| one(areas.mean)))?;
        record("num_points", areas.clone().map(|areas| count(areas.points)))?;
        // Of the whole curve, not only of what lies between the bounds.
        let ends = areas.clone().and_then(|_| pimo()).map(|pimo| {
            let thresholds = pimo.thresholds();
            HostTensor::f32([2], vec![thresholds[0], thresholds[thresholds.len() - 1]])
        });
        record("threshold_first_last", ends)?;
        // The classes alone are known even where there is no area; they are part of a result all the same.
        record("image_class", areas.and_then(|_| pimo()).map(image_class))?;
    }
    Ok(outputs)
}
