//! PIMO and AUPIMO, per-image overlap over a false positive rate that the normal images share (Bertoldo et al. 2024;
//! rules as in anomalib).

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

use crate::score::sealed::Sealed;
use crate::{Error, ScoredMap};

/// Fewer points between the bounds than this are refused unless the caller insists.
pub const FEWEST_POINTS: usize = 31;

/// The curves of all images over one list of thresholds. A pixel is predicted anomalous if score >= threshold.
#[derive(Clone, Debug)]
pub struct Pimo {
    /// Ascending, from the lowest to the highest score of the normal images.
    thresholds: Vec<f32>,
    /// One per threshold, falling.
    shared_fpr: Vec<f64>,
    /// Per image the sorted keys of its anomalous pixels; none for a normal image.
    anomalous: Vec<Option<Vec<u32>>>,
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
    /// [`Error::Empty`], [`Error::NotFinitePixel`], [`Error::NoPositives`] without an anomalous image,
    /// [`Error::NoNegatives`] without a normal one, [`Error::ConstantNormals`] if all pixels of those have one score,
    /// [`Error::Option`] for fewer than 2 thresholds.
    pub fn new(images: &[ScoredMap<'_>], num_thresholds: usize) -> Result<Self, Error> {
        if num_thresholds < 2 {
            let found = num_thresholds as f64;
            return Err(Error::Option { name: "num_thresholds", expected: "at least 2", found });
        }
        ScoredMap::check_all(images)?;
        let anomalous: Vec<Option<Vec<u32>>> = images.par_iter().map(anomalous_keys).collect();
        let normal: Vec<&[f32]> = images
            .iter()
            .zip(&anomalous)
            .filter(|(_, keys)| keys.is_none())
            .map(|(image, _)| image.scores())
            .collect();
        if normal.is_empty() {
            return Err(Error::NoNegatives { metric: "PIMO" });
        }
        if normal.len() == images.len() {
            return Err(Error::NoPositives { metric: "PIMO" });
        }
        let all = || normal.iter().flat_map(|scores| scores.iter().copied());
        let (low, high) = (all().fold(f32::INFINITY, f32::min), all().fold(f32::NEG_INFINITY, f32::max));
        if low == high {
            return Err(Error::ConstantNormals { value: low.into() });
        }
        let thresholds = spaced(low, high, num_thresholds);
        let sorted: Vec<Vec<u32>> = normal.iter().map(|scores| sorted_keys(scores.iter().copied())).collect();
        let size = sorted[0].len();
        let fpr = |threshold: &f32| {
            if sorted.iter().all(|keys| keys.len() == size) {
                // One division of integers: equal rates come out equal however the pixels are spread over the images.
                let found: usize = sorted.iter().map(|keys| count_at_least(keys, *threshold)).sum();
                found as f64 / (size * sorted.len()) as f64
            } else {
                let rates = sorted.iter().map(|keys| share_at_least(keys, *threshold));
                rates.sum::<f64>() / sorted.len() as f64
            }
        };
        let shared_fpr = thresholds.par_iter().map(fpr).collect();
        Ok(Self { thresholds, shared_fpr, anomalous })
    }

    /// The thresholds, ascending.
    pub fn thresholds(&self) -> &[f32] {
        &self.thresholds
    }

    /// For each threshold the false positive rate of the normal images, averaged over them.
    pub fn shared_fpr(&self) -> &[f64] {
        &self.shared_fpr
    }

    /// For each image whether any of its pixels is anomalous.
    pub fn is_anomalous(&self) -> impl Iterator<Item = bool> {
        self.anomalous.iter().map(Option::is_some)
    }

    /// For each threshold the share of an image's anomalous pixels that are found; none for a normal image or an index
    /// beyond the last.
    pub fn tpr(&self, image: usize) -> Option<Vec<f64>> {
        let keys = self.anomalous.get(image)?.as_ref()?;
        Some(self.thresholds.iter().map(|&threshold| share_at_least(keys, threshold)).collect())
    }

    /// The area under each anomalous image's curve over ln of the shared false positive rate, between the thresholds
    /// whose rate is nearest to `lower` and `upper` (usually 1e-5 and 1e-4), divided by ln(upper / lower).
    ///
    /// `even_if_coarse` takes fewer than [`FEWEST_POINTS`] thresholds between the bounds, down to 2.
    ///
    /// # Errors
    /// [`Error::Option`] unless 0 < lower < upper <= 1, [`Error::Unreached`] for a bound outside the curve,
    /// [`Error::TooFewPoints`].
    pub fn area(&self, lower: f64, upper: f64, even_if_coarse: bool) -> Result<Aupimo, Error> {
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
        let logs: Vec<f64> = self.shared_fpr[kept.clone()].iter().map(|rate| rate.ln()).collect();
        let area = |keys: &Vec<u32>| {
            let tpr: Vec<f64> =
                self.thresholds[kept.clone()].iter().map(|&t| share_at_least(keys, t)).collect();
            let pieces = logs.windows(2).zip(tpr.windows(2));
            let sum: f64 = pieces.map(|(x, y)| (x[0] - x[1]) * f64::midpoint(y[0], y[1])).sum();
            (sum / (upper / lower).ln()).clamp(0.0, 1.0)
        };
        let per_image: Vec<Option<f64>> =
            self.anomalous.par_iter().map(|keys| keys.as_ref().map(area)).collect();
        let count = per_image.iter().flatten().count();
        Ok(Aupimo {
            mean: per_image.iter().flatten().sum::<f64>() / count as f64,
            points: kept.len(),
            thresholds: (self.thresholds[kept.start], self.thresholds[kept.end - 1]),
            per_image,
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

fn anomalous_keys(image: &ScoredMap<'_>) -> Option<Vec<u32>> {
    image.is_anomalous().then(|| {
        let scores = image.scores().iter().enumerate();
        sorted_keys(scores.filter(|&(pixel, _)| image.is_anomalous_at(pixel)).map(|(_, &score)| score))
    })
}

fn sorted_keys(scores: impl Iterator<Item = f32>) -> Vec<u32> {
    let mut keys: Vec<u32> = scores.map(Sealed::key).collect();
    keys.par_sort_unstable();
    keys
}

/// How many of the sorted keys are at least the threshold's.
fn count_at_least(sorted: &[u32], threshold: f32) -> usize {
    let key = threshold.key();
    sorted.len() - sorted.partition_point(|&k| k < key)
}

/// Their share.
fn share_at_least(sorted: &[u32], threshold: f32) -> f64 {
    count_at_least(sorted, threshold) as f64 / sorted.len() as f64
}

/// Linearly spaced as `torch.linspace` does it in f32: from either end to the middle, so that both ends are exact.
fn spaced(low: f32, high: f32, count: usize) -> Vec<f32> {
    let step = (high - low) / (count - 1) as f32;
    let value = |k: usize| {
        if k < count / 2 { low + step * k as f32 } else { high - step * (count - 1 - k) as f32 }
    };
    (0..count).map(value).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_ends_are_exact_and_the_highest_normal_score_counts() {
        let thresholds = spaced(0.1, 0.7, 1001);
        assert_eq!((thresholds[0], thresholds[1000]), (0.1, 0.7));
        assert!(thresholds.windows(2).all(|pair| pair[0] < pair[1]));
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
