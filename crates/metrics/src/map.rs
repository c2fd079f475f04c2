//! Anomaly maps with their masks.

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};

use crate::regions::any_set;
use crate::score::first_not_finite;
use crate::split::{Truth, by_class};
use crate::{Error, F1Max, Ranking};

/// Samples of a mask that are looked at together.
const BLOCK: usize = 256;

/// One image's anomaly map and mask, both row-major `(height, width)`. Images of one call may differ in size.
///
/// Maps and masks are taken at the resolution they have: whether a map was brought to the mask's size or the mask to
/// the map's changes the figures, so decide it once and record it.
#[derive(Clone, Copy, Debug)]
pub struct ScoredMap<'a> {
    height: usize,
    width: usize,
    scores: &'a [f32],
    mask: Option<&'a [u8]>,
}

impl<'a> ScoredMap<'a> {
    /// A map and its mask, in which every pixel above 0 is anomalous; no mask is a normal image.
    ///
    /// # Errors
    /// [`Error::Empty`] without pixels, [`Error::Shape`] if one of the two has another number of pixels.
    pub fn new(
        height: usize,
        width: usize,
        scores: &'a [f32],
        mask: Option<&'a [u8]>,
    ) -> Result<Self, Error> {
        if scores.is_empty() {
            return Err(Error::Empty { what: "map" });
        }
        let check = |what, found| {
            if height.checked_mul(width) == Some(found) {
                Ok(())
            } else {
                Err(Error::Shape { what, height, width, found })
            }
        };
        check("map", scores.len())?;
        if let Some(mask) = mask {
            check("mask", mask.len())?;
        }
        Ok(Self { height, width, scores, mask })
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The map, row-major.
    pub fn scores(&self) -> &'a [f32] {
        self.scores
    }

    /// The mask, row-major.
    pub fn mask(&self) -> Option<&'a [u8]> {
        self.mask
    }

    /// Whether the pixel at this row-major position is anomalous.
    pub(crate) fn is_anomalous_at(&self, pixel: usize) -> bool {
        self.mask.is_some_and(|mask| mask[pixel] > 0)
    }

    /// Whether any pixel is anomalous.
    pub fn is_anomalous(&self) -> bool {
        self.mask.is_some_and(any_set)
    }

    /// The scores of the anomalous pixels.
    pub(crate) fn anomalous_scores(&self) -> impl Iterator<Item = f32> {
        let pairs = self.scores.iter().zip(self.mask.unwrap_or(&[]));
        pairs.filter(|&(_, &sample)| sample > 0).map(|(&score, _)| score)
    }

    /// Calls `each` with the score of every pixel that is not anomalous.
    pub(crate) fn for_background(&self, mut each: impl FnMut(f32)) {
        match self.mask {
            None => self.scores.iter().for_each(|&score| each(score)),
            Some(mask) => {
                for (scores, mask) in self.scores.chunks(BLOCK).zip(mask.chunks(BLOCK)) {
                    if any_set(mask) {
                        let background = scores.iter().zip(mask).filter(|&(_, &sample)| sample == 0);
                        background.for_each(|(&score, _)| each(score));
                    } else {
                        // Most blocks: nothing to look at sample by sample.
                        for &score in scores {
                            each(score);
                        }
                    }
                }
            }
        }
    }

    /// Refuses no images, and scores that are NaN or infinite.
    pub(crate) fn check_all(images: &[Self]) -> Result<(), Error> {
        if images.is_empty() {
            return Err(Error::Empty { what: "images" });
        }
        let bad = |(image, map): (usize, &Self)| map.check(image).err();
        images.par_iter().enumerate().find_map_first(bad).map_or(Ok(()), Err)
    }

    /// Refuses scores that are NaN or infinite; `image` is its position, for the message.
    pub(crate) fn check(&self, image: usize) -> Result<(), Error> {
        match first_not_finite(self.scores) {
            None => Ok(()),
            Some(pixel) => Err(Error::NotFinitePixel { image, pixel, value: self.scores[pixel].into() }),
        }
    }
}

impl Ranking<f32> {
    /// The pixels of all images together, normal images included. Memory: 4 bytes a pixel, 8 while sorting.
    ///
    /// # Errors
    /// [`Error::Empty`] without images, [`Error::NotFinitePixel`].
    pub fn of_pixels(images: &[ScoredMap<'_>]) -> Result<Self, Error> {
        ScoredMap::check_all(images)?;
        let pieces: Vec<_> = images.iter().map(|image| (image.scores, Truth::of_mask(image.mask))).collect();
        let (positives, negatives) = by_class(&pieces);
        Ok(Self::from_keys(positives, negatives))
    }
}

/// Area under the ROC curve of all pixels, see [`Ranking::auroc`].
///
/// # Errors
/// As [`Ranking::of_pixels`], and without an anomalous or a normal pixel.
pub fn pixel_auroc(images: &[ScoredMap<'_>]) -> Result<f64, Error> {
    Ranking::of_pixels(images)?.auroc()
}

/// Average precision of all pixels, see [`Ranking::average_precision`].
///
/// # Errors
/// As [`Ranking::of_pixels`], and without an anomalous pixel.
pub fn pixel_average_precision(images: &[ScoredMap<'_>]) -> Result<f64, Error> {
    Ranking::of_pixels(images)?.average_precision()
}

/// The largest F1 of all pixels and its threshold, see [`Ranking::f1_max`].
///
/// # Errors
/// As [`Ranking::of_pixels`], and without an anomalous pixel.
pub fn pixel_f1_max(images: &[ScoredMap<'_>]) -> Result<F1Max<f32>, Error> {
    Ranking::of_pixels(images)?.f1_max()
}

/// False positive rate of all pixels at a true positive rate, see [`Ranking::fpr_at_tpr`].
///
/// # Errors
/// As [`Ranking::of_pixels`], without an anomalous or a normal pixel, and for a rate outside (0, 1].
pub fn pixel_fpr_at_tpr(images: &[ScoredMap<'_>], true_positive_rate: f64) -> Result<f64, Error> {
    Ranking::of_pixels(images)?.fpr_at_tpr(true_positive_rate)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sizes_must_agree() {
        let scores = [0.0; 6];
        assert!(ScoredMap::new(2, 3, &scores, Some(&[0; 6])).is_ok());
        let message = ScoredMap::new(2, 3, &scores, Some(&[0; 5])).unwrap_err().to_string();
        assert_eq!(message, "mask: expected 2 x 3 = 6 pixels, found 5");
        assert!(matches!(ScoredMap::new(2, 2, &scores, None), Err(Error::Shape { what: "map", .. })));
        assert!(matches!(ScoredMap::new(0, 3, &[], None), Err(Error::Empty { .. })));
    }

    #[test]
    fn a_bad_pixel_is_named() {
        let (good, bad) = ([0.0; 4], [0.0, 0.0, f32::NEG_INFINITY, f32::NAN]);
        let images = [&good, &bad].map(|scores| ScoredMap::new(2, 2, scores, Some(&[1, 0, 0, 0])).unwrap());
        assert_eq!(
            pixel_auroc(&images).unwrap_err(),
            Error::NotFinitePixel { image: 1, pixel: 2, value: f64::NEG_INFINITY }
        );
        assert_eq!(pixel_auroc(&[]).unwrap_err(), Error::Empty { what: "images" });
    }
}
