//! How much work a detector takes off an inspector who accepts a few mistakes (`PGn` and `PBn`, as in anomalib).

use crate::score::check_labelled;
use crate::threshold::{interpolated, rising};
use crate::{Error, Score};

/// The share of normal images that lie strictly below the `missed` quantile (linear) of the anomalous scores: what can be
/// sorted out as good while the share `missed` of the bad ones goes with it.
///
/// ```
/// let scores = [0.1_f32, 0.2, 0.6, 0.5, 0.9];
/// let labels = [false, false, false, true, true];
/// assert_eq!(metrics::presorted_good(&scores, &labels, 0.0)?, 2.0 / 3.0);
/// assert_eq!(metrics::presorted_bad(&scores, &labels, 0.0)?, 0.5);
/// # Ok::<(), metrics::Error>(())
/// ```
///
/// # Errors
/// [`Error::LengthMismatch`], [`Error::Empty`], [`Error::NotFinite`], [`Error::NoPositives`], [`Error::NoNegatives`],
/// [`Error::Option`] for a share outside [0, 1].
pub fn presorted_good<S: Score>(scores: &[S], labels: &[bool], missed: f64) -> Result<f64, Error> {
    let (normal, anomalous) = classes("PGn", scores, labels, "missed", missed)?;
    let threshold = interpolated(&anomalous, missed);
    Ok(normal.partition_point(|&score| score < threshold) as f64 / normal.len() as f64)
}

/// The share of anomalous images that lie strictly above the 1 - `lost` quantile (linear) of the normal scores: what can
/// be sorted out as bad while the share `lost` of the good ones goes with it.
///
/// # Errors
/// As [`presorted_good`].
pub fn presorted_bad<S: Score>(scores: &[S], labels: &[bool], lost: f64) -> Result<f64, Error> {
    let (normal, anomalous) = classes("PBn", scores, labels, "lost", lost)?;
    let threshold = interpolated(&normal, 1.0 - lost);
    let kept = anomalous.partition_point(|&score| score <= threshold);
    Ok((anomalous.len() - kept) as f64 / anomalous.len() as f64)
}

/// Rising scores of the normal and of the anomalous images.
fn classes<S: Score>(
    metric: &'static str,
    scores: &[S],
    labels: &[bool],
    name: &'static str,
    share: f64,
) -> Result<(Vec<f64>, Vec<f64>), Error> {
    check_labelled(scores, labels)?;
    if !(0.0..=1.0).contains(&share) {
        return Err(Error::Option { name, expected: "from 0 to 1", found: share });
    }
    let of = |wanted: bool| -> Vec<S> {
        let labelled = scores.iter().zip(labels);
        labelled.filter(|&(_, &label)| label == wanted).map(|(&score, _)| score).collect()
    };
    let (normal, anomalous) = (of(false), of(true));
    if anomalous.is_empty() {
        return Err(Error::NoPositives { metric });
    }
    if normal.is_empty() {
        return Err(Error::NoNegatives { metric });
    }
    Ok((rising(&normal), rising(&anomalous)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ties_with_the_threshold_are_not_sorted_out() {
        let (scores, labels) = ([0.5, 0.5, 0.5, 0.7], [false, false, true, true]);
        assert_eq!(presorted_good(&scores, &labels, 0.0).unwrap(), 0.0);
        assert_eq!(presorted_bad(&scores, &labels, 0.0).unwrap(), 0.5);
        assert_eq!(presorted_good(&scores, &labels, 0.5).unwrap(), 1.0);
    }

    #[test]
    fn what_is_undefined_is_refused() {
        assert!(matches!(presorted_good(&[0.1], &[false], 0.1), Err(Error::NoPositives { metric: "PGn" })));
        assert!(matches!(presorted_bad(&[0.1], &[true], 0.1), Err(Error::NoNegatives { metric: "PBn" })));
        let both = ([0.1, 0.2], [false, true]);
        assert!(matches!(presorted_good(&both.0, &both.1, 1.5), Err(Error::Option { name: "missed", .. })));
    }
}
