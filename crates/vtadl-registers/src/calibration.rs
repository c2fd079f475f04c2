//! What normal images look like to a finished network: the scales of its maps, and the threshold of its mask.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::{MapKind, Threshold};

/// The most images that are looked at, spread evenly over those there are.
const MOST: usize = 64;

/// Mean and standard deviation of a map over all pixels of normal images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scale {
    pub(crate) mean: f64,
    pub(crate) deviation: f64,
}

/// What was found on normal images.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calibration {
    pub(crate) scales: BTreeMap<MapKind, Scale>,
    /// Above this a pixel of the map is in the mask.
    pub(crate) threshold: f64,
}

/// Which of `count` images are looked at: at most 64, evenly spread.
pub(crate) fn chosen(count: usize) -> Vec<usize> {
    let looked_at = count.min(MOST);
    (0..looked_at).map(|i| i * count / looked_at).collect()
}

/// Sums over the pixels of one map after the other.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sums {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Sums {
    pub(crate) fn add(&mut self, values: &[f32]) {
        for value in values.iter().copied().map(f64::from) {
            self.count += 1.0;
            self.sum += value;
            self.squares += value * value;
        }
    }

    pub(crate) fn scale(self) -> Scale {
        let mean = self.sum / self.count.max(1.0);
        let variance = (self.squares / self.count.max(1.0) - mean * mean).max(0.0);
        // A map without any spread is not scaled.
        let deviation = if variance > 0.0 { variance.sqrt() } else { 1.0 };
        Scale { mean, deviation }
    }
}

/// The threshold, of all values of the map on normal images.
pub(crate) fn threshold(rule: Threshold, values: &mut [f32]) -> f64 {
    match rule {
        Threshold::Fixed(value) => value,
        Threshold::Quantile(share) => {
            // The smallest value with at least this share of all values at or below it.
            let at = ((share * values.len() as f64).ceil() as usize).clamp(1, values.len().max(1)) - 1;
            if values.is_empty() {
                return 0.0;
            }
            f64::from(*values.select_nth_unstable_by(at, f32::total_cmp).1)
        }
    }
}

/// How long patch tokens are: registers are said to keep a few of them from growing long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TokenNorms {
    pub(crate) largest: f64,
    /// The 99 % quantile.
    pub(crate) high: f64,
    pub(crate) median: f64,
    /// The share longer than three medians.
    pub(crate) outliers: f64,
}

impl TokenNorms {
    /// Of some lengths; `None` of none.
    pub(crate) fn of(mut lengths: Vec<f64>) -> Option<Self> {
        lengths.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            lengths.get(((lengths.len() as f64 * share) as usize).min(lengths.len() - 1)).copied()
        };
        if lengths.is_empty() {
            return None;
        }
        let (median, high, largest) = (at(0.5)?, at(0.99)?, *lengths.last()?);
        let longer = lengths.iter().filter(|length| **length > 3.0 * median).count();
        Some(Self { largest, high, median, outliers: longer as f64 / lengths.len() as f64 })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Scale, Sums, TokenNorms, chosen, threshold};
    use crate::config::Threshold;

    #[test]
    fn images_are_spread_evenly_and_never_too_many() {
        assert_eq!(chosen(3), [0, 1, 2]);
        let some = chosen(640);
        assert_eq!((some.len(), some[1], some[63]), (64, 10, 630));
        assert!(chosen(0).is_empty());
    }

    #[test]
    fn scales_and_thresholds_by_hand() {
        let mut sums = Sums::default();
        sums.add(&[1.0, 3.0]);
        sums.add(&[5.0, 7.0]);
        assert_eq!(sums.scale(), Scale { mean: 4.0, deviation: 5_f64.sqrt() });
        assert_eq!(Sums::default().scale(), Scale { mean: 0.0, deviation: 1.0 });
        let mut values: Vec<f32> = (0..1000_u16).rev().map(f32::from).collect();
        assert_eq!(threshold(Threshold::Quantile(0.995), &mut values), 994.0);
        assert_eq!(threshold(Threshold::Quantile(1.0), &mut values), 999.0);
        assert_eq!(threshold(Threshold::Fixed(0.2), &mut values), 0.2);
    }

    #[test]
    fn long_tokens_are_counted() {
        let mut lengths = vec![1.0; 99];
        lengths.push(9.0);
        let found = TokenNorms::of(lengths).unwrap();
        assert_eq!((found.largest, found.median, found.outliers), (9.0, 1.0, 0.01));
        assert_eq!(TokenNorms::of(vec![]), None);
    }
}
