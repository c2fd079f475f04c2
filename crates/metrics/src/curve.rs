//! Curves, for drawing.

use crate::{Error, Ranking, Score};

/// A point of the ROC curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RocPoint<S> {
    /// Share of negatives with score >= threshold, in [0, 1].
    pub false_positive_rate: f64,
    /// Share of positives with score >= threshold, in [0, 1].
    pub true_positive_rate: f64,
    /// The threshold; none for the start (0, 0), which lies above every score.
    pub threshold: Option<S>,
}

/// A point of the precision-recall curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrPoint<S> {
    /// Share of positives with score >= threshold, in [0, 1].
    pub recall: f64,
    /// Share of positives among the elements with score >= threshold, in [0, 1].
    pub precision: f64,
    /// The threshold.
    pub threshold: S,
}

impl<S: Score> Ranking<S> {
    /// The ROC curve: (0, 0), then one point per distinct score from the highest down, the last (1, 1).
    ///
    /// # Errors
    /// [`Error::NoPositives`], [`Error::NoNegatives`].
    pub fn roc_curve(&self) -> Result<Vec<RocPoint<S>>, Error> {
        match (self.positives(), self.negatives()) {
            (0, _) => Err(Error::NoPositives { metric: "the ROC curve" }),
            (_, 0) => Err(Error::NoNegatives { metric: "the ROC curve" }),
            (positives, negatives) => {
                let start = RocPoint { false_positive_rate: 0.0, true_positive_rate: 0.0, threshold: None };
                let points = self.steps().map(|step| RocPoint {
                    false_positive_rate: step.false_positives as f64 / negatives as f64,
                    true_positive_rate: step.true_positives as f64 / positives as f64,
                    threshold: Some(step.threshold),
                });
                Ok(std::iter::once(start).chain(points).collect())
            }
        }
    }

    /// The precision-recall curve: one point per distinct score from the highest down, so that recall rises to 1.
    ///
    /// # Errors
    /// [`Error::NoPositives`].
    pub fn pr_curve(&self) -> Result<Vec<PrPoint<S>>, Error> {
        let positives = self.positives();
        if positives == 0 {
            return Err(Error::NoPositives { metric: "the precision-recall curve" });
        }
        let point = |true_positives: u64, false_positives: u64, threshold| PrPoint {
            recall: true_positives as f64 / positives as f64,
            precision: true_positives as f64 / (true_positives + false_positives) as f64,
            threshold,
        };
        Ok(self
            .steps()
            .map(|step| point(step.true_positives, step.false_positives, step.threshold))
            .collect())
    }
}

/// At most `at_most` (and at least 2) of a curve's points, in their order: the first, the last, and in between those
/// at which the curve would otherwise be cut by more than a fixed share of its length, so that long straight pieces
/// cost two points and corners stay where they are. `xy` gives a point's place; length is |Δx| + |Δy|.
///
/// For drawing only: figures come from all points.
///
/// ```
/// let curve: Vec<(f64, f64)> = (0..=1000).map(|i| (f64::from(i) / 1000.0, 0.5)).collect();
/// let thin = metrics::thin(&curve, 50, |&p| p);
/// assert!(thin.len() <= 50);
/// assert_eq!((thin[0], thin[thin.len() - 1]), (curve[0], curve[1000]));
/// ```
pub fn thin<P: Clone>(points: &[P], at_most: usize, xy: impl Fn(&P) -> (f64, f64)) -> Vec<P> {
    let at_most = at_most.max(2);
    let (Some(last), true) = (points.last(), points.len() > at_most) else {
        return points.to_vec();
    };
    let gap = |pair: &[P]| {
        let ((x0, y0), (x1, y1)) = (xy(&pair[0]), xy(&pair[1]));
        (x1 - x0).abs() + (y1 - y0).abs()
    };
    let length: f64 = points.windows(2).map(gap).sum();
    // Two points in a row are kept at least `step` apart from the second-next, so 2·length/step + 2 is never exceeded.
    let step = if at_most > 2 { 2.0 * length / (at_most - 2) as f64 } else { f64::INFINITY };
    let mut kept = vec![points[0].clone()];
    let mut kept_index = 0;
    let mut since = 0.0;
    for (index, pair) in points.windows(2).enumerate() {
        let gap = gap(pair);
        if since + gap > step && kept_index < index && kept.len() + 1 < at_most {
            kept.push(pair[0].clone());
            kept_index = index;
            since = 0.0;
        }
        since += gap;
    }
    kept.push(last.clone());
    kept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn curves_have_a_point_per_distinct_score() {
        let ranking = Ranking::new(&[1.0_f32, 2.0, 2.0, 3.0], &[false, false, true, true]).unwrap();
        let roc: Vec<_> = ranking
            .roc_curve()
            .unwrap()
            .iter()
            .map(|p| (p.false_positive_rate, p.true_positive_rate, p.threshold))
            .collect();
        assert_eq!(
            roc,
            [(0.0, 0.0, None), (0.0, 0.5, Some(3.0)), (0.5, 1.0, Some(2.0)), (1.0, 1.0, Some(1.0))]
        );
        let pr: Vec<_> = ranking.pr_curve().unwrap().iter().map(|p| (p.recall, p.precision)).collect();
        assert_eq!(pr, [(0.5, 1.0), (1.0, 2.0 / 3.0), (1.0, 0.5)]);
        let one_class = Ranking::new(&[1.0_f32], &[false]).unwrap();
        assert!(one_class.roc_curve().is_err() && one_class.pr_curve().is_err());
    }

    #[test]
    fn a_corner_stays() {
        let mut curve: Vec<(f64, f64)> = (0..500).map(|i| (0.0, f64::from(i) / 499.0)).collect();
        curve.extend((1..500).map(|i| (f64::from(i) / 499.0, 1.0)));
        let thinned = thin(&curve, 40, |&p| p);
        let nearest = thinned.iter().map(|(x, y)| x + 1.0 - y).fold(f64::INFINITY, f64::min);
        assert!(nearest <= 4.0 / 38.0, "{nearest}");
    }

    proptest! {
        #[test]
        fn a_thin_curve_is_short_ordered_and_near(
            steps in prop::collection::vec((0.0_f64..1.0, 0.0_f64..1.0), 2..400),
            at_most in 2_usize..100,
        ) {
            let curve: Vec<(f64, f64)> = steps
                .iter()
                .scan((0.0, 0.0), |at, step| {
                    *at = (at.0 + step.0, at.1 + step.1);
                    Some(*at)
                })
                .collect();
            let thinned = thin(&curve, at_most, |&p| p);
            prop_assert!(thinned.len() <= at_most.max(2));
            prop_assert_eq!(thinned.first(), curve.first());
            prop_assert_eq!(thinned.last(), curve.last());
            prop_assert!(thinned.windows(2).all(|w| w[0].0 <= w[1].0 && w[0].1 <= w[1].1));
            prop_assert!(thinned.iter().all(|p| curve.contains(p)));
        }
    }
}
