//! Unit `pixel`: maps and masks, all pixels together, and PRO.

use conformance::{Case, Outputs, UnitError};

use super::config::Config;
use super::set::{count, maps, masks, one, score, scored_maps, sets};
use crate::{Connectivity, Error, ProCurve, Ranking, count_regions};

pub(super) fn run(case: &Case) -> Result<Outputs, UnitError> {
    let config: Config = case.config()?;
    let connectivity = match config.connectivity {
        None | Some(8) => Connectivity::Eight,
        Some(4) => Connectivity::Four,
        Some(other) => {
            return Err(format!("config field `connectivity`: expected 4 or 8, found {other}").into());
        }
    };
    let mut outputs = Outputs::new();
    for set in sets(case, &config) {
        let (maps, masks) = (maps(set.input("maps")?)?, masks(set.input("masks")?)?);
        let images = scored_maps(&maps, &masks);
        let images = || images.as_ref().map_err(Error::clone);
        let ranking = images().and_then(|images| Ranking::of_pixels(images));
        let ranking = || ranking.as_ref().map_err(Error::clone);
        let f1_max = ranking().and_then(Ranking::f1_max);
        let mut record = |metric: &str, figure| set.record(&mut outputs, metric, figure);
        record("pixel_auroc", ranking().and_then(Ranking::auroc).map(one))?;
        record("pixel_ap", ranking().and_then(Ranking::average_precision).map(one))?;
        record("pixel_f1_max", f1_max.clone().map(|best| one(best.value)))?;
        record("pixel_f1_threshold", f1_max.map(|best| score(best.threshold)))?;
        record("pixel_fpr95", ranking().and_then(|ranking| ranking.fpr_at_tpr(0.95)).map(one))?;
        record("num_regions", images().map(|images| count(count_regions(images, connectivity))))?;
        let mut limits = set.limits("aupro_")?;
        if limits.is_empty() {
            // Where it is to be refused no limit is named.
            limits.push(("0.3".to_owned(), 0.3));
        }
        let highest = limits.iter().map(|&(_, limit)| limit).fold(0.0, f64::max);
        let curve = images().and_then(|images| ProCurve::with_connectivity(images, highest, connectivity));
        for (written, limit) in limits {
            let area = curve.as_ref().map_err(Error::clone).and_then(|curve| curve.area(limit));
            record(&format!("aupro_{written}"), area.map(one))?;
        }
    }
    Ok(outputs)
}
