//! What is said of the pixels of a set of images.

use crate::Bounded;

/// The figures of all pixels of all images together.
#[derive(Clone, Debug, PartialEq)]
pub struct PixelFigures {
    /// Area under the ROC curve, see [`Ranking::auroc`](crate::Ranking::auroc).
    pub auroc: Bounded,
    /// Average precision, see [`Ranking::average_precision`](crate::Ranking::average_precision).
    pub average_precision: Bounded,
    /// The largest F1 over all thresholds, see [`Ranking::f1_max`](crate::Ranking::f1_max).
    pub f1_max: Bounded,
    /// The lowest threshold that attains the largest F1 found (score >= threshold).
    pub f1_threshold: f32,
    /// False positive rate at a true positive rate of 95 %, see [`Ranking::fpr_at_tpr`](crate::Ranking::fpr_at_tpr).
    pub fpr_at_95_tpr: Bounded,
    /// AUPRO at each limit asked for, in that order.
    pub aupro: Vec<Aupro>,
}

/// The area under the PRO curve up to a limit, see [`ProCurve::area`](crate::ProCurve::area).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Aupro {
    /// The largest false positive rate, in (0, 1].
    pub limit: f64,
    /// The area divided by the limit, in [0, 1].
    pub area: Bounded,
}
