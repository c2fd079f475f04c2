//! The rate that the normal images share, and the part of it that areas are taken over.

use super::{Aupimo, FEWEST_POINTS, tpr};
use crate::{Error, ScoredMap};

/// The false positive rate that the normal images share, over their thresholds.
#[derive(Clone, Debug, PartialEq)]
pub struct PimoCurve {
    /// Ascending.
    pub(super) thresholds: Vec<f32>,
    /// One per threshold, falling.
    pub(super) shared_fpr: Vec<f64>,
}

impl PimoCurve {
    /// The thresholds, ascending, from the lowest to the highest score of the normal images.
    pub fn thresholds(&self) -> &[f32] {
        &self.thresholds
    }

    /// For each threshold the false positive rate of the normal images, averaged over them.
    pub fn shared_fpr(&self) -> &[f64] {
        &self.shared_fpr
    }

    /// What lies between the thresholds whose rate is nearest to `lower` and `upper` (usually 1e-5 and 1e-4).
    ///
    /// `even_if_coarse` takes fewer than [`FEWEST_POINTS`] thresholds between the bounds, down to 2.
    ///
    /// # Errors
    /// [`Error::Option`] unless 0 < lower < upper <= 1, [`Error::Unreached`] for a bound outside the curve,
    /// [`Error::TooFewPoints`].
    pub fn window(&self, lower: f64, upper: f64, even_if_coarse: bool) -> Result<PimoWindow, Error> {
        if !(lower > 0.0 && lower < upper && upper <= 1.0) {
            let expected = "0 < lower < upper <= 1";
            return Err(Error::Option { name: "bounds of the false positive rate", expected, found: lower });
        }
        let (first, last) = (self.nearest(upper)?, self.nearest(lower)?);
        // Rates fall along the thresholds; those of 0, which have no logarithm, are at the end.
        let window = first..(last + 1).max(first);
        let kept = window.clone().take_while(|&k| self.shared_fpr[k] > 0.0).count();
        let expected = if even_if_coarse { 2 } else { FEWEST_POINTS };
        if first >= last || kept < expected {
            return Err(Error::TooFewPoints { found: kept, expected });
        }
        let kept = first..first + kept;
        Ok(PimoWindow {
            logs: self.shared_fpr[kept.clone()].iter().map(|rate| rate.ln()).collect(),
            thresholds: self.thresholds[kept].to_vec(),
            width: (upper / lower).ln(),
        })
    }

    /// The first threshold whose shared false positive rate is nearest to `rate`.
    fn nearest(&self, rate: f64) -> Result<usize, Error> {
        let (highest, lowest) = (self.shared_fpr[0], self.shared_fpr[self.shared_fpr.len() - 1]);
        if !(lowest..=highest).contains(&rate) {
            return Err(Error::Unreached { bound: rate, lowest, highest });
        }
        let mut nearest = 0;
        for (index, fpr) in self.shared_fpr.iter().enumerate() {
            if (fpr - rate).abs() < (self.shared_fpr[nearest] - rate).abs() {
                nearest = index;
            }
        }
        Ok(nearest)
    }
}

/// A part of the curve, over which the area of one anomalous image after the other is taken.
#[derive(Clone, Debug, PartialEq)]
pub struct PimoWindow {
    thresholds: Vec<f32>,
    /// ln of the shared false positive rate at each of them.
    logs: Vec<f64>,
    /// ln(upper / lower).
    width: f64,
}

impl PimoWindow {
    /// The thresholds between the bounds, ascending.
    pub fn thresholds(&self) -> &[f32] {
        &self.thresholds
    }

    /// The area under the image's curve over ln of the shared false positive rate, divided by ln(upper / lower): in
    /// [0, 1], none for a normal image.
    ///
    /// # Errors
    /// [`Error::NotFinitePixel`], which calls the image 0.
    pub fn area(&self, image: &ScoredMap<'_>) -> Result<Option<f64>, Error> {
        image.check(0)?;
        let scores: Vec<f32> = image.anomalous_scores().collect();
        Ok((!scores.is_empty()).then(|| self.area_of(&scores)))
    }

    /// That of an image whose anomalous pixels have these scores.
    pub(super) fn area_of(&self, scores: &[f32]) -> f64 {
        let tpr = tpr(&self.thresholds, scores);
        let pieces = self.logs.windows(2).zip(tpr.windows(2));
        let sum: f64 = pieces.map(|(x, y)| (x[0] - x[1]) * f64::midpoint(y[0], y[1])).sum();
        (sum / self.width).clamp(0.0, 1.0)
    }

    /// The areas of a set of images together, in the order given; those of [`PimoWindow::area`].
    ///
    /// # Errors
    /// [`Error::NoPositives`] if none of them is an anomalous image's.
    pub fn summary(&self, per_image: Vec<Option<f64>>) -> Result<Aupimo, Error> {
        let count = per_image.iter().flatten().count();
        if count == 0 {
            return Err(Error::NoPositives { metric: "AUPIMO" });
        }
        Ok(Aupimo {
            mean: per_image.iter().flatten().sum::<f64>() / count as f64,
            points: self.thresholds.len(),
            thresholds: (self.thresholds[0], self.thresholds[self.thresholds.len() - 1]),
            per_image,
        })
    }
}
