//! Thresholds from the scores of normal images alone, for deciding: anomalous if score > threshold.

use crate::score::check_scores;
use crate::{Error, Score};

/// The `share` quantile of normal scores, in [0, 1], linearly interpolated between the two nearest (as NumPy does it by
/// default): about 1 - `share` of such scores lie above it, with no guarantee for others.
///
/// ```
/// assert_eq!(metrics::normal_quantile(&[1.0_f32, 4.0, 2.0, 3.0], 0.5)?, 2.5);
/// # Ok::<(), metrics::Error>(())
/// ```
///
/// # Errors
/// [`Error::Empty`], [`Error::NotFinite`], [`Error::Option`] for the share.
pub fn normal_quantile<S: Score>(normals: &[S], share: f64) -> Result<f64, Error> {
    check_scores(normals)?;
    if !(0.0..=1.0).contains(&share) {
        return Err(Error::Option { name: "share", expected: "from 0 to 1", found: share });
    }
    Ok(interpolated(&rising(normals), share))
}

/// The scores in rising order; both zeros as one.
pub(crate) fn rising<S: Score>(scores: &[S]) -> Vec<f64> {
    let keys = S::sorted(scores.iter().map(|score| score.key()).collect());
    keys.into_iter().map(|key| S::from_key(key).into()).collect()
}

/// The value at `share`, in [0, 1], of the way through sorted values, of which there is at least one.
pub(crate) fn interpolated(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * (at - at.floor())
}

/// A threshold that keeps the false positive rate of future normal images below a target, with a stated confidence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FprThreshold<S> {
    /// One of the scores; decide with score > threshold.
    pub threshold: S,
    /// How many of the given normal scores rank above it (fewer lie above it where scores tie).
    pub above: usize,
    /// The probability, over the draw of the normal scores, that the false positive rate of such a threshold is at most
    /// the target.
    pub confidence: f64,
}

/// The lowest threshold among the scores of normal images for which the false positive rate is at most `target` with at
/// least `confidence` (one-sided; Wilks 1941, by order statistics).
///
/// If the scores are independent draws from the distribution that future normal images come from, then whatever that
/// distribution is, the rate above the m-th highest of n scores is at most `target` with probability
/// P(Binomial(n, `target`) >= m). Scores used for training are no such draws: take held-out ones.
///
/// ```
/// let normals: Vec<f32> = (0..1000).map(|i| i as f32).collect();
/// let found = metrics::threshold_at_fpr(&normals, 0.05, 0.95)?;
/// assert_eq!((found.threshold, found.above), (961.0, 38));
/// assert!(found.confidence >= 0.95);
/// # Ok::<(), metrics::Error>(())
/// ```
///
/// # Errors
/// [`Error::Empty`], [`Error::NotFinite`], [`Error::Option`] for rates outside (0, 1), and [`Error::TooFew`] if even the
/// highest score promises less: it takes ln(1 - `confidence`) / ln(1 - `target`) scores.
pub fn threshold_at_fpr<S: Score>(
    normals: &[S],
    target: f64,
    confidence: f64,
) -> Result<FprThreshold<S>, Error> {
    check_scores(normals)?;
    for (name, found) in [("target", target), ("confidence", confidence)] {
        if !(found > 0.0 && found < 1.0) {
            return Err(Error::Option { name, expected: "more than 0 and less than 1", found });
        }
    }
    // The score with `above` others above it promises too little exactly if at most `above` of the scores lie beyond the
    // quantile that has the target rate above it. That chance grows with `above`: go on while it is small enough.
    let count = normals.len();
    let odds = target.ln() - (-target).ln_1p();
    let mut term = count as f64 * (-target).ln_1p();
    let (mut risk, mut found) = (term.exp(), None);
    for above in 0..count {
        if risk > 1.0 - confidence {
            break;
        }
        found = Some((above, 1.0 - risk));
        term += ((count - above) as f64 / (above + 1) as f64).ln() + odds;
        risk += term.exp();
    }
    let Some((above, confidence)) = found else {
        let needed = ((1.0 - confidence).ln() / (-target).ln_1p()).ceil() as usize;
        let statement = "a threshold for this false positive rate at this confidence";
        return Err(Error::TooFew {
            statement,
            what: "normal scores",
            needed: needed.max(count + 1),
            found: count,
        });
    };
    let keys = S::sorted(normals.iter().map(|score| score.key()).collect());
    Ok(FprThreshold { threshold: S::from_key(keys[count - 1 - above]), above, confidence })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_are_interpolated() {
        let scores = [3.0_f32, 1.0, 2.0];
        let at = |share| normal_quantile(&scores, share).unwrap();
        assert_eq!([at(0.0), at(0.25), at(0.5), at(1.0)], [1.0, 1.5, 2.0, 3.0]);
        assert!(normal_quantile(&scores, 1.1).is_err() && normal_quantile::<f32>(&[], 0.5).is_err());
        assert!(normal_quantile(&[f32::NAN], 0.5).is_err());
    }

    #[test]
    fn the_highest_score_needs_the_known_number() {
        // 1 - 0.95^59 is the first above 0.95.
        let scores: Vec<f64> = (0..59).map(f64::from).collect();
        let found = threshold_at_fpr(&scores, 0.05, 0.95).unwrap();
        assert_eq!((found.threshold, found.above), (58.0, 0));
        assert!((found.confidence - (1.0 - 0.95_f64.powi(59))).abs() < 1e-12);
        let error = threshold_at_fpr(&scores[..58], 0.05, 0.95).unwrap_err();
        assert!(matches!(error, Error::TooFew { needed: 59, found: 58, .. }), "{error}");
        assert!(
            threshold_at_fpr(&scores, 0.0, 0.95).is_err() && threshold_at_fpr(&scores, 0.05, 1.0).is_err()
        );
    }

    #[test]
    fn many_scores_do_not_underflow() {
        let scores: Vec<f32> = (0..200_000).map(|i| i as f32).collect();
        let found = threshold_at_fpr(&scores, 0.1, 0.99).unwrap();
        // 20 000 expected above, less 2.33 standard deviations of 134.
        assert!((19_680..19_695).contains(&found.above), "{found:?}");
        assert!((0.99..0.992).contains(&found.confidence), "{found:?}");
    }

    proptest! {
        #[test]
        fn the_promise_is_the_binomial_sum(count in 1_usize..80, target in 0.02_f64..0.5, confidence in 0.5_f64..0.99) {
            let scores: Vec<f32> = (0..count).map(|i| i as f32).collect();
            // P(Binomial(count, target) <= k), by a table of probabilities.
            let mut exactly = vec![1.0];
            for _ in 0..count {
                let shifted: Vec<f64> = std::iter::once(0.0).chain(exactly.iter().copied()).collect();
                exactly.push(0.0);
                exactly = exactly.iter().zip(shifted).map(|(stay, add)| stay * (1.0 - target) + add * target).collect();
            }
            let at_most = |k: usize| exactly[..=k].iter().sum::<f64>();
            match threshold_at_fpr(&scores, target, confidence) {
                Ok(found) => {
                    prop_assert!((found.confidence - (1.0 - at_most(found.above))).abs() < 1e-9);
                    prop_assert!(found.confidence >= confidence - 1e-9);
                    prop_assert_eq!(found.threshold, (count - 1 - found.above) as f32);
                    if found.above + 1 < count {
                        prop_assert!(1.0 - at_most(found.above + 1) < confidence + 1e-9);
                    }
                }
                Err(_) => prop_assert!(1.0 - at_most(0) < confidence + 1e-9),
            }
        }

        #[test]
        fn the_promise_is_kept(seed in any::<u64>()) {
            // Uniform scores: the rate above a threshold t is 1 - t. Of 400 sets of 100 it may fail in a tenth.
            let mut state = seed;
            let mut uniform = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 11) as f64 / (1_u64 << 53) as f64
            };
            let failures = (0..400).filter(|_| {
                let scores: Vec<f64> = (0..100).map(|_| uniform()).collect();
                1.0 - threshold_at_fpr(&scores, 0.1, 0.9).unwrap().threshold > 0.1
            });
            // 40 expected at most, with a standard deviation of 6.
            prop_assert!(failures.count() <= 76);
        }
    }
}
