//! All figures in one pass from the highest score down, over groups whose inside may be unknown.

use super::exact::score_of;
use crate::overlap::check_limit;
use crate::{Aupro, Bounded, Error, PixelFigures};

/// What there is in all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Totals {
    pub(super) positives: u64,
    pub(super) negatives: u64,
    pub(super) regions: u64,
}

/// Pixels whose scores lie next to each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// The key of the lowest score that belongs here.
    pub(super) lowest: u32,
    pub(super) positives: u64,
    pub(super) negatives: u64,
    /// What the positives add to the sum over all regions of the share that is found.
    pub(super) overlap: f64,
    /// Whether all scores are equal; if not, nothing is known of their order.
    pub(super) is_one_score: bool,
}

/// The pass.
#[derive(Debug)]
pub(super) struct Sweep {
    totals: Totals,
    true_positives: u64,
    false_positives: u64,
    overlap: f64,
    /// Pairs of a positive and a negative, twice those in order and once those that are equal or unknown.
    half_pairs: u128,
    unknown_pairs: u128,
    precision: (f64, f64),
    /// Of the best threshold found: its key, and numerator and denominator of F1 / 2.
    best: (u32, u64, u64),
    highest_f1: f64,
    fpr_at_95_tpr: Option<Bounded>,
    areas: Vec<Area>,
}

#[derive(Debug)]
struct Area {
    limit: f64,
    sum: f64,
    error: f64,
}

impl Sweep {
    pub(super) fn new(totals: Totals, limits: &[f64]) -> Result<Self, Error> {
        limits.iter().try_for_each(|&limit| check_limit(limit))?;
        if totals.positives == 0 {
            return Err(Error::NoPositives { metric: "a figure of pixels" });
        }
        if totals.negatives == 0 {
            return Err(Error::NoNegatives { metric: "a figure of pixels" });
        }
        Ok(Self {
            totals,
            true_positives: 0,
            false_positives: 0,
            overlap: 0.0,
            half_pairs: 0,
            unknown_pairs: 0,
            precision: (0.0, 0.0),
            best: (0, 0, 1),
            highest_f1: 0.0,
            fpr_at_95_tpr: None,
            areas: limits.iter().map(|&limit| Area { limit, sum: 0.0, error: 0.0 }).collect(),
        })
    }

    /// The next group downwards.
    pub(super) fn push(&mut self, group: &Group) {
        let Group { positives, negatives, is_one_score, .. } = *group;
        let (all_positives, all_negatives) = (self.totals.positives, self.totals.negatives);
        let (above, found_before) = (self.false_positives, self.true_positives);
        self.false_positives += negatives;
        self.true_positives += positives;
        let (found, wrong) = (self.true_positives, self.false_positives);
        if positives > 0 {
            self.half_pairs += u128::from(positives) * u128::from(2 * all_negatives - above - wrong);
            if !is_one_score {
                self.unknown_pairs += u128::from(positives) * u128::from(negatives);
            }
            let (low, high) = precision(group, found_before, above);
            self.precision = (self.precision.0 + low, self.precision.1 + high);

            // F1 = 2 TP / (P + TP + FP) at the group's lower end; compared as fractions, the lower threshold wins.
            let denominator = all_positives + found + wrong;
            let (_, best_found, best_denominator) = self.best;
            if u128::from(found) * u128::from(best_denominator)
                >= u128::from(best_found) * u128::from(denominator)
            {
                self.best = (group.lowest, found, denominator);
            }
            let fewest_wrong = if is_one_score { wrong } else { above };
            let highest = 2.0 * found as f64 / (all_positives + found + fewest_wrong) as f64;
            self.highest_f1 = self.highest_f1.max(highest);

            if self.fpr_at_95_tpr.is_none() && found as f64 / all_positives as f64 >= 0.95 {
                let fewest = fewest_wrong as f64 / all_negatives as f64;
                self.fpr_at_95_tpr = Some(Bounded::between(fewest, wrong as f64 / all_negatives as f64));
            }
        }
        let rate = |false_positives: u64| false_positives as f64 / all_negatives as f64;
        let overlap = |sum: f64| (sum / self.totals.regions as f64).min(1.0);
        let (x, y) =
            ((rate(above), rate(wrong)), (overlap(self.overlap), overlap(self.overlap + group.overlap)));
        self.overlap += group.overlap;
        for area in &mut self.areas {
            area.add(x, y, is_one_score);
        }
    }

    /// The figures; `overlap_error` is how far an overlap may be off.
    pub(super) fn finish(self, overlap_error: f64) -> PixelFigures {
        let positives = self.totals.positives as f64;
        let pairs = 2.0 * positives * self.totals.negatives as f64;
        let (key, found, denominator) = self.best;
        let aupro = |area: &Area| {
            let (value, error) = (area.sum / area.limit, area.error / area.limit + overlap_error);
            Aupro { limit: area.limit, area: Bounded { value, error } }
        };
        PixelFigures {
            auroc: Bounded {
                value: self.half_pairs as f64 / pairs,
                error: self.unknown_pairs as f64 / pairs,
            },
            average_precision: Bounded::between(self.precision.0 / positives, self.precision.1 / positives),
            f1_max: Bounded::between(2.0 * found as f64 / denominator as f64, self.highest_f1),
            f1_threshold: score_of(key),
            // The last group has every positive.
            fpr_at_95_tpr: self.fpr_at_95_tpr.unwrap_or(Bounded::exact(1.0)),
            aupro: self.areas.iter().map(aupro).collect(),
        }
    }
}

/// The least and the most that the positives of a group can add to the sum of precisions, after `found` positives and
/// `above` negatives.
fn precision(group: &Group, found: u64, above: u64) -> (f64, f64) {
    let (gained, found) = (group.positives as f64, found as f64);
    let (fewest_wrong, most_wrong) = (above as f64, (above + group.negatives) as f64);
    let together = |wrong: f64| gained * ((found + gained) / (found + gained + wrong));
    if group.is_one_score || group.negatives == 0 && group.positives == 1 {
        return (together(most_wrong), together(most_wrong));
    }
    // At best all positives tie above all negatives. At worst all negatives are above, and the positives one by one:
    // the sum over i of (found + i) / (found + i + wrong), bounded by an integral.
    let before = found + most_wrong;
    let worst = if before == 0.0 { gained } else { gained - most_wrong * (gained / before).ln_1p() };
    (worst, together(fewest_wrong))
}

impl Area {
    /// Adds the piece of the curve between two points.
    fn add(&mut self, (x0, x1): (f64, f64), (y0, y1): (f64, f64), is_straight: bool) {
        if x0 >= self.limit || x1 <= x0 {
            return;
        }
        let (width, end) = if x1 <= self.limit {
            (x1 - x0, y1)
        } else {
            let width = self.limit - x0;
            (width, y0 + (y1 - y0) * width / (x1 - x0))
        };
        let area = width * f64::midpoint(y0, end);
        self.sum += area;
        if !is_straight {
            // The curve rises somehow from one corner to the other.
            self.error += (area - width * y0).max(width * y1 - area);
        }
    }
}
