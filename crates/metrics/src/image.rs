//! Image-level figures: one score and one label per image. Each call sorts once; for several figures of the same
//! scores build a [`Ranking`].

use crate::{Error, F1Max, PrPoint, Ranking, RocPoint, Score};

/// Area under the ROC curve, see [`Ranking::auroc`].
///
/// # Errors
/// As [`Ranking::new`], and without a positive or a negative.
pub fn auroc<S: Score>(scores: &[S], labels: &[bool]) -> Result<f64, Error> {
    Ranking::new(scores, labels)?.auroc()
}

/// Average precision, see [`Ranking::average_precision`].
///
/// # Errors
/// As [`Ranking::new`], and without a positive.
pub fn average_precision<S: Score>(scores: &[S], labels: &[bool]) -> Result<f64, Error> {
    Ranking::new(scores, labels)?.average_precision()
}

/// Area under the precision-recall curve by trapezoids, see [`Ranking::aupr_trapezoid`].
///
/// # Errors
/// As [`Ranking::new`], and without a positive.
pub fn aupr_trapezoid<S: Score>(scores: &[S], labels: &[bool]) -> Result<f64, Error> {
    Ranking::new(scores, labels)?.aupr_trapezoid()
}

/// The largest F1 and its threshold, see [`Ranking::f1_max`].
///
/// # Errors
/// As [`Ranking::new`], and without a positive.
pub fn f1_max<S: Score>(scores: &[S], labels: &[bool]) -> Result<F1Max<S>, Error> {
    Ranking::new(scores, labels)?.f1_max()
}

/// False positive rate at a true positive rate, see [`Ranking::fpr_at_tpr`].
///
/// # Errors
/// As [`Ranking::new`], without a positive or a negative, and for a rate outside (0, 1].
pub fn fpr_at_tpr<S: Score>(scores: &[S], labels: &[bool], true_positive_rate: f64) -> Result<f64, Error> {
    Ranking::new(scores, labels)?.fpr_at_tpr(true_positive_rate)
}

/// Equal error rate, see [`Ranking::equal_error_rate`].
///
/// # Errors
/// As [`Ranking::new`], and without a positive or a negative.
pub fn equal_error_rate<S: Score>(scores: &[S], labels: &[bool]) -> Result<f64, Error> {
    Ranking::new(scores, labels)?.equal_error_rate()
}

/// Threshold fitted on validation scores, see [`Ranking::adaptive_threshold`].
///
/// # Errors
/// As [`Ranking::new`].
pub fn adaptive_threshold<S: Score>(scores: &[S], labels: &[bool]) -> Result<S, Error> {
    Ranking::new(scores, labels)?.adaptive_threshold()
}

/// Points of the ROC curve, see [`Ranking::roc_curve`].
///
/// # Errors
/// As [`Ranking::new`], and without a positive or a negative.
pub fn roc_curve<S: Score>(scores: &[S], labels: &[bool]) -> Result<Vec<RocPoint<S>>, Error> {
    Ranking::new(scores, labels)?.roc_curve()
}

/// Points of the precision-recall curve, see [`Ranking::pr_curve`].
///
/// # Errors
/// As [`Ranking::new`], and without a positive.
pub fn pr_curve<S: Score>(scores: &[S], labels: &[bool]) -> Result<Vec<PrPoint<S>>, Error> {
    Ranking::new(scores, labels)?.pr_curve()
}
