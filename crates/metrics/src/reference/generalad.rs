//! `GeneralAD` (Strater et al. 2024) and what it has from `SimpleNet` (Liu et al. 2023).

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::overlap::check_limit;
use crate::regions::Regions;
use crate::score::sealed::Sealed;
use crate::{Connectivity, Error, ScoredMap};

/// The references' PRO: not AUPRO, and higher.
///
/// At each threshold of a grid over the range of all maps, pixels above it are found. Regions (eight neighbours) are
/// compared with the found pixels **dilated** by a square, the false positive rate counts them undilated. The points
/// with a rate below the limit are kept, their rates divided by the largest one kept, and the area is taken between
/// the first and the last, with no point at 0 and none interpolated at the limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProReference {
    /// Side of the square. An even one reaches one pixel further up and left than down and right.
    pub kernel: usize,
    /// How many thresholds the range is divided into.
    pub thresholds: usize,
    /// Rates below it are kept, in (0, 1].
    pub fpr_limit: f64,
}

impl ProReference {
    /// The references' own thresholds and limit.
    pub fn new(kernel: usize) -> Self {
        Self { kernel, thresholds: 200, fpr_limit: 0.3 }
    }

    /// The figure, in [0, 1].
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::NotFinitePixel`], [`Error::NoRegion`], [`Error::NoBackground`]; [`Error::Option`] for a
    /// kernel or a number of thresholds of 0 or a limit outside (0, 1]; [`Error::Undefined`] if all pixels have one
    /// score or fewer than two points with different rates are kept.
    pub fn area(&self, images: &[ScoredMap<'_>]) -> Result<f64, Error> {
        check_limit(self.fpr_limit)?;
        for (name, value) in [("kernel", self.kernel), ("thresholds", self.thresholds)] {
            if value == 0 {
                return Err(Error::Option { name, expected: "at least 1", found: 0.0 });
            }
        }
        ScoredMap::check_all(images)?;
        let thresholds = self.grid(images)?;
        // How many of the thresholds lie below a score says at which of them its pixel is found.
        let exceeded = |score: f32| thresholds.partition_point(|&threshold| threshold < score);
        let of_image = |image: &ScoredMap<'_>| self.count(image, thresholds.len(), exceeded);
        let counts = images.par_iter().map(of_image).reduce_with(Counts::plus).unwrap_or_default();
        if counts.regions == 0 {
            return Err(Error::NoRegion { metric: "the references' PRO" });
        }
        let background: u64 = counts.background.iter().sum();
        if background == 0 {
            return Err(Error::NoBackground { metric: "the references' PRO" });
        }
        // From the highest threshold down.
        let (mut false_positives, mut overlap) = (0, 0.0);
        let mut points = Vec::new();
        for above in (1..=thresholds.len()).rev() {
            false_positives += counts.background[above];
            overlap += counts.overlap[above];
            points.push((false_positives as f64 / background as f64, overlap / counts.regions as f64));
        }
        points.retain(|&(rate, _)| rate < self.fpr_limit);
        let largest = points.last().map_or(0.0, |&(rate, _)| rate);
        if largest == 0.0 || points.len() < 2 {
            let divisor = "the largest false positive rate below the limit";
            return Err(Error::Undefined { metric: "the references' PRO", divisor });
        }
        let area: f64 = points.windows(2).map(|w| (w[1].0 - w[0].0) * f64::midpoint(w[0].1, w[1].1)).sum();
        Ok(area / largest)
    }

    /// The thresholds, as `numpy.arange` makes them in f32: rounding may give one more than asked for.
    fn grid(&self, images: &[ScoredMap<'_>]) -> Result<Vec<f32>, Error> {
        let all = || images.iter().flat_map(ScoredMap::scores).copied();
        let (low, high) = (all().fold(f32::INFINITY, f32::min), all().fold(f32::NEG_INFINITY, f32::max));
        let step = (high - low) / self.thresholds as f32;
        if step == 0.0 {
            return Err(Error::Undefined {
                metric: "the references' PRO",
                divisor: "the range of the scores",
            });
        }
        let count = ((high - low) / step).ceil() as usize;
        let step = (low + step) - low;
        Ok((0..count).map(|i| low + i as f32 * step).collect())
    }

    fn count(&self, image: &ScoredMap<'_>, thresholds: usize, exceeded: impl Fn(f32) -> usize) -> Counts {
        let mut counts = Counts::new(thresholds);
        image.for_background(|score| counts.background[exceeded(score)] += 1);
        let Some(mask) = image.mask().filter(|_| image.is_anomalous()) else { return counts };
        let regions = Regions::of_mask(mask, image.height(), image.width(), Connectivity::Eight);
        // Dilating what lies above a threshold is the same as asking whether the highest neighbour does.
        let highest = self.highest_around(image);
        for (score, &label) in highest.into_iter().zip(&regions.labels) {
            if let Some(region) = label.checked_sub(1) {
                counts.overlap[exceeded(score)] += 1.0 / regions.sizes[region as usize] as f64;
            }
        }
        counts.regions = regions.sizes.len();
        counts
    }

    /// The highest score in the square around each pixel.
    fn highest_around(&self, image: &ScoredMap<'_>) -> Vec<f32> {
        let (height, width) = (image.height(), image.width());
        let before = self.kernel / 2;
        let around =
            |at: usize, side: usize| at.saturating_sub(before)..(at + self.kernel - before).min(side);
        let mut rows = Vec::with_capacity(height * width);
        for row in image.scores().chunks_exact(width) {
            rows.extend((0..width).map(|x| maximum(row[around(x, width)].iter().copied())));
        }
        let column = |y: usize, x: usize| maximum(around(y, height).map(|y| rows[y * width + x]));
        (0..height * width).map(|at| column(at / width, at % width)).collect()
    }
}

fn maximum(scores: impl Iterator<Item = f32>) -> f32 {
    // Through keys: there is no NaN, and integers need no care.
    scores.max_by_key(|score| score.key()).unwrap_or(f32::NEG_INFINITY)
}

/// Pixels by how many thresholds they lie above.
#[derive(Debug, Default)]
struct Counts {
    background: Vec<u64>,
    /// Of the (dilated) pixels of regions, each the share of its region.
    overlap: Vec<f64>,
    regions: usize,
}

impl Counts {
    fn new(thresholds: usize) -> Self {
        Self { background: vec![0; thresholds + 1], overlap: vec![0.0; thresholds + 1], regions: 0 }
    }

    fn plus(mut self, other: Self) -> Self {
        self.background.iter_mut().zip(other.background).for_each(|(a, b)| *a += b);
        self.overlap.iter_mut().zip(other.overlap).for_each(|(a, b)| *a += b);
        self.regions += other.regions;
        self
    }
}

/// The PRO of `GeneralAD`'s reference, whose square has the side of the backbone's patches.
///
/// # Errors
/// As [`ProReference::area`].
pub fn pro_reference_generalad(images: &[ScoredMap<'_>], patch: usize) -> Result<f64, Error> {
    ProReference::new(patch).area(images)
}

/// The PRO of `SimpleNet`'s reference, whose square has a side of 5.
///
/// # Errors
/// As [`ProReference::area`].
pub fn pro_reference_simplenet(images: &[ScoredMap<'_>]) -> Result<f64, Error> {
    ProReference::new(5).area(images)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_even_square_reaches_further_up_and_left() {
        let mut scores = [0.0; 25];
        scores[12] = 1.0;
        let image = ScoredMap::new(5, 5, &scores, None).unwrap();
        let reached = |kernel: usize| -> Vec<usize> {
            let highest = ProReference::new(kernel).highest_around(&image);
            (0..25).filter(|&at| highest[at] == 1.0).collect()
        };
        // A pixel's square covers offsets -1 and 0, so a found pixel spreads down and right.
        assert_eq!(reached(2), [12, 13, 17, 18]);
        assert_eq!(reached(3), [6, 7, 8, 11, 12, 13, 16, 17, 18]);
        assert_eq!(reached(1), [12]);
    }

    #[test]
    fn dilation_flatters() {
        let scores: Vec<f32> = (0..100_u8).map(|i| f32::from(i.wrapping_mul(37) % 101)).collect();
        let mask: Vec<u8> = (0..100).map(|i| u8::from(i % 10 > 7 && i / 10 > 6)).collect();
        let images = [ScoredMap::new(10, 10, &scores, Some(&mask)).unwrap()];
        let [plain, dilated] = [1, 5].map(|kernel| ProReference::new(kernel).area(&images).unwrap());
        assert!(dilated > plain, "{dilated} {plain}");
        assert_eq!(pro_reference_simplenet(&images).unwrap(), dilated);
    }

    #[test]
    fn what_has_no_figure_is_refused() {
        let (flat, steep) = ([1.0; 4], [0.0, 1.0, 2.0, 3.0]);
        let of = |scores, mask| [ScoredMap::new(2, 2, scores, Some(mask)).unwrap()];
        let area = |images: &[ScoredMap<'_>]| ProReference::new(3).area(images);
        assert!(matches!(area(&of(&flat, &[0, 0, 0, 1])), Err(Error::Undefined { .. })));
        assert!(matches!(area(&of(&steep, &[0, 0, 0, 0])), Err(Error::NoRegion { .. })));
        assert!(matches!(area(&of(&steep, &[1, 1, 1, 1])), Err(Error::NoBackground { .. })));
        // The first false positive already is a third of the background.
        assert!(matches!(area(&of(&steep, &[0, 0, 0, 1])), Err(Error::Undefined { .. })));
        let none = ProReference { kernel: 0, ..ProReference::new(1) };
        assert!(matches!(none.area(&of(&steep, &[0, 0, 0, 1])), Err(Error::Option { name: "kernel", .. })));
    }
}
