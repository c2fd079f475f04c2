//! Counts at a fixed threshold.

use crate::score::{check_labelled, check_scores};
use crate::{Error, Score, ScoredMap};

/// Decisions at a fixed threshold against the truth. An element is predicted positive if score > threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confusion {
    /// Anomalous and predicted so.
    pub true_positives: u64,
    /// Normal but predicted anomalous.
    pub false_positives: u64,
    /// Anomalous but predicted normal.
    pub false_negatives: u64,
    /// Normal and predicted so.
    pub true_negatives: u64,
}

impl Confusion {
    /// Counts over scores with labels (true = anomalous).
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::Empty`], [`Error::NotFinite`] (the threshold has index 0).
    pub fn new<S: Score>(scores: &[S], labels: &[bool], threshold: S) -> Result<Self, Error> {
        check_labelled(scores, labels)?;
        check_scores(&[threshold])?;
        let mut confusion = Self::default();
        for (&score, &label) in scores.iter().zip(labels) {
            confusion.count(label, score > threshold);
        }
        Ok(confusion)
    }

    /// Counts over all pixels of all images together.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::NotFinitePixel`], [`Error::NotFinite`] for the threshold.
    pub fn of_pixels(images: &[ScoredMap<'_>], threshold: f32) -> Result<Self, Error> {
        ScoredMap::check_all(images)?;
        check_scores(&[threshold])?;
        let mut confusion = Self::default();
        for image in images {
            for (pixel, &score) in image.scores().iter().enumerate() {
                confusion.count(image.is_anomalous_at(pixel), score > threshold);
            }
        }
        Ok(confusion)
    }

    pub(crate) fn count(&mut self, label: bool, predicted: bool) {
        *match (label, predicted) {
            (true, true) => &mut self.true_positives,
            (false, true) => &mut self.false_positives,
            (true, false) => &mut self.false_negatives,
            (false, false) => &mut self.true_negatives,
        } += 1;
    }

    /// Share of right decisions.
    ///
    /// # Errors
    /// [`Error::Undefined`] without any element.
    pub fn accuracy(&self) -> Result<f64, Error> {
        let right = self.true_positives + self.true_negatives;
        ratio("accuracy", right, "all elements", right + self.false_positives + self.false_negatives)
    }

    /// Share of anomalous elements among those predicted anomalous.
    ///
    /// # Errors
    /// [`Error::Undefined`] if nothing is predicted anomalous.
    pub fn precision(&self) -> Result<f64, Error> {
        let predicted = self.true_positives + self.false_positives;
        ratio("precision", self.true_positives, "predicted positives", predicted)
    }

    /// Share of the anomalous elements that are predicted so (true positive rate).
    ///
    /// # Errors
    /// [`Error::Undefined`] without positives.
    pub fn recall(&self) -> Result<f64, Error> {
        ratio("recall", self.true_positives, "positives", self.true_positives + self.false_negatives)
    }

    /// Share of the normal elements that are predicted anomalous.
    ///
    /// # Errors
    /// [`Error::Undefined`] without negatives.
    pub fn false_positive_rate(&self) -> Result<f64, Error> {
        ratio("FPR", self.false_positives, "negatives", self.false_positives + self.true_negatives)
    }

    /// Harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN).
    ///
    /// # Errors
    /// [`Error::Undefined`] if nothing is anomalous and nothing predicted so.
    pub fn f1(&self) -> Result<f64, Error> {
        let wrong = self.false_positives + self.false_negatives;
        ratio("F1", 2 * self.true_positives, "2 TP + FP + FN", 2 * self.true_positives + wrong)
    }

    /// Intersection over union, TP / (TP + FP + FN).
    ///
    /// # Errors
    /// [`Error::Undefined`] if nothing is anomalous and nothing predicted so.
    pub fn iou(&self) -> Result<f64, Error> {
        let wrong = self.false_positives + self.false_negatives;
        ratio("IoU", self.true_positives, "TP + FP + FN", self.true_positives + wrong)
    }
}

fn ratio(metric: &'static str, part: u64, divisor: &'static str, whole: u64) -> Result<f64, Error> {
    if whole == 0 { Err(Error::Undefined { metric, divisor }) } else { Ok(part as f64 / whole as f64) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_threshold_itself_is_normal() {
        let labels = [true, true, false, false, false];
        let confusion = Confusion::new(&[0.9_f32, 0.5, 0.5, 0.6, 0.1], &labels, 0.5).unwrap();
        assert_eq!(
            confusion,
            Confusion { true_positives: 1, false_positives: 1, false_negatives: 1, true_negatives: 2 }
        );
        assert_eq!(confusion.accuracy().unwrap(), 0.6);
        assert_eq!(confusion.precision().unwrap(), 0.5);
        assert_eq!(confusion.recall().unwrap(), 0.5);
        assert_eq!(confusion.f1().unwrap(), 0.5);
        assert_eq!(confusion.iou().unwrap(), 1.0 / 3.0);
        assert_eq!(confusion.false_positive_rate().unwrap(), 1.0 / 3.0);
    }

    #[test]
    fn ratios_over_nothing_are_refused() {
        let confusion = Confusion::new(&[0.0_f64], &[false], 1.0).unwrap();
        assert_eq!(confusion.accuracy().unwrap(), 1.0);
        assert_eq!(
            confusion.precision().unwrap_err().to_string(),
            "precision is undefined: it divides by predicted positives, which is 0"
        );
        assert!(confusion.f1().is_err() && confusion.iou().is_err() && confusion.recall().is_err());
        assert!(Confusion::new(&[0.0_f64], &[false], f64::NAN).is_err());
        assert!(Confusion::new(&[0.0_f64], &[], 0.0).is_err());
    }
}
