//! PIMO and AUPIMO, per-image overlap over a false positive rate that the normal images share (Bertoldo et al. 2024;
//! rules as in anomalib).

mod curve;
mod passes;
#[cfg(test)]
mod passes_agree;
mod thresholds;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::{Error, ScoredMap};
use thresholds::Reached;

pub use curve::{PimoCurve, PimoWindow};
pub use passes::{PimoRange, PimoRates};

/// Fewer points between the bounds than this are refused unless the caller insists.
pub const FEWEST_POINTS: usize = 31;

/// The curves of all images over one list of thresholds. A pixel is predicted anomalous if score >= threshold.
///
/// Takes all maps at once; [`PimoRange`] is for maps that come one after the other.
#[derive(Clone, Debug)]
pub struct Pimo {
    curve: PimoCurve,
    /// Per image the scores of its anomalous pixels; none for a normal image.
    anomalous: Vec<Option<Vec<f32>>>,
}

/// Areas under the curves of the anomalous images.
#[derive(Clone, Debug, PartialEq)]
pub struct Aupimo {
    /// One per image, in [0, 1]; none for a normal image.
    pub per_image: Vec<Option<f64>>,
    /// Mean over the anomalous images.
    pub mean: f64,
    /// How many thresholds lie between the bounds; under 300 the areas are coarse.
    pub points: usize,
    /// The lowest and the highest of those thresholds.
    pub thresholds: (f32, f32),
}

impl Pimo {
    /// Thresholds linearly spaced in f32 over the scores of the normal images, `num_thresholds` of them (usually
    /// 300 000).
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::NotFinitePixel`], and those of [`PimoRange::rates`].
    pub fn new(images: &[ScoredMap<'_>], num_thresholds: usize) -> Result<Self, Error> {
        thresholds::check_count(num_thresholds)?;
        ScoredMap::check_all(images)?;
        let share = images.len().div_ceil(rayon::current_num_threads());
        let shares: Vec<&[ScoredMap<'_>]> = images.chunks(share).collect();
        let seen = |share: &&[ScoredMap<'_>]| {
            let mut range = PimoRange::default();
            share.iter().for_each(|image| range.add_finite(image));
            range
        };
        let mut range = PimoRange::default();
        shares.par_iter().map(seen).collect::<Vec<_>>().iter().for_each(|more| range.merge(more));
        let mut rates = range.rates(num_thresholds)?;
        let counted = |share: &&[ScoredMap<'_>]| {
            let mut more = range.rates(num_thresholds)?;
            share.iter().for_each(|image| more.add_finite(image));
            Ok(more)
        };
        for more in shares.par_iter().map(counted).collect::<Result<Vec<_>, Error>>()? {
            rates.merge(&more)?;
        }
        let anomalous =
            |image: &ScoredMap<'_>| image.is_anomalous().then(|| image.anomalous_scores().collect());
        Ok(Self { curve: rates.curve()?, anomalous: images.par_iter().map(anomalous).collect() })
    }

    /// The thresholds, ascending.
    pub fn thresholds(&self) -> &[f32] {
        self.curve.thresholds()
    }

    /// For each threshold the false positive rate of the normal images, averaged over them.
    pub fn shared_fpr(&self) -> &[f64] {
        self.curve.shared_fpr()
    }

    /// For each image whether any of its pixels is anomalous.
    pub fn is_anomalous(&self) -> impl Iterator<Item = bool> {
        self.anomalous.iter().map(Option::is_some)
    }

    /// For each threshold the share of an image's anomalous pixels that are found; none for a normal image or an index
    /// beyond the last.
    pub fn tpr(&self, image: usize) -> Option<Vec<f64>> {
        let scores = self.anomalous.get(image)?.as_ref()?;
        Some(tpr(self.curve.thresholds(), scores))
    }

    /// The area under each anomalous image's curve over ln of the shared false positive rate, between the thresholds
    /// whose rate is nearest to `lower` and `upper` (usually 1e-5 and 1e-4), divided by ln(upper / lower).
    ///
    /// `even_if_coarse` takes fewer than [`FEWEST_POINTS`] thresholds between the bounds, down to 2.
    ///
    /// # Errors
    /// As [`PimoCurve::window`].
    pub fn area(&self, lower: f64, upper: f64, even_if_coarse: bool) -> Result<Aupimo, Error> {
        let window = self.curve.window(lower, upper, even_if_coarse)?;
        let area = |scores: &Option<Vec<f32>>| scores.as_deref().map(|scores| window.area_of(scores));
        window.summary(self.anomalous.par_iter().map(area).collect())
    }
}

/// The share of an image's anomalous scores that reach each threshold.
fn tpr(thresholds: &[f32], scores: &[f32]) -> Vec<f64> {
    let counts = Reached::new(thresholds).counts(scores);
    counts.into_iter().map(|count| count as f64 / scores.len() as f64).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_highest_normal_score_counts() {
        let (normal, anomalous) = ([0.1, 0.7, 0.3, 0.2], [0.9, 0.0, 0.0, 0.7]);
        let images = [
            ScoredMap::new(2, 2, &normal, None).unwrap(),
            ScoredMap::new(2, 2, &anomalous, Some(&[1, 0, 0, 1])).unwrap(),
        ];
        let pimo = Pimo::new(&images, 100).unwrap();
        assert_eq!((pimo.shared_fpr()[0], pimo.shared_fpr()[99]), (1.0, 0.25));
        assert_eq!(pimo.tpr(1).unwrap()[99], 1.0);
        assert_eq!(pimo.tpr(0), None);
        assert_eq!(pimo.tpr(2), None);
        assert!(matches!(pimo.area(0.1, 0.5, true), Err(Error::Unreached { .. })));
        assert!(matches!(pimo.area(0.5, 0.25, true), Err(Error::Option { .. })));
        assert_eq!(pimo.area(0.25, 0.5, true).unwrap().mean, 1.0);
    }

    #[test]
    fn what_has_no_curve_is_refused() {
        let (flat, steep) = ([0.5; 4], [0.0, 0.1, 0.2, 0.3]);
        let normal = |scores| ScoredMap::new(2, 2, scores, None).unwrap();
        let anomalous = |scores| ScoredMap::new(2, 2, scores, Some(&[0, 0, 1, 1])).unwrap();
        assert!(matches!(Pimo::new(&[normal(&steep)], 9), Err(Error::NoPositives { .. })));
        assert!(matches!(Pimo::new(&[anomalous(&steep)], 9), Err(Error::NoNegatives { .. })));
        let constant = Pimo::new(&[normal(&flat), anomalous(&steep)], 9);
        assert_eq!(constant.unwrap_err(), Error::ConstantNormals { value: 0.5 });
        assert!(matches!(Pimo::new(&[normal(&steep), anomalous(&flat)], 1), Err(Error::Option { .. })));
        let few = Pimo::new(&[normal(&steep), anomalous(&flat)], 20).unwrap();
        assert!(matches!(few.area(0.3, 0.9, false), Err(Error::TooFewPoints { .. })));
    }
}
