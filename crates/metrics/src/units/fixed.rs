//! Units `threshold_and_normalise` and `fixed_threshold`.

use conformance::{Case, HostTensor, Outputs, UnitError};

use super::config::Config;
use super::set::{maps, masks, one, scalar, score, scored_maps, sets};
use crate::{Confusion, Error, Normalisation, adaptive_threshold, labels_from_integers, pro_at};

pub(super) fn run_normalise(case: &Case) -> Result<Outputs, UnitError> {
    let config: Config = case.config()?;
    let mut outputs = Outputs::new();
    for set in sets(case, &config) {
        let validation = set.input("val_scores")?.to_f32_vec()?;
        let labels = labels_from_integers(&set.input("val_labels")?.to_i64_vec()?);
        let test = set.input("test_scores")?.to_f32_vec()?;
        let threshold = labels.and_then(|labels| adaptive_threshold(&validation, &labels));
        let fitted = threshold.clone().and_then(|threshold| Normalisation::fit(&validation, Some(threshold)));
        let unfitted = Normalisation::fit(&validation, None);
        let apply = |scale: &Result<Normalisation, Error>| {
            let scale = scale.clone()?;
            let scaled: Result<Vec<f64>, Error> =
                test.iter().map(|&score| scale.apply(score.into())).collect();
            Ok(HostTensor::f64([test.len()], scaled?))
        };
        let decide = |scale: &Result<Normalisation, Error>| {
            let scale = scale.clone()?;
            let decisions = test.iter().map(|&score| scale.is_anomalous(score.into()).map(u8::from));
            Ok(HostTensor::u8([test.len()], decisions.collect::<Result<_, Error>>()?))
        };
        let mut record = |metric, figure| set.record(&mut outputs, metric, figure);
        record("threshold", threshold.map(score))?;
        record("min", fitted.clone().map(|scale| one(scale.min())))?;
        record("max", fitted.clone().map(|scale| one(scale.max())))?;
        record("normalised", apply(&fitted))?;
        record("normalised_without_threshold", apply(&unfitted))?;
        record("predicted", decide(&fitted))?;
    }
    Ok(outputs)
}

pub(super) fn run_threshold(case: &Case) -> Result<Outputs, UnitError> {
    let config: Config = case.config()?;
    let mut outputs = Outputs::new();
    for set in sets(case, &config) {
        let (maps, masks) = (maps(set.input("maps")?)?, masks(set.input("masks")?)?);
        let threshold = scalar(set.input("threshold")?)?;
        let images = scored_maps(&maps, &masks);
        let images = || images.as_ref().map_err(Error::clone);
        let confusion = images().and_then(|images| Confusion::of_pixels(images, threshold));
        let confusion = || confusion.as_ref().map_err(Error::clone);
        let counts = |c: &Confusion| {
            let counts = [c.true_positives, c.false_positives, c.false_negatives, c.true_negatives];
            HostTensor::i64([4], counts.map(|count| count as i64).to_vec())
        };
        let mut record = |metric, figure| set.record(&mut outputs, metric, figure);
        record("confusion_tp_fp_fn_tn", confusion().map(counts))?;
        record("f1", confusion().and_then(Confusion::f1).map(one))?;
        record("iou", confusion().and_then(Confusion::iou).map(one))?;
        record("fpr", confusion().and_then(Confusion::false_positive_rate).map(one))?;
        record("pro", images().and_then(|images| pro_at(images, threshold)).map(one))?;
    }
    Ok(outputs)
}
