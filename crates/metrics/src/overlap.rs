//! The curve that PRO and sPRO share: mean overlap of the regions over the false positive rate.

use rayon::slice::ParallelSliceMut;

use crate::Error;

/// The pixels to rank, as keys that sort like scores.
#[derive(Debug, Default)]
pub(crate) struct RegionPixels {
    /// Pixels outside every region.
    pub(crate) background: Vec<u32>,
    /// Pixels of regions with the region's number; a pixel of two regions is in here twice.
    pub(crate) members: Vec<(u32, u32)>,
    /// How many pixels of each region it takes for an overlap of 1.
    pub(crate) capacities: Vec<u64>,
}

/// Mean overlap over false positive rate, up to a largest rate, one point per distinct score.
#[derive(Clone, Debug)]
pub(crate) struct OverlapCurve {
    /// False positives and mean overlap, both rising, from (0, 0). Of the points with one false positive count only
    /// the first and the last are kept.
    points: Vec<(u64, f64)>,
    background: u64,
    regions: usize,
    limit: f64,
}

pub(crate) fn check_limit(limit: f64) -> Result<(), Error> {
    if limit > 0.0 && limit <= 1.0 {
        Ok(())
    } else {
        Err(Error::Option { name: "limit", expected: "more than 0 and at most 1", found: limit })
    }
}

impl OverlapCurve {
    /// `metric` is for messages.
    pub(crate) fn new(pixels: RegionPixels, limit: f64, metric: &'static str) -> Result<Self, Error> {
        check_limit(limit)?;
        let RegionPixels { mut background, mut members, capacities } = pixels;
        if capacities.is_empty() {
            return Err(Error::NoRegion { metric });
        }
        if background.is_empty() {
            return Err(Error::NoBackground { metric });
        }
        let all = background.len();
        // What ranks below the limit is never looked at: one false positive beyond it closes the last piece, one more
        // is for the rounding of the product.
        let needed = (limit * all as f64) as usize + 2;
        if needed < all {
            let (_, &mut lowest, _) = background.select_nth_unstable_by(needed - 1, |a, b| b.cmp(a));
            background.retain(|&key| key >= lowest);
            members.retain(|&(key, _)| key >= lowest);
        }
        background.par_sort_unstable();
        members.par_sort_unstable();
        let weights: Vec<f64> =
            capacities.iter().map(|&c| 1.0 / (capacities.len() as f64 * c as f64)).collect();
        let mut room = capacities.clone();
        let mut points = vec![(0, 0.0)];
        let (mut false_positives, mut overlap) = (0_u64, 0.0_f64);
        let (mut background, mut members) = (&background[..], &members[..]);
        while let Some(key) = background.last().copied().max(members.last().map(|&(key, _)| key)) {
            while let Some((&last, rest)) = background.split_last().filter(|(last, _)| **last == key) {
                debug_assert_eq!(last, key);
                background = rest;
                false_positives += 1;
            }
            while let Some((&(_, region), rest)) = members.split_last().filter(|(last, _)| last.0 == key) {
                members = rest;
                let room = &mut room[region as usize];
                if *room > 0 {
                    *room -= 1;
                    overlap += weights[region as usize];
                }
            }
            let flat = points.iter().rev().take(2).filter(|point| point.0 == false_positives).count();
            if flat == 2 {
                points.pop();
            }
            points.push((false_positives, overlap.min(1.0)));
        }
        Ok(Self { points, background: all as u64, regions: capacities.len(), limit })
    }

    /// The trapezoid area from 0 to `limit`, interpolated there, divided by `limit`.
    pub(crate) fn area(&self, limit: f64) -> Result<f64, Error> {
        check_limit(limit)?;
        if limit > self.limit {
            return Err(Error::Option {
                name: "limit",
                expected: "at most the curve's own limit",
                found: limit,
            });
        }
        let mut area = 0.0;
        for pair in self.points.windows(2) {
            let ((x0, y0), (x1, y1)) = (self.point(pair[0]), self.point(pair[1]));
            if x1 >= limit {
                if x1 > x0 {
                    let y = y0 + (y1 - y0) * (limit - x0) / (x1 - x0);
                    area += (limit - x0) * f64::midpoint(y0, y);
                }
                break;
            }
            area += (x1 - x0) * f64::midpoint(y0, y1);
        }
        Ok(area / limit)
    }

    fn point(&self, (false_positives, overlap): (u64, f64)) -> (f64, f64) {
        (false_positives as f64 / self.background as f64, overlap)
    }

    pub(crate) fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.points.iter().map(|&point| self.point(point))
    }

    pub(crate) fn regions(&self) -> usize {
        self.regions
    }
}
