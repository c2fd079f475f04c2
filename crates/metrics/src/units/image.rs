//! Unit `image`: one score and one label per image.

use conformance::{Case, Outputs, UnitError};

use super::config::Config;
use super::set::{one, score, sets};
use crate::{Error, Ranking, labels_from_integers};

pub(super) fn run(case: &Case) -> Result<Outputs, UnitError> {
    let config: Config = case.config()?;
    let mut outputs = Outputs::new();
    for set in sets(case, &config) {
        let scores = set.input("scores")?.to_f32_vec()?;
        let labels = labels_from_integers(&set.input("labels")?.to_i64_vec()?);
        let ranking = labels.and_then(|labels| Ranking::new(&scores, &labels));
        let ranking = || ranking.as_ref().map_err(Error::clone);
        let f1_max = ranking().and_then(Ranking::f1_max);
        let mut record = |metric, figure| set.record(&mut outputs, metric, figure);
        record("auroc", ranking().and_then(Ranking::auroc).map(one))?;
        record("ap", ranking().and_then(Ranking::average_precision).map(one))?;
        record("f1_max", f1_max.clone().map(|best| one(best.value)))?;
        record("f1_threshold", f1_max.map(|best| score(best.threshold)))?;
        record("fpr95", ranking().and_then(|ranking| ranking.fpr_at_tpr(0.95)).map(one))?;
        record("adaptive_threshold", ranking().and_then(Ranking::adaptive_threshold).map(score))?;
    }
    Ok(outputs)
}
