//! `AnoTrans` (ICANN 2022): scores are scaled by their own range over the test set before they are judged.

use crate::score::{check_labelled, check_scores};
use crate::{Confusion, Error};

/// The scores scaled so that the test set's lowest is 0 and its highest 1, in f32; all 0 if they are equal (where the
/// reference divides by zero).
///
/// # Errors
/// [`Error::Empty`], [`Error::NotFinite`].
pub fn scaled_reference_anotrans(scores: &[f32]) -> Result<Vec<f32>, Error> {
    check_scores(scores)?;
    let low = scores.iter().copied().fold(f32::INFINITY, f32::min);
    let range = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max) - low;
    if range == 0.0 {
        return Ok(vec![0.0; scores.len()]);
    }
    Ok(scores.iter().map(|score| (score - low) / range).collect())
}

/// F1 of the decision scaled score >= `threshold` (0.2 there).
///
/// # Errors
/// As [`scaled_reference_anotrans`]; [`Error::LengthMismatch`], and [`Error::Undefined`] if nothing is anomalous and
/// nothing decided so.
pub fn f1_reference_anotrans(scores: &[f32], labels: &[bool], threshold: f64) -> Result<f64, Error> {
    check_labelled(scores, labels)?;
    let mut confusion = Confusion::default();
    for (scaled, &label) in scaled_reference_anotrans(scores)?.into_iter().zip(labels) {
        confusion.count(label, f64::from(scaled) >= threshold);
    }
    confusion.f1()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_range_decides() {
        assert_eq!(scaled_reference_anotrans(&[1.0, 3.0, 2.0]).unwrap(), [0.0, 1.0, 0.5]);
        assert_eq!(scaled_reference_anotrans(&[2.0, 2.0]).unwrap(), [0.0, 0.0]);
        // The threshold itself is anomalous here.
        assert_eq!(f1_reference_anotrans(&[0.0, 0.5, 1.0], &[false, true, true], 0.5).unwrap(), 1.0);
        assert!(f1_reference_anotrans(&[0.0, 0.0], &[false, false], 0.2).is_err());
        assert!(f1_reference_anotrans(&[0.0], &[false, false], 0.2).is_err());
        assert!(scaled_reference_anotrans(&[f32::NAN]).is_err());
    }
}
