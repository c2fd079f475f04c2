//! Scores made comparable between detectors.

use crate::score::check_scores;
use crate::{Error, Score};

/// Maps scores to [0, 1] with the decision threshold at 0.5:
/// `clamp((score - threshold) / (max - min) + 0.5, 0, 1)`, as anomalib's post-processor does.
///
/// Clamping makes ties at 0 and 1: compute ranking figures before. Image scores and pixel maps get one each; where
/// only one of the two has a threshold, the other uses that too.
///
/// ```
/// let scale = metrics::Normalisation::fit(&[1.0_f32, 2.0, 5.0], Some(2.0))?;
/// assert_eq!(scale.apply(2.0)?, 0.5);
/// assert_eq!(scale.apply(4.0)?, 1.0);
/// assert!(!scale.is_anomalous(2.0)? && scale.is_anomalous(2.5)?);
/// # Ok::<(), metrics::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalisation {
    min: f64,
    max: f64,
    threshold: f64,
}

impl Normalisation {
    /// From the range of validation scores; without a threshold the middle of the range takes its place.
    ///
    /// # Errors
    /// [`Error::NotFinite`] (index 0: min, 1: max, 2: threshold), [`Error::Option`] if max < min.
    pub fn new(min: f64, max: f64, threshold: Option<f64>) -> Result<Self, Error> {
        let threshold = threshold.unwrap_or(f64::midpoint(min, max));
        check_scores(&[min, max, threshold])?;
        if max < min {
            return Err(Error::Option { name: "max", expected: "at least min", found: max });
        }
        Ok(Self { min, max, threshold })
    }

    /// From validation scores.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::NotFinite`].
    pub fn fit<S: Score>(scores: &[S], threshold: Option<S>) -> Result<Self, Error> {
        check_scores(scores)?;
        let wide = || scores.iter().map(|&score| score.into());
        let (min, max) = (wide().fold(f64::INFINITY, f64::min), wide().fold(f64::NEG_INFINITY, f64::max));
        Self::new(min, max, threshold.map(Into::into))
    }

    /// The lowest validation score.
    pub fn min(&self) -> f64 {
        self.min
    }

    /// The highest validation score.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// The score that becomes 0.5.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// The normalised score, in [0, 1]. Where max = min: 0.5 at the threshold, 0 below it and 1 above.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub fn apply(&self, score: f64) -> Result<f64, Error> {
        check_scores(&[score])?;
        let above = score - self.threshold;
        let range = self.max - self.min;
        let scaled = if range > 0.0 {
            above / range
        } else if above == 0.0 {
            0.0
        } else {
            above.signum()
        };
        Ok((scaled + 0.5).clamp(0.0, 1.0))
    }

    /// Whether the normalised score is above 0.5, strictly.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub fn is_anomalous(&self, score: f64) -> Result<bool, Error> {
        Ok(self.apply(score)? > 0.5)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_range_of_one_value_decides_by_sign() {
        let scale = Normalisation::fit(&[3.0_f32, 3.0], None).unwrap();
        assert_eq!([2.9, 3.0, 3.1].map(|s| scale.apply(s).unwrap()), [0.0, 0.5, 1.0]);
    }

    #[test]
    fn without_a_threshold_the_middle_is_half() {
        let scale = Normalisation::fit(&[1.0_f32, 5.0, 2.0], None).unwrap();
        assert_eq!((scale.min(), scale.max(), scale.threshold()), (1.0, 5.0, 3.0));
        assert_eq!([1.0, 3.0, 4.0, 9.0].map(|s| scale.apply(s).unwrap()), [0.0, 0.5, 0.75, 1.0]);
    }

    #[test]
    fn values_that_are_no_numbers_are_refused() {
        assert!(Normalisation::fit::<f32>(&[], None).is_err());
        assert!(Normalisation::fit(&[f32::NAN], None).is_err());
        assert!(Normalisation::new(1.0, 0.0, None).is_err());
        assert!(Normalisation::new(0.0, 1.0, None).unwrap().apply(f64::INFINITY).is_err());
    }
}
