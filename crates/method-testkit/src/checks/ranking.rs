//! Defective images get the higher scores.

use anomaly_core::TrainingData;

use crate::Suite;
use crate::failure::{Problem, problem};

/// The least AUROC.
const LEAST: f64 = 0.8;

pub(crate) fn check(suite: &Suite<'_>) -> Result<(), Problem> {
    let reference = suite.reference()?;
    let mut scores = Vec::new();
    // Normal and defective images come in turns, so every batch holds both.
    let all: Vec<usize> = (0..reference.defective.len()).collect();
    for batch in all.chunks(16) {
        scores.extend(reference.detector.score(&reference.tests.get(batch)?)?.scores);
    }
    let found = auroc(&scores, &reference.defective);
    if found >= LEAST {
        return Ok(());
    }
    let Suite { scene, reason, .. } = suite;
    let flipped =
        if found <= 1.0 - LEAST { "; the sign is flipped: higher must mean more anomalous" } else { "" };
    problem(format!("AUROC {found:.3} on {scene:?} ({reason}); expected at least {LEAST}{flipped}"))
}

/// The share of pairs (defective, normal) that are ranked rightly; a tie is half a pair. 0 if a score is NaN.
fn auroc(scores: &[f64], defective: &[bool]) -> f64 {
    let of = |wanted| scores.iter().zip(defective).filter(move |(_, d)| **d == wanted).map(|(s, _)| *s);
    let pairs = of(true).flat_map(|high| of(false).map(move |low| (high, low)));
    let (won, count) = pairs.fold((0.0, 0_usize), |(won, count), (high, low)| {
        let point = if high > low {
            1.0
        } else if high == low {
            0.5
        } else {
            0.0
        };
        (won + point, count + 1)
    });
    won / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::auroc;

    #[test]
    fn pairs_are_counted() {
        assert_eq!(auroc(&[1.0, 2.0, 3.0, 2.0], &[false, true, true, false]), 0.875);
        assert_eq!(auroc(&[2.0, 1.0], &[false, true]), 0.0);
        assert_eq!(auroc(&[f64::NAN, 1.0], &[false, true]), 0.0);
    }
}
