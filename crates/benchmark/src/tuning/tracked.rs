//! A search as a run, its trials as runs within it, their cells within those.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anomaly_core::{Event, Observer, hex};
use sha2::{Digest, Sha256};
use tracking::{Ending, EventLog, Run, Tracker, What, flattened};

use super::study::{Rung, Study, StudySettings, Trial, TrialState};
use crate::run_tracking::{Start, Tracking, folder};
use crate::{CellSpec, Error, Layout};

/// The files that are kept with a search.
const FILES: [&str; 3] = ["tuning.json", "tuning.md", "tuning.html"];

/// Tracks a search, if there are trackers.
///
/// A trial has a log of its own, beside the search's. A search that is done again from its beginning finds what is told
/// already told.
#[derive(Debug)]
pub(crate) struct StudyTracking {
    tracking: Tracking,
    folder: PathBuf,
    metric: String,
    /// The logs of trials that are not over, by their numbers.
    open: BTreeMap<usize, EventLog>,
}

impl StudyTracking {
    pub(crate) fn start(
        settings: &StudySettings,
        layout: &Layout,
        trackers: Vec<Box<dyn Tracker>>,
        shared: bool,
    ) -> Result<Self, Error> {
        let start = Start {
            log: "search.jsonl".to_owned(),
            experiment: settings.profile.clone(),
            files: &FILES,
            shared,
        };
        let tracking = Tracking::begin(&start, layout, trackers, &|id| search(settings, id))?;
        let (folder, metric) = (folder(layout), settings.metric.clone());
        Ok(Self { tracking, folder, metric, open: BTreeMap::new() })
    }

    /// A trial begins, or goes on with a higher budget, with these cells.
    pub(crate) fn begin<'a>(
        &mut self,
        trial: &Trial,
        cells: impl IntoIterator<Item = &'a CellSpec>,
    ) -> Result<(), Error> {
        if !self.tracking.is_on() {
            return Ok(());
        }
        let (name, path) = self.name_and_log(trial);
        if !self.open.contains_key(&trial.number) && !is_over(&path) {
            self.open.insert(trial.number, EventLog::open(&path, &run(trial, &name))?);
        }
        self.tracking.follow_log(&name, &path);
        self.tracking.follow_cells(cells, Some(&name));
        Ok(())
    }

    /// A trial was judged at a budget: the objective, and whatever else it could have been judged by.
    pub(crate) fn judged(&self, trial: &Trial, rung: &Rung) {
        let Some(log) = self.open.get(&trial.number) else { return };
        let at = rung.budget.unwrap_or(0) as f64;
        for (name, &value) in &rung.figures {
            log.event(&Event::Metric { name: name.clone(), at, value });
        }
    }

    /// A trial is over.
    pub(crate) fn ended(&mut self, trial: &Trial) -> Result<(), Error> {
        let Some(log) = self.open.remove(&trial.number) else { return Ok(()) };
        let figures = trial.rungs.last().map(|rung| rung.figures.clone()).unwrap_or_default();
        let (status, why) = match trial.state {
            TrialState::Complete => (Ending::Finished, None),
            TrialState::Pruned => (Ending::Cancelled, Some("pruned: others were better at a lower budget")),
            TrialState::Failed => (Ending::Failed, Some("a cell came to no figure")),
        };
        Ok(tracking::close_log(log.path(), &figures, status, why)?)
    }

    /// The search is over, or was stopped.
    pub(crate) fn finish(self, study: &Study) -> Result<(), Error> {
        let mut figures = BTreeMap::from([("trials".to_owned(), study.trials.len() as f64)]);
        let best = study.best().and_then(Trial::value);
        figures.extend(best.map(|value| (format!("best/{}", self.metric), value)));
        self.tracking.end(&figures, if study.stopped { Ending::Cancelled } else { Ending::Finished })
    }

    /// What a trial is called among the runs of the search, and its log. A trial of the same number with other settings, after
    /// one before it failed and was tried again, is another one.
    fn name_and_log(&self, trial: &Trial) -> (String, PathBuf) {
        // Names and values of settings can always be written.
        let settings = serde_json::to_vec(&trial.settings).unwrap_or_default();
        let name = format!("trial-{}-{}", trial.number, &hex(&Sha256::digest(settings))[..8]);
        let path = self.folder.join(format!("{name}.jsonl"));
        (name, path)
    }
}

/// The search as a run.
fn search(settings: &StudySettings, id: &str) -> Run {
    // Settings are strings, numbers and lists, which can always be written.
    let params = flattened(&serde_json::to_value(settings).unwrap_or_default());
    let name = format!("tune-{}", settings.profile);
    Run { id: id.to_owned(), name, params, ..Run::default() }
}

/// A trial as a run.
fn run(trial: &Trial, id: &str) -> Run {
    let setting = |(name, value): (&String, &serde_json::Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (format!("config.{name}"), text)
    };
    let mut params: BTreeMap<String, String> = trial.settings.iter().map(setting).collect();
    params.insert("trial".to_owned(), trial.number.to_string());
    Run { id: id.to_owned(), name: format!("trial-{}", trial.number), params, ..Run::default() }
}

/// Whether the trial whose log is at `path` was told to its end. One that failed is tried again.
fn is_over(path: &Path) -> bool {
    let last = tracking::read_log(path).ok().and_then(|mut lines| lines.pop());
    last.is_some_and(|line| {
        matches!(line.what, What::End { status: Ending::Finished | Ending::Cancelled, .. })
    })
}
