//! PRO, the per-region overlap, and the area under its curve (Bergmann et al. 2020, the `MVTec` AD definition).

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::background::highest;
use crate::overlap::{Member, OverlapCurve, RegionPixels, check_limit, member};
use crate::regions::{Regions, any_set};
use crate::score::check_scores;
use crate::score::sealed::Sealed;
use crate::{Connectivity, Error, ScoredMap};

/// Mean overlap of the anomalous regions over the false positive rate of the pixels outside them.
///
/// Regions are the connected components of each mask; every region weighs the same, whatever its size. The curve has
/// a point wherever a score of a region's pixel bends it and is exact: nothing is binned or sampled.
///
/// ```
/// use metrics::{ProCurve, ScoredMap};
///
/// let map = [0.9, 0.1, 0.2, 0.3];
/// let image = ScoredMap::new(2, 2, &map, Some(&[1, 0, 0, 0]))?;
/// let curve = ProCurve::new(&[image], 1.0)?;
/// assert_eq!(curve.regions(), 1);
/// assert_eq!(curve.area(0.3)?, 1.0);
/// # Ok::<(), metrics::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ProCurve(OverlapCurve);

impl ProCurve {
    /// The curve up to the false positive rate `limit`, in (0, 1]; regions with eight neighbours. The smaller the
    /// limit, the less there is to sort.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::NotFinitePixel`], [`Error::NoRegion`], [`Error::NoBackground`], or [`Error::Option`]
    /// for the limit.
    pub fn new(images: &[ScoredMap<'_>], limit: f64) -> Result<Self, Error> {
        Self::with_connectivity(images, limit, Connectivity::default())
    }

    /// [`ProCurve::new`] with another idea of which pixels touch.
    ///
    /// # Errors
    /// As [`ProCurve::new`].
    pub fn with_connectivity(
        images: &[ScoredMap<'_>],
        limit: f64,
        connectivity: Connectivity,
    ) -> Result<Self, Error> {
        check_limit(limit)?;
        ScoredMap::check_all(images)?;
        let (members, capacities) = members(images, connectivity);
        let (background, background_count) = highest(images, limit);
        let pixels = RegionPixels { background, background_count, members, capacities };
        OverlapCurve::new(pixels, limit, "PRO").map(Self)
    }

    pub(crate) fn from_overlap(curve: OverlapCurve) -> Self {
        Self(curve)
    }

    /// AUPRO: the area under the curve from 0 to the false positive rate `limit`, divided by `limit`, in [0, 1]. The
    /// value at `limit` is interpolated linearly. 0.3 is usual, 0.05 stricter. Constant maps give limit / 2.
    ///
    /// # Errors
    /// [`Error::Option`] for a limit outside (0, 1] or beyond the one the curve was made for.
    pub fn area(&self, limit: f64) -> Result<f64, Error> {
        self.0.area(limit)
    }

    /// False positive rate and mean overlap, both rising, from (0, 0) to just beyond the curve's limit; straight pieces
    /// have only their ends.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.0.points()
    }

    /// How many regions there are in all masks.
    pub fn regions(&self) -> usize {
        self.0.regions()
    }
}

/// The pixels of all regions, in no order, and the regions' sizes.
pub(crate) fn members(images: &[ScoredMap<'_>], connectivity: Connectivity) -> (Vec<Member>, Vec<u64>) {
    let of_image = |image: &ScoredMap<'_>| {
        let Some(regions) = regions(image, connectivity) else { return (Vec::new(), Vec::new()) };
        let mut members = Vec::with_capacity(regions.sizes.iter().sum::<u64>() as usize);
        let width = image.width();
        let rows = image.scores().chunks_exact(width).zip(regions.labels.chunks_exact(width));
        let masked = image.mask().unwrap_or_default().chunks_exact(width);
        for ((scores, labels), _) in rows.zip(masked).filter(|(_, mask)| any_set(mask)) {
            for (score, &label) in scores.iter().zip(labels) {
                if let Some(region) = label.checked_sub(1) {
                    members.push(member(score.key(), region));
                }
            }
        }
        (members, regions.sizes)
    };
    let parts: Vec<(Vec<Member>, Vec<u64>)> = images.par_iter().map(of_image).collect();
    let mut members = Vec::with_capacity(parts.iter().map(|(members, _)| members.len()).sum());
    let mut sizes = Vec::new();
    for (own, own_sizes) in parts {
        let before = sizes.len() as u64;
        // The number is in the lower half and counts regions, far fewer than fit there.
        members.extend(own.iter().map(|member| member + before));
        sizes.extend(own_sizes);
    }
    (members, sizes)
}

/// The regions of an image; none if nothing of it is anomalous.
fn regions(image: &ScoredMap<'_>, connectivity: Connectivity) -> Option<Regions> {
    let mask = image.mask().filter(|_| image.is_anomalous())?;
    Some(Regions::of_mask(mask, image.height(), image.width(), connectivity))
}

/// How many regions there are in all masks.
pub fn count_regions(images: &[ScoredMap<'_>], connectivity: Connectivity) -> usize {
    let count = |image: &ScoredMap<'_>| regions(image, connectivity).map_or(0, |regions| regions.sizes.len());
    images.par_iter().map(count).sum()
}

/// AUPRO up to the false positive rate `limit`, see [`ProCurve::area`].
///
/// # Errors
/// As [`ProCurve::new`].
pub fn aupro(images: &[ScoredMap<'_>], limit: f64) -> Result<f64, Error> {
    ProCurve::new(images, limit)?.area(limit)
}

/// PRO at a fixed threshold: the share of each region with score > threshold, averaged over all regions (eight
/// neighbours).
///
/// # Errors
/// [`Error::Empty`], [`Error::NotFinitePixel`], [`Error::NoRegion`], [`Error::NotFinite`] for the threshold.
pub fn pro_at(images: &[ScoredMap<'_>], threshold: f32) -> Result<f64, Error> {
    ScoredMap::check_all(images)?;
    check_scores(&[threshold])?;
    let mut overlaps = Vec::new();
    for image in images {
        let Some(regions) = regions(image, Connectivity::default()) else { continue };
        let mut found = vec![0_u64; regions.sizes.len()];
        for (&score, label) in image.scores().iter().zip(regions.labels) {
            if let (Some(region), true) = (label.checked_sub(1), score > threshold) {
                found[region as usize] += 1;
            }
        }
        overlaps.extend(found.iter().zip(&regions.sizes).map(|(&found, &size)| found as f64 / size as f64));
    }
    if overlaps.is_empty() {
        return Err(Error::NoRegion { metric: "PRO" });
    }
    Ok(overlaps.iter().sum::<f64>() / overlaps.len() as f64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn regions_weigh_the_same_and_the_limit_is_interpolated() {
        // two regions, of one and of two pixels; background 0.8, 0.4, 0.2, 0.1
        let scores = [0.9, 0.8, 0.5, 0.3, 0.4, 0.2, 0.1];
        let mask = [1, 0, 1, 1, 0, 0, 0];
        let image = ScoredMap::new(1, 7, &scores, Some(&mask)).unwrap();
        let curve = ProCurve::new(&[image], 1.0).unwrap();
        let points: Vec<_> = curve.points().collect();
        assert_eq!(
            points,
            [(0.0, 0.0), (0.0, 0.5), (0.25, 0.5), (0.25, 0.75), (0.5, 0.75), (0.5, 1.0), (1.0, 1.0)]
        );
        assert_eq!(curve.area(1.0).unwrap(), 0.25 * (0.5 + 0.75 + 1.0 + 1.0));
        assert_eq!(curve.area(0.25).unwrap(), 0.5);
        assert!((aupro(&[image], 0.3).unwrap() - (0.25 * 0.5 + 0.05 * 0.75) / 0.3).abs() < 1e-15);
        assert_eq!(pro_at(&[image], 0.3).unwrap(), 0.75);
    }

    #[test]
    fn constant_maps_give_half_the_limit() {
        let (scores, mask) = ([2.0; 6], [0, 1, 0, 0, 0, 0]);
        let image = ScoredMap::new(2, 3, &scores, Some(&mask)).unwrap();
        let curve = ProCurve::new(&[image], 1.0).unwrap();
        for limit in [0.05, 0.3, 1.0] {
            assert!((curve.area(limit).unwrap() - limit / 2.0).abs() < 1e-15);
        }
    }

    #[test]
    fn what_has_no_curve_is_refused() {
        let scores = [0.0, 1.0];
        let of = |mask| [ScoredMap::new(1, 2, &scores, mask).unwrap()];
        assert_eq!(aupro(&of(None), 0.3).unwrap_err(), Error::NoRegion { metric: "PRO" });
        assert_eq!(pro_at(&of(Some(&[0, 0])), 0.3).unwrap_err(), Error::NoRegion { metric: "PRO" });
        assert_eq!(aupro(&of(Some(&[1, 1])), 0.3).unwrap_err(), Error::NoBackground { metric: "PRO" });
        for limit in [0.0, -0.1, 1.1, f64::NAN] {
            assert!(matches!(aupro(&of(Some(&[1, 0])), limit), Err(Error::Option { name: "limit", .. })));
        }
        let curve = ProCurve::new(&of(Some(&[1, 0])), 0.3).unwrap();
        assert!(curve.area(0.3).is_ok() && curve.area(0.4).is_err());
    }
}
