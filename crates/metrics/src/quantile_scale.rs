//! Scores made comparable between detectors by where they lie among the validation scores.

use crate::score::check_scores;
use crate::threshold::rising;
use crate::{Error, Score};

/// Maps a score to the share of validation scores below it, in [0, 1], linearly between the quantiles that are kept.
///
/// Unlike [`crate::Normalisation`] it does not hang on the two most extreme scores: one outlier among them moves nothing
/// else. 0.99 on a heat map then means: higher than 99 % of what validation showed. Of equal scores the middle of their
/// shares is taken; below the lowest score it is 0 and above the highest 1, so it is for display: ranking figures belong
/// to the raw scores.
///
/// ```
/// let scale = metrics::QuantileScale::fit(&[1.0_f32, 2.0, 4.0, 8.0, 1000.0])?;
/// assert_eq!(scale.apply(4.0)?, 0.5);
/// assert_eq!(scale.apply(6.0)?, 0.625);
/// assert_eq!(scale.apply(2000.0)?, 1.0);
/// # Ok::<(), metrics::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct QuantileScale {
    /// Rising, at equal steps of the share from 0 to 1; at least two.
    quantiles: Vec<f64>,
}

impl QuantileScale {
    /// Quantiles that [`Self::fit`] keeps at most: shares are told apart by 0.0001.
    pub const MOST_QUANTILES: usize = 10_001;

    /// From validation scores: all of them, or [`Self::MOST_QUANTILES`] interpolated quantiles where there are more.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::NotFinite`].
    pub fn fit<S: Score>(scores: &[S]) -> Result<Self, Error> {
        check_scores(scores)?;
        let mut sorted = rising(scores);
        if sorted.len() == 1 {
            sorted.push(sorted[0]);
        }
        if sorted.len() <= Self::MOST_QUANTILES {
            return Ok(Self { quantiles: sorted });
        }
        let last = (Self::MOST_QUANTILES - 1) as f64;
        let at = |k: usize| crate::threshold::interpolated(&sorted, k as f64 / last);
        Ok(Self { quantiles: (0..Self::MOST_QUANTILES).map(at).collect() })
    }

    /// From quantiles kept elsewhere (see [`Self::quantiles`]).
    ///
    /// # Errors
    /// [`Error::Empty`] without any, [`Error::NotFinite`], [`Error::Option`] if there is only one or they fall somewhere.
    pub fn new(quantiles: Vec<f64>) -> Result<Self, Error> {
        check_scores(&quantiles)?;
        let expected = "at least two rising values";
        if quantiles.len() < 2 {
            return Err(Error::Option { name: "quantiles", expected, found: quantiles[0] });
        }
        match quantiles.windows(2).find(|pair| pair[1] < pair[0]) {
            Some(pair) => Err(Error::Option { name: "quantiles", expected, found: pair[1] }),
            None => Ok(Self { quantiles }),
        }
    }

    /// What to keep for [`Self::new`].
    pub fn quantiles(&self) -> &[f64] {
        &self.quantiles
    }

    /// The share for a score, in [0, 1]; 0.5 where all validation scores are this one.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub fn apply(&self, score: f64) -> Result<f64, Error> {
        check_scores(&[score])?;
        let steps = (self.quantiles.len() - 1) as f64;
        let below = self.quantiles.partition_point(|&quantile| quantile < score);
        let beyond = self.quantiles.partition_point(|&quantile| quantile <= score);
        if below < beyond {
            return Ok(f64::midpoint(below as f64, (beyond - 1) as f64) / steps);
        }
        if below == 0 || below == self.quantiles.len() {
            return Ok(if below == 0 { 0.0 } else { 1.0 });
        }
        let (low, high) = (self.quantiles[below - 1], self.quantiles[below]);
        Ok(((below - 1) as f64 + (score - low) / (high - low)) / steps)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn equal_scores_get_the_middle_of_their_shares() {
        let scale = QuantileScale::fit(&[1.0, 2.0, 2.0, 2.0, 3.0]).unwrap();
        assert_eq!([1.0, 2.0, 3.0].map(|s| scale.apply(s).unwrap()), [0.0, 0.5, 1.0]);
        let constant = QuantileScale::fit(&[7.0_f32]).unwrap();
        assert_eq!([6.9, 7.0, 7.1].map(|s| constant.apply(s).unwrap()), [0.0, 0.5, 1.0]);
    }

    #[test]
    fn what_is_kept_makes_the_same_scale() {
        let scores: Vec<f32> = (0_u16..30_000).map(|k| f32::from(k).sqrt()).collect();
        let scale = QuantileScale::fit(&scores).unwrap();
        assert_eq!(scale.quantiles().len(), QuantileScale::MOST_QUANTILES);
        assert_eq!(QuantileScale::new(scale.quantiles().to_vec()).unwrap(), scale);
        for share in [0.1, 0.5, 0.999] {
            let score = crate::normal_quantile(&scores, share).unwrap();
            assert!((scale.apply(score).unwrap() - share).abs() < 1e-4);
        }
    }

    #[test]
    fn what_is_no_scale_is_refused() {
        assert!(matches!(QuantileScale::fit::<f32>(&[]), Err(Error::Empty { .. })));
        assert!(matches!(QuantileScale::fit(&[f32::NAN]), Err(Error::NotFinite { .. })));
        assert!(matches!(QuantileScale::new(vec![1.0]), Err(Error::Option { .. })));
        assert!(matches!(QuantileScale::new(vec![1.0, 0.5]), Err(Error::Option { .. })));
        assert!(QuantileScale::fit(&[0.0_f32, 1.0]).unwrap().apply(f64::NAN).is_err());
    }

    proptest! {
        #[test]
        fn shares_never_fall(scores in prop::collection::vec(-9_i8..9, 1..40), a in -10.0..10.0_f64, b in -10.0..10.0_f64) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let scale = QuantileScale::fit(&scores).unwrap();
            let (low, high) = (scale.apply(a.min(b)).unwrap(), scale.apply(a.max(b)).unwrap());
            prop_assert!((0.0..=1.0).contains(&low) && low <= high && high <= 1.0);
        }
    }
}
