//! What a search is, and what it has come to.

use std::collections::{BTreeMap, BTreeSet};

use anomaly_core::write_atomic;
use report::{TunedDimension, TunedFigure, TunedTrial, TuningReport};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::importance::importance;
use super::objective::Objective;
use super::pruner::Pruner;
use super::sampler::Sampler;
use super::space::{Dimension, Range, Space, set};
use crate::{Error, Layout, Profile};

/// What a search is, besides its profile and how many trials it has: what must not change when it goes on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StudySettings {
    /// The profile's name.
    pub profile: String,
    /// How points are chosen.
    pub sampler: Sampler,
    /// Where draws start.
    pub seed: u64,
    /// How many trials are asked for at once.
    pub batch: usize,
    /// The figure that is to be high, one of [`report::Evaluation::METRICS`] of the honest choice; or, to be low,
    /// [`super::HELD_OUT_LOSS`], or [`super::NORMAL_MEAN`] and the name of a term.
    pub metric: String,
    /// In which setting trials begin small; all are whole if `None`.
    pub budget: Option<Budget>,
    /// Which trials stop early; [`Pruner::Halving`] if `None`. It needs a budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pruner: Option<Pruner>,
    /// What is searched.
    pub dimensions: Vec<Dimension>,
}

impl StudySettings {
    /// Which trials stop early, where there is a budget.
    pub(crate) fn pruner(&self) -> Pruner {
        self.pruner.unwrap_or(Pruner::Halving)
    }

    /// What the search is after.
    pub(crate) fn objective(&self) -> Result<Objective<'_>, Error> {
        Objective::of(&self.metric)
    }
}

/// A setting that says how long a trial takes, such as `epochs`, and its values in rising order: what trials come to at the lower
/// ones decides which of them get the next ([`Pruner`]).
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
    /// The mean of the objective over its cells; `None` if one of them has none.
    pub value: Option<f64>,
    /// The means of everything that a search could go by, the objective among them, by name.
    pub figures: BTreeMap<String, f64>,
    /// The ids of its cells.
    pub cells: Vec<String>,
}

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TrialState {
    /// It got the whole budget.
    Complete,
    /// Others were better at a lower budget.
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
    /// The number of the best complete trial; of equal ones the first.
    pub best: Option<usize>,
    /// Whether it was stopped before it had all its trials.
    pub stopped: bool,
}

impl Study {
    /// The best trial.
    pub fn best(&self) -> Option<&Trial> {
        self.best.and_then(|number| self.trials.get(number))
    }

    /// What trials could have been judged by instead that is shown of them: the ends of what a search may be after, from how well
    /// images are told apart to how well normal ones are reproduced.
    fn others(&self) -> Vec<&str> {
        let rungs = self.trials.iter().filter_map(|trial| trial.rungs.last());
        let names: BTreeSet<&str> = rungs.flat_map(|rung| rung.figures.keys().map(String::as_str)).collect();
        let shown = |name: &&str| {
            let low = Objective::of(name).is_ok_and(Objective::is_low);
            *name != self.settings.metric && (low || ["image_auroc", "pixel_ap"].contains(name))
        };
        names.into_iter().filter(shown).collect()
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
        let tuned = |name: &str| TunedFigure {
            name: name.to_owned(),
            lower_is_better: Objective::of(name).is_ok_and(Objective::is_low),
        };
        let others = self.others();
        let trial = |trial: &Trial| TunedTrial {
            number: trial.number,
            state: match trial.state {
                TrialState::Complete => "complete",
                TrialState::Pruned => "pruned",
                TrialState::Failed => "failed",
            },
            budget: trial.rungs.last().and_then(|rung| rung.budget),
            value: trial.value(),
            others: others.iter().map(|name| trial.rungs.last()?.figures.get(*name).copied()).collect(),
            places: (0..self.settings.dimensions.len()).map(|at| place(trial, at)).collect(),
            settings: trial.settings.values().map(Value::to_string).collect(),
        };
        TuningReport {
            title: self.settings.profile.clone(),
            objective: tuned(&self.settings.metric),
            others: others.iter().map(|name| tuned(name)).collect(),
            dimensions: self.settings.dimensions.iter().enumerate().map(dimension).collect(),
            trials: self.trials.iter().map(trial).collect(),
            best: self.best,
        }
    }
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
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => write_atomic(&path, chosen.as_bytes())?,
        Err(e) => return Err(Error::io(&path, "can't read", e)),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Budget;

    #[test]
    fn budgets_rise() {
        let budget: Budget = "epochs=3, 9,27".parse().unwrap();
        assert_eq!((budget.setting.as_str(), &budget.rungs[..]), ("epochs", &[3, 9, 27][..]));
        for wrong in ["epochs", "=1", "epochs=3,3", "epochs=a", "epochs="] {
            assert!(wrong.parse::<Budget>().is_err_and(|e| e.contains("epochs=3,9,27")), "{wrong}");
        }
    }
}
