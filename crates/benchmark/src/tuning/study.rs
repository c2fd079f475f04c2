//! The search itself.

use std::collections::BTreeMap;

use anomaly_core::write_atomic;
use report::{Evaluation, Status, TunedDimension, TunedTrial, TuningReport};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::importance::importance;
use super::sampler::{Sampler, suggested};
use super::space::{Dimension, Range, Space, set};
use crate::{
    Error, Layout, Outcome, Plan, PlanOptions, Profile, PublishedFigures, Rehearsal, RunOptions, run_plan,
};

/// The share of training images that is held out where the profile holds out none.
const HELD_OUT: f64 = 0.2;
/// Of the trials of a batch, one in so many goes on to the next budget.
const HALVING: usize = 2;

/// What a search is, besides its profile and how many trials it has: what must not change when it goes on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StudySettings {
    /// The profile's name.
    pub profile: String,
    /// How points are chosen.
    pub sampler: Sampler,
    /// Where draws start.
    pub seed: u64,
    /// How many trials are asked for at once, and judged against each other where there is a budget.
    pub batch: usize,
    /// The figure that is to be high: one of [`Evaluation::METRICS`], of the honest choice.
    pub metric: String,
    /// In which setting trials begin small; all are whole if `None`.
    pub budget: Option<Budget>,
    /// What is searched.
    pub dimensions: Vec<Dimension>,
}

/// A setting that says how long a trial takes, such as `epochs`, and its values in rising order. All trials of a batch get the first;
/// the better half gets the next, and so on: successive halving (Jamieson and Talwalkar 2016).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// The field of the method's configuration.
    pub setting: String,
    /// At least one, rising.
    pub rungs: Vec<u64>,
}

impl std::str::FromStr for Budget {
    type Err = String;

    /// `epochs=3,9,27`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("expected a setting and rising whole numbers such as `epochs=3,9,27`, found `{text}`");
        let (setting, rungs) = text.split_once('=').ok_or_else(wrong)?;
        let rungs: Vec<u64> = rungs
            .split(',')
            .map(|rung| rung.trim().parse().map_err(|_| wrong()))
            .collect::<Result<_, _>>()?;
        if setting.is_empty() || rungs.is_empty() || rungs.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(wrong());
        }
        Ok(Self { setting: setting.to_owned(), rungs })
    }
}

/// One point, judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// Counted from 0.
    pub number: usize,
    /// Its coordinates in the space.
    pub point: Vec<f64>,
    /// Its settings.
    pub settings: BTreeMap<String, Value>,
    /// What it came to at each budget it got.
    pub rungs: Vec<Rung>,
    /// How it ended.
    pub state: TrialState,
}

impl Trial {
    /// The figure at the highest budget it got; `None` if it failed.
    pub fn value(&self) -> Option<f64> {
        self.rungs.last().and_then(|rung| rung.value)
    }
}

/// A trial at one budget.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rung {
    /// The budget; `None` where there is none.
    pub budget: Option<u64>,
    /// The mean of the metric over its cells; `None` if one of them has none.
    pub value: Option<f64>,
    /// The ids of its cells.
    pub cells: Vec<String>,
}

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TrialState {
    /// It got the whole budget.
    Complete,
    /// Others of its batch were better at a lower budget.
    Pruned,
    /// One of its cells has no figure.
    Failed,
}

/// A search so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Study {
    /// What it is.
    pub settings: StudySettings,
    /// In the order of their numbers.
    pub trials: Vec<Trial>,
    /// The number of the complete trial with the highest value; of equal ones the first.
    pub best: Option<usize>,
    /// Whether it was stopped before it had all its trials.
    pub stopped: bool,
}

impl Study {
    /// The best trial.
    pub fn best(&self) -> Option<&Trial> {
        self.best.and_then(|number| self.trials.get(number))
    }

    /// What a report shows of it.
    pub fn report(&self) -> TuningReport {
        let judged: Vec<&Trial> = self.trials.iter().filter(|trial| trial.value().is_some()).collect();
        let values: Vec<f64> = judged.iter().filter_map(|trial| trial.value()).collect();
        let place = |trial: &Trial, at: usize| {
            let range = &self.settings.dimensions[at].range;
            let (low, high) = range.ends();
            let place = (trial.point[at] - low) / (high - low);
            match range {
                // The middle of a choice's share, the same for every trial that has it.
                Range::Choice(choices) => {
                    let count = choices.len() as f64;
                    ((place * count).floor().min(count - 1.0) + 0.5) / count
                }
                Range::Number { .. } => place,
            }
        };
        let dimension = |(at, dimension): (usize, &Dimension)| {
            let places: Vec<f64> = judged.iter().map(|trial| place(trial, at)).collect();
            let (low, high) = dimension.range.ends();
            let word = |at: f64| dimension.range.value(at).to_string();
            TunedDimension {
                name: dimension.name.clone(),
                ends: (word(low), word(high)),
                importance: importance(&places, &values, matches!(dimension.range, Range::Choice(_))),
            }
        };
        let trial = |trial: &Trial| TunedTrial {
            number: trial.number,
            state: match trial.state {
                TrialState::Complete => "complete",
                TrialState::Pruned => "pruned",
                TrialState::Failed => "failed",
            },
            budget: trial.rungs.last().and_then(|rung| rung.budget),
            value: trial.value(),
            places: (0..self.settings.dimensions.len()).map(|at| place(trial, at)).collect(),
            settings: trial.settings.values().map(Value::to_string).collect(),
        };
        TuningReport {
            title: self.settings.profile.clone(),
            metric: self.settings.metric.clone(),
            dimensions: self.settings.dimensions.iter().enumerate().map(dimension).collect(),
            trials: self.trials.iter().map(trial).collect(),
            best: self.best,
        }
    }
}

/// Searches `space` for the settings with which the method of `profile` does best in a rehearsal, with `trials` trials in `layout`.
///
/// After every batch `tuning.json`, `tuning.md` and `tuning.html` there say how it stands. A search that was stopped goes on with
/// the same settings, and one that is done with more trials.
///
/// # Errors
/// [`Error::Unfit`] if `layout` holds another search, the profile has several methods, or the metric is none that may be high;
/// otherwise as [`Plan::new`] and [`run_plan`].
pub fn tune(
    profile: &Profile,
    settings: &StudySettings,
    trials: usize,
    layout: &Layout,
    plan: &PlanOptions,
    run: &RunOptions,
) -> Result<Study, Error> {
    check(profile, settings)?;
    let root = layout.root();
    std::fs::create_dir_all(root).map_err(|e| Error::io(root, "can't make the folder", e))?;
    keep_settings(settings, layout)?;
    let space = Space { dimensions: settings.dimensions.clone() };
    let plan = PlanOptions { rehearsal: Some(Rehearsal { seed: settings.seed }), ..plan.clone() };
    let mut study = Study { settings: settings.clone(), trials: Vec::new(), best: None, stopped: false };
    while study.trials.len() < trials {
        let first = study.trials.len();
        let told: Vec<(Vec<f64>, f64)> =
            study.trials.iter().map(|trial| (trial.point.clone(), loss(trial))).collect();
        let mut batch: Vec<Trial> = (first..trials.min(first + settings.batch.max(1)))
            .map(|number| {
                let point = suggested(&space, settings.sampler, settings.seed, number, &told);
                let named = space.dimensions.iter().zip(&point);
                let named = named.map(|(dimension, &at)| (dimension.name.clone(), dimension.range.value(at)));
                Trial {
                    number,
                    settings: named.collect(),
                    point,
                    rungs: Vec::new(),
                    state: TrialState::Complete,
                }
            })
            .collect();
        let rungs: Vec<Option<u64>> = match &settings.budget {
            Some(budget) => budget.rungs.iter().copied().map(Some).collect(),
            None => vec![None],
        };
        for (at, budget) in rungs.iter().enumerate() {
            judge(&mut batch, *budget, profile, &space, settings, layout, &plan, run)?;
            if run.cancellation.is_cancelled() {
                study.stopped = true;
                return Ok(study);
            }
            if at + 1 < rungs.len() {
                halve(&mut batch);
            }
        }
        study.trials.extend(batch);
        study.best = best(&study.trials);
        write(&study, layout)?;
    }
    Ok(study)
}

/// The profile that evaluates the best trial of `study` on test data: the study's profile with its settings, the highest budget and
/// the profile's own seeds. Says in `layout` which trial it was, and refuses another one later: test data are looked at once.
///
/// # Errors
/// [`Error::Unfit`] if no trial is complete, or another was evaluated before.
pub fn final_evaluation(profile: &Profile, study: &Study, layout: &Layout) -> Result<Profile, Error> {
    let best = study.best().ok_or_else(|| {
        Error::unfit("the search", "a complete trial", format!("none of {}", study.trials.len()))
    })?;
    let root = layout.root();
    std::fs::create_dir_all(root).map_err(|e| Error::io(root, "can't make the folder", e))?;
    let path = root.join("chosen.json");
    let chosen = serde_json::to_string_pretty(&best.settings)
        .map_err(|source| Error::Message { what: "chosen.json", source })?;
    match std::fs::read_to_string(&path) {
        Ok(before) if before != chosen => {
            return Err(Error::unfit(
                path.display().to_string(),
                format!("the settings that were evaluated on test data before, {before}"),
                format!("{chosen}; test data are looked at once"),
            ));
        }
        Ok(_) => {}
        Err(_) => write_atomic(&path, chosen.as_bytes())?,
    }
    let space = Space { dimensions: study.settings.dimensions.clone() };
    let budget = study.settings.budget.as_ref().and_then(|budget| Some((budget, *budget.rungs.last()?)));
    let mut profile = profile.clone();
    profile.description = format!("The best of {} trials, on test data", study.trials.len());
    for entry in &mut profile.entries {
        entry.config = space.applied(&entry.config, &best.point);
        if let Some((budget, most)) = budget {
            set(&mut entry.config, &budget.setting, most.into());
        }
    }
    Ok(profile)
}

fn check(profile: &Profile, settings: &StudySettings) -> Result<(), Error> {
    let mut methods: Vec<&str> = profile.entries.iter().map(|entry| entry.method.as_str()).collect();
    methods.dedup();
    if methods.len() != 1 {
        return Err(Error::unfit(
            format!("profile {}", profile.name),
            "one method to tune",
            methods.join(", "),
        ));
    }
    let metric = settings.metric.as_str();
    if !Evaluation::METRICS.contains(&metric) || metric == "fpr_at_95_tpr" {
        return Err(Error::unfit("the metric", "a figure that is to be high", metric));
    }
    let searched = settings.dimensions.iter().map(|dimension| &dimension.name);
    if let Some(budget) = &settings.budget
        && searched.clone().any(|name| *name == budget.setting)
    {
        return Err(Error::unfit("the budget", "a setting that is not searched", &budget.setting));
    }
    Ok(())
}

/// Sees that the folder is of this search.
fn keep_settings(settings: &StudySettings, layout: &Layout) -> Result<(), Error> {
    let path = layout.root().join("study.json");
    let text = serde_json::to_string_pretty(settings)
        .map_err(|source| Error::Message { what: "study.json", source })?;
    match std::fs::read_to_string(&path) {
        Ok(before) if before == text => Ok(()),
        Ok(before) => Err(Error::unfit(path.display().to_string(), before, text)),
        Err(_) => Ok(write_atomic(&path, text.as_bytes())?),
    }
}

/// What the sampler is told: lower is better, and nothing is worse than failing.
fn loss(trial: &Trial) -> f64 {
    trial.value().map_or(f64::INFINITY, |value| -value)
}

/// Runs the trials that are still in the race at one budget.
#[allow(clippy::too_many_arguments, reason = "all that a run depends on, once")]
fn judge(
    batch: &mut [Trial],
    budget: Option<u64>,
    profile: &Profile,
    space: &Space,
    settings: &StudySettings,
    layout: &Layout,
    options: &PlanOptions,
    run: &RunOptions,
) -> Result<(), Error> {
    let mut whole =
        Plan { profile: profile.name.clone(), description: profile.description.clone(), cells: Vec::new() };
    let mut cells_of: Vec<(usize, Vec<String>)> = Vec::new();
    for (at, trial) in batch.iter().enumerate().filter(|(_, trial)| trial.state == TrialState::Complete) {
        let mut own = profile.clone();
        // Each entry has its own, since profiles include others.
        own.seeds.truncate(1);
        for entry in &mut own.entries {
            entry.seeds.truncate(1);
            entry.config = space.applied(&entry.config, &trial.point);
            if let (Some(setting), Some(budget)) = (&settings.budget, budget) {
                set(&mut entry.config, &setting.setting, budget.into());
            }
            if entry.held_out == 0.0 {
                entry.held_out = HELD_OUT;
            }
        }
        let plan = Plan::new(&own, &PublishedFigures::default(), options)?;
        cells_of.push((at, plan.cells.iter().map(|cell| cell.spec.id()).collect()));
        for cell in plan.cells {
            // Two trials with the same settings share their cells.
            if !whole.cells.iter().any(|known| known.spec.id() == cell.spec.id()) {
                whole.cells.push(cell);
            }
        }
    }
    let outcome = run_plan(&whole, layout, run)?;
    for (at, cells) in cells_of {
        let value = mean(&outcome, &cells, &settings.metric);
        if value.is_none() {
            batch[at].state = TrialState::Failed;
        }
        batch[at].rungs.push(Rung { budget, value, cells });
    }
    Ok(())
}

/// The mean of the honest figure over cells; `None` if one has none.
fn mean(outcome: &Outcome, ids: &[String], metric: &str) -> Option<f64> {
    let figure = |id: &String| {
        let cell = outcome.cells.iter().find(|cell| cell.cell == *id && cell.status == Status::Ok)?;
        cell.results.honest.as_ref()?.figure(metric)
    };
    let figures: Vec<f64> = ids.iter().map(figure).collect::<Option<_>>()?;
    (!figures.is_empty()).then(|| figures.iter().sum::<f64>() / figures.len() as f64)
}

/// Takes the worse half of the trials out of the race; of equal ones the earlier stays.
fn halve(batch: &mut [Trial]) {
    let mut racing: Vec<usize> =
        (0..batch.len()).filter(|&at| batch[at].state == TrialState::Complete).collect();
    racing.sort_by(|&a, &b| loss(&batch[a]).total_cmp(&loss(&batch[b])));
    for &at in &racing[racing.len().div_ceil(HALVING)..] {
        batch[at].state = TrialState::Pruned;
    }
}

fn best(trials: &[Trial]) -> Option<usize> {
    let complete = trials.iter().filter(|trial| trial.state == TrialState::Complete);
    complete.min_by(|a, b| loss(a).total_cmp(&loss(b))).map(|trial| trial.number)
}

fn write(study: &Study, layout: &Layout) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(study)
        .map_err(|source| Error::Message { what: "tuning.json", source })?;
    let shown = study.report();
    for (name, text) in
        [("tuning.json", json), ("tuning.md", shown.markdown()), ("tuning.html", shown.page())]
    {
        write_atomic(&layout.root().join(name), text.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use super::{Budget, Rung, Trial, TrialState, best, halve, loss};

    fn trial(number: usize, value: Option<f64>, state: TrialState) -> Trial {
        let rungs = vec![Rung { budget: Some(3), value, cells: Vec::new() }];
        Trial { number, point: vec![0.0], settings: BTreeMap::new(), rungs, state }
    }

    #[test]
    fn the_worse_half_goes_and_the_earlier_of_equal_trials_stays() {
        use TrialState::{Complete, Failed, Pruned};
        let mut batch = vec![
            trial(0, Some(0.5), Complete),
            trial(1, Some(0.9), Complete),
            trial(2, None, Failed),
            trial(3, Some(0.5), Complete),
        ];
        halve(&mut batch);
        let states: Vec<_> = batch.iter().map(|trial| trial.state).collect();
        assert_eq!(states, [Complete, Complete, Failed, Pruned]);
        assert_eq!(best(&batch), Some(1));
        assert_eq!(loss(&batch[2]), f64::INFINITY);
        halve(&mut batch);
        assert_eq!(batch.iter().filter(|trial| trial.state == Complete).count(), 1);
        // One is never too many.
        halve(&mut batch);
        assert_eq!(best(&batch), Some(1));
        assert_eq!(best(&[trial(0, Some(0.5), Pruned)]), None);
    }

    #[test]
    fn budgets_rise() {
        let budget: Budget = "epochs=3, 9,27".parse().unwrap();
        assert_eq!((budget.setting.as_str(), &budget.rungs[..]), ("epochs", &[3, 9, 27][..]));
        for wrong in ["epochs", "=1", "epochs=3,3", "epochs=a", "epochs="] {
            assert!(wrong.parse::<Budget>().is_err_and(|e| e.contains("epochs=3,9,27")), "{wrong}");
        }
    }
}
