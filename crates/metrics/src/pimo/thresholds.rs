//! Linearly spaced thresholds, and which of them a score reaches.

use crate::Error;

/// Steps are counted in f32, which holds integers up to here.
const MOST: usize = 1 << 24;

/// Refuses a number of thresholds that can't be spaced.
pub(super) fn check_count(num_thresholds: usize) -> Result<(), Error> {
    if (2..=MOST).contains(&num_thresholds) {
        return Ok(());
    }
    let (expected, found) = ("2 to 16777216", num_thresholds as f64);
    Err(Error::Option { name: "num_thresholds", expected, found })
}

/// `count` thresholds, ascending, spaced as `torch.linspace` does it in f32: from either end to the middle, so that both
/// ends are exact.
pub(super) fn spaced(low: f32, high: f32, count: usize) -> Vec<f32> {
    let steps = (count - 1) as f32;
    let whole = (high - low) / steps;
    // The range itself may be beyond f32.
    let step = if whole.is_finite() { whole } else { high / steps - low / steps };
    // With two thresholds the step may be beyond f32 too, and 0 times that is no number.
    let value = |k: usize| match k {
        0 => low,
        _ if k == count - 1 => high,
        _ if k < count / 2 => low + step * k as f32,
        _ => high - step * (count - 1 - k) as f32,
    };
    let mut thresholds: Vec<f32> = (0..count).map(value).collect();
    // Where steps are finer than f32 the two halves may cross by one value.
    thresholds.sort_unstable_by(f32::total_cmp);
    thresholds
}

/// Tells how many ascending, nearly evenly spaced thresholds a score reaches.
#[derive(Clone, Copy)]
pub(super) struct Reached<'a> {
    thresholds: &'a [f32],
    low: f32,
    per_step: f32,
}

impl<'a> Reached<'a> {
    pub(super) fn new(thresholds: &'a [f32]) -> Self {
        let (low, high) = (thresholds[0], thresholds[thresholds.len() - 1]);
        Self { thresholds, low, per_step: (thresholds.len() - 1) as f32 / (high - low) }
    }

    /// How many thresholds are at most `score`.
    pub(super) fn by(&self, score: f32) -> usize {
        // A guess by the spacing, mostly right or next to it; what is no number becomes 0.
        let guess = ((score - self.low) * self.per_step) as usize;
        let guess = guess.min(self.thresholds.len());
        let around = guess.saturating_sub(2)..(guess + 3).min(self.thresholds.len());
        let starts = around.start == 0 || self.thresholds[around.start - 1] <= score;
        let ends = around.end == self.thresholds.len() || self.thresholds[around.end] > score;
        if starts && ends {
            around.start + self.thresholds[around].iter().filter(|&&threshold| threshold <= score).count()
        } else {
            self.thresholds.partition_point(|&threshold| threshold <= score)
        }
    }

    /// For each threshold how many of the scores reach it.
    pub(super) fn counts(&self, scores: &[f32]) -> Vec<u64> {
        let mut counts = vec![0; self.thresholds.len() + 1];
        for &score in scores {
            counts[self.by(score)] += 1;
        }
        at_least(&mut counts);
        counts
    }
}

/// From counts of the scores that reach exactly k thresholds to counts of those that reach the k-th, 0 being the first.
pub(super) fn at_least(counts: &mut Vec<u64>) {
    let mut reached = 0;
    for count in counts.iter_mut().rev() {
        reached += *count;
        *count = reached;
    }
    counts.remove(0);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_score_reaches_what_is_not_above_it(
            low in -1e6_f32..1e6, width in prop_oneof![0_f32..1e-2, 0_f32..1e6], count in 2_usize..400, at in -0.5_f32..1.5,
        ) {
            let high = low + width;
            let thresholds = spaced(low, high, count);
            prop_assert!(thresholds.is_sorted() && thresholds[0] == low && thresholds[count - 1] == high);
            let reached = Reached::new(&thresholds);
            for score in thresholds.iter().copied().chain([low + width * at]) {
                prop_assert_eq!(reached.by(score), thresholds.iter().filter(|&&t| t <= score).count());
            }
        }
    }

    #[test]
    fn both_ends_are_exact_even_far_apart() {
        let thresholds = spaced(0.1, 0.7, 1001);
        assert_eq!((thresholds[0], thresholds[1000]), (0.1, 0.7));
        assert!(thresholds.windows(2).all(|pair| pair[0] < pair[1]));
        let thresholds = spaced(f32::MIN, f32::MAX, 5);
        assert_eq!(thresholds, [f32::MIN, f32::MIN / 2.0, 0.0, f32::MAX / 2.0, f32::MAX]);
        assert_eq!(Reached::new(&thresholds).counts(&[f32::MAX, 1.0, -1.0]), [3, 3, 2, 1, 1]);
        assert_eq!(spaced(f32::MIN, f32::MAX, 2), [f32::MIN, f32::MAX]);
        assert!(check_count(1).is_err() && check_count(2).is_ok() && check_count(MOST + 1).is_err());
    }
}
