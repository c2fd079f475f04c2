//! `advit-gmdn`: `metrics`.

use conformance::{Case, Outputs, UnitError};
use serde::Deserialize;

use super::super::set::{count, one, score};
use super::{Images, connectivity, ranking, some};
use crate::{
    ProCurve, Ranking, count_regions, f1_threshold_reference_advit, fpr_threshold_reference_advit,
    pro_reference_advit,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(rename = "module")]
    _module: Option<OnlyMetrics>,
    fpr_limit: f64,
    connectivity: Option<usize>,
    images: Option<usize>,
    hw: Option<[usize; 2]>,
    normal: Option<usize>,
    // How the inputs were drawn.
    #[serde(rename = "level")]
    _level: Option<f64>,
    #[serde(rename = "levels")]
    _levels: Option<f64>,
    #[serde(rename = "spread")]
    _spread: Option<f64>,
    #[serde(rename = "img_noise")]
    _img_noise: Option<f64>,
}

#[derive(Debug, Deserialize)]
enum OnlyMetrics {
    #[serde(rename = "metrics")]
    Metrics,
}

impl Config {
    /// Refuses sizes that are not those of the tensors.
    fn check(&self, images: &Images) -> Result<(), UnitError> {
        let maps = &images.maps;
        let normal =
            (0..maps.count).filter(|&i| images.masks.plane(i).iter().all(|&sample| sample == 0)).count();
        let agrees = self.images.is_none_or(|images| images == maps.count)
            && self.hw.is_none_or(|hw| hw == [maps.height, maps.width])
            && self.normal.is_none_or(|expected| expected == normal);
        if agrees {
            return Ok(());
        }
        Err(format!(
            "config fields `images`, `hw`, `normal`: expected {:?}, {:?}, {:?}, found {}, {:?}, {normal}",
            self.images,
            self.hw,
            self.normal,
            maps.count,
            [maps.height, maps.width],
        )
        .into())
    }
}

pub(in crate::units) fn run(case: &Case) -> Result<Outputs, UnitError> {
    let config: Config = case.config()?;
    let images = Images::read(case, "in.maps", "in.masks")?;
    config.check(&images)?;
    let images = images.scored()?;
    let connectivity = connectivity(config.connectivity.unwrap_or(8))?;
    let pixels = Ranking::of_pixels(&images)?;
    let of_images = ranking(case.input("in.image_scores")?, case.input("in.image_labels")?)?;
    let curve = ProCurve::with_connectivity(&images, config.fpr_limit, connectivity)?;
    let at_fpr = some(fpr_threshold_reference_advit(&pixels, config.fpr_limit)?)?;
    Ok(Outputs::from([
        ("out.image_auroc".to_owned(), one(of_images.auroc()?)),
        ("out.image_pr_auc".to_owned(), one(of_images.aupr_trapezoid()?)),
        ("out.num_regions".to_owned(), count(count_regions(&images, connectivity))),
        ("out.pixel_auroc".to_owned(), one(pro_reference_advit(&images)?)),
        ("out.pro_auc".to_owned(), one(curve.area(config.fpr_limit)?)),
        ("out.threshold_fpr".to_owned(), score(at_fpr)),
        ("out.threshold_f1".to_owned(), score(f1_threshold_reference_advit(&pixels)?)),
    ]))
}
