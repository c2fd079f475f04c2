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
pub(crate) fn all(scores: &[f32], labels: &[bool]) -> Vec<Operating> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let anomalous = labels.iter().filter(|&&label| label).count() as u64;
    let normal = labels.len() as u64 - anomalous;
    let mut points: Vec<Operating> = Vec::new();
    let (mut true_positives, mut false_positives) = (0, 0);
    for (position, &index) in order.iter().enumerate() {
        if labels[index] { true_positives += 1 } else { false_positives += 1 }
        let tied = order.get(position + 1).is_some_and(|&next| scores[next] == scores[index]);
        if !tied {
            let threshold = f64::from(scores[index]);
            points.push(Operating { threshold, true_positives, false_positives, anomalous, normal });
        }
    }
    points
}

/// The position in `points` of the best F1, the lowest threshold where several attain it.
pub(crate) fn best(points: &[Operating]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (index, point) in points.iter().enumerate() {
        if best.is_none_or(|best| point.f1() >= points[best].f1()) {
            best = Some(index);
        }
    }
    best
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
