//! Scores as integers that sort like them.

use crate::Error;

/// A floating-point type that scores may have: `f32` or `f64`.
pub trait Score: sealed::Sealed + Copy + PartialOrd + Into<f64> + Send + Sync + std::fmt::Debug {}

impl Score for f32 {}
impl Score for f64 {}

pub(crate) mod sealed {
    use rayon::slice::ParallelSliceMut;

    /// The order of finite floats, as that of integers: those compare without NaN in the way and sort faster.
    pub trait Sealed: Sized {
        type Key: Ord + Copy + Default + Send + Sync + std::fmt::Debug;
        fn key(self) -> Self::Key;
        fn from_key(key: Self::Key) -> Self;
        /// The keys in rising order.
        fn sorted(keys: Vec<Self::Key>) -> Vec<Self::Key>;
    }

    macro_rules! keys {
        ($float:ty, $key:ty, $sign:expr, $sorted:expr) => {
            impl Sealed for $float {
                type Key = $key;

                fn key(self) -> $key {
                    // -0.0 and +0.0 are the same score; adding +0.0 makes them the same bits.
                    let bits = (self + 0.0).to_bits();
                    if bits & $sign == 0 { bits | $sign } else { !bits }
                }

                fn from_key(key: $key) -> $float {
                    <$float>::from_bits(if key & $sign == 0 { !key } else { key & !$sign })
                }

                fn sorted(keys: Vec<$key>) -> Vec<$key> {
                    $sorted(keys)
                }
            }
        };
    }
    keys!(f32, u32, 1 << 31, |keys| crate::sort::by_key(keys, |key| key));
    keys!(f64, u64, 1 << 63, |mut keys: Vec<u64>| {
        keys.par_sort_unstable();
        keys
    });
}

/// Refuses no scores, and scores that are NaN or infinite.
pub(crate) fn check_scores<S: Score>(scores: &[S]) -> Result<(), Error> {
    if scores.is_empty() {
        return Err(Error::Empty { what: "scores" });
    }
    match first_not_finite(scores) {
        None => Ok(()),
        Some(index) => Err(Error::NotFinite { index, value: scores[index].into() }),
    }
}

/// Position of the first score that is NaN or infinite.
pub(crate) fn first_not_finite<S: Score>(scores: &[S]) -> Option<usize> {
    // Looking for a position can't be vectorised; asking whether there is one can.
    const BLOCK: usize = 1 << 12;
    let is_bad = |block: &&[S]| !block.iter().fold(true, |all, &score| all & score.into().is_finite());
    scores.chunks(BLOCK).enumerate().find(|(_, block)| is_bad(block)).and_then(|(number, block)| {
        let within = block.iter().position(|&score| !score.into().is_finite())?;
        Some(number * BLOCK + within)
    })
}

/// Refuses scores and labels that do not go together.
pub(crate) fn check_labelled<S: Score>(scores: &[S], labels: &[bool]) -> Result<(), Error> {
    if scores.len() != labels.len() {
        return Err(Error::LengthMismatch {
            left: "scores",
            left_len: scores.len(),
            right: "labels",
            right_len: labels.len(),
        });
    }
    check_scores(scores)
}

/// Labels 0 and 1 as booleans.
///
/// # Errors
/// [`Error::Label`] for any other value.
pub fn labels_from_integers(labels: &[i64]) -> Result<Vec<bool>, Error> {
    let label = |(index, &found)| match found {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::Label { index, found }),
    };
    labels.iter().enumerate().map(label).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::sealed::Sealed;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_sort_like_scores(a in any::<f32>(), b in any::<f32>()) {
            prop_assume!(a.is_finite() && b.is_finite());
            prop_assert_eq!(a.key().cmp(&b.key()), a.partial_cmp(&b).unwrap());
            prop_assert_eq!(f32::from_key(a.key()), a);
            let (a, b) = (f64::from(a) * 1e-200, f64::from(b) * 1e-200);
            prop_assert_eq!(a.key().cmp(&b.key()), a.partial_cmp(&b).unwrap());
            prop_assert_eq!(f64::from_key(a.key()), a);
        }
    }

    #[test]
    fn both_zeros_are_one_score() {
        assert_eq!((-0.0_f32).key(), 0.0_f32.key());
        assert_eq!((-0.0_f64).key(), 0.0_f64.key());
    }

    #[test]
    fn labels_are_zero_or_one() {
        assert_eq!(labels_from_integers(&[0, 1]).unwrap(), [false, true]);
        assert_eq!(labels_from_integers(&[0, 2]).unwrap_err(), Error::Label { index: 1, found: 2 });
    }
}
