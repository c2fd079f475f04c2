//! The spread of an AUROC without resampling (`DeLong` et al. 1988).

use super::{Interval, check_level, normal};
use crate::gallop::taken_from_end;
use crate::{Error, Ranking, Score};

/// An AUROC and its variance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeLong {
    /// The AUROC.
    pub auroc: f64,
    /// The estimated variance of the AUROC.
    pub variance: f64,
}

impl DeLong {
    /// The normal interval at `level`, cut to [0, 1]. Near 0 and 1 it is too narrow, and of no width at both; take
    /// [`Bootstrap`](super::Bootstrap) or more images there.
    ///
    /// # Errors
    /// [`Error::Option`] for a level outside (0, 1).
    pub fn interval(&self, level: f64) -> Result<Interval, Error> {
        check_level(level)?;
        let half = normal::quantile(f64::midpoint(1.0, level)) * self.variance.sqrt();
        let (low, high) = ((self.auroc - half).max(0.0), (self.auroc + half).min(1.0));
        Ok(Interval { value: self.auroc, low, high, level })
    }
}

/// The AUROC of image scores and its variance; `true` labels are anomalous.
///
/// ```
/// let scores = [0.1, 0.4, 0.35, 0.8, 0.7, 0.2];
/// let labels = [false, false, true, true, true, false];
/// let interval = metrics::delong(&scores, &labels)?.interval(0.95)?;
/// assert!(interval.low < interval.value && interval.value < interval.high);
/// # Ok::<(), metrics::Error>(())
/// ```
///
/// # Errors
/// As [`Ranking::new`], and [`Error::TooFew`] for fewer than two positives or two negatives.
pub fn delong<S: Score>(scores: &[S], labels: &[bool]) -> Result<DeLong, Error> {
    let ranking = Ranking::new(scores, labels)?;
    let auroc = ranking.auroc()?;
    let (positives, negatives) = (ranking.sorted_positives(), ranking.sorted_negatives());
    // For a positive the share of negatives below it, for a negative the share of positives above it; ties count half.
    let over = spread(positives, negatives, auroc, "positives")?;
    let under = spread(negatives, positives, 1.0 - auroc, "negatives")?;
    let variance = over / positives.len() as f64 + under / negatives.len() as f64;
    Ok(DeLong { auroc, variance })
}

/// The sample variance over `of` of the share of `others` that is lower, whose mean is known.
fn spread<K: Ord + Copy>(of: &[K], others: &[K], mean: f64, what: &'static str) -> Result<f64, Error> {
    if of.len() < 2 {
        let statement = "the variance of the AUROC";
        return Err(Error::TooFew { statement, what, needed: 2, found: of.len() });
    }
    let (mut rest, mut sum) = (others, 0.0);
    for &key in of.iter().rev() {
        taken_from_end(&mut rest, |other| other > key);
        // Equal ones stay: the next of `of` may be equal as well.
        let equal = taken_from_end(&mut &*rest, |other| other == key);
        let lower = rest.len() as f64 - equal as f64 / 2.0;
        sum += (lower / others.len() as f64 - mean).powi(2);
    }
    Ok(sum / (of.len() - 1) as f64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// By the definition, over all pairs.
    fn by_pairs(scores: &[f32], labels: &[bool]) -> (f64, f64) {
        let of = |wanted| -> Vec<f32> {
            scores
                .iter()
                .zip(labels)
                .filter(|&(_, &label)| label == wanted)
                .map(|(&score, _)| score)
                .collect()
        };
        let (positives, negatives) = (of(true), of(false));
        let wins = |p: f32, n: f32| f64::from(u8::from(p > n)) + f64::from(u8::from(p == n)) / 2.0;
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let over: Vec<f64> = positives
            .iter()
            .map(|&p| mean(&negatives.iter().map(|&n| wins(p, n)).collect::<Vec<_>>()))
            .collect();
        let under: Vec<f64> = negatives
            .iter()
            .map(|&n| mean(&positives.iter().map(|&p| wins(p, n)).collect::<Vec<_>>()))
            .collect();
        let spread = |values: &[f64]| {
            let squares = values.iter().map(|v| (v - mean(values)).powi(2)).sum::<f64>();
            squares / (values.len() - 1) as f64 / values.len() as f64
        };
        (mean(&over), spread(&over) + spread(&under))
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(elements in prop::collection::vec((0_u8..9, any::<bool>()), 4..60)) {
            let scores: Vec<f32> = elements.iter().map(|&(score, _)| score.into()).collect();
            let mut labels: Vec<bool> = elements.into_iter().map(|(_, label)| label).collect();
            labels[..4].copy_from_slice(&[true, true, false, false]);
            let found = delong(&scores, &labels).unwrap();
            let (auroc, variance) = by_pairs(&scores, &labels);
            prop_assert!((found.auroc - auroc).abs() < 1e-12);
            prop_assert!((found.variance - variance).abs() < 1e-12);
        }
    }

    #[test]
    fn one_of_a_class_has_no_variance() {
        let error = delong(&[0.0_f32, 1.0, 2.0], &[true, false, false]).unwrap_err();
        assert_eq!(error.to_string(), "the variance of the AUROC: expected at least 2 positives, found 1");
        let perfect = delong(&[0.0_f32, 1.0, 2.0, 3.0], &[false, false, true, true]).unwrap();
        let interval = perfect.interval(0.9).unwrap();
        assert_eq!((interval.low, interval.high), (1.0, 1.0));
        assert!(perfect.interval(1.0).is_err());
    }
}
