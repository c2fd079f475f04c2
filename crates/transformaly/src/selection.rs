//! After which epochs the student is looked at, and which look is kept.

/// Whether the student is looked at after `epoch` (1-based): after the first, and then every `eval_every`. The last
/// epochs are often not among them, as in the reference.
pub(crate) fn is_evaluated(epoch: usize, eval_every: usize) -> bool {
    (epoch.max(1) - 1).is_multiple_of(eval_every.max(1))
}

/// The reference's choice among validation losses: each that is lower than the best before by more than `min_delta`
/// becomes the best. `None` if none ever does, which only NaN brings about.
#[cfg_attr(not(any(test, feature = "conformance")), allow(dead_code))]
pub(crate) fn best(losses: &[f64], min_delta: f64) -> Option<usize> {
    let mut best: Option<(usize, f64)> = None;
    for (at, &loss) in losses.iter().enumerate() {
        if best.map_or(f64::INFINITY, |(_, lowest)| lowest) - min_delta > loss {
            best = Some((at, loss));
        }
    }
    best.map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::{best, is_evaluated};

    #[test]
    fn published_settings_look_at_six_epochs() {
        let epochs: Vec<usize> = (1..=30).filter(|e| is_evaluated(*e, 5)).collect();
        assert_eq!(epochs, [1, 6, 11, 16, 21, 26]);
        assert!((1..=4).all(|e| is_evaluated(e, 1)));
    }

    #[test]
    fn small_improvements_do_not_count() {
        assert_eq!(best(&[1.0, 0.9995, 0.5, 0.4995, 0.6], 0.001), Some(2));
        assert_eq!(best(&[f64::NAN, 2.0, f64::NAN], 0.001), Some(1));
        assert_eq!(best(&[f64::NAN], 0.001), None);
    }
}
