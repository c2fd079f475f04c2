//! How much of what trials differ in goes with one setting alone.

/// Groups that numbers are cut into.
const GROUPS: usize = 4;

/// The share of the variance of `values` between groups of similar `places` (in `[0, 1]`): four groups of equally many for numbers,
/// one for each place for choices (`is_choice`). `None` where values don't differ, or are fewer than twice the groups.
///
/// This is the correlation ratio of one setting alone: what settings do together is not in it.
pub(crate) fn importance(places: &[f64], values: &[f64], is_choice: bool) -> Option<f64> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|&a, &b| places[a].total_cmp(&places[b]));
    let group_of = |rank: usize, index: usize| {
        if is_choice { places[index].to_bits() } else { (rank * GROUPS / places.len()) as u64 }
    };
    let mut groups: Vec<(u64, Vec<f64>)> = Vec::new();
    for (rank, &index) in order.iter().enumerate() {
        let group = group_of(rank, index);
        match groups.last_mut() {
            Some((last, members)) if *last == group => members.push(values[index]),
            _ => groups.push((group, vec![values[index]])),
        }
    }
    if values.len() < 2 * GROUPS.max(groups.len()) {
        return None;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let whole = mean(values);
    let total: f64 = values.iter().map(|value| (value - whole).powi(2)).sum();
    let between: f64 =
        groups.iter().map(|(_, members)| members.len() as f64 * (mean(members) - whole).powi(2)).sum();
    (total > 0.0).then(|| between / total)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::importance;

    #[test]
    fn what_decides_has_all_and_what_does_not_has_little() {
        let places: Vec<f64> = (0..40).map(|at| f64::from(at * 17 % 40) / 40.0).collect();
        let decided: Vec<f64> = places.iter().map(|place| (place * 4.0).floor()).collect();
        assert!((importance(&places, &decided, false).unwrap() - 1.0).abs() < 1e-12);
        let unrelated: Vec<f64> = (0..40).map(|at| f64::from(at % 5)).collect();
        assert!(importance(&places, &unrelated, false).unwrap() < 0.2);
        let choices: Vec<f64> = (0..40).map(|at| f64::from(at % 2)).collect();
        let by_choice: Vec<f64> = choices.iter().map(|choice| choice * 3.0).collect();
        assert!((importance(&choices, &by_choice, true).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(importance(&places, &[1.0; 40], false), None);
        assert_eq!(importance(&places[..3], &[1.0, 2.0, 3.0], false), None);
    }
}
