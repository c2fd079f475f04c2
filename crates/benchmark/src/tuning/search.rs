//! The search itself, whatever its trials are judged by.

use super::pruner::Pruner;
use super::sampler::suggested;
use super::space::Space;
use super::study::{Rung, Study, StudySettings, Trial, TrialState};
use crate::Error;

/// What trials are judged by.
pub(crate) trait Judge {
    /// What each of `trials`, which are still in the race, comes to at `budget`, in their order; `None` if it was stopped.
    fn judge(&mut self, trials: &[&Trial], budget: Option<u64>) -> Result<Option<Vec<Rung>>, Error>;

    /// A batch is over.
    fn over(&mut self, batch: &[Trial], study: &Study) -> Result<(), Error>;
}

/// Searches until there are `trials` trials, or it is stopped.
pub(crate) fn search(settings: &StudySettings, trials: usize, judge: &mut dyn Judge) -> Result<Study, Error> {
    let objective = settings.objective()?;
    let mut study = Study { settings: settings.clone(), trials: Vec::new(), best: None, stopped: false };
    let budgets = settings.budgets();
    while study.trials.len() < trials {
        let mut batch = next_batch(&study, trials)?;
        for (at, &budget) in budgets.iter().enumerate() {
            let racing: Vec<usize> =
                (0..batch.len()).filter(|&at| batch[at].state == TrialState::Complete).collect();
            if racing.is_empty() {
                break;
            }
            let shown: Vec<&Trial> = racing.iter().map(|&at| &batch[at]).collect();
            let Some(rungs) = judge.judge(&shown, budget)? else {
                study.stopped = true;
                return Ok(study);
            };
            for (at, rung) in racing.into_iter().zip(rungs) {
                if rung.value.is_none() {
                    batch[at].state = TrialState::Failed;
                }
                batch[at].rungs.push(rung);
            }
            if at + 1 < budgets.len() {
                settings.pruner().prune(&mut batch, &study.trials, objective);
            }
        }
        study.trials.extend(batch.iter().cloned());
        let complete = study.trials.iter().filter(|trial| trial.state == TrialState::Complete);
        let loss = |trial: &Trial| objective.to_minimise(trial.value());
        study.best = complete.min_by(|a, b| loss(a).total_cmp(&loss(b))).map(|trial| trial.number);
        judge.over(&batch, &study)?;
    }
    Ok(study)
}

/// The trials that come next, of which at most `trials` are to be in all.
fn next_batch(study: &Study, trials: usize) -> Result<Vec<Trial>, Error> {
    let settings = &study.settings;
    let objective = settings.objective()?;
    let space = Space { dimensions: settings.dimensions.clone() };
    let loss = |trial: &Trial| (trial.point.clone(), objective.to_minimise(trial.value()));
    let told: Vec<(Vec<f64>, f64)> = study.trials.iter().map(loss).collect();
    let first = study.trials.len();
    let numbers = first..trials.min(first + settings.batch.max(1));
    Ok(numbers
        .map(|number| {
            let point = suggested(&space, settings.sampler, settings.seed, number, &told);
            let named = space.dimensions.iter().zip(&point);
            let named = named.map(|(dimension, &at)| (dimension.name.clone(), dimension.range.value(at)));
            let settings = named.collect();
            Trial { number, settings, point, rungs: Vec::new(), state: TrialState::Complete }
        })
        .collect())
}

impl StudySettings {
    /// The budgets that a trial passes through.
    fn budgets(&self) -> Vec<Option<u64>> {
        let Some(budget) = &self.budget else { return vec![None] };
        // Without a pruner nothing is learned from the lower ones.
        let from = if self.pruner() == Pruner::None { budget.rungs.len().saturating_sub(1) } else { 0 };
        budget.rungs[from..].iter().copied().map(Some).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::{Judge, search};
    use crate::Error;
    use crate::tuning::study::{Budget, Rung, Study, StudySettings, Trial, TrialState};
    use crate::tuning::{Dimension, HELD_OUT_LOSS, Pruner, Range, Sampler};
    use TrialState::{Complete, Failed, Pruned};

    /// A script instead of cells: what a trial comes to follows from its number and its budget.
    struct Script {
        value: fn(usize, u64) -> Option<f64>,
        asked: Vec<(usize, Option<u64>)>,
        /// Stopped when so much was asked.
        stop: usize,
        over: usize,
    }

    impl Judge for Script {
        fn judge(&mut self, trials: &[&Trial], budget: Option<u64>) -> Result<Option<Vec<Rung>>, Error> {
            if self.asked.len() >= self.stop {
                return Ok(None);
            }
            self.asked.extend(trials.iter().map(|trial| (trial.number, budget)));
            let value = |trial: &&Trial| (self.value)(trial.number, budget.unwrap_or(0));
            let rung =
                |trial| Rung { budget, value: value(trial), figures: BTreeMap::new(), cells: Vec::new() };
            Ok(Some(trials.iter().map(rung).collect()))
        }

        fn over(&mut self, batch: &[Trial], study: &Study) -> Result<(), Error> {
            self.over += batch.len();
            assert_eq!(study.trials.len(), self.over);
            Ok(())
        }
    }

    fn script(value: fn(usize, u64) -> Option<f64>) -> Script {
        Script { value, asked: Vec::new(), stop: usize::MAX, over: 0 }
    }

    fn settings(metric: &str, pruner: Option<Pruner>, batch: usize) -> StudySettings {
        let range = Range::Choice(vec![json!("a"), json!("b")]);
        StudySettings {
            profile: "p".into(),
            sampler: Sampler::Random,
            seed: 0,
            batch,
            metric: metric.into(),
            budget: Some(Budget { setting: "epochs".into(), rungs: vec![1, 3, 9] }),
            pruner,
            dimensions: vec![Dimension { name: "kind".into(), range }],
        }
    }

    fn states(study: &Study) -> Vec<(TrialState, usize)> {
        study.trials.iter().map(|trial| (trial.state, trial.rungs.len())).collect()
    }

    #[test]
    fn the_median_stops_whoever_is_worse_than_it_after_the_first_trials() {
        // By trial what it comes to at the three budgets.
        const TABLE: [[f64; 3]; 9] = [
            [0.1, 0.2, 0.3],
            [0.2, 0.4, 0.4],
            [0.3, 0.6, 0.6],
            // Medians now: 0.2, 0.4.
            [0.1, 0.9, 0.9],
            [0.2, 0.3, 0.9],
            [0.3, 0.4, 0.5],
            // Complete are 0, 1, 2 and 5: medians 0.25, 0.4.
            [0.24, 0.9, 0.9],
            [0.3, 0.1, 0.2],
            [0.25, 0.5, 0.2],
        ];
        let value = |number: usize, budget: u64| {
            Some(TABLE[number][[1, 3, 9].iter().position(|b| *b == budget).unwrap()])
        };
        let settings = settings("image_auroc", Some(Pruner::Median { startup: 3 }), 3);
        let mut judge = script(value);
        let study = search(&settings, 9, &mut judge).unwrap();
        let whole = (Complete, 3);
        assert_eq!(
            states(&study),
            [whole, whole, whole, (Pruned, 1), (Pruned, 2), whole, (Pruned, 1), (Pruned, 2), whole]
        );
        assert_eq!(study.best, Some(2));
        assert_eq!(judge.asked.iter().filter(|(number, _)| *number == 3).count(), 1);
    }

    #[test]
    fn halving_is_the_rule_where_a_budget_is_named_and_none_takes_the_highest_at_once() {
        let value = |number: usize, budget: u64| Some(number as f64 / 10.0 + budget as f64 / 1000.0);
        let study = search(&settings("image_auroc", None, 4), 4, &mut script(value)).unwrap();
        assert_eq!(states(&study), [(Pruned, 1), (Pruned, 1), (Pruned, 2), (Complete, 3)]);
        let low = search(&settings(HELD_OUT_LOSS, None, 4), 4, &mut script(value)).unwrap();
        assert_eq!(states(&low), [(Complete, 3), (Pruned, 2), (Pruned, 1), (Pruned, 1)]);
        assert_eq!((study.best, low.best), (Some(3), Some(0)));

        let mut judge = script(value);
        let study = search(&settings("image_auroc", Some(Pruner::None), 2), 4, &mut judge).unwrap();
        assert_eq!(states(&study), [(Complete, 1); 4]);
        assert!(judge.asked.iter().all(|(_, budget)| *budget == Some(9)));
    }

    #[test]
    fn what_failed_is_out_and_a_stopped_search_keeps_whole_batches() {
        let value = |number: usize, _: u64| (number != 1).then_some(0.5);
        let study = search(&settings("image_auroc", None, 2), 2, &mut script(value)).unwrap();
        assert_eq!(states(&study), [(Complete, 3), (Failed, 1)]);
        let mut judge = Script { stop: 5, ..script(value) };
        let study = search(&settings("image_auroc", None, 2), 9, &mut judge).unwrap();
        assert!(study.stopped);
        assert_eq!(study.trials.len(), 2);
    }
}
