//! What happens at each threshold.

/// The counts at one threshold, where scores at or above it are alarms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Operating {
    pub(crate) threshold: f64,
    pub(crate) true_positives: u64,
    pub(crate) false_positives: u64,
    pub(crate) anomalous: u64,
    pub(crate) normal: u64,
}

impl Operating {
    pub(crate) fn true_positive_rate(&self) -> f64 {
        share(self.true_positives, self.anomalous)
    }

    pub(crate) fn false_positive_rate(&self) -> f64 {
        share(self.false_positives, self.normal)
    }

    /// Twice the true positives over all alarms and all anomalous images.
    pub(crate) fn f1(&self) -> f64 {
        share(2 * self.true_positives, self.true_positives + self.false_positives + self.anomalous)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The counts at every distinct score, from the highest down.
///
/// # Errors
/// What [`metrics::roc_curve`] says: both classes are needed.
pub(crate) fn all(scores: &[f32], labels: &[bool]) -> Result<Vec<Operating>, metrics::Error> {
    let anomalous = labels.iter().filter(|&&label| label).count() as u64;
    let normal = labels.len() as u64 - anomalous;
    // A rate is an exact quotient, so that its product with the count lies next to the whole number it came from.
    let count = |rate: f64, of: u64| (rate * of as f64).round() as u64;
    let points = metrics::roc_curve(scores, labels)?.into_iter().filter_map(|point| {
        Some(Operating {
            threshold: f64::from(point.threshold?),
            true_positives: count(point.true_positive_rate, anomalous),
            false_positives: count(point.false_positive_rate, normal),
            anomalous,
            normal,
        })
    });
    Ok(points.collect())
}

/// The position in `points` of the best F1, the lowest threshold where several attain it.
///
/// # Errors
/// What [`metrics::f1_max`] says.
pub(crate) fn best(points: &[Operating], scores: &[f32], labels: &[bool]) -> Result<usize, metrics::Error> {
    let threshold = f64::from(metrics::f1_max(scores, labels)?.threshold);
    Ok(points.iter().rposition(|point| point.threshold >= threshold).unwrap_or(0))
}

/// At most `limit + 1` of `points`, evenly spread, with the one at `keep` among them, whose new position is given
/// too.
pub(crate) fn thinned(points: &[Operating], keep: usize, limit: usize) -> (Vec<Operating>, usize) {
    if points.len() <= limit {
        return (points.to_vec(), keep);
    }
    let mut chosen: Vec<usize> =
        (0..limit).map(|index| index * (points.len() - 1) / (limit - 1).max(1)).collect();
    if let Err(position) = chosen.binary_search(&keep) {
        chosen.insert(position, keep);
    }
    let position = chosen.binary_search(&keep).unwrap_or(0);
    (chosen.into_iter().map(|index| points[index]).collect(), position)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const SCORES: [f32; 6] = [0.1, 0.4, 0.4, 0.6, 0.8, 0.9];
    const LABELS: [bool; 6] = [false, false, true, false, true, true];

    #[test]
    fn counts_are_those_of_the_definition() {
        let points = all(&SCORES, &LABELS).unwrap();
        assert_eq!(points.len(), 5);
        for point in &points {
            let alarms = |label| {
                let of_label = SCORES.iter().zip(LABELS).filter(|&(_, other)| other == label);
                of_label.filter(|&(&score, _)| f64::from(score) >= point.threshold).count() as u64
            };
            assert_eq!((point.true_positives, point.false_positives), (alarms(true), alarms(false)));
        }
        let best = best(&points, &SCORES, &LABELS).unwrap();
        assert_eq!((points[best].threshold, points[best].f1()), (f64::from(0.8_f32), 0.8));
    }

    #[test]
    fn thinning_keeps_the_ends_and_the_chosen_point() {
        let scores: Vec<f32> = (0..1000).map(|index| index as f32).collect();
        let labels: Vec<bool> = (0..1000).map(|index| index > 700).collect();
        let points = all(&scores, &labels).unwrap();
        let (thin, position) = thinned(&points, 123, 50);
        assert_eq!(thin.len(), 51);
        assert_eq!(thin[position], points[123]);
        assert_eq!((thin[0], thin[50]), (points[0], points[999]));
        assert_eq!(thinned(&points, 7, 2000), (points.clone(), 7));
    }
}
