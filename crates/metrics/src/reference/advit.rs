//! `ADViT`, whose metrics are VT-ADL's.

use crate::ranking::Step;
use crate::{Error, Ranking, ScoredMap, pixel_auroc};

/// What the reference prints as its "PRO score": the AUROC of all pixels, see
/// [`pro_reference_vtadl`](crate::pro_reference_vtadl).
///
/// # Errors
/// As [`pixel_auroc`].
pub fn pro_reference_advit(images: &[ScoredMap<'_>]) -> Result<f64, Error> {
    pixel_auroc(images)
}

/// The threshold of the last ROC point whose false positive rate is at most `limit` (0.3 there), for score >=
/// threshold; none if even the highest score has a higher rate. The reference looks at a thinned curve: it leaves out
/// points on straight pieces (scikit-learn's `drop_intermediate`), so that a lower score may have been possible.
///
/// # Errors
/// [`Error::NoPositives`], [`Error::NoNegatives`].
pub fn fpr_threshold_reference_advit(ranking: &Ranking<f32>, limit: f64) -> Result<Option<f32>, Error> {
    // Of the ROC curve, for its refusals.
    ranking.auroc()?;
    let negatives = ranking.negatives() as f64;
    let is_within = |step: &Step<f32>| step.false_positives as f64 / negatives <= limit;
    let bends = |a: &Step<f32>, b: &Step<f32>, c: &Step<f32>| {
        let differs = |a: u64, b: u64, c: u64| b - a != c - b;
        differs(a.true_positives, b.true_positives, c.true_positives)
            || differs(a.false_positives, b.false_positives, c.false_positives)
    };
    let (mut before, mut current): (Option<Step<f32>>, Option<Step<f32>>) = (None, None);
    let mut kept = None;
    for next in ranking.steps() {
        if let Some(step) = current {
            if !is_within(&step) {
                return Ok(kept);
            }
            // Both ends stay.
            if before.is_none_or(|before| bends(&before, &step, &next)) {
                kept = Some(step.threshold);
            }
        }
        before = current.replace(next);
    }
    Ok(current.filter(is_within).map(|step| step.threshold).or(kept))
}

/// The threshold with the largest F1 as the reference finds it: 2 P R / (P + R) in f64, the lowest score where those
/// are equal. Rounding may prefer another of nearly equal scores than [`Ranking::f1_max`], which compares fractions.
///
/// # Errors
/// [`Error::NoPositives`].
pub fn f1_threshold_reference_advit(ranking: &Ranking<f32>) -> Result<f32, Error> {
    let fallback = ranking.f1_max()?.threshold;
    let positives = ranking.positives() as f64;
    let f1 = |step: &Step<f32>| {
        let found = step.true_positives as f64;
        let precision = found / (step.true_positives + step.false_positives) as f64;
        let recall = found / positives;
        if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 }
    };
    let steps = ranking.steps().map(|step| (f1(&step), step.threshold));
    let best = steps.reduce(|best, step| if step.0 >= best.0 { step } else { best });
    Ok(best.map_or(fallback, |(_, threshold)| threshold))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn points_on_straight_pieces_are_not_seen() {
        // Ten negatives in a row at 9, 8, …, 0 after one positive at 10: the curve has only its two ends and the corner.
        let scores: Vec<f32> = (0..11).map(|i| i as f32).collect();
        let labels: Vec<bool> = (0..11).map(|i| i == 10).collect();
        let ranking = Ranking::new(&scores, &labels).unwrap();
        assert_eq!(ranking.lowest_within_fpr(0.3).unwrap(), Some(7.0));
        assert_eq!(fpr_threshold_reference_advit(&ranking, 0.3).unwrap(), Some(10.0));
        assert_eq!(fpr_threshold_reference_advit(&ranking, 1.0).unwrap(), Some(0.0));
        let reversed: Vec<bool> = labels.iter().map(|label| !label).collect();
        let ranking = Ranking::new(&scores, &reversed).unwrap();
        assert_eq!(fpr_threshold_reference_advit(&ranking, 0.3).unwrap(), None);
        assert!(fpr_threshold_reference_advit(&Ranking::new(&[1.0], &[true]).unwrap(), 0.3).is_err());
    }

    #[test]
    fn the_lowest_of_equal_f1_is_taken() {
        // F1 is 2/3 at both 3 (one found of two) and 1 (both found, two wrong).
        let ranking = Ranking::new(&[3.0, 2.0, 1.5, 1.0], &[true, false, false, true]).unwrap();
        assert_eq!(f1_threshold_reference_advit(&ranking).unwrap(), 1.0);
        assert_eq!(ranking.f1_max().unwrap().threshold, 1.0);
    }
}
