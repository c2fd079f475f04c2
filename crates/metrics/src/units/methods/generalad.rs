//! `generalad` and `simplenet`: `metrics`.

use conformance::{Case, Outputs, UnitError};
use serde::Deserialize;

use super::super::set::one;
use super::{Images, ranking};
use crate::{ProReference, Ranking};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(rename = "pro_variant")]
    _pro_variant: OnlyReference,
    pro_fpr_limit: f64,
    pro_kernel: usize,
    pro_thresholds: usize,
}

#[derive(Debug, Deserialize)]
enum OnlyReference {
    #[serde(rename = "reference")]
    Reference,
}

pub(in crate::units) fn run(case: &Case) -> Result<Outputs, UnitError> {
    let config: Config = case.config()?;
    let images = Images::read(case, "in.segmentations", "in.masks")?;
    let images = images.scored()?;
    let pro = ProReference {
        kernel: config.pro_kernel,
        thresholds: config.pro_thresholds,
        fpr_limit: config.pro_fpr_limit,
    };
    let of_images = ranking(case.input("in.image_scores")?, case.input("in.image_labels")?)?;
    Ok(Outputs::from([
        ("out.image_auroc".to_owned(), one(of_images.auroc()?)),
        ("out.pixel_auroc".to_owned(), one(Ranking::of_pixels(&images)?.auroc()?)),
        ("out.pro_reference".to_owned(), one(pro.area(&images)?)),
    ]))
}
