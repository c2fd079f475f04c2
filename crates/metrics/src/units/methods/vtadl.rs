//! `vtadl-registers`: `metrics`.

use conformance::{Case, Outputs, UnitError};
use serde::Deserialize;

use super::super::set::{one, score};
use super::{Images, connectivity, ranking, some};
use crate::{ProCurve, Ranking};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    pro_fpr_limit: f64,
    connectivity: Option<usize>,
}

pub(in crate::units) fn run(case: &Case) -> Result<Outputs, UnitError> {
    let config: Config = case.config()?;
    let images = Images::read(case, "in.score", "in.mask")?;
    let images = images.scored()?;
    let connectivity = connectivity(config.connectivity.unwrap_or(8))?;
    let limit = config.pro_fpr_limit;
    let pixels = Ranking::of_pixels(&images)?;
    let of_images = ranking(case.input("in.image_score")?, case.input("in.image_label")?)?;
    let best = pixels.f1_max()?;
    let curve = ProCurve::with_connectivity(&images, limit, connectivity)?;
    // The limit in percent is part of the name.
    let at_fpr = format!("out.threshold_fpr{:.0}", limit * 100.0);
    Ok(Outputs::from([
        ("out.image_auroc".to_owned(), one(of_images.auroc()?)),
        ("out.image_ap".to_owned(), one(of_images.average_precision()?)),
        ("out.pixel_auroc".to_owned(), one(pixels.auroc()?)),
        ("out.pixel_ap".to_owned(), one(pixels.average_precision()?)),
        ("out.pro".to_owned(), one(curve.area(limit)?)),
        ("out.best_f1".to_owned(), one(best.value)),
        ("out.best_f1_threshold".to_owned(), score(best.threshold)),
        (at_fpr, score(some(pixels.lowest_within_fpr(limit)?)?)),
    ]))
}
