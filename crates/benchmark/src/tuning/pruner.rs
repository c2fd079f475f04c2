//! Which trials stop before they had the whole budget.

use serde::Serialize;

use super::objective::Objective;
use super::study::{Trial, TrialState};

/// Of the trials of a batch, one in so many goes on to the next budget.
const HALVING: usize = 2;
/// How many complete trials the median is first taken over, where nothing is said.
const STARTUP: usize = 5;

/// Which trials stop before they had the whole budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Pruner {
    /// None: every trial gets the highest budget at once.
    None,
    /// The worse half of each batch, at each budget: successive halving (Jamieson and Talwalkar 2016).
    Halving,
    /// A trial whose best figure so far is worse than the median of those of the trials that were complete before, at the same
    /// budget: the median stopping rule (Golovin et al. 2017, section 3.2.2) with medians of figures in place of those of
    /// running means, as Optuna's `MedianPruner` has it.
    Median {
        /// Nothing is stopped before so many trials are complete.
        startup: usize,
    },
}

impl std::str::FromStr for Pruner {
    type Err = String;

    /// `none`, `halving`, `median`, or `median=N` with the number of trials that are complete before any is stopped.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("expected `halving`, `median`, `median=N` or `none`, found `{text}`");
        match text.split_once('=') {
            None if text == "none" => Ok(Self::None),
            None if text == "halving" => Ok(Self::Halving),
            None if text == "median" => Ok(Self::Median { startup: STARTUP }),
            Some(("median", number)) => {
                let startup = number.parse().ok().filter(|&startup| startup > 0).ok_or_else(wrong)?;
                Ok(Self::Median { startup })
            }
            _ => Err(wrong()),
        }
    }
}

impl Pruner {
    /// Stops trials of `batch`, which were all judged at one budget that is not the highest. `earlier` were over before the
    /// batch began.
    pub(crate) fn prune(self, batch: &mut [Trial], earlier: &[Trial], objective: Objective<'_>) {
        match self {
            Self::None => {}
            Self::Halving => halve(batch, objective),
            Self::Median { startup } => by_median(batch, earlier, startup, objective),
        }
    }
}

/// Takes the worse half of the trials out of the race; of equal ones the earlier stays.
fn halve(batch: &mut [Trial], objective: Objective<'_>) {
    let mut racing: Vec<usize> = (0..batch.len()).filter(|&at| is_racing(&batch[at])).collect();
    let loss = |at: usize| objective.to_minimise(batch[at].value());
    racing.sort_by(|&a, &b| loss(a).total_cmp(&loss(b)));
    for &at in &racing[racing.len().div_ceil(HALVING)..] {
        batch[at].state = TrialState::Pruned;
    }
}

fn by_median(batch: &mut [Trial], earlier: &[Trial], startup: usize, objective: Objective<'_>) {
    let complete: Vec<&Trial> = earlier.iter().filter(|trial| is_racing(trial)).collect();
    if complete.len() < startup {
        return;
    }
    for trial in batch.iter_mut().filter(|trial| is_racing(trial)) {
        let losses = trial.rungs.iter().map(|rung| objective.to_minimise(rung.value));
        let best = losses.fold(f64::INFINITY, f64::min);
        let at = trial.rungs.len() - 1;
        let others = complete.iter().filter_map(|other| other.rungs.get(at)?.value);
        let middle = median(others.map(|value| objective.to_minimise(Some(value))).collect());
        if middle.is_some_and(|middle| best > middle) {
            trial.state = TrialState::Pruned;
        }
    }
}

/// Of an even number of values the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    let upper = *values.get(half)?;
    Some(if values.len().is_multiple_of(2) { f64::midpoint(values[half - 1], upper) } else { upper })
}

fn is_racing(trial: &Trial) -> bool {
    trial.state == TrialState::Complete
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::{Pruner, median};
    use crate::tuning::objective::Objective;
    use crate::tuning::study::{Rung, Trial, TrialState};
    use TrialState::{Complete, Failed, Pruned};

    const HIGH: Objective<'static> = Objective::Figure("image_auroc");

    fn trial(values: &[f64], state: TrialState) -> Trial {
        let rung = |&value: &f64| Rung {
            budget: Some(3),
            value: Some(value),
            figures: BTreeMap::new(),
            cells: Vec::new(),
        };
        let rungs = values.iter().map(rung).collect();
        Trial { number: 0, point: vec![0.0], settings: BTreeMap::new(), rungs, state }
    }

    fn states(batch: &[Trial]) -> Vec<TrialState> {
        batch.iter().map(|trial| trial.state).collect()
    }

    #[test]
    fn the_worse_half_goes_and_the_earlier_of_equal_trials_stays() {
        let mut batch = vec![
            trial(&[0.5], Complete),
            trial(&[0.9], Complete),
            trial(&[], Failed),
            trial(&[0.5], Complete),
        ];
        Pruner::Halving.prune(&mut batch, &[], HIGH);
        assert_eq!(states(&batch), [Complete, Complete, Failed, Pruned]);
        Pruner::Halving.prune(&mut batch, &[], HIGH);
        assert_eq!(states(&batch), [Pruned, Complete, Failed, Pruned]);
        // One is never too many.
        Pruner::Halving.prune(&mut batch, &[], HIGH);
        assert_eq!(states(&batch)[1], Complete);
        let mut losses = vec![trial(&[0.5], Complete), trial(&[0.9], Complete)];
        Pruner::Halving.prune(&mut losses, &[], Objective::Loss);
        assert_eq!(states(&losses), [Complete, Pruned]);
    }

    #[test]
    fn a_trial_below_the_median_of_complete_ones_at_its_budget_stops() {
        // Medians of the complete ones: 0.4 at the first budget, 0.6 at the second. Others don't count.
        let mut earlier: Vec<Trial> = [(0.2, 0.9), (0.4, 0.5), (0.8, 0.6)]
            .map(|(first, second)| trial(&[first, second, 0.9], Complete))
            .to_vec();
        earlier.extend([trial(&[0.99], Pruned), trial(&[0.99, 0.99], Failed)]);
        let pruner = Pruner::Median { startup: 3 };
        let prune = |values: &[f64], earlier: &[Trial]| {
            let mut batch = vec![trial(values, Complete)];
            pruner.prune(&mut batch, earlier, HIGH);
            batch[0].state
        };
        assert_eq!(prune(&[0.39], &earlier), Pruned);
        // As good as the median is good enough.
        assert_eq!(prune(&[0.4], &earlier), Complete);
        // The best so far counts, not the last.
        assert_eq!((prune(&[0.7, 0.1], &earlier), prune(&[0.5, 0.55], &earlier)), (Complete, Pruned));
        assert_eq!(prune(&[0.0], &earlier[1..]), Complete);
        // Of a loss the low ones are good.
        let mut batch = vec![trial(&[0.39], Complete), trial(&[0.41], Complete), trial(&[0.0], Failed)];
        pruner.prune(&mut batch, &earlier, Objective::Loss);
        assert_eq!(states(&batch), [Complete, Pruned, Failed]);
        let mut batch = vec![trial(&[0.0], Complete)];
        Pruner::None.prune(&mut batch, &earlier, HIGH);
        assert_eq!(batch[0].state, Complete);
    }

    #[test]
    fn medians_are_between_the_middle_ones() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn pruners_have_names() {
        assert_eq!("median".parse(), Ok(Pruner::Median { startup: 5 }));
        assert_eq!("median=8".parse(), Ok(Pruner::Median { startup: 8 }));
        assert_eq!(("none".parse(), "halving".parse()), (Ok(Pruner::None), Ok(Pruner::Halving)));
        for wrong in ["", "mean", "median=0", "median=x", "halving=2"] {
            assert!(wrong.parse::<Pruner>().is_err_and(|e| e.contains("median=N")), "{wrong}");
        }
    }
}
