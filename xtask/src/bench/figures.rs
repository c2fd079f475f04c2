//! What a list of times comes to.

use serde::Serialize;

/// The times of one contender, in seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// How many iterations were timed.
    pub(crate) iterations: usize,
    /// The shortest of all rounds.
    pub(crate) best: f64,
    /// The median of all rounds.
    pub(crate) median: f64,
    /// Half the distance between the quartiles, as a share of the median.
    pub(crate) spread: f64,
}

impl Figures {
    /// Of the iterations of each round; `None` if there is none.
    pub(crate) fn of(rounds: &[Vec<f64>]) -> Option<Self> {
        let mut all: Vec<f64> = rounds.iter().flatten().copied().collect();
        all.sort_unstable_by(f64::total_cmp);
        let median = quantile(&all, 0.5)?;
        let quartiles = quantile(&all, 0.75)? - quantile(&all, 0.25)?;
        Some(Self { iterations: all.len(), best: *all.first()?, median, spread: quartiles / 2.0 / median })
    }
}

/// How one contender's times stand to another's; below 1 it is faster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Ratio {
    /// Of the shortest times.
    pub(crate) best: f64,
    /// The median, over the rounds, of the ratio of the two medians of a round: what disturbs a whole round disturbs
    /// both.
    pub(crate) median: f64,
}

impl Ratio {
    /// `None` if one of them has no times.
    pub(crate) fn of(ours: &[Vec<f64>], theirs: &[Vec<f64>]) -> Option<Self> {
        let mut by_round: Vec<f64> = ours
            .iter()
            .zip(theirs)
            .filter_map(|(ours, theirs)| Some(median(ours)? / median(theirs)?))
            .collect();
        by_round.sort_unstable_by(f64::total_cmp);
        Some(Self {
            best: Figures::of(ours)?.best / Figures::of(theirs)?.best,
            median: quantile(&by_round, 0.5)?,
        })
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// The value at share `at` of sorted values, linear between two.
fn quantile(sorted: &[f64], at: f64) -> Option<f64> {
    let place = at * (sorted.len().checked_sub(1)?) as f64;
    let (low, share) = (place.floor() as usize, place.fract());
    let above = sorted.get(low + 1).or(sorted.get(low))?;
    Some(sorted[low] + share * (above - sorted[low]))
}

/// How far `found` is from `wanted`: the largest difference as a share of the largest value wanted. `None` if there is
/// nothing to compare or their numbers differ; infinite if a value is not a number.
pub(crate) fn difference(found: &[f64], wanted: &[f64]) -> Option<f64> {
    if found.is_empty() || found.len() != wanted.len() {
        return None;
    }
    let mut largest = 0.0_f64;
    let mut scale = 0.0_f64;
    for (found, wanted) in found.iter().zip(wanted) {
        if !(found.is_finite() && wanted.is_finite()) {
            return Some(f64::INFINITY);
        }
        largest = largest.max((found - wanted).abs());
        scale = scale.max(wanted.abs());
    }
    Some(if largest == 0.0 { 0.0 } else { largest / scale })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Figures, Ratio, difference};

    #[test]
    fn best_median_and_spread() {
        let figures = Figures::of(&[vec![4.0, 1.0], vec![], vec![3.0, 2.0, 5.0]]).unwrap();
        assert_eq!(figures, Figures { iterations: 5, best: 1.0, median: 3.0, spread: 1.0 / 3.0 });
        assert_eq!(Figures::of(&[vec![2.0, 4.0]]).unwrap().median, 3.0);
        assert_eq!(Figures::of(&[vec![], vec![]]), None);
    }

    #[test]
    fn a_disturbed_round_does_not_change_the_ratio_of_medians() {
        let ours = [vec![1.0, 1.0], vec![30.0, 30.0], vec![1.0]];
        let theirs = [vec![2.0], vec![60.0], vec![2.0, 2.0]];
        assert_eq!(Ratio::of(&ours, &theirs), Some(Ratio { best: 0.5, median: 0.5 }));
        assert_eq!(Ratio::of(&ours, &[vec![]]), None);
    }

    #[test]
    fn differences_are_shares_of_the_largest_value() {
        assert_eq!(difference(&[1.0, -4.0], &[1.5, -4.0]), Some(0.125));
        assert_eq!(difference(&[0.0], &[0.0]), Some(0.0));
        assert_eq!(difference(&[f64::NAN], &[0.0]), Some(f64::INFINITY));
        assert_eq!(difference(&[1.0], &[1.0, 2.0]), None);
        assert_eq!(difference(&[], &[]), None);
    }
}
