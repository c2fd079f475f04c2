//! `anogan-trans`: `metric`.

use conformance::{Case, HostTensor, Outputs, UnitError};
use serde::Deserialize;

use crate::{Error, Ranking, f1_reference_anotrans, labels_from_integers, scaled_reference_anotrans};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    n: usize,
    f1_threshold: f64,
    // How the inputs were drawn.
    #[serde(rename = "seed")]
    _seed: Option<u64>,
}

pub(in crate::units) fn run(case: &Case) -> Result<Outputs, UnitError> {
    let config: Config = case.config()?;
    let raw = case.input("in.raw")?.to_f32_vec()?;
    if raw.len() != config.n {
        return Err(format!("config field `n`: expected {} scores, found {}", config.n, raw.len()).into());
    }
    let labels = labels_from_integers(&case.input("in.label")?.to_i64_vec()?)?;
    let scaled = scaled_reference_anotrans(&raw)?;
    let ranking = Ranking::new(&scaled, &labels)?;
    let scalar = |figure: Result<f64, Error>| Ok::<_, Error>(HostTensor::f64([], vec![figure?]));
    // The threshold is part of the name, as it is written in the configuration.
    let f1 = format!("out.f1_at_{}", config.f1_threshold);
    Ok(Outputs::from([
        ("out.auc".to_owned(), scalar(ranking.auroc())?),
        ("out.eer".to_owned(), scalar(ranking.equal_error_rate())?),
        ("out.average_precision".to_owned(), scalar(ranking.average_precision())?),
        (f1, scalar(f1_reference_anotrans(&raw, &labels, config.f1_threshold))?),
        ("out.scaled".to_owned(), HostTensor::f32([scaled.len()], scaled)),
    ]))
}
