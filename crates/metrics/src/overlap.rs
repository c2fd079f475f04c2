//! The curve that PRO and sPRO share: mean overlap of the regions over the false positive rate.

use crate::Error;
use crate::gallop::taken_from_end;

/// A pixel of a region: the key of its score above, the region's number below. They sort like the scores.
pub(crate) type Member = u64;

pub(crate) fn member(key: u32, region: u32) -> Member {
    u64::from(key) << 32 | u64::from(region)
}

pub(crate) fn key_of(member: Member) -> u32 {
    (member >> 32) as u32
}

fn region_of(member: Member) -> usize {
    member as u32 as usize
}

/// The pixels to rank.
#[derive(Debug, Default)]
pub(crate) struct RegionPixels {
    /// Keys of pixels outside every region; of those that matter, see [`needed`].
    pub(crate) background: Vec<u32>,
    /// How many pixels there are outside every region.
    pub(crate) background_count: u64,
    /// Pixels of regions; a pixel of two regions is in here twice.
    pub(crate) members: Vec<Member>,
    /// How many pixels of each region it takes for an overlap of 1.
    pub(crate) capacities: Vec<u64>,
}

/// Mean overlap over false positive rate, up to a largest rate, one point per distinct score of a region's pixel.
#[derive(Clone, Debug)]
pub(crate) struct OverlapCurve {
    /// False positives and mean overlap, both rising, from (0, 0). Points between the ends of a straight piece are left
    /// out.
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

/// How many of `background` pixels, the highest, decide the curve up to `limit`: one false positive beyond it closes
/// the last piece, one more is for the rounding of the product.
pub(crate) fn needed(limit: f64, background: u64) -> u64 {
    ((limit * background as f64) as u64 + 2).min(background)
}

impl OverlapCurve {
    /// Sorts the pixels. `metric` is for messages.
    pub(crate) fn new(pixels: RegionPixels, limit: f64, metric: &'static str) -> Result<Self, Error> {
        check_limit(limit)?;
        let RegionPixels { background, background_count, members, capacities } = pixels;
        check_counts(capacities.len(), background_count, metric)?;
        let background = crate::sort::by_key(background, |key| key);
        let members = crate::sort::by_key(members, key_of);
        Ok(Self::from_sorted(&background, background_count, &members, &capacities, limit))
    }

    /// From keys and members in rising order: all, or at least the [`needed`] ones. There is a region and a background.
    pub(crate) fn from_sorted(
        mut background: &[u32],
        background_count: u64,
        mut members: &[Member],
        capacities: &[u64],
        limit: f64,
    ) -> Self {
        let weights: Vec<f64> =
            capacities.iter().map(|&c| 1.0 / (capacities.len() as f64 * c as f64)).collect();
        let mut room = capacities.to_vec();
        let mut points = Points(vec![(0, 0.0)]);
        let (mut false_positives, mut overlap) = (0, 0.0_f64);
        let needed = needed(limit, background_count);
        while let Some(key) = members.last().map(|&last| key_of(last)) {
            false_positives += taken_from_end(&mut background, |k| k > key);
            points.push((false_positives, overlap.min(1.0)));
            if false_positives >= needed && needed < background_count {
                break;
            }
            while let Some((&last, rest)) = members.split_last().filter(|(last, _)| key_of(**last) == key) {
                members = rest;
                let room = &mut room[region_of(last)];
                if *room > 0 {
                    *room -= 1;
                    overlap += weights[region_of(last)];
                }
            }
            false_positives += taken_from_end(&mut background, |k| k == key);
            points.push((false_positives, overlap.min(1.0)));
        }
        points.push((false_positives + background.len() as u64, overlap.min(1.0)));
        Self { points: points.0, background: background_count, regions: capacities.len(), limit }
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

pub(crate) fn check_counts(regions: usize, background: u64, metric: &'static str) -> Result<(), Error> {
    if regions == 0 {
        return Err(Error::NoRegion { metric });
    }
    if background == 0 { Err(Error::NoBackground { metric }) } else { Ok(()) }
}

/// The points of a rising curve, without those that level and upright pieces pass.
struct Points(Vec<(u64, f64)>);

impl Points {
    fn push(&mut self, point: (u64, f64)) {
        if self.0.last() == Some(&point) {
            return;
        }
        if let [.., before, last] = self.0[..]
            && ((before.0 == last.0 && last.0 == point.0) || (before.1 == last.1 && last.1 == point.1))
        {
            self.0.pop();
        }
        self.0.push(point);
    }
}
